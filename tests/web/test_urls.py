"""URLs of consoles: what the browser is given is what the proxy takes."""

from __future__ import annotations

import unittest
from typing import Any

from tests.support.novnc import stand_in_novnc
from wsproxy.config import Config
from wsproxy.protocol.routing import Route, session_route
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token
from wsproxy.web.urls import URLRules, console_url, page_url

TOKEN = make_token(SECRET, namespace="lab-1", vmis=["ubuntu"])
TICKET = "A" * 20 + "-_"


def rules(**options: Any) -> URLRules:
    config = Config(remote_url="ws://127.0.0.1:9", local_dev_mode=True, secret_key=SECRET, **options)
    return config.url_rules


class ConsoleURL(unittest.TestCase):
    def test_bases(self) -> None:
        """A base's path takes the place of the prefix, http stands for ws, and no slash is doubled."""
        for base, prefix, expected in (
            ("ws://127.0.0.1:5001", None, "ws://127.0.0.1:5001"),
            ("ws://[::1]:5001", None, "ws://[::1]:5001"),
            ("wss://lab.example", "ws_proxy", "wss://lab.example/ws_proxy"),
            ("wss://lab.example/", "/a/b/", "wss://lab.example/a/b"),
            ("wss://lab.example/ws", None, "wss://lab.example/ws"),
            ("wss://lab.example//ws//x/", "ws_proxy", "wss://lab.example/ws/x"),
            ("http://lab.example:8080", None, "ws://lab.example:8080"),
            ("HTTPS://lab.example", None, "wss://lab.example"),
            ("wss://lab.example/zürich", None, "wss://lab.example/z%C3%BCrich"),
            ("wss://lab.example/a%20b/50%/c%zz", None, "wss://lab.example/a%20b/50%25/c%25zz"),
            ('wss://lab.example/<"a">:@!', None, "wss://lab.example/%3C%22a%22%3E:@!"),
        ):
            with self.subTest(base=base, prefix=prefix):
                found = console_url(rules(host_path_prefix=prefix), base, TOKEN, "ubuntu")
                self.assertEqual(found, f"{expected}/{TOKEN}/ubuntu")

    def test_route(self) -> None:
        """The path of a URL is a session route that means just what was asked for."""
        given = rules(host_path_prefix="a/b", subresources=("console",), tickets=True)
        for token in (TOKEN, TICKET):
            for subresource in (None, "vnc", "console"):
                found = console_url(given, "ws://x", token, "a.b", subresource)
                route = session_route(found.removeprefix("ws://x"), given.routes)
                self.assertEqual(route, Route(token, None, "a.b", subresource or "vnc"))

    def test_bases_that_are_none(self) -> None:
        """A malformed base, or one that a browser would read as another URL, is refused."""
        for base in (
            "",
            "lab.example",
            "//lab.example",
            "ftp://lab.example",
            "wss://",
            "wss:///ws",
            "wss://user@lab.example",
            "wss://lab.example?x=1",
            "wss://lab.example/#x",
            "wss://lab.example:0",
            "wss://lab.example:99999",
            "wss://lab.example:port",
            "wss://[::1",
            "wss://[fe80::1%25eth0]",
            "wss://lab example",
            "wss://lab.example\n",
            "wss://lab.example/a\tb",
            "wss://lab.example\\ws",
            "wss://zürich.example",
            "wss://lab.example/a/../b",
            "wss://lab.example/./b",
            "wss://lab.example/a/%2e%2E",
        ):
            with self.subTest(base), self.assertRaisesRegex(ValueError, "the base must look like wss://"):
                console_url(rules(), base, TOKEN, "ubuntu")

    def test_tokens_that_no_path_may_hold(self) -> None:
        """A token that the proxy would not take from a path is refused, and not quoted."""
        no_path = rules(credentials=("header",), tickets=True)
        for given, token, reason in (
            (rules(), "", "not a JWT"),
            (rules(), "-", "not a JWT"),
            (rules(), "secret", "not a JWT"),
            (rules(), "a/b.c.d", "not a JWT"),
            (rules(), "a.b.c?d", "not a JWT"),
            (rules(), "a.b.c\n", "not a JWT"),
            (rules(), "..", "not a JWT"),
            (rules(), "a.b.ü", "not a JWT"),
            (rules(), "Bearer " + TOKEN, "not a JWT"),
            (rules(), "a.b.c.d.e", "not a JWT"),
            (rules(), TICKET, "not a JWT"),
            (rules(tickets=True), TICKET + "A", "neither a JWT nor a ticket"),
            (rules(), f"a.b.{'c' * 8189}", "8193 bytes"),
            (no_path, TOKEN, "takes no token from a path"),
        ):
            with self.subTest(token[:20]), self.assertRaisesRegex(ValueError, reason) as caught:
                console_url(given, "ws://x", token, "ubuntu")
            if len(token) > 5:
                self.assertNotIn(token, str(caught.exception))
        self.assertEqual(console_url(no_path, "ws://x", TICKET, "ubuntu"), f"ws://x/{TICKET}/ubuntu")

    def test_names(self) -> None:
        """A VMI that Kubernetes would not name so, and a subresource that is not enabled, are refused."""
        for vmi in ("", "Ubuntu", "a/b", "-", "..", "ü", "a" * 254, TOKEN):
            with (
                self.subTest(vmi[:20]),
                self.assertRaisesRegex(ValueError, "not a Kubernetes name") as caught,
            ):
                console_url(rules(), "ws://x", TOKEN, vmi)
            self.assertNotIn(TOKEN, str(caught.exception))
        for subresource in ("console", "", "vnc/x"):
            with self.subTest(subresource), self.assertRaisesRegex(ValueError, "is not enabled"):
                console_url(rules(), "ws://x", TOKEN, "ubuntu", subresource)


class PageURL(unittest.TestCase):
    def test_links(self) -> None:
        """The token stands in the fragment of the page's URL, below the base's path or the prefix."""
        given = rules(console_page=True, host_path_prefix="a/b", subresources=("console",))
        for base, vmi, subresource, expected in (
            ("https://lab.example", "ubuntu", None, f"https://lab.example/a/b/console/#{TOKEN}/ubuntu"),
            ("wss://lab.example/ws/", None, None, f"https://lab.example/ws/console/#{TOKEN}"),
            ("ws://ws:5001", "a.b", "console", f"http://ws:5001/a/b/console/#{TOKEN}/a.b/console"),
        ):
            with self.subTest(base):
                self.assertEqual(page_url(given, base, TOKEN, vmi, subresource), expected)

    def test_links_that_would_not_work(self) -> None:
        """A link that the page would not take is refused, and no token is quoted."""
        given = rules(console_page=True, tickets=True)
        for settings, base, token, vmi, subresource, reason in (
            (rules(), "https://x", TOKEN, "ubuntu", None, "set console_page"),
            (given, "https://x", TICKET, "ubuntu", None, "not a JWT"),
            (given, "https://x", f"a.b.{'c' * 8189}", "ubuntu", None, "not a JWT"),
            (given, "https://x", TOKEN, "Ubuntu", None, "not a Kubernetes name"),
            (given, "https://x", TOKEN, "ubuntu", "console", "is not enabled"),
            (given, "https://x", TOKEN, None, "vnc", "needs a VMI"),
            (given, "https://x/#y", TOKEN, "ubuntu", None, "the base must look like"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(ValueError, reason) as caught:
                page_url(settings, base, token, vmi, subresource)
            self.assertNotIn(token, str(caught.exception))


class OfAProxy(ProxyTestCase):
    """``proxy.console_url`` and ``proxy.page_url``."""

    tls = False

    def assert_opens(self, url: str) -> None:
        with RawClient.open(url) as client:
            self.assertEqual(client.status, 101)

    def test_own_address(self) -> None:
        """Without a base the URL leads to the proxy itself, with its prefix, in IPv4 and IPv6."""
        self.api.add_vmi("vm", self.namespace)
        for host in ("127.0.0.1", "::1"):
            with self.subTest(host):
                proxy = self.start_proxy(host, host_path_prefix="a/b")
                url = proxy.console_url(self.token("vm"), "vm")
                self.assertRegex(url, r"\Aws://(127\.0\.0\.1|\[::1\]):\d+/a/b/")
                self.assert_opens(url)

    def test_every_address(self) -> None:
        """A proxy that listens at every address is given the one that browsers use."""
        self.api.add_vmi("vm", self.namespace)
        proxy, token = self.start_proxy("0.0.0.0"), self.token("vm")
        with self.assertRaisesRegex(ValueError, "pass base="):
            proxy.console_url(token, "vm")
        self.assert_opens(proxy.console_url(token, "vm", base=f"http://127.0.0.1:{proxy.address[1]}/"))

    def test_page(self) -> None:
        """The link to the page leads to the proxy itself."""
        proxy = self.start_proxy(console_page=True, novnc=stand_in_novnc(self))
        scheme = "https" if self.client_tls else "http"
        expected = "{}://{}:{}/console/#{}/vm".format(scheme, *proxy.address, TOKEN)
        self.assertEqual(proxy.page_url(TOKEN, "vm"), expected)

    def test_not_running(self) -> None:
        """A proxy that does not run has no address, but its settings are enough with a base."""
        proxy, token = self.start_proxy(tickets=True, subresources=("console",)), self.token("vm")
        proxy.stop_thread()
        with self.assertRaisesRegex(RuntimeError, "does not run"):
            proxy.console_url(token, "vm")
        url = proxy.console_url(token, "vm", subresource="console", base="wss://lab.example/ws")
        self.assertEqual(url, f"wss://lab.example/ws/{token}/vm/console")


class OfAProxyWithTLS(OfAProxy):
    """The same by TLS."""

    client_tls = True

    def test_own_address(self) -> None:
        """The URL of a proxy with a certificate is a wss one."""
        self.api.add_vmi("vm", self.namespace)
        url = self.start_proxy().console_url(self.token("vm"), "vm")
        self.assertTrue(url.startswith("wss://127.0.0.1:"))
        self.assert_opens(url)

    def test_every_address(self) -> None:
        """An https base leads to it, too."""
        self.api.add_vmi("vm", self.namespace)
        proxy = self.start_proxy("0.0.0.0")
        base = f"https://127.0.0.1:{proxy.address[1]}"
        self.assert_opens(proxy.console_url(self.token("vm"), "vm", base=base))


if __name__ == "__main__":
    unittest.main()
