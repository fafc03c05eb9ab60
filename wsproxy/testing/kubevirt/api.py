"""A simulated kube-apiserver, virt-api and virt-handler: a real server for tests and the demo."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ...exceptions import TransportClosed
from ...net.tls import accept_tls
from ...net.transport import PlainTransport, Transport
from ...runtime.deadline import Deadline
from .backends import Backend
from .certificates import CertificateAuthority
from .cluster import Cluster, Upgrade
from .connections import ConnectionServer
from .console import FakeConsole, Wire
from .http import (
    Answer,
    BadRequest,
    Behaviour,
    RecordedRequest,
    parse_request,
    read_body,
    read_head,
    send_answer,
    send_bytes,
    text_answer,
    upgrade_head,
)
from .link import Link
from .service_account import Credentials, random_token
from .vmi import FakeVMI

__all__ = ["FakeKubeVirtAPI"]

_SUBPROTOCOL = "plain.kubevirt.io"
_HANDSHAKE_TIMEOUT = 10.0
_STOP_TIMEOUT = 10.0
_PLAIN = Behaviour()
_OK = Answer(200, b"ok")


class FakeKubeVirtAPI(Cluster):
    """A simulated cluster: the part of the Kubernetes API that a console gateway uses.

    Serves once, from :meth:`start` (or ``with``) to :meth:`stop`. Any thread may use its public methods and
    attributes. With TLS the API demands a bearer token. Without TLS it does not, like ``kubectl proxy``.

    :param host: the address to listen on.
    :param port: the port to listen on; 0 for any free one.
    :param tls: whether the API speaks TLS.
    :param token: the bearer token; None for a random one.
    :param names: further names in the server's certificate.
    :param namespace: the default namespace of VMIs. The attribute may change later.
    :param socket_buffer: bytes of the kernel's buffers. Small ones cause back-pressure early.
    :ivar requests: all requests. Each is appended before it is answered.
    :ivar consoles: all sessions so far, in the order in which they started.
    :ivar errors: exceptions that no peer can cause: bugs of this class or of a test's backend.
    :ivar tls_failures: a text for each failed TLS handshake.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        port: int = 0,
        tls: bool = True,
        token: str | None = None,
        names: tuple[str, ...] = (),
        namespace: str = "default",
        socket_buffer: int | None = None,
    ) -> None:
        super().__init__(
            token if token is not None else random_token(), demand_token=tls, namespace=namespace
        )
        self.tls = tls
        self.requests: list[RecordedRequest] = []
        self.consoles: list[FakeConsole] = []
        self.errors: list[BaseException] = []
        self.tls_failures: list[str] = []
        self._host, self._port, self._socket_buffer = host, port, socket_buffer
        self._stopping = threading.Event()
        # _changed guards this list and those above.
        self._live: list[FakeConsole] = []
        # start, stop and the rotations hold it, so that they do not overlap. Guards what they assign.
        self._lifecycle = threading.Lock()
        self._server: ConnectionServer | None = None
        self._credentials = Credentials((*names, host) if tls else None)

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> FakeKubeVirtAPI:
        """Listen, write the service-account files, and serve. Returns itself.

        :raises OSError: if it cannot listen.
        :raises RuntimeError: if it was started before.
        """
        with self._lifecycle:
            if self._server is not None:
                raise RuntimeError("a FakeKubeVirtAPI can be started only once")
            server = ConnectionServer(
                self._host, self._port, self._connection, self._fail, self._socket_buffer
            )
            self._server = server
            self._credentials.create(self.token)
            server.start()
        return self

    def stop(self) -> None:
        """End every session, join every thread, close every socket, and remove the files.

        Idempotent; does nothing before :meth:`start`. Blocks for at most ten seconds. If a thread has not
        ended by then, ``errors`` gets an exception for it.
        """
        with self._lifecycle:
            if self._server is None or not self._credentials.exist:
                return
            self._stopping.set()
            self._hanging.stop()
            alive = self._server.stop(Deadline(_STOP_TIMEOUT), self._kill_sessions)
            for thread in alive:
                self._fail(RuntimeError(f"thread {thread.name} did not end"))
            self._credentials.remove()

    def __enter__(self) -> FakeKubeVirtAPI:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _kill_sessions(self) -> None:
        with self._changed:
            live = list(self._live)
        for console in live:
            console.kill()

    # -- what a client needs to connect -----------------------------------------------------------

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None:
            raise RuntimeError("not started")
        port: int = self._server.address[1]
        return port

    @property
    def url(self) -> str:
        """``wss://HOST:PORT`` or ``ws://HOST:PORT``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}"

    @property
    def service_account(self) -> str:
        """The directory that contains ``token``, ``ca.crt`` and ``namespace``, as in a pod."""
        return self._credentials.account.path("")

    @property
    def token_file(self) -> str:
        """The file that contains the bearer token."""
        return self._credentials.account.path("token")

    @property
    def ca_file(self) -> str:
        """The file that contains the authority's certificate. Without TLS it does not exist."""
        return self._credentials.account.path("ca.crt")

    @property
    def authority(self) -> CertificateAuthority | None:
        """The authority that issued the server's certificate. None without TLS, and before :meth:`start`."""
        return self._credentials.authority

    def rotate_token(
        self,
        token: str | None = None,
        *,
        write_file: bool = True,
        overlap: Callable[[], None] = lambda: None,
    ) -> str:
        """Accept only a new token from now on, and return it.

        :param token: the new token; None for a random one.
        :param write_file: whether to replace the token file, too. Otherwise the file keeps the old token.
        :param overlap: is called while both tokens are accepted. A kubelet also replaces the file long before
            the old token expires.
        """
        with self._lifecycle:
            self.old_token, self.token = self.token, token if token is not None else random_token()
            if write_file and self._credentials.exist:
                self._credentials.account.write(token=self.token.encode())
            overlap()
            self.old_token = None
            return self.token

    def rotate_ca(self, overlap: Callable[[], None] | None = None) -> None:
        """Make a new authority and server certificate for later connections, and replace ``ca_file``.

        :param overlap: is called twice while ``ca_file`` contains both authorities, as in a real rotation:
            before the server changes its certificate, and afterwards. If None, both change at once.
        :raises RuntimeError: without TLS, or if the API does not serve.
        """
        with self._lifecycle:
            self._credentials.rotate_authority(overlap)

    def show_certificate(self, certfile: str, keyfile: str) -> None:
        """Show another certificate to later connections, such as an expired or untrusted one.

        :param certfile: file with the certificate (PEM).
        :param keyfile: file with its key (PEM). :meth:`.CertificateAuthority.issue` returns both files.
        :raises OSError: if the files cannot be read, or do not belong together.
        :raises RuntimeError: without TLS, or if the API does not serve.
        """
        with self._lifecycle:
            self._credentials.show_certificate(certfile, keyfile)

    # -- what it saw ------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many TCP connections it has accepted."""
        return 0 if self._server is None else self._server.accepted

    @property
    def live(self) -> int:
        """The number of sessions whose socket is open."""
        with self._changed:
            return len(self._live)

    @property
    def bytes_sent(self) -> int:
        """The sum of every session's ``bytes_sent``."""
        with self._changed:
            return sum(console.bytes_sent for console in self.consoles)

    @property
    def bytes_received(self) -> int:
        """The sum of every session's ``bytes_received``."""
        with self._changed:
            return sum(console.bytes_received for console in self.consoles)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> list[RecordedRequest]:
        """Wait until the API has got ``count`` requests in total, and return all requests.

        :param timeout: seconds.
        :raises TimeoutError: if they do not come in time. The text lists the last ten that came.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                came = "".join(f"\n    {request}" for request in self.requests[-10:]) or " none"
                text = f"{len(self.requests)} of {count} requests came within {timeout:g} s"
                raise TimeoutError(f"{text}; the last ones:{came}")
            return list(self.requests)

    def wait_until_idle(self, timeout: float = 10.0) -> bool:
        """Wait until no session's socket is open. Returns False if that takes longer than ``timeout``."""
        return self.wait_for(lambda: not self._live, timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until ``condition`` holds. Returns False if that takes longer than ``timeout`` seconds.

        :param condition: a function of requests, sessions, ``errors`` or ``tls_failures``. It is called again
            whenever one of them changes, and must not block.
        """
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    # -- one connection ---------------------------------------------------------------------------

    def _connection(self, sock: socket.socket, wire: Wire, peer: Any) -> None:
        try:
            transport = self._transport(sock)
        except (TransportClosed, TimeoutError) as exc:
            with self._changed:
                self.tls_failures.append(str(exc))
                self._changed.notify_all()
            return
        try:
            self._request(transport, wire, peer)
        except (TransportClosed, TimeoutError, EOFError):
            pass  # the client disconnected, or sent no request in time
        finally:
            transport.close()

    def _transport(self, sock: socket.socket) -> Transport:
        context = self._credentials.context
        if context is None:
            return PlainTransport(sock)
        return accept_tls(sock, context, Deadline(_HANDSHAKE_TIMEOUT))

    def _request(self, transport: Transport, wire: Wire, peer: Any) -> None:
        deadline = Deadline(_HANDSHAKE_TIMEOUT)
        try:
            request = parse_request(read_head(transport, deadline), peer)
            body = read_body(transport, request, deadline)
        except BadRequest:
            bad = text_answer(400, "400 Bad Request", (("Connection", "close"),))
            return send_answer(transport, bad, _PLAIN, self._stopping)
        vmi, outcome = self.decide(request, body)
        behaviour = self._behaviour_for(vmi)
        if behaviour.hang and request.tokens("upgrade"):
            self._record(request, None)
            if not self._hanging.wait(request, lambda: self._hangs(request, body)):
                return None
            vmi, outcome = self.decide(request, body)
            behaviour = self._behaviour_for(vmi)
        if isinstance(outcome, Upgrade) and not behaviour.replaces_upgrade:
            return self._session(transport, wire, request, outcome, behaviour)
        answer = behaviour.answer or (outcome if isinstance(outcome, Answer) else _OK)
        silent = behaviour.hang or behaviour.raw is not None
        self._record(request, None if silent else answer.status)
        send_answer(transport, answer, behaviour, self._stopping)

    def _behaviour_for(self, vmi: FakeVMI | None) -> Behaviour:
        return (vmi.behaviour if vmi is not None else None) or self.behaviour or _PLAIN

    def _hangs(self, request: RecordedRequest, body: bytes) -> bool:
        return self._behaviour_for(self.decide(request, body)[0]).hang

    def _record(self, request: RecordedRequest, status: int | None) -> None:
        request.status = status
        with self._changed:
            if request not in self._hanging:  # a request that hung is in the list already
                self.requests.append(request)
            self._hanging.begun(request)
            self._changed.notify_all()

    # -- one session ------------------------------------------------------------------------------

    def _session(
        self,
        transport: Transport,
        wire: Wire,
        request: RecordedRequest,
        upgrade: Upgrade,
        behaviour: Behaviour,
    ) -> None:
        vmi = upgrade.vmi
        offered = _SUBPROTOCOL in request.tokens("sec-websocket-protocol")
        subprotocol = behaviour.subprotocol or (_SUBPROTOCOL if offered else None)
        target = (vmi.namespace, vmi.name, upgrade.subresource)
        link = Link(behaviour.delay, behaviour.bandwidth) if behaviour.slow_link else None
        console = FakeConsole(transport, wire, request, target, subprotocol, link)
        if refusal := self._begin(upgrade, console):
            self._record(request, refusal.status)
            send_answer(transport, refusal, behaviour, self._stopping)
            return console.close()
        try:
            self._record(request, 101)
            head = upgrade_head(request, subprotocol, behaviour)
            if behaviour.coalesce:
                console.hold_back(head)
            else:
                send_bytes(transport, head + behaviour.early, behaviour, self._stopping)
            if not behaviour.eof:
                self._serve(vmi.backend_for(upgrade.subresource), console)
            console.finish()
        finally:
            console.close()
            self._end(vmi, console)

    def _serve(self, backend: Backend, console: FakeConsole) -> None:
        try:
            backend.serve(console)
        except (TransportClosed, EOFError):
            pass  # the connection's end
        except Exception as exc:  # noqa: BLE001 - recorded
            console.error = exc
            # If the session was killed, its backend is not to blame for an OSError.
            if not (console.killed.is_set() and isinstance(exc, OSError)):
                self._fail(exc)

    def _begin(self, upgrade: Upgrade, console: FakeConsole) -> Answer | None:
        """Begin a session, or return why not: since the decision another session may have begun."""
        with self._changed:
            if refusal := upgrade.refusal():
                return refusal
            self.consoles.append(console)
            self._live.append(console)
            taken_over = upgrade.vmi.begin(console)
            stopping = self._stopping.is_set()
        for other in taken_over:
            other.kill()
        if stopping:  # stop() may have listed the live sessions before this one was added
            console.kill()
        return None

    def _end(self, vmi: FakeVMI, console: FakeConsole) -> None:
        with self._changed:
            self._live.remove(console)
            vmi.end(console)
