"""What the store's process does with peers that are no members: it closes them, and serves the others."""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import StoreUnavailable
from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Member, Publication
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.local import peers, server
from wsproxy.state.stores.local.frames import MOST_BYTES, Inbox, packed, unpacked
from wsproxy.state.stores.local.peers import PeerProcess, is_trusted, peer_process
from wsproxy.state.stores.local.process import listen_at
from wsproxy.state.stores.local.server import LocalServer
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.state.values import NO_LIMITS, Held, Outcome, Request, Stage
from wsproxy.testing.case import LeakTestCase

from .conformance.case import session

_LOGGER = "wsproxy.state.local"


class FramesTest(unittest.TestCase):
    def test_byte_by_byte(self) -> None:
        """Messages come out whole, however they are cut."""
        values = [[], {"a": [1, 2.5, None, "ä"]}, "x" * 1000]
        inbox, found = Inbox(), []
        for byte in b"".join(map(packed, values)):
            inbox.feed(bytes([byte]))
            if (text := inbox.take()) is not None:
                found.append(unpacked(text))
        self.assertEqual(found, values)
        self.assertTrue(inbox.is_empty)

    def test_bounds(self) -> None:
        """Neither side makes a message that is too long, nor takes one."""
        with self.assertRaises(ValueError):
            packed("x" * MOST_BYTES)
        inbox = Inbox()
        inbox.feed(struct.pack(">I", MOST_BYTES + 1))
        with self.assertRaises(ValueError):
            inbox.take()
        inbox = Inbox()
        inbox.feed(bytes(MOST_BYTES))
        with self.assertRaises(ValueError):
            for _ in range(3):
                inbox.feed(b"12345")

    def test_nonsense(self) -> None:
        for text in (b"", b"{", b"NaN", b"\xff", b"[" * 100_000):
            with self.subTest(text[:5]), self.assertRaises(ValueError):
                unpacked(text)


class PeersTest(unittest.TestCase):
    def test_trust(self) -> None:
        """This user and root are trusted, and whoever is in the group, if there is one."""
        own = os.geteuid()
        stranger = PeerProcess(1, own + 77, frozenset({5, 6}))
        self.assertTrue(is_trusted(None, None))
        for peer, group, trusted in (
            (PeerProcess(1, own, frozenset()), None, True),
            (PeerProcess(1, 0, frozenset()), None, True),
            (stranger, None, False),
            (stranger, 7, False),
            (stranger, 6, True),
        ):
            with self.subTest(peer, group=group):
                self.assertIs(is_trusted(peer, group), trusted)

    @unittest.skipUnless(hasattr(socket, "SO_PEERCRED"), "this system does not say who a peer is")
    def test_kernel(self) -> None:
        """The kernel says who this process is."""
        with socket.socketpair()[0] as sock:
            peer = peer_process(sock)
        assert peer
        self.assertEqual((peer.pid, peer.uid), (os.getpid(), os.geteuid()))
        self.assertLessEqual({os.getegid(), *os.getgroups()}, peer.groups)


class ServerCase(LeakTestCase):
    """A server in a thread, with a clock that the test has."""

    linger = 1e9

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="wsproxy-")
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/store"
        self.now = 1000.0
        self.members: list[bool] = []
        self.is_lost = False
        self.waker, woken = socket.socketpair()
        listener = listen_at(self.path, None)
        for sock in (self.waker, woken, listener):
            self.addCleanup(sock.close)
        self.memory = MemoryStore()
        self.server = LocalServer(
            listener,
            self.memory,
            linger=self.linger,
            note_members=self.members.append,
            is_lost=lambda: self.is_lost,
            clock=lambda: self.now,
        )
        self.thread = threading.Thread(target=self.server.run, args=(woken,), name="store")
        self.thread.start()
        self.addCleanup(self.stop)
        self.store = LocalStore(self.path, starts=False, timeout=20)
        self.addCleanup(self.store.close)

    def stop(self) -> None:
        self.waker.send(b"\0")
        self.thread.join()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.settimeout(20)
        sock.connect(self.path)
        return sock

    def assert_closed(self, sock: socket.socket) -> None:
        try:
            self.assertEqual(sock.recv(100), b"")
        except ConnectionResetError:  # it left bytes of this one unread
            pass

    def passes(self, seconds: float) -> None:
        """Let time pass, and have the server notice."""
        self.settle()
        self.now += seconds
        self.settle()

    def settle(self) -> None:
        """Wait until the server has seen all that was sent: within the turn of the first, or before."""
        for _ in range(2):
            self.store.members()


class NonsenseTest(ServerCase):
    def test_closed(self) -> None:
        """Who sends nonsense is closed, with a line in the log, and others are served."""
        for sent in (
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack(">I", 3) + b"abc",
            packed({"operation": "members"}),
            packed(["members"]),
            packed([5, []]),
            packed(["listen", ["a", "b"]]),
            packed(["listen", ["a", 5, 6]]),
            struct.pack(">I", 100_000) + b"[" * 100_000,
        ):
            with self.subTest(sent[:40]), self.assertLogs(_LOGGER, "INFO") as logged:
                sock = self.connect()
                sock.sendall(sent)
                self.assert_closed(sock)
            self.assertEqual(
                [(record.levelname, record.exc_info) for record in logged.records], [("INFO", None)]
            )
            self.assertEqual(self.store.members(), ())

    def test_what_it_does_not_know(self) -> None:
        """An operation of another version is an error for the one who asks, and no more."""
        for operation, arguments in (
            ("dance", []),
            ("members", [1]),
            ("beat", ["a", 5]),
            ("hold", []),
            ("hold", [[]]),
            ("close", []),
        ):
            text = f"cannot do {operation}: .*version"
            with (
                self.subTest(operation),
                self.assertLogs(_LOGGER, "INFO") as logged,
                self.assertRaisesRegex(StoreUnavailable, text),
            ):
                self.store._asked(operation, arguments)
            self.assertEqual([record.levelname for record in logged.records], ["INFO"])
            self.assertEqual(self.store.members(), ())

    def test_bug(self) -> None:
        """A bug in the rules is logged with its traceback, and ends nothing."""
        bug = mock.patch.object(self.memory, "members", side_effect=KeyError("bug"))
        with bug, self.assertLogs(_LOGGER, "ERROR") as logged, self.assertRaises(StoreUnavailable):
            self.store._asked("members", [])
        self.assertIn("KeyError", logged.output[0])
        self.assertEqual(self.store.members(), ())

    def test_ends_in_a_message(self) -> None:
        with self.assertLogs(_LOGGER, "INFO") as logged:
            sock = self.connect()
            sock.sendall(packed(["members", []])[:-1])
            sock.shutdown(socket.SHUT_WR)
            self.assert_closed(sock)
        self.assertIn("it ended in the middle of a message", logged.output[0])

    def test_stops_in_a_message(self) -> None:
        """Who stops in a message is closed after five seconds; who says nothing may stay."""
        stalled, idle = self.connect(), self.connect()
        stalled.sendall(packed(["members", []])[:-1])
        self.passes(4.9)
        with self.assertLogs(_LOGGER, "INFO") as logged:
            self.passes(1.2)
            self.assert_closed(stalled)
        self.assertEqual(len(logged.records), 1)
        self.assertIn("it stopped in the middle of a message", logged.output[0])
        idle.sendall(packed(["members", []]))
        self.assertTrue(idle.recv(100))

    def test_strangers(self) -> None:
        """A process of another user is closed before it is read."""
        distrust = mock.patch.object(server, "is_trusted", return_value=False)
        with distrust, self.assertLogs(_LOGGER, "INFO") as logged:
            self.assert_closed(self.connect())
        self.assertIn("not trusted", logged.output[0])

    def test_stranger_in_place_of_the_store(self) -> None:
        """A member tells nothing to another user's process that listens in the place of the store."""
        stranger = PeerProcess(1, os.geteuid() + 77, frozenset())
        strange = mock.patch("wsproxy.state.stores.local.connection.peer_process", return_value=stranger)
        refused = self.assertRaisesRegex(StoreUnavailable, "neither this one nor root")
        with strange, self.assertLogs(_LOGGER, "ERROR"), refused:
            self.store.members()

    def test_too_many(self) -> None:
        with mock.patch.object(server, "_MOST_PEERS", 0), self.assertLogs(_LOGGER, "INFO") as logged:
            self.assert_closed(self.connect())
        self.assertIn("too many", logged.output[0])


class SlowReaderTest(ServerCase):
    def test_blocks_nobody(self) -> None:
        """Who does not read its answers is not read from either; others are served meanwhile."""
        rules = tuple(Rule(f"r{n}", "k", 1.7e9, 4e9, Match(user=f"user-{n}")) for n in range(1000))
        self.assertTrue(self.store.revoke(rules).done)
        slow, request, sent = self.connect(), packed(["rules", [0]]), 0
        slow.setblocking(False)
        answers = Inbox()
        for _ in range(200):
            slow.send(request)
            sent += 1
            self.assertEqual(self.store.members(), ())
        waiting = [len(one.outbox) for one in self.server._peers]
        self.assertTrue(0 < max(waiting) < 1_000_000, waiting)
        slow.settimeout(20)
        for _ in range(sent):
            while (text := answers.take()) is None:
                answers.feed(slow.recv(65536))
            self.assertEqual(len(unpacked(text)["result"]["rules"]), 1000)

    def test_is_not_read(self) -> None:
        """What it sends fills the kernel's buffers only."""
        rules = tuple(Rule(f"r{n}", "k", 1.7e9, 4e9, Match(user=f"user-{n}")) for n in range(1000))
        self.assertTrue(self.store.revoke(rules).done)
        slow, requests = self.connect(), packed(["rules", [0]]) * 5000
        slow.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            for _ in range(100):
                slow.sendall(requests)
        self.assertEqual(self.store.members(), ())

    def test_closed_in_the_end(self) -> None:
        """After five seconds without a byte nobody waits for the answer."""
        rules = tuple(Rule(f"r{n}", "k", 1.7e9, 4e9, Match(user=f"user-{n}")) for n in range(1000))
        self.assertTrue(self.store.revoke(rules).done)
        slow = self.connect()
        for _ in range(50):
            slow.sendall(packed(["rules", [0]]))
        self.passes(0.1)
        with self.assertLogs(_LOGGER, "INFO") as logged:
            self.passes(6)
            self.passes(0.1)
        self.assertIn("it stopped in the middle of a message", logged.output[0])


class EndTest(ServerCase):
    linger = 60.0

    def test_lingers(self) -> None:
        """It stays while somebody is connected, and a minute longer; then it says that nobody is there."""
        self.store.publish(Publication(Member("a", "a", 15.0)))
        self.passes(1000)
        self.assertTrue(self.thread.is_alive())
        self.store.close()
        for _ in range(20):  # it may see the end of the connection only now
            self.now += 61
            self.thread.join(1.5)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual((self.members[0], self.members[-1]), (True, False))

    def test_nobody_came(self) -> None:
        """Also if there may have been members before, there is none after a minute with nobody."""
        self.store.close()
        self.now += 61
        self.thread.join(20)
        self.assertEqual(self.members, [False])

    def test_notes_members(self) -> None:
        """It says that there are members before the first is answered, and that there are none when sure."""
        self.store.publish(Publication(Member("a", "a", 15.0)))
        self.assertEqual(self.members, [True])
        self.store.leave("a")
        self.passes(2)
        self.assertEqual(self.members, [True])
        self.passes(60)
        self.assertEqual(self.members, [True, False])
        self.store.publish(Publication(Member("b", "b", 15.0)))
        self.assertEqual(self.members, [True, False, True])

    def test_lost(self) -> None:
        """It ends if its path is another file's, because its members would not find it again."""
        self.is_lost = True
        with self.assertLogs(_LOGGER, "ERROR"):
            self.now += 1.5
            self.connect()
            self.thread.join(20)
        self.assertFalse(self.thread.is_alive())


class TransitTest(ServerCase):
    def test_listening(self) -> None:
        """Who listens gets an answer when the time is over; what it asks meanwhile waits."""
        sock = self.connect()
        self.store.publish(Publication(Member("a", "a", 100.0)))
        sock.sendall(packed(["listen", ["a", 30]]) + packed(["members", []]))
        self.passes(29)
        sock.setblocking(False)
        with self.assertRaises(BlockingIOError):
            sock.recv(100)
        sock.settimeout(20)
        self.passes(2)
        inbox, found = Inbox(), list[Any]()
        while len(found) < 2:
            inbox.feed(sock.recv(1000))
            while (text := inbox.take()) is not None:
                found.append(json.loads(text)["result"])
        self.assertIs(found[0], False)
        self.assertEqual(found[1][0]["id"], "a")

    def test_death_is_news(self) -> None:
        """Who waits for what a dead process held is told at its end, though no time passes."""
        request = Request(session("s2", "bob"), Policy.REFUSE, NO_LIMITS, may_wait=True)
        dying = LocalStore(self.path, starts=False, timeout=20)
        held = Held(session("s1"), Stage.OPEN, Policy.REFUSE)
        dying.publish(Publication(Member("b", "b", 15.0), sessions=(held,)))
        self.store.publish(Publication(Member("a", "a", 15.0)))
        self.assertIs(self.store.admit("a", request).outcome, Outcome.WAIT)
        self.store.listen("a", 0.0)
        heard: list[bool] = []
        listener = threading.Thread(target=lambda: heard.append(self.store.listen("a", 10)))
        listener.start()
        while not self.server._listeners:
            self.settle()
        self.settle()
        dying.close()
        listener.join()
        self.assertEqual(heard, [True])

    @unittest.skipUnless(os.geteuid() == 0 and peers._PEERCRED, "needs root to be another user")
    def test_another_user(self) -> None:
        """Another user's process gets no answer, even if the path's permissions would let it in."""
        os.chmod(self.path, 0o666)
        os.chmod(os.path.dirname(self.path), 0o755)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(20)
                    sock.connect(self.path)
                    status = 0 if sock.recv(1) == b"" else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
