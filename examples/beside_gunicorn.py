"""A WSGI application with the proxy beside it, in the same processes: for every server and worker class.

Consoles then hold none of the server's threads. beside_gunicorn.conf.py says when the proxy starts and stops.

    gunicorn --config beside_gunicorn.conf.py beside_gunicorn:application

Settings, besides wsproxy's own, of which HOST and PORT say where consoles are served:

LAB_MACHINES   {"ann": ["ubuntu"]}: whose which machines are
LAB_NAMESPACE  where they run
LAB_CONSOLES   where browsers find HOST and PORT, such as wss://lab.example/consoles behind a server that
               passes this on
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wsproxy import WebsocketProxy, config_from_env, make_token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECONDS = 3600

config = config_from_env(os.environ)
proxy = WebsocketProxy.from_config(config)  # made, but not started: that is for each process to do
machines: dict[str, list[str]] = json.loads(os.environ["LAB_MACHINES"])


def start_consoles() -> None:
    """All processes listen on the same port, and Linux spreads the clients over them."""
    proxy.run_in_thread(config.host, config.port, reuse_port=True)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell somebody where the consoles of their machines are; each URL lets in for an hour."""
    # The server in front, which has authenticated them, sets it, and removes what clients send by this name.
    user = environ.get("HTTP_X_REMOTE_USER", "")
    if user not in machines:
        start_response("401 Unauthorized", [("Content-Type", "text/plain")])
        return [b"Log in first.\n"]
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps({vm: console_url(user, vm) for vm in machines[user]}).encode()]


def console_url(user: str, vm: str) -> str:
    token = make_token(
        os.environ["SECRET_KEY"],
        namespace=os.environ["LAB_NAMESPACE"],
        vmis=[vm],
        user=user,
        expires_in=SECONDS,
    )
    return proxy.console_url(token, vm, base=os.environ.get("LAB_CONSOLES"))
