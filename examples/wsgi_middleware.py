"""Consoles in front of a WSGI application that knows nothing of WebSockets.

What is below /consoles is served by wsproxy's middleware, everything else by the application, which hands out
the URLs. A machine that was taken away from its user meanwhile is refused, although the token is still valid.

    gunicorn --worker-class gthread --threads 20 wsgi_middleware:application

Settings, besides wsproxy's own that say where the Kubernetes API is, and SECRET_KEY:

LAB_MACHINES   a JSON file {"ann": ["ubuntu"]}: whose which machines are
LAB_NAMESPACE  where they run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from wsproxy import AccessRequest, Forbidden, Grant, config_from_env, make_token
from wsproxy.wsgi.app import ConsoleApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "consoles"
SECONDS = 3600


def machines_of(user: str) -> list[str]:
    machines: dict[str, list[str]] = json.loads(Path(os.environ["LAB_MACHINES"]).read_text(encoding="utf-8"))
    return machines.get(user, [])


def pages(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application: a list of somebody's consoles."""
    # The server in front, which has authenticated them, sets it, and removes what clients send by this name.
    user = environ.get("HTTP_X_REMOTE_USER", "")
    items = [
        f"<li>{escape(name)}: <code>{escape(console_path(user, name))}</code>" for name in machines_of(user)
    ]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
    return ["<!doctype html><title>Consoles</title><ul>{}</ul>".format("".join(items)).encode()]


def console_path(user: str, name: str) -> str:
    """Return where a console is: noVNC's ``path``. It lets in whoever has it, for an hour."""
    token = make_token(
        os.environ["SECRET_KEY"],
        namespace=os.environ["LAB_NAMESPACE"],
        vmis=[name],
        user=user,
        expires_in=SECONDS,
    )
    return f"/{PREFIX}/{token}/{name}"


def may_open(grant: Grant, request: AccessRequest) -> None:
    """Asked for each console, after its token was verified, and before anything is dialled."""
    if request.vmi not in machines_of(str(grant.user)):
        raise Forbidden("this machine is not yours any more")


config = config_from_env({**os.environ, "HOST_PATH_PREFIX": PREFIX})
application = ConsoleApp(config, pages, authorize=may_open)
