"""Files as HTTP shows them (RFC 9110 sections 9.3 and 13)."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import BadRequest, MethodNotAllowed
from wsproxy.protocol.representation import Redirect, Representation, media_type
from wsproxy.protocol.request import HeadReader, RequestHead

CONTENT = b"<p>page</p>\n"
MODIFIED = 784111777.9  # RFC 9110 section 5.6.7's example, and a bit
AT = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE, AFTER = "Sun, 06 Nov 1994 08:49:36 GMT", "Mon, 07 Nov 1994 08:49:37 GMT"


def parsed(method: str, *lines: str) -> RequestHead:
    head = HeadReader().feed(
        "\r\n".join([f"{method} /x HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")
    )
    assert head is not None
    return head


def split(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, header fields and body."""
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(fields) == len(lines)
    return int(first.split()[1]), fields, body


class RepresentationCase(unittest.TestCase):
    def setUp(self) -> None:
        self.file = Representation(CONTENT, "text/html; charset=utf-8", MODIFIED, [("X-Own", "1")])
        self.etag = split(self.file.answer(parsed("GET")))[1]["ETag"]

    def status(self, *lines: str, method: str = "GET") -> int:
        """Return the status; check that only a 200 has the file as its body."""
        status, _, body = split(self.file.answer(parsed(method, *lines)))
        self.assertEqual(body == CONTENT, status == 200 and method == "GET")
        return status


class Whole(RepresentationCase):
    def test_get(self) -> None:
        """GET gets the content, with the headers that a browser needs."""
        status, fields, body = split(self.file.answer(parsed("GET")))
        self.assertEqual((status, body), (200, CONTENT))
        self.assertRegex(fields.pop("ETag"), r'\A"[0-9a-f]{32}"\Z')
        self.assertEqual(
            fields,
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(CONTENT)),
                "Cache-Control": "no-cache",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Connection": "close",
                "Last-Modified": AT,
                "X-Own": "1",
            },
        )

    def test_head(self) -> None:
        """HEAD gets the same but for the body."""
        whole = self.file.answer(parsed("GET"))
        self.assertEqual(self.file.answer(parsed("HEAD")) + CONTENT, whole)

    def test_ranges(self) -> None:
        """One range, or several, are ignored: the response is the whole file, once."""
        for line in ("Range: bytes=0-1", "Range: bytes=" + ",".join(["0-"] * 500), "Range: x", "If-Range: x"):
            self.assertEqual(self.status(line), 200)

    def test_methods(self) -> None:
        """Everything else is 405, and says what is allowed."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"):
            for page in (self.file, Redirect("x/")):
                with self.subTest(method), self.assertRaises(MethodNotAllowed) as caught:
                    page.answer(parsed(method, f"If-None-Match: {self.etag}"))
                self.assertIn(("Allow", "GET, HEAD"), caught.exception.headers)

    def test_bodies(self) -> None:
        """A request with a body is refused, whatever else it says."""
        for line in ("Content-Length: 5", "Transfer-Encoding: chunked"):
            for page in (self.file, Redirect("x/")):
                with self.subTest(line), self.assertRaises(BadRequest):
                    page.answer(parsed("GET", line, f"If-None-Match: {self.etag}"))
        self.assertEqual(self.status("Content-Length: 0"), 200)

    def test_another_content_has_another_tag(self) -> None:
        """The tag is the content's: the same on every server, whenever it was written."""

        def tag(content: bytes, modified: float) -> str:
            return split(Representation(content, "text/plain", modified).answer(parsed("GET")))[1]["ETag"]

        self.assertEqual(tag(CONTENT, 0), self.etag)
        self.assertNotEqual(tag(CONTENT + b" ", MODIFIED), self.etag)


class Conditional(RepresentationCase):
    def test_not_modified(self) -> None:
        """A client that has this version gets 304, with the headers of a 200 and without the body."""
        whole = split(self.file.answer(parsed("GET")))[1]
        for method in ("GET", "HEAD"):
            status, fields, body = split(self.file.answer(parsed(method, f"If-None-Match: {self.etag}")))
            self.assertEqual((status, fields, body), (304, whole, b""))

    def test_if_none_match(self) -> None:
        """One tag of several is enough, weak ones count, and so does a star."""
        for value in (self.etag, f"W/{self.etag}", f'"x", {self.etag}', f'"a,b" , W/"y",{self.etag}', "*"):
            self.assertEqual(self.status(f"If-None-Match: {value}"), 304, value)
        for value in ('"x"', self.etag.strip('"'), f"{self.etag}x", "", '"*"', f"w/{self.etag}"):
            self.assertEqual(self.status(f"If-None-Match: {value}"), 200, value)
        self.assertEqual(self.status('If-None-Match: "x"', f"If-None-Match: {self.etag}"), 304)

    def test_if_modified_since(self) -> None:
        """A client whose copy is of that second or later gets 304."""
        for value, status in ((AT, 304), (AFTER, 304), (BEFORE, 200)):
            self.assertEqual(self.status(f"If-Modified-Since: {value}"), status, value)
        for obsolete in ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            self.assertEqual(self.status(f"If-Modified-Since: {obsolete}"), 304, obsolete)

    def test_what_is_no_date(self) -> None:
        """A header with an invalid date, or two of them, are ignored."""
        for value in ("", "yesterday", "784111777", "Sun, 99 Nov 1994 08:49:37 GMT", "9" * 400, "\xff"):
            self.assertEqual(self.status(f"If-Modified-Since: {value}"), 200, value)
            self.assertEqual(self.status(f"If-Unmodified-Since: {value}"), 200, value)
        self.assertEqual(self.status(f"If-Modified-Since: {AFTER}", f"If-Modified-Since: {AFTER}"), 200)

    def test_tags_come_before_dates(self) -> None:
        """If a request has a tag and a date, the tag counts (RFC 9110 section 13.2.2)."""
        self.assertEqual(self.status('If-None-Match: "x"', f"If-Modified-Since: {AFTER}"), 200)
        self.assertEqual(self.status(f"If-None-Match: {self.etag}", f"If-Modified-Since: {BEFORE}"), 304)
        self.assertEqual(self.status(f"If-Match: {self.etag}", f"If-Unmodified-Since: {BEFORE}"), 200)

    def test_preconditions(self) -> None:
        """If a precondition fails, the client gets 412, before other conditions count."""
        for line, status in (
            (f"If-Match: {self.etag}", 200),
            ("If-Match: *", 200),
            ('If-Match: "x"', 412),
            (f"If-Match: W/{self.etag}", 412),
            (f"If-Unmodified-Since: {AT}", 200),
            (f"If-Unmodified-Since: {BEFORE}", 412),
        ):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.status(line, method=method), status, line)
        self.assertEqual(self.status('If-Match: "x"', f"If-None-Match: {self.etag}"), 412)


class Redirects(unittest.TestCase):
    def test_redirect(self) -> None:
        """A redirect always leads to the same place, and browsers do not cache it."""
        for method in ("GET", "HEAD"):
            status, fields, body = split(
                Redirect("console/").answer(parsed(method, "X-Forwarded-Host: evil"))
            )
            self.assertEqual((status, fields["Location"], body), (307, "console/", b""))
            self.assertEqual(fields["Cache-Control"], "no-store")


class MediaTypes(unittest.TestCase):
    def test_types(self) -> None:
        """Each kind of file of a web client has the media type that browsers require."""
        for name, kind in (
            ("index.html", "text/html; charset=utf-8"),
            ("rfb.js", "text/javascript; charset=utf-8"),
            ("xterm.mjs", "text/javascript; charset=utf-8"),
            ("a.b.CSS", "text/css; charset=utf-8"),
            ("de.json", "application/json"),
            ("icon.svg", "image/svg+xml"),
            ("icon.png", "image/png"),
            ("favicon.ico", "image/vnd.microsoft.icon"),
            ("font.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("bell.mp3", "audio/mpeg"),
            ("bell.oga", "audio/ogg"),
            ("LICENSE.txt", "text/plain; charset=utf-8"),
            ("README.md", "text/markdown; charset=utf-8"),
        ):
            self.assertEqual(media_type(name), kind)

    def test_unknown(self) -> None:
        """An unknown suffix has the type of plain bytes, which no browser runs or shows."""
        for name in ("html", "a.exe", "a.html.", "a.html~", "a.php", "a.xhtml"):
            self.assertEqual(media_type(name), "application/octet-stream")
