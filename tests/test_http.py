"""The named HTTP endpoints, without I/O; end to end they are in ``test_refusals``."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import BadRequest, MethodNotAllowed, NotFound
from wsproxy.http import answer
from wsproxy.upgrade import HeadReader, RequestHead


def head(line: str, *headers: str) -> RequestHead:
    parsed = HeadReader().feed("\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
    assert parsed is not None
    return parsed


class Answer(unittest.TestCase):
    def test_get(self) -> None:
        """GET gets a whole response that closes the connection and may not be kept."""
        lines, _, body = answer(head("GET /healthz"), ()).partition(b"\r\n\r\n")
        first, *headers = lines.decode().split("\r\n")
        self.assertEqual((first, body), ("HTTP/1.1 200 OK", b"ok\n"))
        for header in ("Content-Length: 3", "Connection: close", "Cache-Control: no-store"):
            self.assertIn(header, headers)

    def test_head(self) -> None:
        """HEAD gets the headers of GET and no body."""
        get, bare = (answer(head(f"{method} /healthz"), ()) for method in ("GET", "HEAD"))
        self.assertEqual(bare + b"ok\n", get)

    def test_with_and_without_prefix(self) -> None:
        """An endpoint answers under the prefix and without it, for probes that know none."""
        for target in ("/healthz", "/a/b/healthz", "//a/b//healthz/?x=1"):
            self.assertTrue(answer(head(f"GET {target}"), ("a", "b")).startswith(b"HTTP/1.1 200 "))
        for target in ("/b/healthz", "/a/healthz", "/a/b", "/"):
            with self.subTest(target=target), self.assertRaises(NotFound):
                answer(head(f"GET {target}"), ("a", "b"))

    def test_path_comes_before_method_and_body(self) -> None:
        """What does not exist is 404 for every method; what exists is 405, and only then 400."""
        with self.assertRaises(NotFound):
            answer(head("POST /x", "Content-Length: 1"), ())
        with self.assertRaises(MethodNotAllowed):
            answer(head("POST /healthz", "Content-Length: 1"), ())
        with self.assertRaises(BadRequest):
            answer(head("GET /healthz", "Content-Length: 1"), ())
        answer(head("GET /healthz", "Content-Length: 0"), ())

    def test_malformed_target(self) -> None:
        """A target that is no path is 400."""
        for target in ("*", "http://x/healthz", "/%68ealthz", "/../healthz"):
            with self.subTest(target=target), self.assertRaises(BadRequest):
                answer(head(f"GET {target}"), ())


if __name__ == "__main__":
    unittest.main()
