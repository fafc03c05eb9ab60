"""The WSGI application that serves consoles, by itself or in front of another application."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..access.hooks import Authorize, Hooks, OnClose, OnOpen
from ..access.sessions import SessionHandle
from ..config import Config
from ..exceptions import (
    BadRequest,
    ConfigError,
    Draining,
    InternalError,
    Refused,
    StateNotShared,
    UnsupportedServer,
    UpgradeRequired,
)
from ..kinds import collect, setting_value
from ..protocol.client import client_of
from ..protocol.request import RequestHead
from ..protocol.response import refusal_response
from ..protocol.routing import Route, granted_route
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..runtime.threads import current_owner
from ..server.exchange import Around
from ..server.gateway import check_files
from ..server.session import new_session_id
from ..state.limits import AddressSlot
from ..telemetry.audit import AuditLog
from ..telemetry.counters import Counters, Snapshot
from ..telemetry.failures import Failures
from ..telemetry.metrics import registry
from ..telemetry.record import SessionRecord
from ..telemetry.reports import Reports
from ..tokens.claims import Grant
from ..web.endpoints import HTTPRequest
from ..web.in_flight import Place
from .environ import Environ, head_of, is_tls, peer_of
from .own_requests import OwnRequests
from .process import WSGIProcess
from .responses import ConsoleResponse, respond
from .servers import WSGIServer, client_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ..telemetry.metrics import CollectorRegistry

__all__ = ["ConsoleApp", "Wanted"]

logger = get_logger("wsproxy.wsgi")

Wanted = tuple[Grant, str, str | None]
"""What an application opens for a user that it has authenticated: a grant, a VMI, a subresource."""


class ConsoleApp:
    """A WSGI application that serves consoles, or a middleware in front of another application.

    As a middleware it takes the requests below the configured ``host_path_prefix``. Without a prefix it takes
    upgrade requests for ``/TOKEN/VMI`` and the like, the named endpoints such as ``/healthz``, screenshots,
    and the paths of served files. It passes all other requests to ``app``. Paths are relative to the place
    where this application is mounted.

    The first request that it takes starts its threads, in the process that got the request. So a server may
    load the application and fork afterwards. :meth:`close`, or the exit of the process, ends the threads.

    :param config: the settings; those of the program, such as ``host`` and ``port``, are ignored.
    :param app: the application behind this one, None for none.
    :param authorize: as for :class:`.WebsocketProxy`, as are ``on_open`` and ``on_close``.
    :param threads: how many requests a process of the server serves at a time; None if the server tells it.
    :param reserve: how many of these threads never serve consoles.
    :raises ConfigError: listing every fault.
    """

    def __init__(
        self,
        config: Config,
        app: WSGIApplication | None = None,
        *,
        authorize: Authorize | None = None,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
        threads: int | None = None,
        reserve: int = 2,
    ) -> None:
        if faults := _faults(config, threads, reserve):
            raise ConfigError(faults)
        self._own = OwnRequests(config, check_files(config))
        self.config = config
        self.app = app
        self._hooks = Hooks(authorize, on_open, on_close)
        self._threads = threads
        self._reserve = reserve
        # One for each process: if a thread holds a lock during a fork, it stays locked in the child.
        self._locks: dict[int, threading.Lock] = {}
        self._process: WSGIProcess | None = None
        self._closed = False
        self._complained = 0  # id of the process that has
        self._fault = ""
        self._failures = Failures(Counters())  # used while there is no process

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request, or pass it to ``app``. Iterating over the result serves a console."""
        if self.app is not None and environ not in self._own:
            return self.app(environ, start_response)
        return self.respond(environ, start_response)

    def connect(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        grant: Grant,
        vmi: str,
        *,
        subresource: str | None = None,
    ) -> Iterable[bytes]:
        """Open a console for a user that the application has authenticated itself.

        The proxy reads no token. Browsers send a login cookie with the requests of any page. So the origin of
        a page must be the request's own host, or one that ``allow_origin`` names. Return the result to the
        server, which serves the console by iterating over it.

        :param grant: what the user may open.
        :param vmi: the VMI to open.
        :param subresource: such as "console"; None for that of ``api_path``.
        :raises TypeError: if ``grant`` is not a :class:`.Grant`, or a field of it has the wrong type.
        """
        return self.respond(environ, start_response, wanted=(grant, vmi, subresource))

    def sessions(self) -> list[SessionHandle]:
        """Return the sessions of this process that are open or being opened, the oldest first.

        Any thread; does not block.
        """
        process = self._own_process()
        return process.gateway.sessions.all() if process else []

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
        """End the sessions of this process that match all given parameters, and return how many matched.

        A logout may use this. If a session is being opened, whatever it waits for, its client is refused with
        code and reason, and no console is opened. A client that connects later gets in if its token is still
        valid. Any thread; does not block.

        :param user: as in the token or the grant, as are ``namespace``, ``vmi`` and ``token_id``. At least
            one of them is needed.
        :param code: as for :meth:`.SessionHandle.close`, as is ``reason``.
        :raises TypeError: if none of the four is given; no session ends then.
        :raises ValueError: if a Close may not have this code or reason; no session ends then.
        """
        process = self._own_process()
        if process is None:
            return 0
        return process.gateway.sessions.end(
            user=user, namespace=namespace, vmi=vmi, token_id=token_id, code=code, reason=reason
        )

    def numbers(self) -> Snapshot:
        """Return the numbers of this process at this moment. Any thread; does not block."""
        process = self._own_process()
        return process.numbers() if process else Snapshot()

    def metrics_registry(self) -> CollectorRegistry:
        """Return a registry of prometheus-client with this process's metrics: see docs/reference/metrics.md.

        Each scrape reads the current numbers. Each process has its own: scrape each of them, or add them up
        by prometheus-client's own means. Any thread may scrape.

        :raises ConfigError: if prometheus-client is not installed.
        """
        return registry(self.numbers)

    def close(self, timeout: float | None = None) -> None:
        """End every console of this process with Close 1012, and all threads; refuse later requests.

        Blocks for at most ``timeout`` and a few seconds. Idempotent. Any thread, except a session's own.

        :param timeout: seconds in which consoles may end; None for the close timeout and one second.
        :raises RuntimeError: if a session's own thread calls this.
        """
        with self._lock():
            process = self._own_process()
            if process and current_owner() is process.gateway:
                raise RuntimeError("a session cannot close the application that it is part of")
            self._closed = True
        if process:
            process.stop(timeout)
            atexit.unregister(self.close)

    def respond(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        *,
        wanted: Wanted | None = None,
        around: Around | None = None,
    ) -> Iterable[bytes]:
        """Serve a request that belongs to wsproxy. For adapters; see :meth:`connect` for ``wanted``.

        :param around: as for :class:`.Exchange`.
        """
        if wanted and not isinstance(wanted[0], Grant):
            raise TypeError(f"grant must be a Grant, not {type(wanted[0]).__name__}")
        if wanted and (fault := wanted[0].fault):
            raise TypeError(fault)
        head: RequestHead | None = None
        record = SessionRecord(new_session_id(), str(peer_of(environ)))
        places: list[Place] = []
        try:
            head = head_of(environ)
            if head.asks_for_websocket:
                return self._console(environ, start_response, head, wanted, around)
            if wanted:
                raise UpgradeRequired()
            response = self._answer(environ, head, record, places)
        except Exception as exc:  # noqa: BLE001 - a refusal, or a bug, which is reported
            refused = exc if isinstance(exc, Refused) else self._report_failure(record)
            self._log_refusal(record, refused)
            response = refusal_response(refused, head_only=bool(head and head.method == "HEAD"))
        return respond(response, start_response, places)

    def _console(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        head: RequestHead,
        wanted: Wanted | None,
        around: Around | None,
    ) -> Iterable[bytes]:
        sock = client_socket(environ, self._reserve)
        process = self._started(environ)
        process.server.check()
        granted: tuple[Route, Grant] | None = None
        refused: Refused | None = None
        if wanted:
            grant, vmi, subresource = wanted
            try:
                granted = granted_route(vmi, subresource, self.config.routes), grant
            except Refused as exc:
                refused = exc

        def serve() -> int:
            return process.serve(environ, head, sock, granted=granted, refused=refused, around=around)

        return ConsoleResponse(serve, environ, start_response)

    def _answer(
        self, environ: WSGIEnvironment, head: RequestHead, record: SessionRecord, places: list[Place]
    ) -> bytes:
        """Return the whole response to a request without an upgrade.

        :param places: gets the places that the request takes when its client has authenticated.
        """
        process = self._started(environ)
        gateway = process.gateway
        client = client_of(head, peer_of(environ), is_tls(environ), self.config.trusted)
        root = environ.get("SCRIPT_NAME", "").rstrip("/")
        deadline, read_body = Deadline(self.config.request_timeout), partial(_body, environ, head)
        slot = AddressSlot(gateway.limits, client.network)
        try:
            request = HTTPRequest(
                head, client, deadline, read_body, record, slot, gateway.in_flight, places, root
            )
            return gateway.answer(request, process)
        finally:
            slot.release()

    def _started(self, environ: Environ) -> WSGIProcess:
        """Return the object that serves the consoles of this process; the first request starts it."""
        if environ.get("wsgi.multiprocess"):
            self._check_one_truth()
        process = self._own_process()
        if process is None or self._closed:
            with self._lock():
                if self._closed:
                    raise Draining("the proxy is stopping")
                process = self._own_process() or self._start(environ)
        return process

    def _check_one_truth(self) -> None:
        """Raise if the settings are true for all processes only with a store in common, and there is none."""
        needed = self.config.needs_one_truth
        if needed and not self.config.is_state_shared:
            raise StateNotShared(
                f"the server has several processes, each with a state of its own, so {' and '.join(needed)} "
                "would not be true for all: set WSPROXY_STATE to local:PATH or to a Redis, or use one "
                "process with more threads"
            )

    def _start(self, environ: Environ) -> WSGIProcess:
        server = WSGIServer.around(environ, self._threads)
        try:
            process = WSGIProcess.started(self.config, self._hooks, server, self._reserve)
        except ConfigError as exc:
            if str(exc) != self._fault:  # one line, although the next request tries again
                self._fault = str(exc)
                logger.error("cannot serve consoles: %s", exc)
            raise InternalError() from None
        self._process = process
        atexit.register(self.close)
        return process

    def _own_process(self) -> WSGIProcess | None:
        process = self._process
        return process if process and process.pid == os.getpid() else None

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _report_failure(self, record: SessionRecord) -> Refused:
        """Report the exception being handled, which is a bug, and return the refusal for the client."""
        process = self._own_process()
        failures = process.gateway.failures if process else self._failures
        failures.report(logger, "connection %s failed", record.session)
        return InternalError()

    def _log_refusal(self, record: SessionRecord, refused: Refused) -> None:
        if isinstance(refused, UnsupportedServer) and self._complained != os.getpid():
            self._complained = os.getpid()
            logger.error("%s", refused.message)
        process = self._own_process()
        if isinstance(refused, InternalError) or record.admitted:
            level = logging.DEBUG  # as in :class:`.Exchange`
        else:
            level = process.gateway.admission.refusal_level() if process else logging.INFO
        reports = process.gateway.reports if process else Reports(Counters(), AuditLog(None))
        reports.refused(record, refused, level)


def _faults(config: Config, threads: int | None, reserve: int) -> list[str]:
    faults: list[str] = []
    if config.tls_cert is not None:
        faults.append("tls_cert is set, but here the WSGI server does TLS; give it the certificate")
    for name, kind, value, least in (("threads", "int | None", threads, 1), ("reserve", "int", reserve, 0)):
        number = collect(faults, lambda kind=kind, name=name, value=value: setting_value(kind, name, value))  # type: ignore[misc]
        if number is not None and number < least:
            faults.append(f"{name} is {number}; it must be {least} or more")
    if config.proxy_protocol:
        faults.append("proxy_protocol is on, but here the WSGI server reads connections; turn it on there")
    return faults


def _body(environ: WSGIEnvironment, head: RequestHead, most: int) -> bytes:
    """Return the body of a request. Blocks as long as the server lets it.

    :raises BadRequest: if the body does not come whole.
    """
    size = head.body_size(most)
    try:
        body: Any = environ["wsgi.input"].read(size)
    except Exception:  # noqa: BLE001 - if the client has left, each server raises its own
        raise BadRequest("the body could not be read") from None
    if len(body) < size:
        raise BadRequest("the body is shorter than its Content-Length")
    return bytes(body)
