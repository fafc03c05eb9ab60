"""The text that the demo prints."""

from __future__ import annotations

import unittest

from wsproxy.cli.demo_guide import Guide
from wsproxy.cli.demo_machines import MAIN, machines
from wsproxy.exceptions import BadToken
from wsproxy.testing.case import SECRET, LeakTestCase
from wsproxy.tokens.keys import Keyring, load_keys
from wsproxy.tokens.verifier import TokenVerifier

_ADDRESS = ("127.0.0.1", 5001)
_PAGE = "http://127.0.0.1:5001/console/#"


class GuideTest(LeakTestCase):
    """The text, and the tokens in it."""

    def test_urls(self) -> None:
        """Every URL stands in the text, the first opens the main desktop, and they differ."""
        with machines() as running:
            guide = Guide(SECRET, running)
            urls, text = guide.urls(_ADDRESS), guide.text(_ADDRESS)
        self.assertEqual(urls[0], f"{_PAGE}{guide.token}/{MAIN}")
        self.assertEqual(len(set(urls)), len(urls))
        for url in urls:
            self.assertIn(f"    {url}\n", text)

    def test_tokens(self) -> None:
        """All tokens allow their machines, except the last, whose signature is wrong."""
        verifier = TokenVerifier(Keyring(load_keys(SECRET)))
        with machines() as running:
            urls = Guide(SECRET, running).urls(_ADDRESS)
        *good, bad = (url.removeprefix(_PAGE).split("/") for url in urls)
        for token, vmi, *_ in good:
            verifier.verify(token).authorize(vmi)
        with self.assertRaises(BadToken):
            verifier.verify(bad[0])


if __name__ == "__main__":
    unittest.main()
