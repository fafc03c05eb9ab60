"""Requests of the operator that are answered in threads of their own."""

from __future__ import annotations

import socket
from contextlib import closing
from unittest import mock

from wsproxy.admin.deferred import AnswerThreads, ask_through
from wsproxy.admin.routes import AdminEndpoint, AdminRequest, Reply
from wsproxy.exceptions import Busy
from wsproxy.protocol.request import RequestHead
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 20.0


class AnswersTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[AdminRequest] = []
        endpoints = {
            "/all": AdminEndpoint("GET", self.answer),
            "/one/": AdminEndpoint("DELETE", self.answer),
            "/busy": AdminEndpoint("GET", self.refuse),
            "/bug": AdminEndpoint("GET", self.fail_to_answer),
        }
        self.threads = AnswerThreads(endpoints, self)
        self.addCleanup(self.threads.stop)

    def answer(self, request: AdminRequest, reply: Reply) -> None:
        self.asked.append(request)
        reply(lambda: b"answer")

    def refuse(self, request: AdminRequest, reply: Reply) -> None:
        raise Busy("not now")

    def fail_to_answer(self, request: AdminRequest, reply: Reply) -> None:
        raise ZeroDivisionError

    def fetch(self, target: str, name: str = "", body: bytes = b"") -> bytes:
        """Return the answer to a request."""
        path = target.partition("?")[0]
        request = AdminRequest(RequestHead("GET", target, "1.1", []), path, name, body)
        with closing(self.threads.fetch(request)) as sock:
            sock.setblocking(True)
            sock.settimeout(_TIMEOUT)
            return b"".join(iter(lambda: sock.recv(4096), b""))

    def test_request(self) -> None:
        """An endpoint gets all that it may look at: the query, too, which says which page is asked for."""
        self.assertEqual(self.fetch("/all?before=1.5-x", body=b"\xff{}"), b"answer")
        self.assertEqual(self.fetch("/one/some", "some"), b"answer")
        first, second = self.asked
        self.assertEqual(
            (first.head.target, first.path, first.body), ("/all?before=1.5-x", "/all", b"\xff{}")
        )
        self.assertEqual((second.path, second.name), ("/one/some", "some"))

    def test_refused(self) -> None:
        """What an endpoint refuses is refused, and a bug is a 500 with one traceback."""
        self.assertIn(b" 503 ", self.fetch("/busy"))
        with self.assertLogs("wsproxy.admin", "ERROR"):
            self.assertIn(b" 500 ", self.fetch("/bug"))

    def test_no_thread(self) -> None:
        """If the system starts no more threads, the operator is told, and the process goes on."""
        no_thread = mock.patch("wsproxy.admin.deferred.start_thread", side_effect=RuntimeError("no thread"))
        request = AdminRequest(RequestHead("GET", "/all", "1.1", []), "/all")
        with (
            no_thread,
            self.assertLogs("wsproxy.admin", "ERROR"),
            closing(self.threads.fetch(request)) as sock,
        ):
            self.assertIn(b" 503 ", sock.recv(4096))
        self.assertEqual(self.fetch("/all"), b"answer")

    def test_nobody_can_answer(self) -> None:
        """If nobody can answer, no socket is left."""

        def give(sock: socket.socket) -> None:
            raise Busy("nobody")

        with self.assertRaises(Busy):
            ask_through(AdminRequest(RequestHead("GET", "/all", "1.1", []), "/all"), give)
