"""A WSGI application with a proxy beside it, in the same process; the tests start it under real servers.

It is also gunicorn's configuration, as docs/guides/beside.md has it. ``BESIDE_PORT`` says where consoles
are served, and ``BESIDE_TRAP`` that the proxy is started where it must not be: at the
import, before gunicorn forks.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsproxy import WebsocketProxy, config_from_env, make_token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["application", "post_worker_init", "worker_exit"]

_CONSOLES = {name: value for name, value in os.environ.items() if not name.startswith("BESIDE_")}
_SECRET = os.environ["SECRET_KEY"]
_ADDRESS = ("127.0.0.1", int(os.environ["BESIDE_PORT"]))

settings = config_from_env(_CONSOLES)  # not "config", which gunicorn would take for a setting of its own
proxy = WebsocketProxy.from_config(settings)
if "BESIDE_TRAP" in os.environ:
    proxy.run_in_thread(*_ADDRESS, reuse_port=True)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell the URL of the console that the path names, or what is wrong."""
    vmi = environ["PATH_INFO"][1:]
    token = make_token(_SECRET, namespace="lab-1", vmis=[vmi], expires_in=600)
    try:
        answer = proxy.console_url(token, vmi)
    except RuntimeError as exc:
        answer = str(exc)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer.encode()]


def post_worker_init(worker: Any) -> None:
    """Start the proxy in each worker of gunicorn, after the fork; all share one port."""
    if "BESIDE_TRAP" not in os.environ:
        proxy.run_in_thread(*_ADDRESS, reuse_port=True)


def worker_exit(server: Any, worker: Any) -> None:
    """Stop it with its worker."""
    if "BESIDE_TRAP" not in os.environ:
        proxy.stop_thread()


def _serve_by_waitress(path: str) -> None:
    import waitress

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())  # as docs/guides/beside.md has it
    with proxy.run_in_thread(*_ADDRESS):
        waitress.serve(application, unix_socket=path, threads=1)


if __name__ == "__main__":
    _serve_by_waitress(sys.argv[1])
