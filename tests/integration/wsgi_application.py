"""What the WSGI servers of these tests are told to serve: consoles in front of a small application."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wsproxy.config import config_from_env
from wsproxy.wsgi.app import ConsoleApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An application of somebody else's: it says who serves it."""
    body = f"hello from {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


application = ConsoleApp(config_from_env(os.environ), hello)
