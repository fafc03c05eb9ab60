"""``WebsocketProxy``: the whole proxy as one object."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .access.hooks import Authorize, Hooks, OnClose, OnOpen
from .access.sessions import SessionHandle
from .admin.operator import candidate_thread, operator_thread
from .admin.thread import AdminThread
from .config import Config
from .kinds import Secrets
from .net.addresses import host_and_port
from .net.listeners import UNIX, address_text, listen
from .runtime.forks import in_forked_child
from .runtime.logs import get_logger
from .runtime.program_end import Service, keeps_program_up
from .runtime.signals import RELOAD_SIGNAL, STOP_SIGNALS, signals_for_proxy, signals_to
from .runtime.systemd import Notifier
from .runtime.threads import replaced_by
from .server.acceptor import ConsoleServer
from .server.gateway import Gateway, check_files
from .server.lifecycle import STOPPED, log_reload, name_of, next_event, stop_in_good_order, warn_of_handover
from .settings.signature import spelled_out
from .settings.table import OPTIONS, accepted
from .telemetry.counters import Snapshot
from .telemetry.metrics import registry
from .web.urls import console_url, page_url

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .settings.typed import Options
    from .telemetry.metrics import CollectorRegistry

__all__ = ["WebsocketProxy"]

logger = get_logger("wsproxy.proxy")


def _mode_of_the_original(mode: Any) -> Any:
    """Return 0 and 1 as a bool, because version 1.0.0 accepted them; distutils' strtobool returns these."""
    return bool(mode) if isinstance(mode, int) and mode in (0, 1) else mode


class WebsocketProxy:
    """Adds JWT authentication to KubeVirt's console WebSockets.

    ::

        with WebsocketProxy(url, api_path, False, secret).run_in_thread("127.0.0.1", 0) as proxy:
            host, port = proxy.address

    The first five parameters are those of lab-orchestrator-ws-proxy-lib 1.0.0. The proxy reads nothing from
    the environment. Until a ``run`` method is called, it does no more than read the files that settings name.

    A list of texts may be any iterable of texts, and is read once; a single text is a list of one. If a list
    names all that is allowed, None allows everything, and an empty list is a fault.

    :param remote_url: base URL of the Kubernetes API, such as ``wss://10.96.0.1:443``.
    :param api_path: API path of the console, with ``{namespace}`` and ``{vmi_name}``. It may name any
        subresource that streams over a WebSocket.
    :param local_dev_mode: no TLS and no bearer token, as behind ``kubectl proxy``.
    :param secret_key: HMAC secret of the tokens, or PEM public keys, or a sequence of these; "" for none.
    :param host_path_prefix: path in front of every route.
    :param authorize: called with a :class:`.Grant` and an :class:`.AccessRequest` for each session, before
        the proxy dials: see :data:`.Authorize`.
    :param on_open: called with the :class:`.SessionHandle` of each session that opens: see :data:`.OnOpen`.
    :param on_close: called with that and an :class:`.Ending` when the session is over: see :data:`.OnClose`.
    :param options: the settings of :class:`.Settings`, by name, except those of the program.
    :raises ConfigError: a :class:`ValueError` that lists every fault.
    :raises TypeError: if a name is not that of a setting; the text suggests a similar name.
    """

    @spelled_out(OPTIONS)
    def __init__(
        self,
        remote_url: str,
        api_path: str,
        local_dev_mode: bool,
        secret_key: str | bytes | Iterable[str | bytes],
        host_path_prefix: str | None = None,
        *,
        authorize: Authorize | None = None,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
        **options: Unpack[Options],
    ) -> None:
        accepted("WebsocketProxy", options, OPTIONS)
        if options.get("sslopt", ...) is None:
            del options["sslopt"]
        config = Config(
            remote_url=remote_url,
            api_path=api_path,
            local_dev_mode=_mode_of_the_original(local_dev_mode),
            secret_key=secret_key,
            host_path_prefix=host_path_prefix,
            **options,
        )
        self._setup(config, Hooks(authorize, on_open, on_close))

    @classmethod
    def from_config(
        cls,
        config: Config,
        authorize: Authorize | None = None,
        *,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
    ) -> WebsocketProxy:
        """Make a proxy from a :class:`.Config`; its ``host`` and ``port`` are not used."""
        proxy = cls.__new__(cls)
        proxy._setup(config, Hooks(authorize, on_open, on_close))
        return proxy

    def _setup(self, config: Config, hooks: Hooks) -> None:
        check_files(config)
        self.config = config
        self._hooks = hooks
        # Guards the attributes below. Held during a start and a stop, so these never overlap.
        self._lock = threading.Lock()
        self._server: ConsoleServer | None = None
        self._admin: AdminThread | None = None
        self._service: Service | None = None  # stays after a stop
        self._in_with = False
        self._pid = 0
        # A byte sent here ends run(). stop_thread() or the signal itself sends it.
        self._waker: socket.socket | None = None
        in_forked_child(self, WebsocketProxy._renew_lock)

    @property
    def remote_url(self) -> str:
        return self.config.remote_url

    @property
    def api_path(self) -> str:
        return self.config.api_path

    @property
    def local_dev_mode(self) -> bool:
        return self.config.local_dev_mode

    @property
    def secret_key(self) -> Secrets:
        return self.config.secret_key

    @property
    def host_path_prefix(self) -> str | None:
        return self.config.host_path_prefix

    @property
    def thread(self) -> threading.Thread | None:
        """A thread that lives from :meth:`run_in_thread` until the proxy stops, for callers that join it.

        None before the first start, and after a start by :meth:`run`.
        """
        return self._service.thread if self._service else None

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port.

        :raises RuntimeError: if the proxy does not run, or was inherited over a fork.
        """
        server = self._server
        if server is None:
            raise RuntimeError("the proxy does not run")
        self._refuse_after_fork()
        return server.address

    @property
    def connections(self) -> int:
        """How many clients are connected now, in any phase; 0 if the proxy does not run.

        :raises RuntimeError: if the proxy was inherited over a fork.
        """
        server = self._server
        self._refuse_after_fork()
        return server.connections if server else 0

    def metrics_registry(self) -> CollectorRegistry:
        """Return a registry of prometheus-client with this proxy's metrics: see docs/reference/metrics.md.

        Each scrape reads the current values. Counters restart with each start of the proxy. Any thread may
        scrape. The global registry does not change.

        :raises ConfigError: if prometheus-client is not installed.
        """
        return registry(self._numbers)

    def _numbers(self) -> Snapshot:
        server = self._server
        return server.numbers() if server else Snapshot()

    def sessions(self) -> list[SessionHandle]:
        """Return a handle of each session at this moment, the oldest first.

        The list includes sessions that are being opened, once their tokens are verified: their ``is_open`` is
        false. It is empty if the proxy does not run. Any thread, hooks included; does not block.

        :raises RuntimeError: if the proxy was inherited over a fork.
        """
        server = self._server
        self._refuse_after_fork()
        return server.sessions() if server else []

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
        """End the sessions that match all given criteria, and return their number. For example, for a logout.

        Sessions that are being opened end, too, whatever they wait for: their clients are refused with code
        and reason, and no console opens for them. Later clients may come in if their token is still valid.
        Any thread, hooks included; does not block.

        :param user: as in the token or the grant; so are ``namespace``, ``vmi`` and ``token_id``. At least
            one of the four is needed.
        :param code: as for :meth:`.SessionHandle.close`, as is ``reason``.
        :raises TypeError: if no criterion is given; then no session is ended.
        :raises ValueError: if a Close must not carry the code or the reason; then no session is ended either.
        :raises RuntimeError: if the proxy was inherited over a fork.
        """
        server = self._server
        self._refuse_after_fork()
        if server is None:
            return 0
        return server.end_sessions(
            user=user, namespace=namespace, vmi=vmi, token_id=token_id, code=code, reason=reason
        )

    def console_url(
        self, token: str, vmi: str, *, subresource: str | None = None, base: str | None = None
    ) -> str:
        """Return the URL of a console, for a browser: ``ws://HOST:PORT/TOKEN/VMI``.

        The URL gives access to anyone who has it, as long as the token is valid. Does not block.

        :param token: a token, see :func:`.make_token`; or a ticket.
        :param vmi: name of the virtual machine instance.
        :param subresource: None for that of ``api_path``.
        :param base: the URL at which browsers reach the proxy through a reverse proxy, such as
            ``wss://lab.example/ws``. A path in it replaces ``host_path_prefix``; without one, the prefix is
            added. The default is the address that the proxy is bound to.
        :raises ValueError: if the proxy would not accept such a token, a name is not valid, or the base is
            not such a URL. Also without a base, if the proxy listens at an address that no browser can use.
        :raises RuntimeError: without a base, if the proxy does not run, or was inherited over a fork.
        """
        return console_url(self.config.url_rules, base or self._own_base(), token, vmi, subresource)

    def page_url(
        self, token: str, vmi: str | None = None, *, subresource: str | None = None, base: str | None = None
    ) -> str:
        """Return the link to a console on the console page: ``http://HOST:PORT/console/#TOKEN/VMI``.

        The link gives access to anyone who has it, as long as the token is valid. Does not block.

        :param token: see :func:`.make_token`.
        :param vmi: name of the virtual machine instance; None to let the user choose.
        :param subresource: None for that of ``api_path``.
        :param base: see :meth:`console_url`.
        :raises ValueError: as :meth:`console_url`, and if ``console_page`` is not set.
        :raises RuntimeError: as :meth:`console_url`.
        """
        return page_url(self.config.url_rules, base or self._own_base(), token, vmi, subresource)

    def _own_base(self) -> str:
        host, port = self.address
        if host in ("0.0.0.0", "::") or "%" in host or host.startswith(UNIX):
            raise ValueError(f"the proxy listens at {host}, which no browser can connect to; pass base=")
        return f"{'wss' if self.config.tls_cert else 'ws'}://{host_and_port(host, port)}"

    def run(
        self,
        host: str | None,
        port: int,
        *,
        on_ready: Callable[[WebsocketProxy], None] = lambda proxy: None,
        reuse_port: bool = False,
        notifier: Notifier | None = None,
    ) -> None:
        """Serve in the foreground.

        In the main thread this blocks until SIGINT or SIGTERM, in others until another thread calls
        :meth:`stop_thread`. After a signal the proxy drains as ``drain_grace`` and ``drain_timeout`` say. A
        second signal ends the drain; then stopping takes at most the close timeout and a few seconds. SIGHUP
        is a :meth:`reload`, unless the program has its own handler for it.

        :param host: as for :meth:`run_in_thread`, as are ``port`` and ``reuse_port``.
        :param on_ready: called with the proxy when it listens, and a signal would drain it.
        :param notifier: told when the proxy serves, reloads, and stops.
        :raises ConfigError: if ``host`` or ``port`` is not valid.
        :raises OSError: if the address cannot be bound; the text names it.
        :raises RuntimeError: if the proxy runs already, was started before a fork, or gevent or eventlet
            has replaced Python's threads.
        """
        numbers = signals_for_proxy()
        notifier = notifier or Notifier()
        waker, woken = socket.socketpair()
        with waker, woken, signals_to(waker, numbers):
            self._start(host, port, reuse_port, waker=waker)
            try:
                on_ready(self)
                notifier.ready()
                if number := self._attend(woken, numbers, notifier):
                    logger.info("%s: stopping", name_of(number))
                    self._drain(waker, woken, notifier)
            finally:
                self.stop_thread()

    def _attend(self, woken: socket.socket, numbers: Collection[int], notifier: Notifier) -> int:
        """Reload on each SIGHUP until the proxy has to stop.

        :returns: the signal to stop on, 0 if another thread has stopped the proxy.
        """
        while (number := next_event(woken, numbers)) == RELOAD_SIGNAL:
            notifier.reloading()
            self.reload()
            log_reload(logger)
            notifier.ready()
        return number

    def _drain(self, waker: socket.socket, woken: socket.socket, notifier: Notifier) -> None:
        """Drain as the settings say, then stop; stop at once on a second signal."""
        config = self.config
        notifier.stopping(config.drain_grace + config.drain_timeout + config.close_timeout)
        stop_in_good_order(
            lambda: self.stop_thread(drain=config.drain_timeout, grace=config.drain_grace),
            self.stop_thread,
            waker,
            lambda: next_event(woken, STOP_SIGNALS),
            self,
            logger,
        )

    def run_in_thread(
        self, host: str | None, port: int, *, reuse_port: bool = False, daemon: bool | None = None
    ) -> WebsocketProxy:
        """Serve in the proxy's own threads, and return the proxy.

        Blocks only if processes share a store: until this one is in step, for a few seconds at most.

        When the main thread is done, the program continues as long as the proxy serves, unless ``with`` has
        entered the proxy, or ``daemon`` is true. Ctrl-C then stops the proxy, and ends the program with
        status 130. If the proxy still serves when the interpreter ends, it is stopped.

        :param host: a name or address; "", None and "::" mean every address, IPv4 and IPv6.
        :param port: TCP port, a number or its digits; 0 for any free one, which :attr:`address` returns.
        :param reuse_port: share the address (SO_REUSEPORT) with the proxies of other processes that do so,
            too. Each is started after the fork. Linux spreads clients over them, and loses none when one
            stops.
        :param daemon: whether the program may end before the proxy. By default it may if an event loop
            runs, if a server or test runner called the program, or outside the main thread.
        :raises ConfigError: if ``host`` or ``port`` is not valid, such as a port above 65535. Also if a file
            that the settings name cannot be used, or the store is unfit.
        :raises OSError: if the address cannot be bound; the text names it.
        :raises RuntimeError: if the proxy runs already, was started before a fork, or gevent or eventlet
            has replaced Python's threads.
        """
        keeps_up = keeps_program_up() if daemon is None else not daemon
        self._start(host, port, reuse_port, keeps_up=keeps_up)
        return self

    def _start(
        self,
        host: str | None,
        port: int,
        reuse_port: bool,
        *,
        waker: socket.socket | None = None,
        keeps_up: bool = False,
    ) -> None:
        """Start the proxy and its operator's listener.

        Blocks on the resolver, the file system, and the store that processes share, if there is one.

        :param waker: from :meth:`run`; None if the proxy needs a thread that callers can join.
        :param keeps_up: whether the proxy keeps the program running; ignored inside ``with``.
        """
        if isinstance(port, str) and port.isascii() and port.isdigit():
            port = int(port)  # version 1.0.0 accepted digits, too
        if library := replaced_by():
            raise RuntimeError(
                f"{library} has replaced Python's threads, which the proxy needs; "
                "run wsproxy as a program of its own"
            )
        with self._lock:
            self._refuse_after_fork()
            if self._server is not None:
                raise RuntimeError("the proxy runs already")
            gateway = Gateway(self.config, self._hooks)
            try:
                server = ConsoleServer(listen(host, port, reuse_port=reuse_port), gateway)
            except BaseException:
                gateway.stop()  # lets go of the file with revocations
                raise
            try:
                gateway.readiness.check_files()
                self._admin = self._start_admin(server, gateway, reuse_port)
                if reuse_port:
                    warn_of_handover(self.config, logger)
                server.start()
                service = Service(
                    self.stop_thread,
                    f"wsproxy-serve-{server.address[1]}" if waker is None else None,
                    keeps_up=keeps_up and not self._in_with,
                )
            except BaseException:
                self._stop_admin()
                server.stop()
                raise
            self._pid, self._server, self._waker, self._service = os.getpid(), server, waker, service
        logger.info("listening on %s", address_text(*server.address))

    def _start_admin(self, server: ConsoleServer, gateway: Gateway, reuse_port: bool) -> AdminThread | None:
        """Start the operator's listener, if the settings name one.

        With ``reuse_port`` and a store in common, another process may have it already.
        """
        rules, kicks = self.config.operator_rules, gateway.kicks()
        if rules is None:
            return None
        if reuse_port and gateway.participant.is_shared:
            admin = candidate_thread(rules, kicks, server.numbers, gateway, strict=True)
        else:
            admin = operator_thread(rules, kicks, server.numbers, gateway, reuse_port=reuse_port)
        admin.start(gateway)
        gateway.vital.append(admin)
        return admin

    def _stop_admin(self) -> None:
        if self._admin:
            self._admin.stop()
            self._admin = None

    def reload(self) -> None:
        """Read keys and certificates again, and reopen the audit log; open sessions continue.

        The proxy also notices changed keys and certificates by itself when it needs them. If a new file
        cannot be used, the proxy logs an error and keeps what it had. Does nothing if the proxy does not run.
        Any thread; blocks on the file system only.
        """
        server = self._server
        self._refuse_after_fork()
        if server:
            server.reload()

    def stop_thread(self, *, drain: float = 0.0, grace: float = 0.0) -> None:
        """Stop the proxy: every session gets its Close, and all threads and sockets are gone at return.

        Blocks until all sessions have ended, for at most ``grace`` and ``drain`` seconds, and then for at
        most the close timeout and a few seconds. If another thread calls this without arguments, the first
        wait ends. Idempotent; does nothing if the proxy does not run. The proxy can be started again
        afterwards. Any thread, except a session's own.

        :param drain: seconds for which open sessions may continue, while the proxy accepts no new ones.
        :param grace: seconds before the drain: the proxy still accepts clients, but ``/readyz`` is 503.
        :raises RuntimeError: if one of the proxy's threads calls it, or a forked child.
        """
        server = self._server
        if server and server.serves_current_thread:
            raise RuntimeError("a session cannot stop the proxy that it is part of")
        if server and not drain + grace:
            self._refuse_after_fork()
            server.hurry()
        with self._lock:
            server = self._server
            if server is None:
                return
            self._refuse_after_fork()
            if self._admin and drain + grace:
                self._admin.step_aside()  # the successor of a handover serves the operator from now on
            server.stop(drain, grace)
            self._stop_admin()
            self._server = None
            if self._waker:
                self._waker.send(bytes([STOPPED]))
            if self._service:
                self._service.end()
        logger.info("stopped")

    @property
    def _inherited(self) -> bool:
        """Whether the proxy runs, but in a process that forked this one."""
        return self._server is not None and self._pid != os.getpid()

    def _renew_lock(self) -> None:
        """Replace the lock in a forked child: a thread that exists only in the parent may hold it."""
        self._lock = threading.Lock()

    def _refuse_after_fork(self) -> None:
        if self._inherited:
            raise RuntimeError(
                "this proxy was started before a fork; make one in each process, after the fork"
            )

    def __enter__(self) -> WebsocketProxy:
        self._in_with = True  # the end of the block stops the proxy
        if self._service:
            self._service.release()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_with = False
        self.stop_thread()

    def __repr__(self) -> str:
        if self._inherited:
            return "<WebsocketProxy of the parent process>"
        server = self._server
        state = f"on {address_text(*server.address)}" if server else "not running"
        return f"<WebsocketProxy {state}, {self.connections} connections>"
