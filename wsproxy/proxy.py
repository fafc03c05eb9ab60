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
from .admin.auth import operator_guard
from .admin.endpoints import admin_endpoints, session_endpoints
from .admin.kick import Kicks
from .admin.server import AdminServer, AdminThread
from .config import Config
from .kinds import Secrets
from .net.addresses import host_and_port
from .net.listeners import UNIX, address_text, listen, listen_for_operator
from .runtime.forks import in_forked_child
from .runtime.logs import get_logger
from .runtime.program_end import Service, keeps_program_up
from .runtime.signals import RELOAD_SIGNAL, STOP_SIGNALS, is_unclaimed, signals_to
from .runtime.systemd import Notifier
from .runtime.threads import replaced_by
from .server.acceptor import ConsoleServer
from .server.gateway import Gateway, check_files
from .server.lifecycle import STOPPED, log_reload, name_of, next_event, stop_in_good_order
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
    """Return what the original took for a mode as one: what distutils' strtobool returns, too."""
    return bool(mode) if isinstance(mode, int) and mode in (0, 1) else mode


class WebsocketProxy:
    """Adds JWT authentication to KubeVirt's console WebSockets.

    ::

        with WebsocketProxy(url, api_path, False, secret).run_in_thread("127.0.0.1", 0) as proxy:
            host, port = proxy.address

    The first five parameters are those of lab-orchestrator-ws-proxy-lib 1.0.0. Nothing is read from the
    environment, and nothing but key files is opened before a ``run`` method is called.

    A list of texts may be any iterable of them, and is read once; a single text is a list of one. Where a
    list names all that is allowed, None allows everything, and an empty list is a fault.

    :param remote_url: base URL of the Kubernetes API, such as ``wss://10.96.0.1:443``.
    :param api_path: API path of the console, with ``{namespace}`` and ``{vmi_name}``; it may name any
        subresource that streams over a WebSocket.
    :param local_dev_mode: no TLS and no bearer token, as behind ``kubectl proxy``.
    :param secret_key: HMAC secret of the tokens, or PEM public keys, or a sequence of these; "" for none.
    :param host_path_prefix: path in front of every route.
    :param authorize: called with a :class:`.Grant` and an :class:`.AccessRequest` for each session, before
        anything is dialled: see :data:`.Authorize`.
    :param on_open: called with the :class:`.SessionHandle` of each session that opens: see :data:`.OnOpen`.
    :param on_close: called with that and an :class:`.Ending` when it is over: see :data:`.OnClose`.
    :param options: the settings of :class:`.Settings`, by name, but for those of the program.
    :raises ConfigError: a :class:`ValueError` listing every fault.
    :raises TypeError: if a name is not that of a setting; the text says which may be meant.
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
        """Make a proxy of ready settings; their ``host`` and ``port`` are not used here."""
        proxy = cls.__new__(cls)
        proxy._setup(config, Hooks(authorize, on_open, on_close))
        return proxy

    def _setup(self, config: Config, hooks: Hooks) -> None:
        check_files(config)
        self.config = config
        self._hooks = hooks
        # Guards the attributes below; held while starting and stopping, so those take turns.
        self._lock = threading.Lock()
        self._server: ConsoleServer | None = None
        self._admin: AdminThread | None = None
        self._service: Service | None = None  # stays after a stop
        self._in_with = False
        self._pid = 0
        # What ends run(): a byte sent here, by stop_thread or by the signal itself.
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
        """A thread that lives from :meth:`run_in_thread` until the proxy is stopped, for who wants to wait.

        None before the first start, and after one by :meth:`run`.
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
        """How many clients are connected now, in whatever phase; 0 if the proxy does not run.

        :raises RuntimeError: if it was inherited over a fork.
        """
        server = self._server
        self._refuse_after_fork()
        return server.connections if server else 0

    def metrics_registry(self) -> CollectorRegistry:
        """Return a registry of prometheus-client with this proxy's metrics: see docs/reference/metrics.md.

        They are of this moment whenever they are scraped, and begin anew with each start. Any thread may
        scrape; the global registry is left alone.

        :raises ConfigError: if prometheus-client is not installed.
        """
        return registry(self._numbers)

    def _numbers(self) -> Snapshot:
        server = self._server
        return server.numbers() if server else Snapshot()

    def sessions(self) -> list[SessionHandle]:
        """Return a handle of each session at this moment, the oldest first.

        Among them are those that are being opened, from when their tokens were verified: their ``is_open`` is
        false. Any thread, hooks included; does not block. Empty if the proxy does not run.

        :raises RuntimeError: if it was inherited over a fork.
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
        """End the sessions that all of this is true of, and return how many that were.

        That is for a logout, say. Those that are being opened are ended, too, whatever they wait for: their
        clients are refused with code and reason, and no console is opened for them. Whoever comes later is
        let in if the token is still valid.
        Any thread, hooks included; does not block.

        :param user: as the token, or the grant, says it; ``namespace``, ``vmi`` and ``token_id`` alike. At
            least one of them is needed.
        :param code: as for :meth:`.SessionHandle.close`, as is ``reason``.
        :raises TypeError: if nothing says which; then nothing has been done.
        :raises ValueError: if code or reason may not be sent; then nothing has been done either.
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

        It gives access to whoever has it, for as long as the token is valid. Does not block.

        :param token: see :func:`.make_token`; or a ticket.
        :param vmi: name of the virtual machine instance.
        :param subresource: None for that of ``api_path``.
        :param base: where the browser finds the proxy, such as ``wss://lab.example/ws``, if a server in front
            passes it on. A path in it takes the place of ``host_path_prefix``; without one, that is added.
            By default the address that the proxy is bound to.
        :raises ValueError: if the proxy would not look at such a token, a name is none, or the base is no
            such URL; and without a base if the proxy listens at every address, for that is no browser's.
        :raises RuntimeError: without a base, if the proxy does not run, or was inherited over a fork.
        """
        return console_url(self.config.url_rules, base or self._own_base(), token, vmi, subresource)

    def page_url(
        self, token: str, vmi: str | None = None, *, subresource: str | None = None, base: str | None = None
    ) -> str:
        """Return the link to a console on the console page: ``http://HOST:PORT/console/#TOKEN/VMI``.

        It gives access to whoever has it, for as long as the token is valid. Does not block.

        :param token: see :func:`.make_token`.
        :param vmi: name of the virtual machine instance; None to let the person choose.
        :param subresource: None for that of ``api_path``.
        :param base: see :meth:`console_url`.
        :raises ValueError: as there, and if ``console_page`` is not set.
        :raises RuntimeError: as there.
        """
        return page_url(self.config.url_rules, base or self._own_base(), token, vmi, subresource)

    def _own_base(self) -> str:
        host, port = self.address
        if host in ("0.0.0.0", "::") or "%" in host or host.startswith(UNIX):
            raise ValueError(f"the proxy listens at {host}, which no browser can ask for; say base=")
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

        Blocks until SIGINT or SIGTERM in the main thread, or, elsewhere, until another thread calls
        :meth:`stop_thread`. After a signal sessions may go on as ``drain_grace`` and ``drain_timeout`` say,
        until a second one; then stopping takes at most the close timeout and a few seconds. SIGHUP, unless
        the program has a handler of its own for it, is a :meth:`reload`.

        :param host: as for :meth:`run_in_thread`, as are ``port`` and ``reuse_port``.
        :param on_ready: called with the proxy once it listens, and a signal would stop it in good order.
        :param notifier: is told when the proxy serves, reloads, and stops.
        :raises ConfigError: if one of these is no such thing.
        :raises OSError: if the address cannot be bound; the text names it.
        :raises RuntimeError: if the proxy runs already, was started before a fork, or gevent or eventlet
            have replaced Python's threads.
        """
        numbers = [*STOP_SIGNALS, RELOAD_SIGNAL] if is_unclaimed(RELOAD_SIGNAL) else STOP_SIGNALS
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
        """Reload until the proxy is to stop; return the signal, 0 if another thread has stopped it."""
        while (number := next_event(woken, numbers)) == RELOAD_SIGNAL:
            notifier.reloading()
            self.reload()
            log_reload(logger)
            notifier.ready()
        return number

    def _drain(self, waker: socket.socket, woken: socket.socket, notifier: Notifier) -> None:
        """Stop as the settings say, or at once on a second signal."""
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
        """Serve in threads of the proxy's own and return the proxy. Does not block.

        When the main thread is done, the program goes on as long as the proxy serves, unless ``with`` has
        entered the proxy, or it is a daemon. Ctrl-C then stops the proxy, and ends the program with status
        130. A proxy that still serves when the interpreter ends is stopped.

        :param host: a name or address; "", None and "::" stand for every address, IPv4 and IPv6.
        :param port: TCP port, 0 for any free one; :attr:`address` tells which. Digits are taken for a number.
        :param reuse_port: share the address with the proxies of other processes, started after a fork, that
            do the same (SO_REUSEPORT). Linux spreads clients over them, and none is lost when one stops.
        :param daemon: whether the program may end before the proxy. By default it may if the caller is not
            the main thread, an event loop runs, or a server or a test runner has called the program's code.
        :raises ConfigError: if one of these is no such thing, such as a port above 65535.
        :raises OSError: if the address cannot be bound; the text names it.
        :raises RuntimeError: if the proxy runs already, was started before a fork, or gevent or eventlet
            have replaced Python's threads.
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
        """Start everything.

        :param waker: of :meth:`run`, which needs no thread to wait for.
        :param keeps_up: whether the program is kept up; not if ``with`` is to stop the proxy.
        """
        if isinstance(port, str) and port.isascii() and port.isdigit():
            port = int(port)  # the original took it, too
        if library := replaced_by():
            raise RuntimeError(
                f"{library} has replaced Python's threads, which the proxy needs; "
                "run the program wsproxy beside this one"
            )
        with self._lock:
            self._refuse_after_fork()
            if self._server is not None:
                raise RuntimeError("the proxy runs already")
            gateway = Gateway(self.config, self._hooks)
            server = ConsoleServer(listen(host, port, reuse_port=reuse_port), gateway)
            try:
                gateway.readiness.check_files()
                self._admin = self._start_admin(server, gateway, reuse_port)
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
        """Serve the operator, if there is to be a listener for that."""
        config = self.config
        if config.admin_address is None:
            return None
        guard = operator_guard(config.admin_token_file, config.admin_address)
        kicks = Kicks(gateway.sessions, gateway.denylist, gateway.verifier, gateway.reports)
        answers = admin_endpoints(lambda then: then(server.numbers())) | session_endpoints(guard, kicks)
        listener = listen_for_operator(config.admin_address, reuse_port=reuse_port)
        admin = AdminThread(AdminServer(listener, answers, config.admin_hosts))
        logger.info("the operator's listener is at %s", address_text(*listener.address))
        admin.start(gateway)
        gateway.vital.append(admin)
        return admin

    def _stop_admin(self) -> None:
        if self._admin:
            self._admin.stop()
            self._admin = None

    def reload(self) -> None:
        """Read keys and certificates again, and open the audit log anew; open sessions go on.

        Keys and certificates are looked at anyway, when they are needed. What cannot be used stays as it was,
        with an error in the log. Does nothing if the proxy does not run. Any thread; blocks on the file
        system only.
        """
        server = self._server
        self._refuse_after_fork()
        if server:
            server.reload()

    def stop_thread(self, *, drain: float = 0.0, grace: float = 0.0) -> None:
        """Stop the proxy: every session gets its Close, and all threads and sockets are gone at return.

        Blocks until all sessions have ended, for ``grace`` and ``drain`` seconds at most, and then for at
        most the close timeout and a few seconds. A call without these, by another thread, ends that wait.
        Idempotent; does nothing if the proxy does not run, which it may again afterwards. From any thread
        but a session's own.

        :param drain: seconds for which open sessions may go on, when no new ones are let in any more.
        :param grace: seconds before that in which clients are still let in; only ``/readyz`` says no.
        :raises RuntimeError: if called by one of the proxy's threads, or by a forked child.
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
        """In a forked child: a thread that it does not have may hold the lock."""
        self._lock = threading.Lock()

    def _refuse_after_fork(self) -> None:
        if self._inherited:
            raise RuntimeError(
                "this proxy was started before a fork; make one in each process, after the fork"
            )

    def __enter__(self) -> WebsocketProxy:
        self._in_with = True  # which ends the proxy with its block
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
