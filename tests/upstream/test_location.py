"""The URL of the Kubernetes API."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import ConfigError
from wsproxy.net.addresses import WebURL
from wsproxy.upstream.location import api_url


class ApiURLTest(unittest.TestCase):
    def test_parse(self) -> None:
        """Scheme, host, port and path are taken apart, with the scheme's default port."""
        for url, expected in (
            ("ws://localhost:8001", WebURL("ws", "localhost", 8001, "")),
            ("wss://10.96.0.1:443", WebURL("wss", "10.96.0.1", 443, "")),
            ("wss://api", WebURL("wss", "api", 443, "")),
            ("ws://api", WebURL("ws", "api", 80, "")),
            ("WSS://API.example/", WebURL("wss", "api.example", 443, "")),
            ("wss://[fd00::1]:6443", WebURL("wss", "fd00::1", 6443, "")),
            ("wss://api/k8s/clusters/c-1/", WebURL("wss", "api", 443, "/k8s/clusters/c-1")),
        ):
            with self.subTest(url=url):
                self.assertEqual(api_url(url), expected)

    def test_url(self) -> None:
        """A whole URL has brackets around an IPv6 address, the port, and the path in front."""
        for url, whole in (
            ("ws://localhost:8001", "ws://localhost:8001/x"),
            ("wss://[fd00::1]", "wss://[fd00::1]:443/x"),
            ("wss://api/k8s/", "wss://api:443/k8s/x"),
        ):
            self.assertEqual(api_url(url).below("/x"), whole)

    def test_password_is_not_quoted(self) -> None:
        """A URL with a password is refused, and the error does not contain the password."""
        with self.assertRaises(ConfigError) as caught:
            api_url("wss://admin:hunter2@api")
        self.assertNotIn("hunter2", str(caught.exception))

    def test_faults(self) -> None:
        """A URL that is not a plain WebSocket URL is a fault."""
        for url in (
            "",
            "localhost:8001",
            "http://localhost:8001",
            "https://api",
            "ws://",
            "ws:///path",
            "ws://:8001",
            "ws://host:port",
            "ws://host:99999",
            "ws://host:0",
            "ws://[fd00::1",
            "ws://host?x=1",
            "ws://host#x",
            "ws://user@host",
            "ws://user:word@host",
            "ws://ho st",
            "ws://host/\r\nX: y",
            "ws://hö.example",
            "ws://a\\b",
            "ws://a;b",
            "ws://[a]",
            "ws://host:0",
        ):
            with self.subTest(url=url), self.assertRaises(ConfigError) as caught:
                api_url(url)
            self.assertIn("remote_url", caught.exception.faults[0])

    def test_query_is_not_quoted(self) -> None:
        """A query may hold a token, so no fault shows it."""
        for url in ("wss://api/?token=hunter2", "ws://api:x?token=hunter2", "wss://api#hunter2"):
            with self.subTest(url=url), self.assertRaises(ConfigError) as caught:
                api_url(url)
            self.assertNotIn("hunter2", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
