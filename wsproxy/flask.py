"""Consoles inside a Flask application.

::

    console = Console(app, config)  # ws://HOST/console/TOKEN/VMI

    @console.authorize
    def may_open(grant, request):
        if not current_user.is_active:
            raise Forbidden("your account is locked")

    @app.route("/vms/<vmi>/console", websocket=True)
    @login_required
    def open_console(vmi):
        return console.connect(grant_for(current_user), vmi)

Needs the extra ``flask``. What :mod:`wsproxy.wsgi` says of servers and threads holds here, too.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Flask, Response, copy_current_request_context, current_app
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from .access.hooks import AccessRequest, Authorize, OnClose, OnOpen
from .access.sessions import SessionHandle
from .config import Config, config_from_mapping
from .protocol.closing import Ending
from .settings.service_links import without_service_links
from .settings.table import SETTINGS
from .telemetry.counters import Snapshot
from .telemetry.metrics import registry
from .tokens.claims import Grant
from .wsgi.app import ConsoleApp, Wanted
from .wsgi.exchange import Around

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .telemetry.metrics import CollectorRegistry

__all__ = ["Console"]

_EXTENSION = "wsproxy"
_DEFAULT_PREFIX = "/console"
_CONVERTER = "wsproxy_rest"
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_FROM_THE_POD = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
_OF_THE_PROGRAM = ("HOST", "PORT", "LOGLEVEL")  # may mean anything in an application
_OF_FLASK = "SECRET_KEY"  # signs Flask's own cookies, and may verify tokens, too

AuthorizeT = TypeVar("AuthorizeT", bound=Authorize)
OnOpenT = TypeVar("OnOpenT", bound=OnOpen)
OnCloseT = TypeVar("OnCloseT", bound=OnClose)


class Console:
    """Serves consoles under a path of a Flask application, and from the application's own views.

    One may serve several applications; each has settings, sessions and threads of its own.

    :param app: as for :meth:`init_app`, which is called if it is given.
    :param config: the settings; None to take those of each application's ``app.config``.
    :param url_prefix: path of the consoles; None for the settings' ``host_path_prefix``, or else "/console".
    :param threads: as for :class:`.ConsoleApp`, as is ``reserve``.
    :ivar blueprint: the routes for those who come with a token, which :meth:`init_app` registers.
    """

    def __init__(
        self,
        app: Flask | None = None,
        config: Config | None = None,
        *,
        url_prefix: str | None = None,
        threads: int | None = None,
        reserve: int = 2,
    ) -> None:
        self._config = config
        self._url_prefix = url_prefix
        self._threads = threads
        self._reserve = reserve
        self._authorize: Authorize | None = None
        self._on_open: OnOpen | None = None
        self._on_close: OnClose | None = None
        self._console_apps: weakref.WeakSet[ConsoleApp] = weakref.WeakSet()
        self.blueprint = self._make_blueprint()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve consoles from ``app``, whose ``extensions["wsproxy"]`` is a :class:`.ConsoleApp` then.

        Without settings of its own it takes those that ``app.config`` has by the names of the environment
        variables, such as ``WS_REMOTE_URL`` or ``WSPROXY_CA_FILE``; lists and booleans may be given as such.
        ``WSPROXY_SECRET_KEY`` goes before ``SECRET_KEY``, which is Flask's own, too.

        :raises ConfigError: listing every fault.
        """
        config = self._config or _config_of(app.config)
        prefix = self._url_prefix if self._url_prefix is not None else config.host_path_prefix
        config = replace(config, host_path_prefix=_DEFAULT_PREFIX if prefix is None else prefix)
        console_app = ConsoleApp(
            config,
            authorize=self._ask,
            on_open=lambda session: self._tell_open(app, session),
            on_close=lambda session, ending: self._tell_close(app, session, ending),
            threads=self._threads,
            reserve=self._reserve,
        )
        app.register_blueprint(self.blueprint, url_prefix="/" + "/".join(config.routes.prefix))
        app.extensions[_EXTENSION] = console_app
        self._console_apps.add(console_app)

    def authorize(self, hook: AuthorizeT) -> AuthorizeT:
        """Have a function decide about each console, see :data:`.Authorize`; a decorator.

        It is called in a copy of the request's context, so that Flask's ``session`` and the like are there.
        """
        self._authorize = hook
        return hook

    def on_open(self, hook: OnOpenT) -> OnOpenT:
        """Have a function told of each console that opens, see :data:`.OnOpen`; a decorator.

        It is called in a context of the application.
        """
        self._on_open = hook
        return hook

    def on_close(self, hook: OnCloseT) -> OnCloseT:
        """Have a function told of each console that is over, see :data:`.OnClose`; a decorator.

        It is called in a context of the application.
        """
        self._on_close = hook
        return hook

    def connect(self, grant: Grant, vmi: str, *, subresource: str | None = None) -> Response:
        """Return what a view returns to open a console for a user whom it has authenticated by itself.

        The view's route needs ``websocket=True``, but not with Werkzeug 1.0, which knows none. See
        :meth:`.ConsoleApp.connect`.

        :raises TypeError: if the grant is none, or one of its fields is none of its kind.
        """
        return self._response((grant, vmi, subresource))

    def sessions(self) -> list[SessionHandle]:
        """Return the sessions of this process; see :meth:`.ConsoleApp.sessions`."""
        return [session for console_app in self._console_apps for session in console_app.sessions()]

    def end_sessions(
        self,
        *,
        user: str | int | None = None,
        namespace: str | None = None,
        vmi: str | None = None,
        token_id: str | None = None,
        code: int = 4499,
        reason: str = "kicked",
    ) -> int:
        """End sessions of this process, for a logout, say; see :meth:`.ConsoleApp.end_sessions`."""
        return sum(
            console_app.end_sessions(
                user=user, namespace=namespace, vmi=vmi, token_id=token_id, code=code, reason=reason
            )
            for console_app in list(self._console_apps)
        )

    def metrics_registry(self) -> CollectorRegistry:
        """Return the metrics of this process, see :meth:`.ConsoleApp.metrics_registry`."""
        return registry(lambda: sum((app.numbers() for app in self._console_apps), Snapshot()))

    def close(self, timeout: float | None = None) -> None:
        """End all consoles of this process, and all threads; see :meth:`.ConsoleApp.close`."""
        for console_app in list(self._console_apps):
            console_app.close(timeout)

    def _make_blueprint(self) -> Blueprint:
        blueprint = Blueprint(_EXTENSION, __name__)
        blueprint.record(_add_converter)
        for rule in ("/", f"/<{_CONVERTER}:rest>"):
            for websocket in (False, True):
                blueprint.add_url_rule(
                    rule,
                    endpoint="websocket" if websocket else "http",
                    view_func=self._view,
                    methods=("GET",) if websocket else _METHODS,
                    provide_automatic_options=False,
                    websocket=websocket,
                )
        return blueprint

    def _view(self, rest: str = "") -> Response:
        return self._response(None)

    def _response(self, wanted: Wanted | None) -> Response:
        around: Around | None = None
        if self._authorize is not None:
            around = copy_current_request_context(lambda function: function())
        return _Response(current_app.extensions[_EXTENSION], wanted, around)

    def _ask(self, grant: Grant, request: AccessRequest) -> Grant | None:
        return self._authorize(grant, request) if self._authorize else None

    def _tell_open(self, app: Flask, session: SessionHandle) -> None:
        if self._on_open:
            with app.app_context():
                self._on_open(session)

    def _tell_close(self, app: Flask, session: SessionHandle, ending: Ending) -> None:
        if self._on_close:
            with app.app_context():
                self._on_close(session, ending)


class _Response(Response):
    """A response that is given by a :class:`.ConsoleApp`, when Flask is through with the request."""

    def __init__(self, console_app: ConsoleApp, wanted: Wanted | None, around: Around | None) -> None:
        super().__init__()
        self._console_app = console_app
        self._wanted = wanted
        self._around = around

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._console_app.respond(environ, start_response, wanted=self._wanted, around=self._around)


class _RestConverter(BaseConverter):
    """All that is left of a path, slashes at its beginning included."""

    regex = ".*"
    part_isolating = False
    weight = 300


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters.setdefault(_CONVERTER, _RestConverter)


def _config_of(given: Mapping[str, Any]) -> Config:
    """Return the settings that stand in a Flask application's configuration."""
    names = {setting.env for setting in SETTINGS}.difference(_OF_THE_PROGRAM)
    settings: dict[str, Any] = {name: os.environ[name] for name in _FROM_THE_POD if name in os.environ}
    for name, value in given.items():
        if value is not None and (name in names or name.startswith("WSPROXY_")):
            # Flask reads JSON from FLASK_... variables, so what is meant as text may be a number.
            settings[name] = str(value) if type(value) in (int, float) else value
    # An application may have taken over all variables of its environment.
    settings = without_service_links(settings)
    if "WSPROXY_SECRET_KEY" in settings:
        settings[_OF_FLASK] = settings.pop("WSPROXY_SECRET_KEY")
    return config_from_mapping(settings)
