"""The dialler against a simulated API that follows the protocol, or violates it."""

from __future__ import annotations

import logging
import os
import queue
import socket
import ssl
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import websocket
from websocket._handshake import CookieJar

from wsproxy.config import Config
from wsproxy.exceptions import (
    ConsoleBusy,
    Refused,
    TransportClosed,
    UpstreamRefused,
    UpstreamTimeout,
    VMINoConsole,
    VMINotFound,
    VMINotRunning,
)
from wsproxy.net.resolver import Resolver
from wsproxy.net.sockets import wake
from wsproxy.net.tls import TLSTransport
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import SECRET, LeakTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, encode_frame
from wsproxy.testing.kubevirt.http import Answer, Behaviour, status_answer, text_answer
from wsproxy.upstream.dialler import Dialler, Upstream, read_token
from wsproxy.upstream.errors import refusal_of
from wsproxy.upstream.location import DEFAULT_API_PATH

_NAMESPACE = "lab-1"
_OFFER = ("plain.kubevirt.io",)
_SHORT = 1.0  # a dial timeout that has to pass; what comes before it passes takes some hundredths
_SOON = 20.0  # within which it has passed, however busy the machine is
_LONG = 60.0  # a dial timeout that must not matter
_NOT_FOUND = 'virtualmachineinstance.kubevirt.io "vm" not found'
_IN_USE = (
    "Internal error occurred: dialing virt-handler: Can't connect to websocket (503): websocket: bad "
    "handshake: application info: Active VNC connection. Request denied."
)
_RBAC = (
    'virtualmachineinstances.subresources.kubevirt.io "vm" is forbidden: User '
    '"system:serviceaccount:wsproxy:wsproxy" cannot get resource "virtualmachineinstances/vnc"'
)


def _path(vmi: str = "vm", subresource: str = "vnc") -> str:
    base = DEFAULT_API_PATH.format(namespace=_NAMESPACE, vmi_name=vmi).rpartition("/")[0]
    return f"{base}/{subresource}"


def _read_to_the_end(console: FakeConsole) -> None:
    while True:
        console.recv_frame()


def _ignore(sock: socket.socket) -> None:
    pass


@contextmanager
def full_listener() -> Iterator[str]:
    """Yield the URL of a port whose backlog is full, so that it does not answer connections."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"wss://127.0.0.1:{listener.getsockname()[1]}"


class DiallerTestCase(LeakTestCase):
    """Dials a simulated API with one VMI that sends nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.api = self.start_api()

    def start_api(self, host: str = "127.0.0.1", **options: Any) -> FakeKubeVirtAPI:
        api = FakeKubeVirtAPI(host, **options)
        api.start()
        self.addCleanup(lambda: self.assertEqual(api.errors, []))
        self.addCleanup(api.stop)
        api.add_vmi("vm", _NAMESPACE, backend=Script(_read_to_the_end))
        return api

    def dialler(
        self, api: FakeKubeVirtAPI | None = None, resolver: Resolver | None = None, **options: Any
    ) -> Dialler:
        api = api or self.api
        given: dict[str, Any] = {
            "remote_url": api.url,
            "secret_key": SECRET,
            "local_dev_mode": not api.tls,
            "sslopt": {"ca_certs": api.ca_file},
            "token_file": api.token_file,
        }
        resolver = resolver or Resolver()
        self.addCleanup(resolver.stop)
        return Dialler(Config(**{**given, **options}).upstream_rules, resolver)

    def dial(
        self,
        dialler: Dialler | None = None,
        *,
        path: str = _path(),
        offer: tuple[str, ...] = _OFFER,
        timeout: float = _LONG,
        on_socket: Callable[[socket.socket], None] = _ignore,
    ) -> Upstream:
        upstream = (dialler or self.dialler()).dial(path, offer, Deadline(timeout), on_socket)
        self.addCleanup(upstream.transport.close)
        return upstream

    def refused(self, kind: type[Refused] = UpstreamRefused, **options: Any) -> Refused:
        """Dial, and return the refusal, which must be of exactly that kind."""
        with self.assertRaises(Refused) as caught:
            self.dial(**options)
        self.assertIs(type(caught.exception), kind, caught.exception.log_detail)
        return caught.exception

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.assertLess(time.monotonic() - started, seconds)

    def serve_bytes(self, reply: bytes) -> str:
        """Answer one request with ``reply`` and nothing more until the client leaves; return the URL."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener, listener.accept()[0] as sock:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += sock.recv(4096)
                sock.sendall(reply)
                while sock.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join, 10)
        return f"ws://127.0.0.1:{listener.getsockname()[1]}"


class Handshake(DiallerTestCase):
    """What counts as an open stream."""

    def test_right_answer(self) -> None:
        """A 101 with the right Accept opens the stream, and the result has the API's subprotocol."""
        self.assertEqual(self.dial().subprotocol, "plain.kubevirt.io")

    def test_no_subprotocol_is_normal(self) -> None:
        """An API that chooses no subprotocol is accepted."""
        self.assertIsNone(self.dial(offer=("binary",)).subprotocol)

    def test_empty_headers(self) -> None:
        """A header without a value chooses nothing: no subprotocol, and no extension."""
        for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"):
            for value in ("", " ", "\t"):
                with self.subTest(name=name, value=value):
                    self.api.behaviour = Behaviour(headers=((name, value),))
                    self.assertIsNone(self.dial(offer=("binary",)).subprotocol)
                    self.assertEqual(self.dial().subprotocol, "plain.kubevirt.io")
        self.api.behaviour = Behaviour(headers=(("Sec-WebSocket-Protocol", ","),))
        self.assertEqual(self.refused().status, 502)

    def test_choice_from_several_in_its_own_case(self) -> None:
        """The result has the API's choice among several in the API's spelling."""
        self.api.behaviour = Behaviour(subprotocol="Binary")
        self.assertEqual(self.dial(offer=("binary", *_OFFER)).subprotocol, "Binary")

    def test_wrong_accept(self) -> None:
        """A 101 without the right Accept is refused."""
        for accept in ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "", "x"):
            with self.subTest(accept=accept):
                self.api.behaviour = Behaviour(accept=accept)
                self.refused()

    def test_doubled_accept(self) -> None:
        """A second Accept header is refused."""
        self.api.behaviour = Behaviour(headers=(("Sec-WebSocket-Accept", "x"),))
        self.refused()

    def test_missing_upgrade_headers(self) -> None:
        """A 101 without Upgrade, Connection and Accept is refused."""
        self.api.behaviour = Behaviour(answer=Answer(101))
        self.refused()

    def test_unoffered_subprotocol(self) -> None:
        """A subprotocol that was not offered is refused."""
        self.api.behaviour = Behaviour(subprotocol="chat")
        self.assertEqual(self.refused().status, 502)

    def test_two_subprotocols(self) -> None:
        """Two subprotocols are refused."""
        self.api.behaviour = Behaviour(headers=(("Sec-WebSocket-Protocol", "plain.kubevirt.io"),))
        self.refused()

    def test_extension(self) -> None:
        """An extension that the proxy did not offer is refused."""
        self.api.behaviour = Behaviour(headers=(("Sec-WebSocket-Extensions", "permessage-deflate"),))
        self.assertEqual(self.refused().status, 502)

    def test_not_http(self) -> None:
        """A response that is not HTTP/1.x is refused."""
        for raw in (b"RFB 003.008\n\r\n\r\n", b"HTTP/2 101 \r\n\r\n", b"\x15\x03\x03\0\x02\x02\n", b""):
            with self.subTest(raw=raw):
                self.api.behaviour = Behaviour(raw=raw)
                self.refused()

    def test_bytes_behind_the_101(self) -> None:
        """Frames in the same write as the 101 are the first that the transport delivers."""
        frame = encode_frame(BINARY, b"RFB 003.008\n")
        self.api.behaviour = Behaviour(early=frame)
        upstream = self.dial()
        received = b""
        while len(received) < len(frame):
            received += upstream.transport.recv(5, Deadline(5))
        self.assertEqual(received, frame)

    def test_many_bytes_behind_the_101(self) -> None:
        """That holds for more than one read's worth, and through ``recv_into`` too."""
        frame = encode_frame(BINARY, os.urandom(200_000))
        self.api.behaviour = Behaviour(early=frame)
        upstream = self.dial()
        buffer, received = memoryview(bytearray(4096)), b""
        while len(received) < len(frame):
            received += bytes(buffer[: upstream.transport.recv_into(buffer)])
        self.assertEqual(received, frame)

    def test_answer_in_single_bytes(self) -> None:
        """A 101 that comes byte by byte within the deadline is accepted."""
        self.api.behaviour = Behaviour(drip=0.0005, early=encode_frame(BINARY, b"x"))
        upstream = self.dial()
        self.assertEqual(upstream.transport.recv(1, Deadline(5)), b"\x82")


class Request(DiallerTestCase):
    """What the API sees."""

    def test_exact_headers(self) -> None:
        """The request has these headers, each once, and no other."""
        self.dial(offer=("binary", *_OFFER))
        request = self.api.requests[0]
        headers = {name.lower(): value for name, value in request.headers}
        self.assertEqual(len(headers), len(request.headers), "a header is doubled")
        self.assertRegex(headers.pop("sec-websocket-key"), r"\A[A-Za-z0-9+/]{22}==\Z")
        self.assertEqual(
            headers,
            {
                "host": f"127.0.0.1:{self.api.port}",
                "connection": "Upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-protocol": "binary, plain.kubevirt.io",
                "authorization": f"Bearer {self.api.token}",
                "user-agent": "wsproxy",
            },
        )
        self.assertEqual((request.method, request.target), ("GET", _path()))

    def test_a_key_is_used_once(self) -> None:
        """Every handshake has a key of its own."""
        dialler = self.dialler()
        for _ in range(3):
            self.dial(dialler)
        self.assertEqual(len({request.header("sec-websocket-key") for request in self.api.requests}), 3)

    def test_dev_mode_sends_no_token(self) -> None:
        """Without TLS no Authorization header is sent, whatever token file there is."""
        api = self.start_api(tls=False)
        self.dial(self.dialler(api))
        self.assertEqual(api.requests[0].values("authorization"), [])

    def test_path_of_the_remote_url(self) -> None:
        """A path in the API's URL goes in front of every API path."""
        self.refused(dialler=self.dialler(remote_url=self.api.url + "/k8s/clusters/c-1/"))
        self.assertEqual(self.api.requests[0].target, "/k8s/clusters/c-1" + _path())

    def test_ipv6_host(self) -> None:
        """An IPv6 address is dialled, verified against the certificate, and bracketed in Host."""
        api = self.start_api("::1")
        self.dial(self.dialler(api))
        self.assertEqual(api.requests[0].values("host"), [f"[::1]:{api.port}"])

    def test_name(self) -> None:
        """A name is resolved, and verified against the certificate."""
        self.dial(self.dialler(remote_url=f"wss://localhost:{self.api.port}"))
        self.assertEqual(self.api.requests[0].values("host"), [f"localhost:{self.api.port}"])

    def test_second_address_is_tried(self) -> None:
        """When a name's first address does not answer, the next one is dialled."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()
        addresses = ((socket.AF_INET, closed), (socket.AF_INET, ("127.0.0.1", self.api.port)))
        resolver = Resolver(ask=lambda host, port: addresses)
        self.dial(self.dialler(remote_url=f"wss://localhost:{self.api.port}", resolver=resolver))

    def test_plain_request(self) -> None:
        """An ordinary GET carries the credentials and returns status and body."""
        status, body = self.dialler().request("/version", Deadline(5))
        self.assertEqual(status, 200)
        self.assertIn(b"gitVersion", body)
        self.assertEqual(self.api.requests[0].values("authorization"), [f"Bearer {self.api.token}"])

    def test_plain_request_is_refused(self) -> None:
        """A refusal of an ordinary GET is returned as its status."""
        self.api.rotate_token(write_file=False)
        self.assertEqual(self.dialler().request("/version", Deadline(5))[0], 401)

    def test_plain_request_ends_by_its_deadline(self) -> None:
        """An ordinary GET without an answer ends at the deadline."""
        self.api.behaviour = Behaviour(hang=True)
        with self.within(_SOON), self.assertRaises(TimeoutError):
            self.dialler().request("/version", Deadline(_SHORT))


class Secrets(DiallerTestCase):
    """The service account's token goes to the configured API and nowhere else."""

    def test_redirect_is_not_followed(self) -> None:
        """No redirect is followed, so its target never sees the token."""
        second = self.start_api()
        for status in (301, 302, 303, 307, 308):
            with self.subTest(status=status):
                self.api.behaviour = Behaviour.redirect(second.url + _path(), status)
                refusal = self.refused()
                self.assertEqual(refusal.message, "the Kubernetes API refused")
        self.assertEqual(second.connections, 0)
        self.assertEqual(self.api.connections, 5)

    def test_cookie_is_not_kept(self) -> None:
        """A Set-Cookie of the API is neither stored nor sent again."""
        jar = dict(CookieJar.jar)
        dialler = self.dialler(remote_url=f"wss://localhost:{self.api.port}")
        cookie = ("Set-Cookie", "session=secret; Domain=localhost")
        for behaviour in (
            Behaviour(headers=(cookie,)),
            Behaviour(answer=Answer(404, b"", (cookie,))),
            Behaviour(answer=Answer(302, b"", (cookie, ("Location", "/")))),
        ):
            self.api.behaviour = behaviour
            try:
                self.dial(dialler)
            except UpstreamRefused:
                pass
        self.api.behaviour = None
        self.dial(dialler)
        self.assertEqual(CookieJar.jar, jar)
        self.assertEqual([request.values("cookie") for request in self.api.requests], [[]] * 4)

    def test_cookie_of_somebody_else_is_not_sent(self) -> None:
        """A cookie that other code in the process got from the same host is not sent."""
        self.addCleanup(CookieJar.jar.clear)
        CookieJar.add("planted=1; Domain=localhost")
        CookieJar.add("planted=2; Domain=127.0.0.1")
        self.assertIn("planted", CookieJar.get("localhost"))
        self.dial(self.dialler(remote_url=f"wss://localhost:{self.api.port}"))
        self.dial()
        self.assertEqual([request.values("cookie") for request in self.api.requests], [[], []])

    def test_environment_is_ignored(self) -> None:
        """Proxies, a key log and a CA bundle named in the environment are not used."""
        with socket.create_server(("127.0.0.1", 0)) as trap, tempfile.TemporaryDirectory() as directory:
            keylog = os.path.join(directory, "keys")
            trap.setblocking(False)
            url = f"http://127.0.0.1:{trap.getsockname()[1]}"
            names = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy")
            environ = dict.fromkeys((*names, *(name.upper() for name in names)), url)
            environ |= {
                "SSLKEYLOGFILE": keylog,
                "WEBSOCKET_CLIENT_CA_BUNDLE": self.api.ca_file,
                "no_proxy": "",
            }
            with mock.patch.dict(os.environ, environ):
                self.dial()
                self.dial(self.dialler(remote_url=f"wss://localhost:{self.api.port}"))
                refusal = self.refused(dialler=self.dialler(sslopt={"ca_certs": self.other_ca(directory)}))
            self.assertIn("certificate verify failed", refusal.log_detail or "")
            self.assertFalse(os.path.exists(keylog))
            with self.assertRaises(BlockingIOError):
                trap.accept()

    def other_ca(self, directory: str) -> str:
        return CertificateAuthority(directory).ca_file

    def test_token_with_a_line_break(self) -> None:
        """A token file that would inject a header is refused before anything is sent."""
        for text in ("abc\r\nX-Evil: 1", "abc\nX", "two words", "", "\n", "\x00"):
            with self.subTest(text=text), tempfile.NamedTemporaryFile("w", newline="") as file:
                file.write(text)
                file.flush()
                refusal = self.refused(dialler=self.dialler(token_file=file.name))
                self.assertIn("holds no bearer token", refusal.log_detail or "")
                if text.strip():
                    self.assertNotIn(text, refusal.log_detail or "")
        self.assertEqual(self.api.requests, [])

    def test_token_that_is_not_ascii(self) -> None:
        """A token file with other bytes than ASCII is refused."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"abc\xff")
            file.flush()
            self.refused(dialler=self.dialler(token_file=file.name))

    def test_token_is_stripped(self) -> None:
        """White space around the token, as in secrets made by hand, is no part of it."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(f"  {self.api.token}\n")
            file.flush()
            self.assertEqual(read_token(file.name), self.api.token)
            self.dial(self.dialler(token_file=file.name))

    def test_missing_token_file(self) -> None:
        """A missing token file gives the client a 502, and the log has the reason."""
        refusal = self.refused(dialler=self.dialler(token_file=self.api.token_file + "-missing"))
        self.assertIn("FileNotFoundError", refusal.log_detail or "")
        self.assertNotIn("missing", refusal.message)

    def test_token_is_in_no_trace(self) -> None:
        """websocket-client's own trace at its loudest does not show the token."""
        with self.assertLogs("websocket", "DEBUG") as logs:
            websocket.enableTrace(True, handler=logging.NullHandler())
            self.addCleanup(websocket.enableTrace, False)
            self.dial()
        self.assertNotIn(self.api.token, "\n".join(logs.output))


class Credentials(DiallerTestCase):
    """Rotation of the token and of the authority."""

    def test_rotated_token_is_read(self) -> None:
        """If a token is replaced as kubelet does it, the next dial uses it, and no dial fails."""
        dialler = self.dialler()
        self.dial(dialler)
        self.api.rotate_token()
        self.dial(dialler)
        self.assertEqual([request.status for request in self.api.requests], [101, 101])

    def test_plain_file_is_read_again(self) -> None:
        """A token file that is not a link is read again when it is replaced or rewritten."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "token")
            for replaced in (False, True, False):
                token = self.api.rotate_token()
                with open(path + ".new" if replaced else path, "w") as file:
                    file.write(token)
                if replaced:
                    os.replace(path + ".new", path)
                if not self.api.requests:
                    dialler = self.dialler(token_file=path)
                self.dial(dialler)
        self.assertEqual([request.status for request in self.api.requests], [101] * 3)

    def test_retry_with_a_fresh_token(self) -> None:
        """If the token has changed after a 401, the dialler tries the new one, once."""
        rotated: list[str] = []

        def rotate(sock: socket.socket) -> None:
            if not rotated:
                rotated.append(self.api.rotate_token())

        old = self.api.token
        self.dial(on_socket=rotate)
        self.assertEqual([request.status for request in self.api.requests], [401, 101])
        sent = [request.header("authorization") for request in self.api.requests]
        self.assertEqual(sent, [f"Bearer {old}", f"Bearer {rotated[0]}"])

    def test_no_third_try(self) -> None:
        """A second 401 is the end, even if the token has changed again."""
        self.refused(on_socket=lambda sock: self.api.rotate_token() and None)
        self.assertEqual([request.status for request in self.api.requests], [401, 401])

    def test_no_retry_with_the_same_token(self) -> None:
        """If the token has not changed after a 401, there is no second try; the client gets no text of it."""
        self.api.rotate_token(write_file=False)
        refusal = self.refused()
        self.assertEqual(len(self.api.requests), 1)
        self.assertEqual(refusal.message, "the Kubernetes API refused")
        self.assertEqual(refusal.log_detail, "HTTP 401 from the API: Unauthorized")

    def test_both_tries_share_one_deadline(self) -> None:
        """The second try has what the first one left of the deadline."""

        def rotate(sock: socket.socket) -> None:
            if isinstance(sock, ssl.SSLSocket) and not self.api.requests:
                self.api.rotate_token()
            elif self.api.requests:
                self.api.behaviour = Behaviour(hang=True)

        with self.within(_SOON):
            self.refused(UpstreamTimeout, on_socket=rotate, timeout=_SHORT)
        self.assertEqual(len(self.api.requests), 2)

    def test_rotated_ca(self) -> None:
        """A new CA is trusted as soon as its file is in place."""
        dialler = self.dialler()
        self.dial(dialler)
        self.api.rotate_ca()
        self.dial(dialler)

    def test_tls_session_is_resumed(self) -> None:
        """The second connection resumes the first one's TLS session; none is carried over to another CA."""
        dialler = self.dialler()

        def resumed() -> bool:
            transport = self.dial(dialler).transport
            assert isinstance(transport, TLSTransport)
            return bool(transport._tls.session_reused)

        self.assertEqual([resumed() for _ in range(3)], [False, True, True])
        self.api.rotate_ca()
        self.assertEqual([resumed() for _ in range(3)], [False, True, True])
        self.assertEqual(self.api.tls_failures, [])

    def test_wrong_ca(self) -> None:
        """A certificate of another authority is refused; the reason is in the log only."""
        with tempfile.TemporaryDirectory() as directory:
            ca_file = CertificateAuthority(directory).ca_file
            refusal = self.refused(dialler=self.dialler(sslopt={"ca_certs": ca_file}))
        self.assert_tls_refused(refusal, "certificate verify failed")

    def test_wrong_host_name(self) -> None:
        """A certificate for another name is refused."""
        sslopt = {"ca_certs": self.api.ca_file, "server_hostname": "kubernetes.default.svc"}
        self.assert_tls_refused(self.refused(dialler=self.dialler(sslopt=sslopt)), "Hostname mismatch")

    def test_other_host_name_that_is_in_the_certificate(self) -> None:
        """``server_hostname`` is what the certificate is checked for."""
        api = self.start_api(names=("kubernetes.default.svc",))
        sslopt = {"ca_certs": api.ca_file, "server_hostname": "kubernetes.default.svc"}
        self.dial(self.dialler(api, sslopt=sslopt))

    def test_expired_certificate(self) -> None:
        """An expired certificate is refused."""
        with tempfile.TemporaryDirectory() as directory:
            authority = CertificateAuthority(directory, days=0)
            self.api.show_certificate(*authority.issue())
            sslopt = {"ca_certs": authority.ca_file}
            self.assert_tls_refused(self.refused(dialler=self.dialler(sslopt=sslopt)), "expired")

    def test_no_tls_at_the_api(self) -> None:
        """An API that does not speak TLS is refused."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer(sock: socket.socket) -> None:
                if isinstance(sock, ssl.SSLSocket):
                    accepted, _ = listener.accept()
                    self.addCleanup(accepted.close)
                    accepted.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

            url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
            refusal = self.refused(dialler=self.dialler(remote_url=url), on_socket=answer)
        self.assert_tls_refused(refusal, "SSLError")

    def test_unreadable_ca(self) -> None:
        """A CA file that is missing or holds no certificate is 502."""
        for path in (self.api.ca_file + "-missing", self.api.token_file):
            with self.subTest(path=path):
                self.refused(dialler=self.dialler(sslopt={"ca_certs": path}))
        self.assertEqual(self.api.requests, [])

    def assert_tls_refused(self, refusal: Refused, reason: str) -> None:
        self.assertEqual(refusal.message, "the Kubernetes API cannot be reached")
        self.assertIn(reason, refusal.log_detail or "")
        self.assertEqual(self.api.requests, [])


class Statuses(DiallerTestCase):
    """Refusals of Kubernetes and KubeVirt, and their translations."""

    CASES: tuple[tuple[Answer, type[Refused], str], ...] = (
        (status_answer(404, "NotFound", _NOT_FOUND), VMINotFound, _NOT_FOUND),
        (
            status_answer(404, "NotFound", "the server could not find the requested resource"),
            UpstreamRefused,
            "the Kubernetes API refused: the server could not find the requested resource",
        ),
        (
            status_answer(400, "BadRequest", "No graphics devices are present."),
            VMINoConsole,
            "No graphics devices are present.",
        ),
        (
            status_answer(400, "BadRequest", "No serial consoles are present."),
            VMINoConsole,
            "No serial consoles are present.",
        ),
        (status_answer(400, "BadRequest", "VMI is not running"), VMINotRunning, "VMI is not running"),
        (
            status_answer(400, "BadRequest", "phase is Pending instead of Running or Scheduled"),
            VMINotRunning,
            "phase is Pending instead of Running or Scheduled",
        ),
        (status_answer(409, "Conflict", "VMI is in failed status"), VMINotRunning, "VMI is in failed status"),
        (status_answer(409, "Conflict", "VMI is paused"), VMINotRunning, "VMI is paused"),
        (
            status_answer(400, "BadRequest", "VSOCK is not attached."),
            UpstreamRefused,
            "the Kubernetes API refused: VSOCK is not attached.",
        ),
        (
            status_answer(409, "Conflict", "USB redirection is not configured"),
            UpstreamRefused,
            "the Kubernetes API refused: USB redirection is not configured",
        ),
        (
            status_answer(500, "InternalError", _IN_USE),
            ConsoleBusy,
            "Active VNC connection. Request denied.",
        ),
    )
    HIDDEN = (
        status_answer(401, "Unauthorized", "Unauthorized"),
        text_answer(401, "user system:serviceaccount:wsproxy:wsproxy may not"),
        status_answer(403, "Forbidden", _RBAC),
        text_answer(403, "Forbidden"),
        status_answer(500, "InternalError", "Internal error occurred: unable to retrieve vmi [vm]: etcd"),
        status_answer(500, "InternalError", "dialing virt-handler: websocket: bad handshake"),
        status_answer(500, "InternalError", "dialing VM: connect: 10.0.2.1:5900: connection refused"),
        text_answer(502, "Bad Gateway: 10.0.0.7"),
        text_answer(503, "service unavailable"),
        status_answer(429, "TooManyRequests", "too many requests, please try again later"),
        Answer(200, b"<html>a captive portal</html>"),
        Answer(500),
    )

    def test_texts_about_the_vmi(self) -> None:
        """A refusal about the VMI has its own kind, and the client gets its text."""
        dialler = self.dialler()
        for answer, kind, message in self.CASES:
            with self.subTest(status=answer.status, body=answer.body):
                self.api.behaviour = Behaviour(answer=answer)
                refusal = self.refused(kind, dialler=dialler)
                self.assertEqual(refusal.message, message)
                self.assertIn(f"HTTP {answer.status} from the API", refusal.log_detail or "")

    def test_texts_that_stay_here(self) -> None:
        """A refusal about the proxy or the cluster is a 502; its text goes to the log only."""
        dialler = self.dialler()
        for answer in self.HIDDEN:
            with self.subTest(status=answer.status, body=answer.body):
                self.api.behaviour = Behaviour(answer=answer)
                refusal = self.refused(dialler=dialler)
                self.assertEqual(refusal.message, "the Kubernetes API refused")
                self.assertIn(f"HTTP {answer.status} from the API", refusal.log_detail or "")
        self.assertIn(_RBAC, refusal_of(403, self.HIDDEN[2].body).log_detail or "")

    def test_states_of_the_stand_in(self) -> None:
        """A simulated VMI's states lead to the same kinds."""
        self.api.add_vmi("blind", _NAMESPACE, display=False)
        self.api.add_vmi("mute", _NAMESPACE, serial=False)
        self.api.add_vmi("off", _NAMESPACE, phase="Scheduled")
        self.api.add_vmi("failed", _NAMESPACE, phase="Failed")
        self.refused(VMINotFound, path=_path("none"))
        self.refused(VMINoConsole, path=_path("blind"))
        self.refused(VMINoConsole, path=_path("mute", "console"))
        self.refused(VMINotRunning, path=_path("off"))
        self.refused(VMINotRunning, path=_path("off", "console"))
        self.refused(VMINotRunning, path=_path("failed", "console"))
        self.dial()
        self.refused(ConsoleBusy, path=_path() + "?preserveSession=true")
        self.api.forbid = True
        self.refused(UpstreamRefused)
        self.api.down = True
        self.refused(UpstreamRefused)

    def test_text_is_one_short_clean_line(self) -> None:
        """A text for the client is one line of at most 120 bytes without control characters."""
        texts = (
            "VMI is not running\r\nX: y\x1b[31m\x00\x7f\x85\u2028end",
            "VMI is not running " + "x" * 1000,
            "VMI is not running " + "ü" * 1000,
            "VMI is not running " + "\U0001f4a5" * 1000,
        )
        for text in texts:
            for answer in (status_answer(409, "Conflict", text), text_answer(409, text)):
                with self.subTest(text=text[:40], json=answer.body[:1] == b"{"):
                    refusal = refusal_of(409, answer.body)
                    self.assertIsInstance(refusal, VMINotRunning)
                    self.assertLessEqual(len(refusal.message.encode()), 120)
                    self.assertRegex(refusal.message, r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")
                    self.assertRegex(refusal.log_detail or "", r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")

    def test_500_in_the_words_of_virt_api(self) -> None:
        """virt-api's texts keep their meaning with a 500, as it sends for screenshots; others do not."""
        known: dict[str, type[Refused]] = {
            "VMI is not running": VMINotRunning,
            "No graphics devices are present.\n": VMINoConsole,
            _NOT_FOUND: VMINotFound,
        }
        for text, kind in known.items():
            refusal = refusal_of(500, text.encode())
            self.assertIs(type(refusal), kind)
            self.assertEqual(refusal.message, text.strip())
            self.assertIn("HTTP 500", refusal.log_detail or "")
            for other in (f"10.0.0.1: {text}", f"{text} on node-7", text.upper()):
                self.assertEqual(refusal_of(500, other.encode()).message, "the Kubernetes API refused")
            self.assertIs(type(refusal_of(503, text.encode())), UpstreamRefused)

    def test_bodies_that_are_odd(self) -> None:
        """Every body, however malformed, leads to a refusal and to no other error."""
        odd = (
            b"",
            b"\xff\xfe\x00",
            b"null",
            b"[]",
            b'{"message": 5}',
            b'{"message": "\\ud800"}',
            b'{"message": "VMI is not running \\ud800"}',
            b"[" * 60_000,
            b'{"a":' * 20_000,
            b"1" * 60_000,
        )
        for status in (200, 302, 400, 401, 403, 404, 409, 429, 500, 503):
            for body in odd:
                with self.subTest(status=status, body=body[:40]):
                    refusal = refusal_of(status, body)
                    refusal.message.encode()
                    self.assertLess(len(refusal.log_detail or ""), 1000)

    def test_odd_body_of_a_401(self) -> None:
        """A 401 with a malformed body is a 502 like any other."""
        self.api.behaviour = Behaviour(answer=Answer(401, b'{"message": "\\ud800"}'))
        self.assertEqual(self.refused().message, "the Kubernetes API refused")

    def test_framings_of_the_body(self) -> None:
        """The text is found however the body is delimited, and the status survives a truncated one."""
        framings = ("length", "chunked", "close", "truncated")
        for framing in framings:
            with self.subTest(framing=framing):
                answer = status_answer(404, "NotFound", _NOT_FOUND)
                self.api.behaviour = Behaviour(answer=answer, body_framing=framing)  # type: ignore[arg-type]
                self.assertEqual(self.refused(VMINotFound).message, _NOT_FOUND)


class Slowness(DiallerTestCase):
    """One deadline for everything."""

    def assert_timeout(self, **options: Any) -> None:
        with self.within(_SOON):
            refusal = self.refused(UpstreamTimeout, timeout=_SHORT, **options)
        self.assertEqual((refusal.status, refusal.close_code), (504, 4504))
        self.assertEqual(refusal.message, "the Kubernetes API did not answer in time")

    def test_no_answer(self) -> None:
        """If the API takes the request and does not answer, the client gets a 504."""
        self.api.behaviour = Behaviour(hang=True)
        self.assert_timeout()

    def test_dripping_head(self) -> None:
        """An API that sends a byte now and then gets no more time."""
        self.api.behaviour = Behaviour(drip=0.05)
        self.assert_timeout()

    def test_no_tls_handshake(self) -> None:
        """If a port accepts connections but does not answer TLS, the client gets a 504."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
            self.assert_timeout(dialler=self.dialler(remote_url=url))

    def test_no_connection(self) -> None:
        """If an address does not answer, the client gets a 504."""
        with full_listener() as url:
            self.assert_timeout(dialler=self.dialler(remote_url=url))

    def test_no_answer_for_the_name(self) -> None:
        """If a name server does not answer, the client gets a 504 by the same deadline."""
        release = threading.Event()

        def ask(host: str, port: int) -> tuple[Any, ...]:
            release.wait(60)
            raise OSError("too late")

        resolver = Resolver(ask=ask)
        self.assert_timeout(dialler=self.dialler(remote_url="wss://api.example:6443", resolver=resolver))
        release.set()

    def test_endless_head(self) -> None:
        """A head without an end is given up, in size or in time."""
        self.api.behaviour = Behaviour(endless_headers=True)
        with self.within(_SOON):
            refusal = self.refused()
        self.assertIn("too large", refusal.log_detail or "")

    def test_endless_body(self) -> None:
        """A body without an end is read up to a limit."""
        self.api.behaviour = Behaviour(endless_body=True)
        with self.within(_SOON):
            refusal = self.refused()
        self.assertLess(len(refusal.log_detail or ""), 1000)

    def test_body_that_never_ends(self) -> None:
        """If a body stops coming, the dialler waits until the deadline, and uses what came."""
        body = status_answer(404, "NotFound", _NOT_FOUND).body
        reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5000\r\n\r\n" + body
        dialler = self.dialler(remote_url=self.serve_bytes(reply), local_dev_mode=True)
        with self.within(_SOON):
            refusal = self.refused(VMINotFound, dialler=dialler, timeout=_SHORT)
        self.assertEqual(refusal.message, _NOT_FOUND)

    def test_chunks_that_are_wrong(self) -> None:
        """A chunked body that is malformed does not hide the status."""
        reply = b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nVMI is paused\r\n"
        dialler = self.dialler(remote_url=self.serve_bytes(reply), local_dev_mode=True)
        self.refused(dialler=dialler, timeout=_SHORT)

    def test_content_length_that_is_wrong(self) -> None:
        """A malformed Content-Length does not hide the status."""
        for value in (b"-1", b"x", b"99999999999999999999999"):
            with self.subTest(value=value):
                reply = b"HTTP/1.1 409 Conflict\r\nContent-Length: %s\r\n\r\nVMI is paused" % value
                dialler = self.dialler(remote_url=self.serve_bytes(reply), local_dev_mode=True)
                self.refused(VMINotRunning, dialler=dialler, timeout=_SHORT)

    def test_deadline_that_has_passed(self) -> None:
        """If the deadline has passed already, the client gets a 504 at once."""
        self.refused(UpstreamTimeout, timeout=-1.0)


class Unreachable(DiallerTestCase):
    """No connection at all."""

    def test_port_is_closed(self) -> None:
        """A refused connection is 502; the address is in the log only."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
        refusal = self.refused(dialler=self.dialler(remote_url=url))
        self.assertEqual(refusal.message, "the Kubernetes API cannot be reached")
        self.assertIn("Connection refused", refusal.log_detail or "")

    def test_name_does_not_exist(self) -> None:
        """A name that cannot be resolved is 502."""

        def ask(host: str, port: int) -> tuple[Any, ...]:
            raise OSError("Name or service not known")

        resolver = Resolver(ask=ask)
        refusal = self.refused(dialler=self.dialler(remote_url="wss://api.example", resolver=resolver))
        self.assertIn("Name or service not known", refusal.log_detail or "")
        self.assertNotIn("example", refusal.message)

    def test_connection_dropped_instead_of_an_answer(self) -> None:
        """An API that drops the connection without an answer is 502."""
        self.api.behaviour = Behaviour(raw=b"")
        self.assertIn("before a response", self.refused().log_detail or "")

    def test_connection_dropped_inside_the_head(self) -> None:
        """An API that drops the connection inside its answer's head is 502."""
        self.api.behaviour = Behaviour(raw=b"HTTP/1.1 101 Switching Protocols\r\nUpgr")
        self.refused()

    def test_woken_while_connecting(self) -> None:
        """A dial whose socket is shut down from outside while it connects ends at once."""
        with full_listener() as url:
            self.assert_woken(self.dialler(remote_url=url))

    def test_woken_in_the_tls_handshake(self) -> None:
        """The same during the TLS handshake."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
            self.assert_woken(self.dialler(remote_url=url))

    def test_woken_in_the_opening_handshake(self) -> None:
        """The same while the API does not answer."""
        self.api.behaviour = Behaviour(hang=True)
        self.assert_woken(self.dialler(), lambda: self.api.wait_for_requests(1))

    def assert_woken(self, dialler: Dialler, ready: Callable[[], object] = lambda: None) -> None:
        sockets: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        done = threading.Event()

        def shut_down() -> None:
            sock = sockets.get(timeout=60)
            ready()
            while not done.wait(0.01):  # again and again: it may not be connecting yet
                while not sockets.empty():
                    sock = sockets.get()
                wake(sock)

        waker = threading.Thread(target=shut_down)
        waker.start()
        with self.within(_SOON):
            self.refused(dialler=dialler, on_socket=sockets.put)
        done.set()
        waker.join()

    def test_watcher_that_says_stop(self) -> None:
        """If ``on_socket`` raises, the dial stops before it sends anything."""

        def stop(sock: socket.socket) -> None:
            raise TransportClosed("the proxy is stopping")

        self.refused(on_socket=stop)
        self.assertEqual(self.api.connections, 0)


class SeveralAddresses(DiallerTestCase):
    """An API whose name has several addresses, of which the first does not work."""

    def behind(self, first: str, api: FakeKubeVirtAPI | None = None) -> Dialler:
        """Return a dialler for a name that has the address of that URL, and then the API's."""
        api = api or self.api
        address = urlsplit(first)
        addresses = [(address.hostname, address.port), ("127.0.0.1", api.port)]
        resolver = Resolver(lambda host, port: tuple((socket.AF_INET, found) for found in addresses))
        scheme = "wss" if api.tls else "ws"
        return self.dialler(api, resolver, remote_url=f"{scheme}://localhost:6443")

    def assert_costs_little(self, dialler: Dialler) -> None:
        """Assert that the first opening waits a little, and the second not at all."""
        with self.within(_SOON):
            self.dial(dialler)
        with mock.patch("wsproxy.net.connecting._ATTEMPT_DELAY", 60.0), self.within(_SOON):
            self.dial(dialler)

    def test_dead(self) -> None:
        """The first address does not answer TCP."""
        with full_listener() as url:
            self.assert_costs_little(self.behind(url))

    def test_frozen(self) -> None:
        """The first address answers TCP, but not TLS."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.assert_costs_little(self.behind(f"wss://127.0.0.1:{listener.getsockname()[1]}"))

    def test_takes_the_request_only(self) -> None:
        """If the first address takes the request without an answer, only the next opening goes elsewhere."""
        hanging, api = self.start_api(tls=False), self.start_api(tls=False)
        hanging.behaviour = Behaviour(hang=True)
        dialler = self.behind(hanging.url, api)
        self.refused(UpstreamTimeout, dialler=dialler, timeout=_SHORT)
        self.assertEqual((len(hanging.requests), len(api.requests)), (1, 0))
        self.dial(dialler)
        self.assertEqual((len(hanging.requests), len(api.requests)), (1, 1))


if __name__ == "__main__":
    unittest.main()
