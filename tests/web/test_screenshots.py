"""Pictures of screens through a running proxy, a WSGI application, and from an API that does not behave."""

from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import mock

from tests.support.gate import Gate
from tests.support.novnc import stand_in_novnc
from tests.support.proxy_process import ProxyProcess
from tests.support.transports import in_thread
from tests.support.wsgi_host import Host
from wsproxy import AccessRequest, Forbidden, Grant, WebsocketProxy
from wsproxy.config import Config
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.revocations import Match
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Answer, Behaviour, RecordedRequest, text_answer
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.testing.screen.png import encode_png
from wsproxy.wsgi.app import ConsoleApp

_FOREIGN = "https://evil.example"
_WAIT = 60.0
_PICTURE = encode_png(2, 1, b"\1\2\3\4\5\6")
_OTHER = encode_png(2, 1, b"\6\5\4\3\2\1")


class ScreenshotCase(ProxyTestCase):
    """Asks for pictures.

    :cvar fresh: whether every picture is a new one.
    """

    proxy_settings: ClassVar[dict[str, Any]] = {"screenshots": True}
    fresh: ClassVar[bool] = True
    _proxy: WebsocketProxy | None = None

    def setUp(self) -> None:
        super().setUp()
        if self.fresh:
            for name in ("GOOD_SECONDS", "_BAD_SECONDS"):
                patcher = mock.patch(f"wsproxy.web.screenshot_cache.{name}", 0.0)
                patcher.start()
                self.addCleanup(patcher.stop)
        self.vmi = self.api.add_vmi("vm", self.namespace, screen=lambda: _PICTURE)

    def ask(self, target: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers with names in lower case, and body."""
        lines = [f"{method} {target} HTTP/1.1", "Host: proxy", *headers, "", ""]
        return self.send("\r\n".join(lines).encode())

    def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        with RawClient(self.address) as client:
            client.send_raw(request)
            client.read_head()
            fields = [line.partition(": ") for line in client.head.decode().split("\r\n")[1:] if line]
            return client.status, {name.lower(): value for name, _, value in fields}, client.body()

    @property
    def address(self) -> tuple[str, int]:
        """Whom to ask."""
        return (self._proxy or self.console_proxy).address

    @contextmanager
    def at(self, proxy: WebsocketProxy) -> Iterator[None]:
        """Ask another proxy than that of the class."""
        self._proxy = proxy
        yield
        self._proxy = None

    def bearer(self, *vmis: str, **claims: Any) -> str:
        return f"Authorization: Bearer {self.token(*(vmis or ('vm',)), **claims)}"

    def assert_picture(self, target: str, *headers: str, picture: bytes = _PICTURE) -> None:
        status, _, body = self.ask(target, *headers)
        self.assertEqual((status, body), (200, picture))

    def assert_refused(self, status: int, slug: str, target: str, *headers: str) -> str:
        """Check a refusal, and return its text."""
        found, fields, body = self.ask(target, *headers)
        refusal = json.loads(body)
        self.assertEqual((found, refusal["reason"]), (status, slug), refusal)
        self.assertEqual(fields["cache-control"], "no-store")
        return str(refusal["message"])

    @property
    def asked(self) -> list[RecordedRequest]:
        """What the API was asked for pictures."""
        return [request for request in self.api.requests if request.target.endswith("/screenshot")]


class AnswersTest(ScreenshotCase):
    def test_routes(self) -> None:
        """The token stands in the path or in a header; the namespace may be named."""
        self.assert_picture(f"/{self.token('vm')}/vm/screenshot.png")
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.assert_picture(f"//-//{self.namespace}/vm/screenshot.png?x=1", self.bearer())
        for request in self.asked:
            self.assertEqual(
                request.target,
                "/apis/subresources.kubevirt.io/v1/namespaces/lab-1/virtualmachineinstances/vm/vnc/screenshot",
            )
            self.assertEqual(request.values("authorization"), [f"Bearer {self.api.token}"])

    def test_answer(self) -> None:
        """Nobody keeps the picture, and whatever it is, it is shown as one; HEAD says the same without it."""
        target = f"/{self.token('vm')}/vm/screenshot.png"
        _, fields, _ = self.ask(target)
        wanted = {
            "content-type": "image/png",
            "content-length": str(len(_PICTURE)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "content-security-policy": "default-src 'none'; sandbox",
            "connection": "close",
        }
        self.assertEqual(fields, wanted)
        self.assertEqual(self.ask(target, method="HEAD"), (200, wanted, b""))

    def test_other_requests(self) -> None:
        """Nothing but GET and HEAD, and nothing but these paths."""
        target = f"/{self.token('vm')}/vm/screenshot.png"
        status, fields, _ = self.ask(target, "Content-Length: 0", method="POST")
        self.assertEqual((status, fields["allow"]), (405, "GET, HEAD"))
        self.assert_refused(400, "bad-request", target, "Content-Length: 1")
        for path in (
            "/screenshot.png",
            "/vm/screenshot.png",
            "/a/b/c/screenshot.png",
            target + "/x",
            "/-/a/b/vm/screenshot.png",
        ):
            self.assert_refused(404, "not-found", path)
        self.assert_refused(400, "bad-request", "/-/VM/screenshot.png", self.bearer())
        self.assert_refused(400, "bad-request", "/-/LAB/vm/screenshot.png", self.bearer())
        self.assertEqual(self.api.connections, 0)

    def test_no_upgrade(self) -> None:
        """An upgrade request opens no picture, and asks the API for none."""
        with RawClient(self.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm/screenshot.png"))
            client.read_head()
            self.assertEqual(client.status, 404)
        self.assertEqual(self.api.connections, 0)

    def test_prefix(self) -> None:
        """They are below the prefix, and nowhere else."""
        proxy = self.start_proxy(host_path_prefix="a/b")
        target = f"/{self.token('vm')}/vm/screenshot.png"
        with self.at(proxy):
            self.assert_picture("/a/b" + target)
            self.assert_refused(404, "not-found", target)

    def test_switched_off(self) -> None:
        """By default there are no pictures."""
        proxy = self.start_proxy(screenshots=False)
        with self.at(proxy):
            self.assert_refused(404, "not-found", f"/{self.token('vm')}/vm/screenshot.png")

    def test_grant(self) -> None:
        """The page learns whether there are pictures."""
        for switched in (False, True):
            proxy = self.start_proxy(console_page=True, novnc=stand_in_novnc(self), screenshots=switched)
            with self.at(proxy):
                status, _, body = self.ask("/console/grant", self.bearer())
            self.assertEqual((status, json.loads(body)["screenshots"]), (200, switched))

    def test_metrics_and_log(self) -> None:
        """Pictures and refusals are counted; none has a line at INFO once its token is accepted."""
        self.api.add_vmi("off", self.namespace, phase="Succeeded")
        token = self.token("vm", "off")
        with self.assertLogs("wsproxy", logging.DEBUG) as logs:
            self.assert_picture(f"/{token}/vm/screenshot.png")
            self.assert_refused(409, "vmi-not-running", f"/{token}/off/screenshot.png")
        lines = [(record.levelno, record.getMessage()) for record in logs.records]
        refused = [(level, text) for level, text in lines if "refused" in text]
        self.assertEqual([level for level, _ in refused], [logging.DEBUG])
        self.assertIn(f"vmi {self.namespace}/off: 409 vmi-not-running: VMI is not running", refused[0][1])
        for _, text in lines:
            self.assertNotIn(token[-40:], text)
        numbers = self.console_proxy._numbers()
        self.assertEqual(sum(numbers.screenshot_seconds.counts), 1)
        self.assertEqual(numbers.refused.counts["vmi-not-running"], 1)


class AuthorisationTest(ScreenshotCase):
    """Whoever could not open the console gets no picture, and nobody is asked for one."""

    def assert_kept_out(self, status: int, slug: str, target: str, *headers: str) -> None:
        before = self.api.connections
        self.assert_refused(status, slug, target, *headers)
        self.assertEqual(self.api.connections, before)

    def test_tokens(self) -> None:
        good = self.token("vm")
        self.assert_picture(f"/{good}/vm/screenshot.png")  # so that one is known
        refusals: dict[str, tuple[int, str]] = {
            good[:-3]: (401, "bad-token"),
            "nonsense": (401, "bad-token"),
            self.token("vm", secret="w" * 32): (401, "bad-token"),
            self.token("vm", expires_in=-60): (401, "token-expired"),
            self.token("other"): (403, "forbidden"),
            self.token("vm", namespace="lab-2"): (404, "vmi-not-found"),
        }
        for token, (status, slug) in refusals.items():
            with self.subTest(slug=slug):
                if slug == "vmi-not-found":  # allowed, but it is another machine
                    self.assert_refused(status, slug, f"/{token}/vm/screenshot.png")
                    continue
                self.assert_kept_out(status, slug, f"/{token}/vm/screenshot.png")
                self.assert_kept_out(status, slug, "/-/vm/screenshot.png", f"Authorization: Bearer {token}")
        self.assert_kept_out(401, "bad-token", "/-/vm/screenshot.png")
        self.assert_kept_out(403, "forbidden", "/-/lab-2/vm/screenshot.png", self.bearer())
        self.assert_kept_out(400, "bad-request", f"/{good}/vm/screenshot.png", self.bearer())

    def test_tickets_and_switched_off_kinds(self) -> None:
        """A ticket opens a console; a credential that is switched off opens nothing."""
        proxy = self.start_proxy(tickets=True, credentials=("header",))
        with self.at(proxy):
            self.assert_picture("/-/vm/screenshot.png", self.bearer())
            body = b'{"vmi": "vm"}'
            head = f"POST /ticket HTTP/1.1\r\nHost: proxy\r\n{self.bearer()}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ticket = json.loads(self.send(head.encode() + body)[2])["ticket"]
            self.assert_kept_out(401, "bad-token", f"/{ticket}/vm/screenshot.png")
            self.assert_kept_out(401, "bad-token", f"/{self.token('vm')}/vm/screenshot.png")

    def test_cookie(self) -> None:
        """A cookie is taken from our own pages only: other pages' requests carry it, too."""
        proxy = self.start_proxy(
            credentials=("cookie",), cookie_name="console", allow_origin=["https://good.example"]
        )
        cookie, target = f"Cookie: console={self.token('vm')}", "/-/vm/screenshot.png"
        with self.at(proxy):
            self.assert_picture(target, cookie)
            self.assert_picture(target, cookie, "Sec-Fetch-Site: same-origin")
            self.assert_picture(target, cookie, "Sec-Fetch-Site: none")
            self.assert_picture(target, cookie, "Origin: http://proxy")
            self.assert_kept_out(403, "forbidden", target, cookie, f"Origin: {_FOREIGN}")
            for site in ("cross-site", "same-site", "nonsense"):
                self.assert_kept_out(403, "forbidden", target, cookie, f"Sec-Fetch-Site: {site}")

    def test_pages(self) -> None:
        """Pages that are not allowed get no picture either."""
        proxy = self.start_proxy(allow_origin=["https://good.example"])
        target = f"/{self.token('vm')}/vm/screenshot.png"
        with self.at(proxy):
            self.assert_picture(target, "Origin: https://good.example")
            self.assert_kept_out(403, "forbidden", target, f"Origin: {_FOREIGN}")

    def test_origin_required(self) -> None:
        """Where clients without Origin are refused, the proxy's own page is none: its GETs have no Origin."""
        proxy = self.start_proxy(require_origin=True, console_page=True, novnc=stand_in_novnc(self))
        with self.at(proxy):
            self.assert_kept_out(403, "forbidden", "/-/vm/screenshot.png", self.bearer())
            for site in ("cross-site", "same-site", "none", "same-origin\r\nSec-Fetch-Site: same-origin"):
                self.assert_kept_out(
                    403, "forbidden", "/-/vm/screenshot.png", self.bearer(), f"Sec-Fetch-Site: {site}"
                )
            own = "Sec-Fetch-Site: same-origin"
            self.assert_picture("/-/vm/screenshot.png", self.bearer(), own)
            self.assertEqual(self.ask("/console/grant", self.bearer(), own)[0], 200)
            foreign = f"Origin: {_FOREIGN}"
            self.assert_picture("/-/vm/screenshot.png", self.bearer(), own, foreign)  # no list, no demand

    def test_revoked(self) -> None:
        """A token that was revoked shows nothing any more, not even what is known."""
        token = self.token("vm")
        self.assert_picture(f"/{token}/vm/screenshot.png")
        gateway = self.console_proxy._server._gateway  # type: ignore[union-attr]
        kick = gateway.participant.kick([Match(namespace=self.namespace)], math.inf)
        self.addCleanup(gateway.participant.lift, kick.id)
        self.assert_kept_out(401, "bad-token", f"/{token}/vm/screenshot.png")

    def test_failures_are_counted(self) -> None:
        """Who guesses tokens by pictures is stopped as one who guesses them by consoles."""
        proxy = self.start_proxy(max_failures=2)
        with self.at(proxy):
            for _ in range(2):
                self.assert_kept_out(401, "bad-token", "/nonsense/vm/screenshot.png")
            self.assert_kept_out(429, "limit-failures", f"/{self.token('vm')}/vm/screenshot.png")

    def test_hook(self) -> None:
        """The embedder is asked for each picture, and told that it is one."""
        asked: list[AccessRequest] = []

        def authorize(grant: Grant, request: AccessRequest) -> None:
            asked.append(request)
            if len(asked) > 1:
                raise Forbidden("not in an exam")

        proxy = self.start_proxy(authorize=authorize)
        with self.at(proxy):
            self.assert_picture("/-/vm/screenshot.png", self.bearer())
            self.assert_kept_out(403, "forbidden", "/-/vm/screenshot.png", self.bearer())
        self.assertEqual(
            [(request.vmi, request.subresource, request.credential) for request in asked],
            [("vm", "vnc/screenshot", "header")] * 2,
        )


class ReuseTest(ScreenshotCase):
    fresh = False

    def test_reused(self) -> None:
        """A picture is good for others that may see it, and for nobody else."""
        self.assert_picture("/-/vm/screenshot.png", self.bearer(user=1))
        self.assert_picture("/-/vm/screenshot.png", self.bearer(user=2))
        self.assertEqual(len(self.asked), 1)
        self.assert_refused(403, "forbidden", "/-/vm/screenshot.png", self.bearer("other"))
        self.api.add_vmi("vm", "lab-2", screen=lambda: _OTHER)
        self.assert_picture("/-/vm/screenshot.png", self.bearer(namespace="lab-2"), picture=_OTHER)

    def test_at_once(self) -> None:
        """Who asks at once costs the API one request."""
        gate = Gate(self, _WAIT)

        def screen() -> bytes:
            gate.stop()
            return _PICTURE

        self.vmi.screen = screen
        self.assertTrue(self.console_proxy.address)  # it is started, once for all threads
        asking = [
            in_thread(lambda user=user: self.ask("/-/vm/screenshot.png", self.bearer(user=user)))  # type: ignore[misc]
            for user in range(4)
        ]
        gate.wait()
        gate.open()
        self.assertEqual([join()[::2] for join in asking], [(200, _PICTURE)] * 4)  # type: ignore[index]
        self.assertEqual(len(self.asked), 1)


class RefusedByKubeVirtTest(ScreenshotCase):
    def test_machines(self) -> None:
        """What KubeVirt says of a machine by a 500 is told as that of a console."""
        cases: dict[str, tuple[int, str, dict[str, Any]]] = {
            "VMI is not running": (409, "vmi-not-running", {"phase": "Scheduled"}),
            "No graphics devices are present.": (409, "vmi-no-console", {"display": False}),
        }
        for text, (status, slug, options) in cases.items():
            self.api.add_vmi("vm", self.namespace, **options)
            self.assertEqual(self.assert_refused(status, slug, "/-/vm/screenshot.png", self.bearer()), text)
        self.api.remove_vmi("vm", self.namespace)
        text = self.assert_refused(404, "vmi-not-found", "/-/vm/screenshot.png", self.bearer())
        self.assertEqual(text, 'virtualmachineinstance.kubevirt.io "vm" not found')

    def test_as_json(self) -> None:
        """To a page, which accepts JSON, too, a machine without a picture is no error; other refusals are."""
        accept = "Accept: image/png, Application/JSON; q=0.5"
        self.api.add_vmi("off", self.namespace, phase="Succeeded")
        self.assert_refused(403, "forbidden", "/-/off/screenshot.png", self.bearer(), accept)
        self.assert_refused(409, "vmi-not-running", "/-/off/screenshot.png", self.bearer("off"))
        status, fields, body = self.ask("/-/off/screenshot.png", self.bearer("off"), accept)
        refusal = {"status": 409, "code": 4420, "reason": "vmi-not-running", "message": "VMI is not running"}
        self.assertEqual((status, fields["content-type"]), (200, "application/json"))
        self.assertEqual(json.loads(body), refusal)
        self.assertEqual(
            self.ask("/-/off/screenshot.png", self.bearer("off"), accept, method="HEAD")[::2], (200, b"")
        )
        self.assert_picture("/-/vm/screenshot.png", self.bearer(), accept)

    def test_others(self) -> None:
        """What it says of itself goes to the log."""
        secret = "dial 10.0.0.1: VMI is not running on node-7"
        answers = [text_answer(500, secret), text_answer(403, secret), text_answer(503, secret), Answer(302)]
        for answer in answers:
            self.vmi.behaviour = Behaviour(answer=answer)
            text = self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())
            self.assertNotIn("10.0.0.1", text)
        self.api.forbid = True
        self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())

    def test_hostile(self) -> None:
        """What is no whole picture of a decent size reaches nobody."""
        html = Answer(200, b"<script>alert(1)</script>", (("Content-Type", "image/png"),))
        picture = Answer(200, _PICTURE)
        huge = encode_png(60000, 60000, b"")
        behaviours = [
            Behaviour(answer=html),
            Behaviour(answer=Answer(200)),
            Behaviour(answer=Answer(200, _PICTURE[:-4])),
            Behaviour(answer=Answer(200, huge)),
            Behaviour(answer=Answer(200, _PICTURE[:-4]), body_framing="close"),
            Behaviour(answer=picture, endless_body=True),
            Behaviour(endless_headers=True),
            Behaviour(raw=b"SSH-2.0-OpenSSH\r\n\r\n"),
            Behaviour(raw=b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
            Behaviour(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Behaviour(raw=b""),
            Behaviour.redirect("http://127.0.0.1:1/"),
        ]
        for behaviour in behaviours:
            self.vmi.behaviour = behaviour
            with self.subTest(behaviour=behaviour):
                self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())
        self.vmi.behaviour = Behaviour(answer=picture, body_framing="chunked")
        self.assert_picture("/-/vm/screenshot.png", self.bearer())

    def test_slow(self) -> None:
        """One deadline bounds it all, and then there is an answer."""
        proxy = self.start_proxy(dial_timeout=0.3)
        with self.at(proxy):
            for behaviour in (Behaviour(hang=True), Behaviour(drip=0.05)):
                self.vmi.behaviour = behaviour
                self.assert_refused(504, "upstream-timeout", "/-/vm/screenshot.png", self.bearer())

    def test_token_rotated(self) -> None:
        """After a 401 the service account's token is read again."""
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.api.rotate_token()
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.api.rotate_token(write_file=False)
        self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())


class ConsoleAloneTest(ScreenshotCase):
    def test_console_lives_on(self) -> None:
        """Pictures of a machine are taken while its console is open, which goes on."""
        with RawClient.open(self.url(self.console_proxy, "vm")) as client:
            self.assertEqual(client.status, 101)
            for _ in range(3):
                self.assert_picture("/-/vm/screenshot.png", self.bearer())
            client.send_frame(BINARY, b"still here")
            self.assertEqual(client.recv_frame().payload, b"still here")
        self.assertEqual(len(self.vmi.consoles), 1)

    def test_old_kubevirt(self) -> None:
        """A KubeVirt that would throw somebody out is not asked, nor one that does not say what it is."""
        with RawClient.open(self.url(self.console_proxy, "vm")) as client:
            for version in ("v1.6.3", "v1.6.2", "v1.7.0-rc.1", ""):
                self.api.kubevirt_version = version
                with self.assertLogs("wsproxy", logging.DEBUG) as logs:
                    text = self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())
                self.assertEqual(text, "screenshots need KubeVirt 1.7 or newer")
                warnings = [record for record in logs.records if record.levelno == logging.WARNING]
                self.assertEqual(len(warnings), version == "v1.6.3")
            client.send_frame(BINARY, b"still here")
            self.assertEqual(client.recv_frame().payload, b"still here")
        self.assertEqual(self.asked, [])
        self.api.kubevirt_version = "v1.8.0"
        self.assert_picture("/-/vm/screenshot.png", self.bearer())

    def test_the_stand_in_throws_out(self) -> None:
        """So that these tests can fail: an old stand-in does throw the console out."""
        self.api.kubevirt_version = "v1.6.2"
        with (
            mock.patch("wsproxy.web.screenshots.leaves_console_alone", return_value=True),
            RawClient.open(self.url(self.console_proxy, "vm")) as client,
        ):
            self.assert_picture("/-/vm/screenshot.png", self.bearer())
            self.assertEqual(client.recv_close()[0], 4502)

    def test_asked_again(self) -> None:
        """KubeVirt is asked for its version now and then, as it may be another one some day."""
        for _ in range(2):
            self.assert_picture("/-/vm/screenshot.png", self.bearer())
        versions = [request for request in self.api.requests if request.target.endswith("/version")]
        self.assertEqual(len(versions), 1)
        with mock.patch("wsproxy.web.screenshots._VERSION_SECONDS", 0.0):
            proxy = self.start_proxy()
            with self.at(proxy):
                self.assert_picture("/-/vm/screenshot.png", self.bearer())
                self.api.kubevirt_version = "v1.6.0"
                with self.assertLogs("wsproxy.screenshots", logging.WARNING):
                    self.assert_refused(502, "upstream-refused", "/-/vm/screenshot.png", self.bearer())


class ProgramTest(ScreenshotCase):
    fresh = False

    def test_workers(self) -> None:
        """Each of several processes answers, and keeps pictures of its own."""
        proxy = ProxyProcess(self.api, WSPROXY_SCREENSHOTS="true", WSPROXY_WORKERS="2", LOGLEVEL="DEBUG")
        self.addCleanup(proxy.close)
        token = self.token("vm")
        with mock.patch.object(type(self), "address", proxy.address):
            for _ in range(8):
                self.assert_picture(f"/{token}/vm/screenshot.png")
        self.assertIn(len(self.asked), (1, 2))
        self.assertEqual(proxy.stop(signal.SIGTERM), 0)
        self.assertNotIn(token[-40:].encode(), proxy.output)


class StopTest(ScreenshotCase):
    def test_stop(self) -> None:
        """A proxy that stops waits for no picture; who asked for one is told."""
        self.vmi.behaviour = Behaviour(hang=True)
        proxy = self.start_proxy()
        with self.at(proxy):
            asking = in_thread(
                lambda: self.assert_refused(503, "draining", "/-/vm/screenshot.png", self.bearer())
            )
            self.assertTrue(self.api.wait_for(lambda: bool(self.asked), _WAIT))
            proxy.stop_thread()
            asking()
        self.vmi.behaviour = None
        with self.at(proxy.run_in_thread("127.0.0.1", 0)):
            self.assert_picture("/-/vm/screenshot.png", self.bearer())


class ClientTLSTest(AnswersTest):
    """The same where clients come by TLS."""

    client_tls = True


class DevelopmentTest(AnswersTest):
    """The same behind ``kubectl proxy``, without TLS and without a token."""

    tls = False

    def test_routes(self) -> None:
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.assertEqual(self.asked[0].values("authorization"), [])


class WSGITest(ScreenshotCase):
    """Pictures from an application inside a WSGI server."""

    host: Host

    @property
    def address(self) -> tuple[str, int]:
        return self.host.address

    def serve(self, app: Any = None, **options: Any) -> ConsoleApp:
        threads = options.pop("threads", None)
        made = ConsoleApp(Config(**self.proxy_options(**options)), app, threads=threads, reserve=2)
        self.addCleanup(made.close)
        self.host = Host(made)
        self.host.start()
        self.addCleanup(self.host.stop)
        return made

    def test_picture(self) -> None:
        """They are answered by the server's own means, and refused as everywhere."""
        self.serve()
        self.assert_picture(f"/{self.token('vm')}/vm/screenshot.png")
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.assert_refused(401, "bad-token", "/-/vm/screenshot.png")
        self.api.remove_vmi("vm", self.namespace)
        with self.assertLogs("wsproxy", logging.DEBUG) as logs:
            self.assert_refused(404, "vmi-not-found", "/-/vm/screenshot.png", self.bearer())
        refused = [record for record in logs.records if "refused" in record.getMessage()]
        self.assertEqual([record.levelno for record in refused], [logging.DEBUG])

    def test_middleware(self) -> None:
        """An application behind gets what is no picture of ours."""

        def behind(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Length", "6")])
            return [b"behind"]

        self.serve(behind)
        self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.assertEqual(self.ask("/album/vm/screenshot.png")[::2], (200, b"behind"))
        self.serve(behind, screenshots=False)
        self.assertEqual(self.ask("/-/vm/screenshot.png", self.bearer())[::2], (200, b"behind"))

    def test_threads(self) -> None:
        """A picture takes a thread of those for consoles, so that the application keeps its own."""
        self.serve(threads=3)
        with RawClient.open(f"{self.host.url}/{self.token('vm')}/vm") as client:
            self.assertEqual(client.status, 101)
            self.assert_refused(503, "busy", "/-/vm/screenshot.png", self.bearer())
        deadline = Deadline(_WAIT)
        while self.ask("/-/vm/screenshot.png", self.bearer())[0] == 503:
            deadline.remaining()
