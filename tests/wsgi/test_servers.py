"""What wsproxy finds out about the WSGI server that runs an application."""

from __future__ import annotations

import io
import signal
import socket
import unittest
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.support.wsgi_host import gunicorn_worker
from wsproxy.exceptions import UnsupportedServer
from wsproxy.testing.case import LeakTestCase
from wsproxy.wsgi.servers import WSGIServer, client_socket, take_read_ahead


class ClientSocketTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sock, self.peer = socket.socketpair()
        self.addCleanup(self.sock.close)
        self.addCleanup(self.peer.close)

    def test_threaded_servers(self) -> None:
        """werkzeug's server and gunicorn's threads give the client's socket."""
        for name in ("werkzeug.socket", "gunicorn.socket"):
            self.assertIs(client_socket({name: self.sock, "wsgi.multithread": True}, 2), self.sock)

    def test_others(self) -> None:
        """For every other server, the error names it, and what to use instead."""
        for environ, named in (
            (
                {"gunicorn.socket": self.sock, "SERVER_SOFTWARE": "gunicorn/27.0"},
                "gunicorn serves one request",
            ),
            ({"werkzeug.socket": self.sock, "SERVER_SOFTWARE": "Werkzeug/3"}, "Werkzeug serves one request"),
            ({"SERVER_SOFTWARE": "gevent/24.2 Python/3.11"}, "gevent gives no socket"),
            ({"eventlet.input": object()}, "eventlet gives no socket"),
            ({"waitress.client_disconnected": object()}, "waitress gives no socket"),
            ({"uwsgi.version": b"2.0"}, "uWSGI gives no socket"),
            ({"mod_wsgi.version": (5, 0)}, "mod_wsgi gives no socket"),
            ({"SERVER_SOFTWARE": "Cheroot/10.0"}, "Cheroot gives no socket"),
            ({}, "the WSGI server gives no socket"),
        ):
            with self.subTest(named), self.assertRaises(UnsupportedServer) as caught:
                client_socket(environ, 4)
            self.assertIn(named, caught.exception.message)
            for remedy in ("gthread --threads N, where N is 5 or", "werkzeug 2.0 or newer", "run_in_thread"):
                self.assertIn(remedy, caught.exception.message)

    def test_without_threads(self) -> None:
        """If a library has replaced Python's threads, the error advises nothing that needs them here."""
        green = type("socket", (), {"__module__": "gevent._socket3"})()
        patched = mock.patch("wsproxy.wsgi.servers.replaced_by", return_value="eventlet")
        for environ, library, replaced in (
            ({"gunicorn.socket": green, "wsgi.multithread": True}, "gevent", nullcontext()),
            ({"eventlet.input": object()}, "eventlet", patched),
            ({"gunicorn.socket": self.sock}, "eventlet", patched),
        ):
            with self.subTest(environ), replaced, self.assertRaises(UnsupportedServer) as caught:
                client_socket(environ, 2)
            message = caught.exception.message
            for words in ("gthread --threads N, where N is 3", f"without {library}", "program of its own"):
                self.assertIn(words, message)
            for words in ("werkzeug", "run_in_thread"):
                self.assertNotIn(words, message)


class ReadAheadTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sock, self.peer = socket.socketpair()
        self.addCleanup(self.sock.close)
        self.addCleanup(self.peer.close)

    def test_werkzeug(self) -> None:
        """Bytes that werkzeug's file has read ahead are taken out of it, without waiting for more."""
        with self.sock.makefile("rb") as file:
            environ = {"werkzeug.socket": self.sock, "wsgi.input": file}
            self.assertEqual(take_read_ahead(environ, self.sock), b"")
            self.sock.setblocking(True)
            self.peer.sendall(b"GET /\r\nframes")
            self.assertEqual(file.readline(), b"GET /\r\n")
            self.assertEqual(take_read_ahead(environ, self.sock), b"frames")
            self.assertEqual(take_read_ahead(environ, self.sock), b"")

    def test_gunicorn(self) -> None:
        """Bytes that gunicorn's parser has read ahead are taken out of it."""
        buffer = io.BytesIO()
        buffer.write(b"frames")
        body = SimpleNamespace(reader=SimpleNamespace(unreader=SimpleNamespace(buf=buffer)))
        environ = {"gunicorn.socket": self.sock, "wsgi.input": body}
        self.assertEqual(take_read_ahead(environ, self.sock), b"frames")
        self.assertEqual(take_read_ahead(environ, self.sock), b"")

    def test_out_of_reach(self) -> None:
        """If wsproxy cannot find the buffer, it takes nothing; for gunicorn it logs a warning."""
        self.assertEqual(take_read_ahead({"werkzeug.socket": self.sock, "wsgi.input": None}, self.sock), b"")
        with self.assertLogs("wsproxy.wsgi", "WARNING"):
            self.assertEqual(take_read_ahead({"gunicorn.socket": self.sock}, self.sock), b"")


class WSGIServerTest(unittest.TestCase):
    def test_werkzeug(self) -> None:
        """werkzeug starts a thread for each request, unless the embedding program gives a number."""
        environ: dict[str, Any] = {"werkzeug.socket": None}
        self.assertEqual(WSGIServer.around(environ, None), WSGIServer(None))
        self.assertEqual(WSGIServer.around(environ, 5), WSGIServer(5))

    def test_gunicorn(self) -> None:
        """A worker of gunicorn says how many threads it has, and whether it is about to stop."""
        with gunicorn_worker(threads=7) as worker:
            server = WSGIServer.around({}, 3)
            server.check()
            self.assertEqual(server.threads, 7)
            assert server.stopping is not None
            self.assertFalse(server.stopping())
            worker.alive = False
            self.assertTrue(server.stopping())

    def test_unknown(self) -> None:
        """If neither server nor program gives the number of threads, ``check`` raises."""
        for handler in (signal.SIG_DFL, None, lambda number, frame: None):
            with mock.patch("wsproxy.wsgi.servers.signal.getsignal", return_value=handler):
                server = WSGIServer.around({}, None)
                self.assertRaisesRegex(UnsupportedServer, "threads=N", server.check)
                WSGIServer.around({}, 4).check()
