"""The platform as a web application: consoles inside Flask, and beside any WSGI application."""

from __future__ import annotations

from dataclasses import replace

from flask import Flask, Response

from wsproxy import AccessRequest, Config, Grant, SessionHandle
from wsproxy.flask import Console
from wsproxy.wsgi.app import ConsoleApp


def grant_for(user: str) -> Grant:
    """What a user may open who has logged in."""
    return Grant(user=user, namespace="lab", vmis=("ubuntu",), expires_at=2e9, token_id="login")


def create_app(config: Config) -> Flask:
    app = Flask(__name__)
    console = Console(app, config)

    @console.authorize
    def may_open(grant: Grant, request: AccessRequest) -> Grant | None:
        return replace(grant, vmis=(request.vmi,))

    @app.route("/vms/<vmi>/console", websocket=True)
    def open_console(vmi: str) -> Response:
        return console.connect(grant_for("ada"), vmi)

    @app.route("/sessions")
    def sessions() -> str:
        handles: list[SessionHandle] = console.sessions()
        return ", ".join(str(handle.user) for handle in handles)

    return app


def middleware(config: Config) -> ConsoleApp:
    inner: Flask = create_app(config)
    return ConsoleApp(config, inner.wsgi_app, threads=40, reserve=4)
