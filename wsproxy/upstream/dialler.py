"""Opens the stream of one VMI at the Kubernetes API.

websocket-client does the opening handshake. TCP and TLS are connected here, under one deadline, because
it would follow redirects with our credentials, obey proxies named in the environment and take a timeout
for each call instead of one for all. It is given a stand-in for a socket that reads the response head
whole, shows it only what it has to judge, and adds the credentials on the way out, so that neither its
errors nor its trace can hold them.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import websocket
from wsproto.utilities import generate_accept_token

from ..config import Config
from ..exceptions import (
    ConsoleBusy,
    Refused,
    TransportClosed,
    UpstreamRefused,
    UpstreamTimeout,
    VMINoConsole,
    VMINotFound,
    VMINotRunning,
)
from ..net.resolver import Resolver
from ..net.response import ResponseStream, read_good
from ..net.sockets import connect_tcp
from ..net.tls import ClientTLS, TLSTransport
from ..net.transport import PlainTransport, Transport
from ..protocol.nesting import nested_deeper_than
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..runtime.reloading import Reloaded
from .location import UpstreamURL

__all__ = ["Dialler", "Upstream", "read_token", "refusal_of"]

logger = get_logger("wsproxy.upstream")

_MAX_RESPONSE_HEAD = 64 * 1024
_MAX_ERROR_BODY = 64 * 1024
_MAX_API_TEXT = 120
_MAX_STATUS_BRACKETS = 500
_RECEIVE = 16 * 1024
_KEY = b"Sec-WebSocket-Key: "
_SHOWN = (b"upgrade:", b"connection:", b"sec-websocket-accept:")
# virt-api's own texts, where they come with a 500 because nobody said otherwise, and what they mean.
_MEANT = {
    400: re.compile(r"VMI is not running|No graphics devices are present\."),
    404: re.compile(r'virtualmachineinstance\.kubevirt\.io "[a-z0-9.-]+" not found'),
}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?= |\r)")

OnSocket = Callable[[socket.socket], None]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Upstream:
    """An open stream.

    :ivar transport: starts at the first byte behind the 101.
    :ivar subprotocol: the API's choice, None if it made none.
    """

    transport: Transport
    subprotocol: str | None


class Dialler:
    """Connects to the Kubernetes API. Safe from every thread.

    :param config: where the API is and how to get in.
    :param resolver: for a host that is no literal address.
    """

    def __init__(self, config: Config, resolver: Resolver) -> None:
        self._url = config.upstream
        self._resolver = resolver
        self._tls: ClientTLS | None = None
        self._token: Reloaded[str] | None = None
        if config.upstream.tls:
            self._tls = ClientTLS(config.sslopt)
            path = config.token_file
            self._token = Reloaded("the service-account token", [path], lambda: read_token(path))

    def dial(
        self, path: str, subprotocols: Sequence[str], deadline: Deadline, on_socket: OnSocket
    ) -> Upstream:
        """Open ``path`` and return its stream once the API answered 101.

        Blocks until the deadline, which covers name, TCP, TLS and handshake together. A 401 is tried
        once more if the token file holds another token by then.

        :param path: API path, built from checked names.
        :param subprotocols: what to offer.
        :param on_socket: told of every socket before it blocks, so that another thread can shut it down.
        :raises UpstreamTimeout: if the deadline passes.
        :raises Refused: the API's refusal in our terms, :class:`UpstreamRefused` for all that is not
            the client's business.
        """
        return _translated(
            lambda: self._try_twice(
                lambda credentials: self._open(path, subprotocols, credentials, deadline, on_socket)
            )
        )

    def get(
        self, path: str, max_size: int, deadline: Deadline, on_socket: OnSocket = lambda sock: None
    ) -> bytes:
        """Return what the API answers ``GET path`` with 200 to. Otherwise as :meth:`dial`.

        :param max_size: of the answer, bytes; a larger one is refused.
        """
        return _translated(
            lambda: self._try_twice(
                lambda credentials: self._get(path, max_size, credentials, deadline, on_socket)
            )
        )

    def reload(self) -> None:
        """Read CA, client certificate and token again at once. Any thread; blocks on the file system only."""
        if self._tls:
            self._tls.reload()
        if self._token:
            self._token.reload()

    def request(self, path: str, deadline: Deadline, body: bytes = b"") -> tuple[int, bytes]:
        """Send ``GET path`` with our credentials and return status and body. Blocks until the deadline.

        :param body: JSON to send, by POST then.
        :raises TimeoutError: if the deadline passes.
        :raises TransportClosed: if the API cannot be reached, or speaks no HTTP.
        :raises OSError: if the CA or the token cannot be read.
        """
        transport = self._connect(deadline, lambda sock: None)
        try:
            stream = _HandshakeStream(transport, deadline, self._credentials())
            stream.send(self._request_head(path, body))
            if body:
                transport.send(body, deadline)
            status = stream.read_head()
            return status, stream.read_body()
        finally:
            transport.close()

    def _request_head(self, path: str, body: bytes = b"") -> bytes:
        host = self._url.url("").partition("://")[2].partition("/")[0]
        method = "POST" if body else "GET"
        lines = [f"{method} {self._url.path}{path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _try_twice(self, attempt: Callable[[str | None], _Result]) -> _Result:
        """Call ``attempt`` with the credentials, and with others if the API refused these."""
        credentials = self._credentials()
        try:
            return attempt(credentials)
        except _Unauthorized:
            fresh = self._credentials()
            if fresh == credentials:
                raise
            return attempt(fresh)

    def _credentials(self) -> str | None:
        return self._token.get() if self._token else None

    def _connect(self, deadline: Deadline, on_socket: OnSocket) -> Transport:
        addresses = self._resolver.resolve(self._url.host, self._url.port, deadline)
        sock = connect_tcp(addresses, deadline, on_socket)
        try:
            if self._tls is None:
                return PlainTransport(sock)
            return self._tls.connect(sock, self._url.host, deadline, on_socket)
        except BaseException:
            sock.close()
            raise

    def _open(
        self,
        path: str,
        subprotocols: Sequence[str],
        credentials: str | None,
        deadline: Deadline,
        on_socket: OnSocket,
    ) -> Upstream:
        transport = self._connect(deadline, on_socket)
        try:
            stream = _HandshakeStream(transport, deadline, credentials)
            _shake_hands(stream, self._url, path, subprotocols)
            chosen = _chosen_subprotocol(stream, subprotocols)
            stream.hand_over()
            if self._tls and isinstance(transport, TLSTransport):
                self._tls.keep_session(transport)
            return Upstream(transport, chosen)
        except BaseException:
            transport.close()
            raise

    def _get(
        self, path: str, max_size: int, credentials: str | None, deadline: Deadline, on_socket: OnSocket
    ) -> bytes:
        transport = self._connect(deadline, on_socket)
        try:
            stream = _HandshakeStream(transport, deadline, credentials)
            stream.send(self._request_head(path))
            status = stream.read_head()
            if status == 401:
                raise _Unauthorized(stream.read_body())
            if status != 200:
                raise refusal_of(status, stream.read_body())
            return stream.read_good(max_size)
        except ValueError as exc:
            raise UpstreamRefused("the Kubernetes API's answer is too large", log_detail=str(exc)) from None
        finally:
            transport.close()


def _translated(attempt: Callable[[], _Result]) -> _Result:
    """Return what ``attempt`` does, or refuse the client in our terms."""
    try:
        return attempt()
    except _Unauthorized as exc:
        raise refusal_of(401, exc.body) from None
    except TimeoutError as exc:
        raise UpstreamTimeout("the Kubernetes API did not answer in time", log_detail=str(exc)) from exc
    except (TransportClosed, OSError, ValueError) as exc:
        detail = f"{type(exc.__cause__ or exc).__name__}: {exc}"
        raise UpstreamRefused("the Kubernetes API cannot be reached", log_detail=detail) from exc


class _Unauthorized(Exception):
    """The API does not take our token."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def read_token(path: str) -> str:
    """Return the bearer token that a file holds.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if what it holds cannot be a bearer token.
    """
    with open(path, encoding="ascii", errors="strict") as file:
        token = file.read().strip()
    if not re.fullmatch(r"[!-~]+", token):  # a line break would be a header of its own
        raise ValueError(f"{path} holds no bearer token")
    return token


def _shake_hands(stream: _HandshakeStream, url: UpstreamURL, path: str, subprotocols: Sequence[str]) -> None:
    client = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    headers = {
        # Not its option "subprotocols": with that, an API that picks none would be an error.
        "Sec-WebSocket-Protocol": ", ".join(subprotocols),
        "User-Agent": "wsproxy",
    }
    error: Exception | None = None
    try:
        client.connect(  # type: ignore[no-untyped-call]
            url.url(path), socket=stream, header=headers, suppress_origin=True, redirect_limit=0
        )
    except websocket.WebSocketTimeoutException:  # what it makes of our own
        raise TimeoutError("no answer to the opening handshake in time") from None
    except (websocket.WebSocketException, ValueError) as exc:
        error = exc
    finally:
        vars(client).clear()  # the socket is ours; and it holds itself, which would be left to the collector
    status = stream.status
    if status == 401:
        raise _Unauthorized(stream.read_body())
    if status is not None and status != 101:
        raise refusal_of(status, stream.read_body())
    accepted = stream.values(b"sec-websocket-accept") == [generate_accept_token(stream.key).decode("ascii")]
    if error is not None or status is None or not accepted:
        detail = f"the handshake failed: {type(error).__name__ if error else 'Sec-WebSocket-Accept is wrong'}"
        raise UpstreamRefused("the Kubernetes API did not answer as a WebSocket server", log_detail=detail)
    if stream.values(b"sec-websocket-extensions"):
        raise UpstreamRefused("the Kubernetes API agreed to an extension that was not offered")


def _chosen_subprotocol(stream: _HandshakeStream, offered: Sequence[str]) -> str | None:
    chosen = stream.values(b"sec-websocket-protocol")
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0].lower() not in (name.lower() for name in offered):
        raise UpstreamRefused("the Kubernetes API chose a subprotocol that was not offered")
    return chosen[0]


class _HandshakeStream:
    """What websocket-client takes for a socket during the opening handshake.

    :param transport: a connected transport.
    :param deadline: bounds every call.
    :param credentials: bearer token added to the request, None for none.
    :ivar key: the request's Sec-WebSocket-Key, b"" before it was sent.
    :ivar status: the response's status, None before it came.
    """

    def __init__(self, transport: Transport, deadline: Deadline, credentials: str | None) -> None:
        self._transport = transport
        self._deadline = deadline
        self._credentials = credentials
        self._shown = b""  # what websocket-client may still read
        self._head = b""
        self._fields: list[tuple[bytes, bytes]] = []  # of the response, names in lower case
        self._rest = b""  # what came behind the head
        self.key = b""
        self.status: int | None = None

    # The part of a socket's interface that websocket-client calls

    def send(self, data: bytes) -> int:
        # Its process-wide cookie jar may hold cookies that others in this process got from the host.
        lines = [line for line in data.split(b"\r\n")[:-2] if not line.lower().startswith(b"cookie:")]
        self.key = next((line[len(_KEY) :] for line in lines if line.startswith(_KEY)), b"")
        if self._credentials is not None:
            lines.append(b"Authorization: Bearer " + self._credentials.encode("ascii"))
        self._transport.send(b"\r\n".join([*lines, b"", b""]), self._deadline)
        return len(data)

    def recv(self, size: int) -> bytes:
        # It asks for single bytes and looks for a line feed only. So it is given lines and their ends in
        # turn, whatever the size: byte by byte was the longest step of an opening.
        if self.status is None:
            self.read_head()
        cut = self._shown.find(b"\n") or 1
        part, self._shown = self._shown[:cut], self._shown[cut:]
        return part

    def gettimeout(self) -> float | None:
        return None

    def settimeout(self, timeout: float | None) -> None:
        pass  # the deadline rules

    def close(self) -> None:
        pass  # the transport's owner closes it

    # For ourselves

    def read_head(self) -> int:
        """Read the response head and return its status.

        :raises TransportClosed: if the stream ends first, the head is too large, or it is not HTTP.
        :raises TimeoutError: if the deadline passes.
        """
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MAX_RESPONSE_HEAD:
                raise TransportClosed("the response head is too large")
            received = self._transport.recv(_RECEIVE, self._deadline)
            if not received:
                raise TransportClosed("the connection ended before a response")
            data += received
        self._head, self._rest = data[: end + 4], data[end + 4 :]
        match = _STATUS_LINE.match(self._head)
        if match is None:
            raise TransportClosed("the response is not HTTP/1.1")
        self.status = int(match[1])
        # Only what it has to judge: it would keep cookies for every other session of this process and
        # read a body without a limit.
        first, *lines = self._head.split(b"\r\n")
        shown = [line for line in lines if line.lower().startswith(_SHOWN)]
        self._shown = b"\r\n".join([first, *shown, b"", b""])
        fields = [line.partition(b":") for line in lines]
        self._fields = [(name.strip().lower(), value.strip()) for name, _, value in fields]
        return self.status

    def values(self, name: bytes) -> list[str]:
        """Return the values of a response header, by its lower-case name."""
        return [value.decode("latin-1") for key, value in self._fields if key == name]

    def read_body(self) -> bytes:
        """Read the body of a refusal, as much as comes in time and at most 64 KiB; never raises."""
        self._transport.unread(self._head + self._rest)  # read again, from its first byte on
        stream, body = ResponseStream(self._transport, self._deadline), b""
        try:
            # Closed here, because as garbage one that was not read to its end may complain on stderr.
            with closing(http.client.HTTPResponse(stream)) as response:  # type: ignore[arg-type]
                response.begin()
                while len(body) < _MAX_ERROR_BODY and (part := response.read1(_RECEIVE)):
                    body += part
        except (http.client.HTTPException, OSError, TransportClosed, ValueError) as exc:
            logger.debug("the body of a refusal is cut short: %s", type(exc).__name__)
        return body[:_MAX_ERROR_BODY]

    def read_good(self, max_size: int) -> bytes:
        """Read the body of a 200. See :func:`.read_good`."""
        self._transport.unread(self._head + self._rest)
        return read_good(ResponseStream(self._transport, self._deadline), max_size)

    def hand_over(self) -> None:
        """Give what came behind the 101 to the transport's next reader: frames already."""
        self._transport.unread(self._rest)


def refusal_of(status: int, body: bytes) -> Refused:
    """Translate a refusal of the Kubernetes API or of KubeVirt into one of ours.

    Only texts about the VMI itself are passed on. Those of a 401, 403 or 5xx name our service account
    or the cluster's inside, and go to the log.

    :param status: the response's HTTP status, not 101.
    :param body: its body, mostly a ``Status`` object (Kubernetes API conventions).
    """
    text, answered = _text_of(body), status
    if status == 500:
        status = next((meant for meant, known in _MEANT.items() if known.fullmatch(text)), status)
    low = text.lower()
    shown = text.encode()[:_MAX_API_TEXT].decode(errors="ignore")
    detail = f"HTTP {answered} from the API: {text[:500]}"
    if status == 404 and "virtualmachineinstance" in low and "not found" in low:
        return VMINotFound(shown, log_detail=detail)
    if status in (400, 409):
        if "no graphics devices" in low or "no serial consoles" in low:
            return VMINoConsole(shown, log_detail=detail)
        if "not running" in low or "failed status" in low or "paused" in low or "phase is" in low:
            return VMINotRunning(shown, log_detail=detail)
        return UpstreamRefused(f"the Kubernetes API refused: {shown}", log_detail=detail)
    if "active vnc connection" in low:
        return ConsoleBusy("Active VNC connection. Request denied.", log_detail=detail)
    if status == 404:
        return UpstreamRefused(f"the Kubernetes API refused: {shown}", log_detail=detail)
    return UpstreamRefused("the Kubernetes API refused", log_detail=detail)


def _text_of(body: bytes) -> str:
    """Return the message of a Status object, or the body itself, as one line without control characters."""
    text = body.decode(errors="replace")
    try:
        status = None if nested_deeper_than(_MAX_STATUS_BRACKETS, body) else json.loads(text)
        if isinstance(status, dict) and isinstance(status.get("message"), str):
            text = status["message"].encode(errors="replace").decode()  # "\\ud800" is JSON, but not UTF-8
    except ValueError:
        pass
    # Not printable are controls, line breaks, and marks that turn the direction of what follows.
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
