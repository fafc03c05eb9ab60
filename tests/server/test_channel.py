"""Messages between the supervisor and a worker."""

from __future__ import annotations

import socket

from wsproxy.server.channel import MAX_MESSAGE, Channel
from wsproxy.testing.case import LeakTestCase


class ChannelTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        ours, self.theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.addCleanup(self.channel.close)
        self.addCleanup(self.theirs.close)

    def test_messages(self) -> None:
        """Messages arrive whole and in order, however they were cut, and sending them is the reverse."""
        other = Channel(self.theirs)
        other.send({"a": 1})
        other.send({"b": [2]})
        self.assertEqual(self.channel.receive(), [{"a": 1}, {"b": [2]}])
        self.assertEqual(self.channel.receive(), [])
        for piece, expected in ((b'{"a"', []), (b": 1}\n{", [{"a": 1}]), (b"}\n", [{}])):
            self.theirs.send(piece)
            self.assertEqual(self.channel.receive(), expected)

    def test_end(self) -> None:
        """A side that is gone is the end, after all that it had said; what is sent to it is lost."""
        self.theirs.send(b"{}\n")
        self.theirs.close()
        self.assertEqual(self.channel.receive(), [{}])
        self.assertIsNone(self.channel.receive())
        self.channel.send({"a": 1})
        self.assertIsNone(self.channel.receive())

    def test_nonsense(self) -> None:
        """What is no message, or too long a one, is the end."""
        for bad in (
            b"x\n",
            b"[]\n",
            b"{}\n\xff\n",
            b"{" + b" " * MAX_MESSAGE,
            b'{"a":' + b"[" * 10000 + b"]" * 10000 + b"}\n",
            b'{"a":' + b"[" * 5000 + b"\n",
            b'{"a": NaN}\n',
            b'{"a": 1, "a": 2}\n',
            b"\xef\xbb\xbf{}\n",
        ):
            ours, theirs = socket.socketpair()
            with self.subTest(bad=bad[:8]), ours, theirs:
                theirs.send(bad)
                self.assertIsNone(Channel(ours).receive())

    def test_size(self) -> None:
        """A message may be so long and no longer, however it was cut."""
        for size, expected in ((MAX_MESSAGE, [{}]), (MAX_MESSAGE + 1, None)):
            line = b"{}".ljust(size - 1) + b"\n"
            for first in (1, MAX_MESSAGE - 2, MAX_MESSAGE - 1):
                ours, theirs = socket.socketpair()
                with self.subTest(size=size, first=first), ours, theirs:
                    channel = Channel(ours)
                    theirs.send(line[:first])
                    self.assertEqual(channel.receive(), [])
                    theirs.send(line[first:])
                    self.assertEqual(channel.receive(), expected)

    def test_nobody_reads(self) -> None:
        """Sending never blocks: a side that reads nothing is given up."""
        message = {"a": "x" * 4000}
        for _ in range(10000):
            self.channel.send(message)
        self.theirs.setblocking(False)
        while self.theirs.recv(65536):
            pass

    def test_close(self) -> None:
        """A channel can be closed twice, and says that it is."""
        self.assertFalse(self.channel.closed)
        self.channel.close()
        self.channel.close()
        self.assertTrue(self.channel.closed)
