"""Addresses as settings hold them."""

from __future__ import annotations

import unittest

from wsproxy.net.addresses import ListenAddress, WebURL, listen_fault


class ListenAddressTest(unittest.TestCase):
    def test_parse(self) -> None:
        """A host with a port, an IPv6 address in brackets, or a path; each is written as it was read."""
        for text, address in (
            ("127.0.0.1:9100", ListenAddress("127.0.0.1", 9100)),
            ("localhost:0", ListenAddress("localhost", 0)),
            ("m\u00fcnchen.example:80", ListenAddress("m\u00fcnchen.example", 80)),
            ("[::1]:65535", ListenAddress("::1", 65535)),
            ("[::ffff:1.2.3.4]:80", ListenAddress("::ffff:1.2.3.4", 80)),
            ("unix:/run/x:y", ListenAddress(path="/run/x:y")),
        ):
            with self.subTest(text=text):
                self.assertEqual(ListenAddress.parse(text), address)
                self.assertEqual(str(address), text)

    def test_faults(self) -> None:
        """Brackets hold an IPv6 address and nothing else, and a host has no control characters."""
        for text in (
            "",
            "localhost",
            "localhost:65536",
            "localhost:\u0661",
            "localhost:80\n",
            "::1:80",
            "[1.2.3.4]:80",
            "[abc]:80",
            "[:]:80",
            "[...]:80",
            "a\0b:80",
            "a\x1bb:80",
            "unix:",
        ):
            with self.subTest(text=text), self.assertRaisesRegex(ValueError, "it must be HOST:PORT"):
                ListenAddress.parse(text)


class ListenFaultTest(unittest.TestCase):
    def test_path_that_is_no_utf8(self) -> None:
        """A path may be any bytes, which stand in the environment as Python decodes them there."""
        bytes_of_latin = "\udcfc"
        self.assertIsNone(listen_fault(f"unix:/run/{bytes_of_latin}", False))
        self.assertIsNone(listen_fault("unix:/" + bytes_of_latin * 99, False))
        self.assertIsNotNone(listen_fault("unix:/" + bytes_of_latin * 100, False))
        self.assertIsNotNone(listen_fault("unix:/" + "\u00fc" * 50, False))


class WebURLTest(unittest.TestCase):
    def test_hosts(self) -> None:
        """A host is a name or an address, wherever Python's own parser draws the line."""
        for text, host, port in (
            ("https://a_b.Example:1/", "a_b.example", 1),
            ("https://[2001:DB8::1]", "2001:db8::1", 443),
            ("https://[fe80::1%eth0]/", "fe80::1%eth0", 443),
            ("https://1.2.3.4:", "1.2.3.4", 443),
        ):
            with self.subTest(text=text):
                found = WebURL.parse(text)
                self.assertEqual((found.host, found.port), (host, port))
        for text in (
            "https://",
            "https://[a]",
            "https://[1.2.3.4]",
            "https://[::1%]x]",
            "https://a:0",
            "//a b",
        ):
            with self.subTest(text=text), self.assertRaises(ValueError):
                WebURL.parse(text)


if __name__ == "__main__":
    unittest.main()
