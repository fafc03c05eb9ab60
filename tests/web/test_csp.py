"""The Content-Security-Policy of the proxy's pages."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import ConfigError
from wsproxy.web.csp import frame_ancestors, page_policy, web_policy

NOBODY = "frame-ancestors 'none'"
# From Content Security Policy Level 3, section 8.4: alert('Hello, world.');
HELLO = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"


def directives(policy: str) -> dict[str, list[str]]:
    """Return the values of each directive; none comes twice."""
    split = [directive.split() for directive in policy.split("; ")]
    found = {name: values for name, *values in split}
    assert len(found) == len(split)
    return found


class FrameAncestors(unittest.TestCase):
    def test_sources(self) -> None:
        """No page by default; ``self`` with or without quotes, origins, and ``*`` for all subdomains."""
        self.assertEqual(frame_ancestors(()), NOBODY)
        self.assertEqual(frame_ancestors(("self",)), "frame-ancestors 'self'")
        self.assertEqual(
            frame_ancestors(
                ("'self'", "https://Lab.example", "http://localhost:8080", "https://*.a-b.example")
            ),
            "frame-ancestors 'self' https://lab.example http://localhost:8080 https://*.a-b.example",
        )

    def test_faults(self) -> None:
        """Any other text is a fault, also one that would end the directive or the header."""
        for source in (
            "*",
            "https:",
            "none",
            "'none'",
            "lab.example",
            "https://lab.example/",
            "https://lab.example/path",
            "https://*",
            "https://a.*.example",
            "https://lab.example:x",
            "https://[::1]",
            "javascript://lab.example",
            "https://lab.example;",
            "https://lab.example 'self'",
            "https://lab.example\r\nX: y",
            "https://lab.example\n",
            "https://ümlaut.example",
            "",
        ):
            with self.subTest(source), self.assertRaises(ConfigError) as caught:
                frame_ancestors(("self", source))
            (fault,) = caught.exception.faults
            self.assertIn("frame_ancestors has ", fault)


class PagePolicy(unittest.TestCase):
    def test_page(self) -> None:
        """The console page may use its own files, pictures that it makes itself, and this host."""
        self.assertEqual(
            directives(page_policy(NOBODY)),
            {
                "default-src": ["'none'"],
                "script-src": ["'self'"],
                "style-src": ["'self'"],
                "img-src": ["'self'", "data:", "blob:"],
                "connect-src": ["'self'"],
                "base-uri": ["'none'"],
                "form-action": ["'none'"],
                "frame-ancestors": ["'none'"],
            },
        )

    def test_ancestors(self) -> None:
        """The policy says which pages may embed the page in a frame."""
        found = directives(page_policy("frame-ancestors 'self'"))
        self.assertEqual(found["frame-ancestors"], ["'self'"])


class WebPolicy(unittest.TestCase):
    def scripts(self, html: str, encoding: str = "utf-8") -> list[str]:
        return directives(web_policy(NOBODY, html.encode(encoding)))["script-src"]

    def test_files(self) -> None:
        """A web client may also use fonts, sounds and frames, and may connect to this host only."""
        found = directives(web_policy(NOBODY, b""))
        self.assertEqual(found["default-src"], ["'none'"])
        for name in ("script-src", "font-src", "media-src", "frame-src", "connect-src"):
            self.assertEqual(found[name], ["'self'"])

    def test_scripts_in_the_page(self) -> None:
        """An inline script is allowed by its hash; a script with ``src`` needs none."""
        script = "<script>alert('Hello, world.');</script>"
        self.assertEqual(self.scripts(f"<html><head>{script}"), ["'self'", HELLO])
        self.assertEqual(self.scripts(script.replace("<script", "<SCRIPT type='module'")), ["'self'", HELLO])
        self.assertEqual(self.scripts("<script src='app/ui.js'></script>"), ["'self'"])
        self.assertEqual(len(self.scripts(f"{script}<p></p><script>a && b < c</script>")), 3)

    def test_as_a_browser_reads_it(self) -> None:
        """Neither kinds of newline nor a byte order mark change the hash."""
        page = "<script>\na('ü');\n</script>"
        expected = self.scripts(page)
        self.assertEqual(len(expected), 2)
        self.assertEqual(self.scripts(page.replace("\n", "\r\n")), expected)
        self.assertEqual(self.scripts(page.replace("\n", "\r")), expected)
        self.assertEqual(self.scripts(page, "utf-8-sig"), expected)

    def test_what_is_no_script(self) -> None:
        """Comments, event handlers in attributes, links and a script that is never closed get no hash."""
        for html in (
            "<!-- <script>alert('Hello, world.');</script> -->",
            "<p onclick=\"alert('Hello, world.');\">",
            "<a href=\"javascript:alert('Hello, world.');\">",
            "<script>alert('Hello, world.');",
            "<style>alert('Hello, world.');</style>",
            "alert('Hello, world.');</script>",
        ):
            with self.subTest(html):
                self.assertEqual(self.scripts(html), ["'self'"])
