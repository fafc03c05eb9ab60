"""No secret in anything that the proxy writes or says at LOGLEVEL=DEBUG, in success and every refusal."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import signal
import tempfile
import unittest
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import websocket

from tests.support.proxy_process import ProxyProcess
from tests.support.tokens import early
from wsproxy.access.credentials import CREDENTIALS
from wsproxy.net.connecting import Connector
from wsproxy.runtime.logs import TextFormatter
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, encode_frame
from wsproxy.testing.kubevirt.http import Answer, Behaviour, status_answer
from wsproxy.testing.kubevirt.vmi import FakeVMI
from wsproxy.testing.rfb.raw_client import RawClient

_WINDOW = 20  # so many characters of a secret in a row are a leak
_TIMEOUT = 2.0  # it has to pass, and sessions are opened within it
_WITHIN = 60.0
PAGE = "http://console.example"
_ORIGIN = f"Origin: {PAGE}"
_IN_USE = "Can't connect to websocket (503): Active VNC connection. Request denied."


def _windows(secret: str) -> Iterable[bytes]:
    """Yield every part of a secret that is long enough to be a leak."""
    for start in range(max(1, len(secret) - _WINDOW + 1)):
        yield secret[start : start + _WINDOW].encode()


def leaks(text: bytes, secrets: Iterable[str]) -> list[bytes]:
    """Return the parts of secrets that a text holds."""
    return sorted({window for secret in secrets for window in _windows(secret) if window in text})


class Leaks(unittest.TestCase):
    """The search itself."""

    def test_finds_a_part(self) -> None:
        """A part of twenty characters is found, wherever it is; nineteen are not."""
        secret = "abcdefghijklmnopqrstuvwxyz"
        self.assertEqual(leaks(b"xx " + secret[3:23].encode() + b" yy", [secret]), [secret[3:23].encode()])
        self.assertEqual(leaks(secret[:19].encode() + b"-" + secret[7:].encode(), [secret]), [])
        self.assertEqual(leaks(b"the short one", ["short"]), [b"short"])


def _answer_one_close(console: FakeConsole) -> None:
    console.recv_frame()
    console.send_close(1000)


@dataclass(frozen=True)
class Refusal:
    """A request that is refused.

    :ivar slug: the reason that the client is told.
    :ivar prepare: makes the stand-in refuse.
    :ivar request: makes the request; a well-formed one with a good token if None.
    :ivar browser: whether it is made a second time by a browser, which is told by RFB and a Close frame.
    """

    slug: str
    prepare: Callable[[SecretsTestCase], object] = lambda case: None
    request: Callable[[SecretsTestCase], bytes] | None = None
    browser: bool = False


def _behave(behaviour: Behaviour) -> Callable[[SecretsTestCase], object]:
    return lambda case: case.add_vmi(behaviour=behaviour)


def _answer(status: int, reason: str, message: str, **behaviour: Any) -> Callable[[SecretsTestCase], object]:
    return _behave(Behaviour(answer=status_answer(status, reason, message), **behaviour))


def _raw(template: str) -> Callable[[SecretsTestCase], bytes]:
    """Return a request in which TOKEN stands for a good token, and LINES for the rest of a good request."""

    def make(case: SecretsTestCase) -> bytes:
        lines = RawClient.request("/").decode().partition("\r\n")[2]
        text = template.replace("TOKEN", case.token("vm")).replace("LINES", lines)
        return text.encode("latin-1")

    return make


def _to(target: Callable[[SecretsTestCase], str], *headers: str) -> Callable[[SecretsTestCase], bytes]:
    return lambda case: RawClient.request(target(case), headers)


def _tampered(case: SecretsTestCase) -> str:
    header, claims, signature = case.token("vm").split(".")
    return case.know(f"/{header}.{claims}.{signature[::-1]}/vm")


def _in_subprotocol(value: Callable[[SecretsTestCase], str]) -> Callable[[SecretsTestCase], bytes]:
    name = "base64url.bearer.authorization.k8s.io"
    return lambda case: RawClient.request("/-/vm", [f"Sec-WebSocket-Protocol: {name}.{value(case)}, binary"])


def _from_elsewhere(target: Callable[[SecretsTestCase], str]) -> Callable[[SecretsTestCase], bytes]:
    return lambda case: RawClient.request(target(case), ["Origin: http://elsewhere.example"])


def _picture(target: str) -> bytes:
    return f"GET {target}/screenshot.png HTTP/1.1\r\nHost: proxy\r\n\r\n".encode()


_TICKET_LINES = "Authorization: Bearer TOKEN\r\nContent-Type: application/json\r\n"


def _post(body: str, content_type: str = "application/json") -> Callable[[SecretsTestCase], bytes]:
    def make(case: SecretsTestCase) -> bytes:
        content = body.replace("TOKEN", case.token("vm"))
        lines = _TICKET_LINES.replace("application/json", content_type)
        head = f"POST /ticket HTTP/1.1\r\nHost: proxy\r\n{lines}Content-Length: {len(content)}\r\n\r\n"
        return head.replace("TOKEN", case.token("vm")).encode() + content.encode()

    return make


REFUSALS = (
    # What is wrong with the request; each line holds a good token.
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nSec-WebSocket-Key: x\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.0\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/9\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm spaces HTTP/1.1\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/v\xfcm HTTP/1.1\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nOrigin: \xfc TOKEN\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nbad header TOKEN\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nContent-Length: 3\r\nLINES")),
    Refusal("bad-request", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nAuthorization: Bearer TOKEN\r\nLINES")),
    Refusal("bad-request", request=_raw("\x16\x03\x01 TOKEN\r\n\r\n")),
    Refusal("bad-request", request=_raw("GET /TOKEN/VM_1 HTTP/1.1\r\nLINES"), browser=True),
    Refusal("not-found", request=_raw("GET /TOKEN HTTP/1.1\r\nLINES"), browser=True),
    Refusal("not-found", request=_raw("GET /prefix/TOKEN/vm/and/more HTTP/1.1\r\nLINES"), browser=True),
    Refusal("not-found", request=_raw("GET /TOKEN/vm/usbredir HTTP/1.1\r\nLINES"), browser=True),
    Refusal("not-found", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nHost: proxy\r\n\r\n")),
    Refusal("not-found", request=_raw("HEAD /TOKEN/vm?token=TOKEN HTTP/1.1\r\nHost: proxy\r\n\r\n")),
    Refusal("bad-request", request=_raw("GET http://other/TOKEN/vm HTTP/1.1\r\nHost: proxy\r\n\r\n")),
    Refusal("method-not-allowed", request=_raw("POST /TOKEN/vm HTTP/1.1\r\nLINES")),
    Refusal("method-not-allowed", request=_raw("PUT /healthz?TOKEN HTTP/1.1\r\nHost: proxy\r\n\r\n")),
    Refusal("request-timeout", request=_raw("GET /TOKEN/vm HTTP/1.1\r\nHost: TOKEN")),
    Refusal(
        "upgrade-required",
        request=lambda case: _raw("GET /TOKEN/vm HTTP/1.1\r\nLINES")(case).replace(
            b"Version: 13", b"Version: 8"
        ),
    ),
    Refusal("head-too-large", request=_raw(f"GET /TOKEN/vm HTTP/1.1\r\nX-Long: {'TOKEN ' * 99}\r\nLINES")),
    # What is wrong with the token.
    Refusal("bad-token", request=_to(_tampered), browser=True),
    Refusal("bad-token", request=_to(lambda case: f"/{case.token('vm', secret='w' * 32)}/vm"), browser=True),
    Refusal("bad-token", request=_to(lambda case: f"/{case.token('vm')}{'x' * 9000}/vm"), browser=True),
    Refusal("bad-token", request=_to(lambda case: f"/{case.know('not-a-jwt-at-all-but-long-enough')}/vm")),
    Refusal("bad-token", request=_to(lambda case: "/-/vm"), browser=True),
    Refusal(
        "bad-token",
        request=lambda case: RawClient.request("/-/vm", [f"Authorization: Bearer {_tampered(case)[1:-3]}"]),
        browser=True,
    ),
    Refusal(
        "token-expired", request=_to(lambda case: f"/{case.token('vm', expires_in=-60)}/vm"), browser=True
    ),
    Refusal(
        "token-not-yet-valid",
        request=_to(lambda case: f"/{case.know(early(case.token('vm')))}/vm"),
        browser=True,
    ),
    Refusal("forbidden", request=_to(lambda case: f"/{case.token('other')}/vm"), browser=True),
    # Where the token stands, or the request comes from.
    Refusal("bad-request", request=_to(lambda case: "/-/vm?token={0}&token={0}".format(case.token("vm")))),
    Refusal("bad-request", request=_to(lambda case: f"/-/vm?token={case.token('vm')}%"), browser=True),
    Refusal("bad-request", request=_in_subprotocol(lambda case: case.token("vm")), browser=True),
    Refusal("bad-token", request=_in_subprotocol(lambda case: case.encoded(_tampered(case))), browser=True),
    Refusal("forbidden", request=_from_elsewhere(lambda case: f"/{case.token('vm')}/vm")),
    Refusal("forbidden", request=_to(lambda case: f"/{case.ticket()}/vm")),
    Refusal("bad-token", request=_to(lambda case: f"/{case.know('A' * 22)}/vm"), browser=True),
    # A request for a ticket.
    Refusal("bad-request", request=_post('{"TOKEN": "TOKEN"}')),
    Refusal("forbidden", request=_post('{"vmi": "other", "namespace": "lab-1"}')),
    Refusal(
        "length-required", request=_raw("POST /ticket HTTP/1.1\r\nHost: proxy\r\n" + _TICKET_LINES + "\r\n")
    ),
    Refusal("content-too-large", request=_post('"TOKEN' * 40)),
    Refusal("unsupported-media-type", request=_post("{}", "text/TOKEN")),
    # A picture of the screen.
    Refusal("bad-token", request=lambda case: _picture(_tampered(case))),
    Refusal("forbidden", request=lambda case: _picture(f"/{case.token('other')}/vm")),
    Refusal("bad-request", request=lambda case: _picture(f"/{case.token('vm')}/VM")),
    Refusal(
        "vmi-not-running",
        lambda case: case.add_vmi(phase="Scheduled"),
        request=lambda case: _picture(f"/{case.token('vm')}/vm"),
    ),
    # What the Kubernetes API refuses.
    Refusal("vmi-not-found", lambda case: case.api.remove_vmi("vm", case.namespace), browser=True),
    Refusal("vmi-not-running", lambda case: case.add_vmi(phase="Scheduled"), browser=True),
    Refusal("vmi-no-console", lambda case: case.add_vmi(display=False), browser=True),
    Refusal("console-busy", _answer(500, "InternalError", _IN_USE), browser=True),
    Refusal("upstream-refused", lambda case: setattr(case.api, "forbid", True), browser=True),
    Refusal("upstream-refused", lambda case: setattr(case.api, "down", True), browser=True),
    Refusal("upstream-refused", lambda case: case.rotate_token(), browser=True),
    Refusal("upstream-refused", _behave(Behaviour(answer=Answer(200, b"hello"))), browser=True),
    Refusal("upstream-refused", _answer(500, "InternalError", "oh", body_framing="truncated")),
    Refusal("upstream-refused", _answer(429, "TooManyRequests", "slow", body_framing="chunked")),
    Refusal("upstream-refused", _behave(Behaviour(accept="d3Jvbmc=")), browser=True),
    Refusal("upstream-refused", _behave(Behaviour(subprotocol="never.offered")), browser=True),
    Refusal(
        "upstream-refused",
        _behave(Behaviour(headers=(("Sec-WebSocket-Extensions", "permessage-deflate"),))),
        browser=True,
    ),
    Refusal("upstream-refused", lambda case: case.redirect(), browser=True),
    Refusal("upstream-refused", _behave(Behaviour(raw=b"SSH-2.0-OpenSSH\r\n\r\n")), browser=True),
    Refusal("upstream-refused", _behave(Behaviour(raw=b"")), browser=True),
    Refusal("upstream-timeout", _behave(Behaviour(hang=True)), browser=True),
    Refusal("upstream-refused", lambda case: case.distrust_the_api(), browser=True),
)
"""In this order: the last one stays."""


class SecretsTestCase(ProxyTestCase):
    """Provokes everything at one proxy, and keeps what its clients saw.

    :ivar address: of the proxy.
    :ivar known: every secret there is.
    :ivar seen: what the proxy said to its clients.
    """

    address: tuple[str, int]

    def setUp(self) -> None:
        super().setUp()
        self.account_token = self.api.token
        self.known: list[str] = [SECRET, self.account_token]
        self.seen: list[bytes] = []
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        # Copies, which a test may spoil.
        self.ca_file = os.path.join(self.directory, "ca.crt")
        self.token_file = os.path.join(self.directory, "token")
        with open(self.api.ca_file, "rb") as file:
            self._replace(self.ca_file, file.read())
        self._replace(self.token_file, self.api.token.encode())

    def _replace(self, path: str, data: bytes) -> None:
        with open(f"{path}.new", "wb") as file:
            file.write(data)
        os.replace(f"{path}.new", path)

    def know(self, secret: str) -> str:
        """Note a secret and return it."""
        self.known.append(secret)
        return secret

    def token(self, *vmis: str, secret: str = SECRET, **claims: Any) -> str:
        token = super().token(*vmis, secret=secret, **claims)
        self.known += [token, *token.split(".")]
        return token

    # What a stand-in can do

    def add_vmi(self, run: Callable[[FakeConsole], None] | None = None, **options: Any) -> FakeVMI:
        backend = Script(run) if run else None
        return self.api.add_vmi("vm", self.namespace, backend=backend, **options)

    def rotate_token(self) -> None:
        """Accept another service-account token, which the proxy does not learn of."""
        self.known.append(self.api.rotate_token(write_file=False))

    def redirect(self) -> None:
        self.add_vmi(behaviour=Behaviour.redirect(f"{self.api.url}/elsewhere".replace("wss", "https")))

    def distrust_the_api(self) -> None:
        """Have the proxy trust somebody else."""
        self._replace(self.ca_file, CertificateAuthority(self.directory).ca_pem)

    def lose_the_token(self) -> None:
        """Break the token file; it holds a secret still, and the token from before goes on."""
        with open(self.api.ca_file, "rb") as file:
            self._replace(self.ca_file, file.read())
        self._replace(
            self.token_file, self.know("a token that was broken over two lines\nof the file").encode()
        )

    # What a client can do

    def refuse(self, refusal: Refusal) -> None:
        """Be refused, once or twice."""
        for headers in ((), (_ORIGIN,)) if refusal.browser else ((),):
            self.add_vmi()
            self.api.forbid = self.api.down = False
            refusal.prepare(self)
            if refusal.request:
                request = refusal.request(self)
            else:
                request = RawClient.request(f"/{self.token('vm')}/vm")
            if headers:
                request = request.replace(b"\r\n", f"\r\n{headers[0]}\r\n".encode(), 1)
            told = self.told(request, browser=bool(headers))
            if not request.startswith(b"HEAD"):
                self.assertIn(refusal.slug.encode(), told, request[:10])
            self.assertTrue(told.startswith(b"HTTP/1.1 101" if headers else b"HTTP/1.1 "), told)
            self.api.rotate_token(self.account_token, write_file=False)

    def told(self, request: bytes, browser: bool) -> bytes:
        """Send a request and return everything that comes."""
        with RawClient(self.address) as client:
            client.send_raw(request)
            if browser:
                client.send_frame(BINARY, b"RFB 003.008\n")
                client.drop()
            told = client.body()
        self.seen.append(told)
        return told

    def session(self, run: Callable[[FakeConsole], None], **claims: Any) -> RawClient:
        """Open a session with a function behind it."""
        vmi = self.add_vmi(run)
        client = RawClient.open(f"ws://{self.address[0]}:{self.address[1]}/{self.token('vm', **claims)}/vm")
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        self.console = vmi.wait_for_session()
        return client

    def end(self, client: RawClient, code: int) -> None:
        """Receive up to the Close frame and let the session end."""
        got, reason = client.recv_close()
        self.seen += [client.head, reason.encode()]
        self.assertEqual(got, code, reason)
        if code not in (1002, 1009):  # what comes behind a violation is not understood; its end is waited for
            client.send_close(code)
            client.wait_for_end()
        client.close()
        self.assertTrue(self.console.ended.wait(_WITHIN))

    def ends(self) -> None:
        """Open sessions that end in every way."""

        def serve(console: FakeConsole) -> None:
            while (frame := console.recv_frame()).opcode != CLOSE:
                console.send_frame(BINARY, frame.payload)
            console.send_close(1000, "good bye")

        def drop(console: FakeConsole) -> None:
            console.recv_frame()

        def violate(console: FakeConsole) -> None:
            console.recv_frame()
            console.send_frame(3, b"no such opcode")
            console.recv_frame()

        client = self.session(serve)
        client.send_frame(BINARY, b"hello")
        self.assertEqual(client.recv_frame().payload, b"hello")
        client.send_close(1000)
        self.end(client, 1000)
        client = self.session(drop)
        client.send_frame(BINARY, b"hello")
        self.end(client, 4502)
        client = self.session(violate)
        client.send_frame(BINARY, b"hello")
        self.end(client, 1011)
        client = self.session(serve)
        client.send_raw(encode_frame(BINARY, b"not masked"))
        self.end(client, 1002)
        client = self.session(serve)
        client.send_raw(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
        self.end(client, 1009)
        client = self.session(serve, expires_in=1.2)
        self.end(client, 4411)
        client = self.session(serve)
        client.reset()
        self.assertTrue(self.console.ended.wait(_WITHIN))

    def other_credentials(self) -> None:
        """Get in with a token in a header, and offer one as a subprotocol."""
        token = self.token("vm")
        self.add_vmi()
        encoded = self.encoded(token)
        protocol = f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{encoded}, binary"
        for head in (
            RawClient.request("/-/vm", [f"Authorization: Bearer {token}"]),
            RawClient.request("/-/vm", [protocol]),
            RawClient.request("/-/vm", [f"Cookie: a=b; wsproxy_token={token}", f"Origin: {PAGE}"]),
            RawClient.request(f"/-/vm?token={token}"),
            RawClient.request(f"/{self.ticket()}/vm", [f"Origin: {PAGE}"]),
        ):
            with RawClient(self.address) as client:
                client.send_raw(head)
                client.read_head()
                self.assertEqual(client.status, 101)
                client.send_close(1000)
                self.seen.append(client.head + client.recv_close()[1].encode())
                client.wait_for_end()
        for asked in self.api.requests:
            headers = [value for name, value in asked.headers if name.lower() != "authorization"]
            self.assertEqual(leaks(" ".join([asked.target, *headers]).encode(), self.known), [])

    def encoded(self, token: str) -> str:
        """Return a token in base64url, which nobody may see either."""
        return self.know(base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode())

    def ticket(self) -> str:
        """Exchange a token for a ticket of a page."""
        request = _post('{"vmi": "vm"}')(self).replace(b"Host: proxy", f"Host: proxy\r\n{_ORIGIN}".encode())
        with RawClient(self.address) as client:
            client.send_raw(request)
            client.read_head()
            ticket: str = json.loads(client.body())["ticket"]  # which this client is meant to see
        return self.know(ticket)

    def everything(self) -> None:
        """Provoke all of it."""
        self.ends()
        self.other_credentials()
        for number, refusal in enumerate(REFUSALS):
            with self.subTest(number=number, slug=refusal.slug):
                self.refuse(refusal)
        self.lose_the_token()
        client = self.session(lambda console: console.send_close(1000))
        self.end(client, 1000)

    def assert_kept(self, output: bytes) -> None:
        """Assert that no secret is in what the proxy wrote and said, and that it did write of everything."""
        for slug in {refusal.slug for refusal in REFUSALS}:
            self.assertIn(f" {slug}: ".encode(), output)
        self.assertIn(b"the service-account token cannot be read again", output)
        self.assertEqual(leaks(output, self.known), [], "in the output")
        self.assertEqual(leaks(b"\n".join(self.seen), self.known), [], "in what clients were told")


class Program(SecretsTestCase):
    """The program, as in a cluster."""

    def test_program_keeps_secrets(self) -> None:
        """Neither output nor audit log nor answers of the program hold any part of a token or key.

        The output is as many JSON objects as lines, whatever was sent.
        """
        audit = os.path.join(self.directory, "audit")
        proxy = ProxyProcess(
            self.api,
            LOGLEVEL="DEBUG",
            WSPROXY_CA_FILE=self.ca_file,
            WSPROXY_TOKEN_FILE=self.token_file,
            WSPROXY_REQUEST_TIMEOUT=str(_TIMEOUT),
            WSPROXY_DIAL_TIMEOUT=str(_TIMEOUT),
            WSPROXY_CLOSE_TIMEOUT="1",
            WSPROXY_CREDENTIALS=",".join(CREDENTIALS),
            WSPROXY_ALLOW_ORIGIN=PAGE,
            WSPROXY_TICKETS="true",
            WSPROXY_SCREENSHOTS="true",
            WSPROXY_LOG_FORMAT="json",
            WSPROXY_AUDIT_LOG=audit,
        )
        self.addCleanup(proxy.close)
        self.address = proxy.address
        if os.path.isdir("/proc/self"):
            self.assertEqual(leaks(proxy.command_line(), self.known), [])
        self.everything()
        last = self.session(_answer_one_close)
        self.assertEqual(proxy.stop(signal.SIGTERM), 0)
        self.assertEqual(last.recv_close(), (1012, "restarting"))
        self.assert_kept(proxy.output)
        lines = [json.loads(line) for line in proxy.output.splitlines() if not line.startswith(b"wsproxy ")]
        self.assertLessEqual({"DEBUG", "INFO", "WARNING"}, {line["level"] for line in lines})
        self.assert_audited(audit, lines)

    def assert_audited(self, path: str, lines: list[Any]) -> None:
        """Assert that the audit log has what the log has of sessions and refusals, and no secret."""
        with open(path, "rb") as file:
            text = file.read()
        self.assertEqual(leaks(text, self.known), [], "in the audit log")
        events = [json.loads(line) for line in text.splitlines()]
        for event, wanted in (("open", " opened: "), ("end", " ended: "), ("refused", " refused: ")):
            found = [line for line in lines if line["level"] == "INFO" and wanted in line["message"]]
            logged = [line["session"] for line in found]
            self.assertEqual([record["session"] for record in events if record["event"] == event], logged)
        for slug in {refusal.slug for refusal in REFUSALS}:
            self.assertIn(slug, {record.get("reason") for record in events})


class Library(SecretsTestCase):
    """The library, in a process that logs all that anybody has to say."""

    def setUp(self) -> None:
        super().setUp()
        self.log = io.StringIO()
        handler = logging.StreamHandler(self.log)
        handler.setFormatter(TextFormatter())
        root, level = logging.getLogger(), logging.getLogger().level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        trace = logging.StreamHandler(self.log)
        websocket.enableTrace(True, trace, "DEBUG")

        def restore() -> None:
            root.removeHandler(handler)
            root.setLevel(level)
            websocket.enableTrace(False, logging.NullHandler())
            logging.getLogger("websocket").removeHandler(trace)

        self.addCleanup(restore)
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            context = redirect(self.log)
            context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)

    def test_library_keeps_secrets(self) -> None:
        """Neither log nor traceback nor trace nor answer of the library holds any part of a token or key."""
        proxy = self.start_proxy(
            sslopt={"ca_certs": self.ca_file},
            token_file=self.token_file,
            request_timeout=_TIMEOUT,
            dial_timeout=_TIMEOUT,
            credentials=CREDENTIALS,
            allow_origin=[PAGE],
            tickets=True,
            screenshots=True,
        )
        self.address = proxy.address
        self.fail_with_a_bug()
        self.everything()
        numbers = proxy._numbers()
        proxy.stop_thread()
        output = self.log.getvalue().encode()
        self.assertIn(b"RuntimeError: a bug", output)
        self.assertIn(b"--- request header ---", output, "the trace of websocket-client")
        self.assert_kept(output)
        self.assertEqual(leaks(repr(vars(proxy)).encode(), self.known), [])
        self.assertEqual(leaks(json.dumps(numbers.to_json()).encode(), self.known), [], "in what is counted")
        for slug in {refusal.slug for refusal in REFUSALS}:
            self.assertIn(slug, numbers.refused.counts)

    def fail_with_a_bug(self) -> None:
        """Have an exception come out of the middle of an opening session."""
        with (
            mock.patch.object(Connector, "connection", side_effect=RuntimeError("a bug")),
            RawClient(self.address) as client,
        ):
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.seen.append(client.body())


if __name__ == "__main__":
    unittest.main()
