"""A WSGI application under gunicorn with a proxy beside it in each worker; also gunicorn's configuration.

It stands for a program that cannot serve consoles itself, because its server gives it no socket or too few
threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsproxy.proxy import WebsocketProxy
from wsproxy.settings import config_from_env

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ADDRESSES", "application", "post_worker_init", "worker_exit"]

ADDRESSES = "BESIDE_ADDRESSES"
"""Environment variable with a directory: each worker leaves a file ``PID`` there with its proxy's port."""

_proxies: list[WebsocketProxy] = []


def post_worker_init(worker: Any) -> None:
    """Start the proxy, after the fork."""
    proxy = WebsocketProxy.from_config(config_from_env(os.environ)).run_in_thread("127.0.0.1", 0)
    _proxies.append(proxy)
    path = os.path.join(os.environ[ADDRESSES], str(os.getpid()))
    with open(f"{path}.part", "w", encoding="ascii") as file:
        file.write(str(proxy.address[1]))
    os.rename(f"{path}.part", path)


def worker_exit(server: Any, worker: Any) -> None:
    """Stop the proxy."""
    while _proxies:
        _proxies.pop().stop_thread()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say which worker this is and how many consoles it has."""
    body = json.dumps({"pid": os.getpid(), "consoles": _proxies[0].connections}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
