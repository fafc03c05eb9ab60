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

Requires the extra ``flask``. What :mod:`wsproxy.wsgi` says about servers and threads also applies here.
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
from .server.exchange import Around
from .settings.service_links import without_service_links
from .settings.table import SETTINGS
from .telemetry.counters import Snapshot
from .telemetry.metrics import registry
from .tokens.claims import Grant
from .wsgi.app import ConsoleApp, Wanted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .telemetry.metrics import CollectorRegistry

__all__ = ["Console"]

_EXTENSION = "wsproxy"
_DEFAULT_PREFIX = "/console"
_CONVERTER = "wsproxy_rest"
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_FROM_THE_POD = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
_OF_THE_PROGRAM = ("HOST", "PORT", "LOGLEVEL")  # in an application these may mean something else
_OF_FLASK = "SECRET_KEY"  # Flask signs its cookies with it, and it may verify tokens, too

AuthorizeT = TypeVar("AuthorizeT", bound=Authorize)
OnOpenT = TypeVar("OnOpenT", bound=OnOpen)
OnCloseT = TypeVar("OnCloseT", bound=OnClose)


class Console:
    """Serves consoles under a path of a Flask application, and from the application's own views.

    One ``Console`` may serve several applications. Each has its own settings, sessions and threads.

    :param app: if given, the constructor calls :meth:`init_app` with it.
    :param config: the settings; None to read each application's ``app.config``.
    :param url_prefix: path of the consoles; None for the settings' ``host_path_prefix``, or else "/console".
    :param threads: as for :class:`.ConsoleApp`.
    :param reserve: as for :class:`.ConsoleApp`.
    :ivar blueprint: the routes for clients that send a token. :meth:`init_app` registers it.
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
        """Serve consoles from ``app``, and store a :class:`.ConsoleApp` in its ``extensions["wsproxy"]``.

        If the constructor got no ``config``, the settings come from ``app.config``. Their keys are the names
        of the environment variables, such as ``WS_REMOTE_URL`` or ``WSPROXY_CA_FILE``. Lists and booleans
        may be Python values. Flask also uses ``SECRET_KEY``, so ``WSPROXY_SECRET_KEY`` overrides that.

        :raises ConfigError: if settings are wrong; lists every fault.
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
        """Let a function decide about each console, see :data:`.Authorize`; a decorator.

        The function runs in a copy of the request's context, so Flask's ``session`` and the like work.
        """
        self._authorize = hook
        return hook

    def on_open(self, hook: OnOpenT) -> OnOpenT:
        """Call a function for each console that opens, see :data:`.OnOpen`; a decorator.

        The function runs in an application context.
        """
        self._on_open = hook
        return hook

    def on_close(self, hook: OnCloseT) -> OnCloseT:
        """Call a function for each console that has ended, see :data:`.OnClose`; a decorator.

        The function runs in an application context.
        """
        self._on_close = hook
        return hook

    def connect(self, grant: Grant, vmi: str, *, subresource: str | None = None) -> Response:
        """Return the response with which a view opens a console for a user that it has authenticated itself.

        The view's route needs ``websocket=True``, except with Werkzeug 1.0, which lacks this parameter. See
        :meth:`.ConsoleApp.connect`.

        :raises TypeError: if ``grant`` is not a :class:`.Grant`, or one of its fields has a wrong type.
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
        """End sessions of this process, for example at a logout; see :meth:`.ConsoleApp.end_sessions`."""
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
        """End all sessions of this process, and all threads; see :meth:`.ConsoleApp.close`."""
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
            around = copy_current_request_context(lambda function, deadline: function(deadline))
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
    """A response that a :class:`.ConsoleApp` gives after Flask has finished the request."""

    def __init__(self, console_app: ConsoleApp, wanted: Wanted | None, around: Around | None) -> None:
        super().__init__()
        self._console_app = console_app
        self._wanted = wanted
        self._around = around

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._console_app.respond(environ, start_response, wanted=self._wanted, around=self._around)


class _RestConverter(BaseConverter):
    """Matches the rest of a path, including slashes at its beginning."""

    regex = ".*"
    part_isolating = False
    weight = 300


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters.setdefault(_CONVERTER, _RestConverter)


def _config_of(given: Mapping[str, Any]) -> Config:
    """Return the settings in a Flask application's configuration."""
    names = {setting.env for setting in SETTINGS}.difference(_OF_THE_PROGRAM)
    settings: dict[str, Any] = {name: os.environ[name] for name in _FROM_THE_POD if name in os.environ}
    for name, value in given.items():
        if value is not None and (name in names or name.startswith("WSPROXY_")):
            # Flask parses FLASK_... variables as JSON, so text may have become a number.
            settings[name] = str(value) if type(value) in (int, float) else value
    # An application may have copied its whole environment into its configuration.
    settings = without_service_links(settings)
    if "WSPROXY_SECRET_KEY" in settings:
        settings[_OF_FLASK] = settings.pop("WSPROXY_SECRET_KEY")
    return config_from_mapping(settings)
