"""Somebody who makes tokens and publishes the keys: with what tests of keys and claims work."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wsproxy.exceptions import TransportClosed
from wsproxy.net.tls import accept_tls
from wsproxy.net.tls_context import server_context
from wsproxy.net.transport import PlainTransport, Transport
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.connections import ConnectionServer
from wsproxy.testing.kubevirt.console import Wire

from .jws import public_jwk, signed_token

__all__ = ["Issuer", "SigningKey", "http_answer", "wall_clock"]

_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
_TIMEOUT = 60.0


def wall_clock() -> float:
    return time.time()  # noqa: TID251 - tokens are about the wall clock


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole response."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


class SigningKey:
    """A key pair that makes tokens.

    :param algorithm: what it signs with; it decides the kind of key.
    :param kid: its name, in the JWK and in the tokens.
    """

    def __init__(self, algorithm: str, kid: str | None = None) -> None:
        self.algorithm, self.kid = algorithm, kid
        self.private: Any
        if algorithm in _CURVES:
            self.private = ec.generate_private_key(_CURVES[algorithm]())
        elif algorithm in ("EdDSA", "Ed25519"):
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = rsa.generate_private_key(65537, 2048)

    @property
    def pem(self) -> bytes:
        """The public key."""
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, for this one algorithm."""
        found = public_jwk(self.private.public_key())
        return found | {"use": "sig", "alg": self.algorithm} | ({"kid": self.kid} if self.kid else {})

    def token(self, vmi: str = "vm", namespace: str = "lab-1", **more: Any) -> str:
        """Return a token in LabOrchestrator's layout, with more claims, or others."""
        claims = {
            "id": 5,
            "exp": wall_clock() + 600,
            "lab_instance": {"namespace_name": namespace, "allowed_vmi_names": [vmi]},
        }
        headers = {"kid": self.kid} if self.kid else None
        return signed_token(claims | more, self.private, self.algorithm, headers)


class Issuer:
    """A server with a JWK Set, from the start to :meth:`stop` or the end of a ``with``.

    :param tls: whether it speaks TLS.
    :ivar answer: the whole response; see :meth:`publish`.
    :ivar serve: instead of an answer, what to do with a connection after its request.
    :ivar requests: the heads of all requests, appended before they are answered.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.answer = http_answer(b'{"keys": []}')
        self.serve: Callable[[Transport], None] | None = None
        self.requests: list[bytes] = []
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._directory = tempfile.TemporaryDirectory(prefix="issuer-")
        self._tls = tls
        authority = CertificateAuthority(self._directory.name)
        self.ca_file = authority.ca_file
        self._context = server_context(*authority.issue())
        self._server = ConnectionServer("127.0.0.1", 0, self._connection, self.errors.append)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.address[1]}/keys?v=1"
        self._server.start()

    def publish(self, *jwks: dict[str, Any]) -> None:
        """Answer with these keys from now on."""
        self.answer = http_answer(json.dumps({"keys": jwks}).encode())

    def wait_for_requests(self, number: int) -> bool:
        """Wait until there were so many requests in all; return False if that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= number, _TIMEOUT)

    def stop(self) -> None:
        """End it."""
        left = self._server.stop(Deadline(_TIMEOUT), lambda: None)
        self._directory.cleanup()
        assert not left, left
        assert not self.errors, self.errors

    def __enter__(self) -> Issuer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _connection(self, sock: socket.socket, wire: Wire, peer: Any) -> None:
        deadline = Deadline(_TIMEOUT)
        try:
            transport = (
                accept_tls(sock.dup(), self._context, deadline) if self._tls else PlainTransport(sock.dup())
            )
        except (TransportClosed, TimeoutError):
            return  # a client that does not like the certificate
        try:
            self._answer(transport, deadline)
        except (TransportClosed, TimeoutError):
            pass
        finally:
            transport.close()

    def _answer(self, transport: Transport, deadline: Deadline) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = transport.recv(4096, deadline)
            if not received:
                return
            head += received
        answer, serve = self.answer, self.serve  # as they were before the request counts
        with self._changed:
            self.requests.append(head)
            self._changed.notify_all()
        if serve:
            serve(transport)
        else:
            transport.send(answer, deadline)
