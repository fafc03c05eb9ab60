"""A console through a proxy: opened in every way, and refused in every way."""

from __future__ import annotations

import socket
import ssl

from wsproxy.protocol.rfb import refusal
from wsproxy.testing import (
    ConsoleClosed,
    ConsoleRefused,
    ProxyTestCase,
    RFBClient,
    RFBRefused,
    SocketBackend,
    UpgradeRefused,
    make_token,
)
from wsproxy.testing.rfb.errors import ABNORMAL

_PAGE = "http://lab.example"


class OpenTest(ProxyTestCase):
    def test_ways(self) -> None:
        """A proxy, its address and a whole URL lead to the same console; the prefix is the proxy's."""
        desktop, token = self.add_desktop("ubuntu"), self.token("ubuntu")
        proxy = self.start_proxy(host_path_prefix="/a/b/")
        host, port = proxy.address
        consoles = (
            RFBClient(proxy, token, "ubuntu"),
            RFBClient((host, port), f"a/b/{token}", "ubuntu"),
            RFBClient(f"ws://{host}:{port}/a/b/{token}/ubuntu"),
            RFBClient(proxy, token, "ubuntu/vnc", timeout=60, subprotocols=["binary"], header=["X-Test: 1"]),
        )
        for number, vm in enumerate(consoles):
            with self.subTest(number), vm:
                self.assertEqual((vm.name, vm.size), ("ubuntu", (640, 480)))
        self.assertTrue(desktop.wait_for(lambda: desktop.viewers == 0, 10))

    def test_ipv6(self) -> None:
        """An IPv6 address gets its brackets."""
        self.add_desktop("ubuntu")
        with RFBClient(self.start_proxy("::1"), self.token("ubuntu"), "ubuntu") as vm:
            self.assertEqual(vm.name, "ubuntu")

    def test_arguments_that_mean_nothing(self) -> None:
        """A URL with a token, and an address without one, are refused before the client connects."""
        for arguments in (
            ("ws://127.0.0.1:1/x/y", "token", "ubuntu"),
            ("ws://127.0.0.1:1/x/y", None, "ubuntu"),
            (("127.0.0.1", 1),),
            (("127.0.0.1", 1), "token"),
            (("127.0.0.1", 1), None, "ubuntu"),
        ):
            with self.subTest(arguments=arguments), self.assertRaises(ValueError):
                RFBClient(*arguments)

    def test_nobody_there(self) -> None:
        """A port that nobody listens on is an OSError."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        with self.assertRaises(OSError):
            RFBClient(address, self.token("ubuntu"), "ubuntu")


class OpenByTLSTest(ProxyTestCase):
    client_tls = True

    def test_authorities(self) -> None:
        """The authority in a file is trusted, by address and by URL; the system does not know it."""
        self.add_desktop("ubuntu")
        proxy, token, ca_file = self.start_proxy(), self.token("ubuntu"), self.proxy_authority.ca_file
        for arguments in ((proxy, token, "ubuntu"), (proxy.address, token, "ubuntu")):
            with self.subTest(arguments[0]), RFBClient(*arguments, ca_file=ca_file) as vm:
                self.assertEqual(vm.name, "ubuntu")
        with RFBClient(self.url(proxy, "ubuntu"), ca_file=ca_file) as vm:
            self.assertEqual(vm.name, "ubuntu")
        with self.assertRaises(ssl.SSLCertVerificationError):
            RFBClient(proxy, token, "ubuntu")
        self.assertEqual(self.open_console("ubuntu").name, "ubuntu")


class RefusedTest(ProxyTestCase):
    def test_by_http(self) -> None:
        """A client without an Origin gets a refusal by HTTP: status, code, slug and message."""
        with self.assertRaises(UpgradeRefused) as caught:
            self.open_console("ubuntu", token=self.token("router"))
        refused = caught.exception
        self.assertEqual((refused.status, refused.code, refused.slug), (403, 4403, "forbidden"))
        self.assertEqual(refused.message, "the token does not allow this VMI")
        self.assertEqual(
            str(refused), "the console was refused (HTTP 403 forbidden): the token does not allow this VMI"
        )
        self.assertEqual(refused.headers["content-type"], "application/json")

    def test_as_a_browser(self) -> None:
        """A page gets a refusal in RFB. Code and slug are those of the Close frame that follows."""
        proxy = self.start_proxy(allow_origin=[_PAGE])
        with self.assertRaises(RFBRefused) as caught:
            self.open_console("none", proxy=proxy, origin=_PAGE)
        refused = caught.exception
        self.assertEqual((refused.status, refused.code, refused.slug), (None, 4404, "vmi-not-found"))
        self.assertIn('"none" not found', refused.message)
        self.assertIn("refused (close code 4404 vmi-not-found): ", str(refused))

    def test_by_close(self) -> None:
        """The code tells a refusal by Close alone from the end of a console."""
        proxy = self.start_proxy(subresources=["console"], reject="close")
        with self.assertRaises(ConsoleClosed) as caught:
            RFBClient(proxy, self.token("none"), "none/console")
        self.assertEqual((caught.exception.code, caught.exception.slug), (4404, "vmi-not-found"))

    def test_by_the_machine(self) -> None:
        """A refusal of the display server has the server's text, and no slug."""
        said = b"".join(refusal("too many viewers"))
        self.api.add_vmi("ubuntu", self.namespace, backend=SocketBackend(lambda sock: sock.sendall(said)))
        with self.assertRaises(ConsoleRefused) as caught:
            self.open_console("ubuntu")
        self.assertEqual((caught.exception.code, caught.exception.message), (1011, "too many viewers"))

    def test_texts(self) -> None:
        """Unknown parts stay empty, and the text quotes other servers' answers in part."""
        cases = (
            (UpgradeRefused(302, {}, b""), "the console was refused (HTTP 302): the answer gives no reason"),
            (
                UpgradeRefused(502, {}, b"<p>nginx"),
                "the console was refused (HTTP 502): the answer is '<p>nginx'",
            ),
            (
                UpgradeRefused(400, {}, b'{"code": 1}'),
                "the console was refused (HTTP 400): the answer is '{\"code\": 1}'",
            ),
            (UpgradeRefused(400, {}, b"[]"), "the console was refused (HTTP 400): the answer is '[]'"),
            (RFBRefused("no"), "the console was refused: no"),
            (RFBRefused("no", ConsoleClosed(ABNORMAL, "")), "the console was refused: no"),
        )
        for error, text in cases:
            with self.subTest(text):
                self.assertEqual(str(error), text)
        self.assertEqual(UpgradeRefused(302, {}, b"x" * 999).message, f"the answer is {'x' * 200!r}")

    def test_no_token_in_errors(self) -> None:
        """No error of a console holds its token."""
        token = make_token("x" * 32, namespace=self.namespace, vmis=["ubuntu"])
        proxy = self.start_proxy(allow_origin=[_PAGE])
        for options in ({}, {"origin": _PAGE}):
            with self.subTest(options), self.assertRaises(ConsoleRefused) as caught:
                RFBClient(proxy, token, "ubuntu", **options)  # type: ignore[arg-type]
            error: BaseException | None = caught.exception
            while error is not None:
                self.assertNotIn(token, f"{error!r} {vars(error)!r}")
                error = error.__cause__ or error.__context__
