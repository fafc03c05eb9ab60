"""gunicorn's settings for beside_gunicorn.py: a proxy starts and ends with each worker, after the fork."""

from typing import Any

workers = 2
threads = 4


def post_worker_init(worker: Any) -> None:
    import beside_gunicorn

    beside_gunicorn.start_consoles()


def worker_exit(server: Any, worker: Any) -> None:
    import beside_gunicorn

    beside_gunicorn.proxy.stop_thread()
