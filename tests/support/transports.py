"""What the tests of transports share: connected pairs, and the tests that every kind has to pass."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from typing import ClassVar, cast
from unittest import mock

from wsproxy.exceptions import TransportClosed
from wsproxy.net.sockets import READABLE, take, wait
from wsproxy.net.tls import TLSTransport, accept_tls, tls_steps
from wsproxy.net.tls_context import ClientTLS, server_context
from wsproxy.net.transport import PlainTransport, Transport
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.certificates import CertificateAuthority

__all__ = ["SHORT", "WAIT", "CommonTests", "TransportCase", "connect_tls", "ignore", "in_thread"]

WAIT = 60.0
SHORT = 0.02
_JIFFY = 0.01  # seconds by which the kernel's clock may be coarse


def connect_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_hostname: str,
    deadline: Deadline,
    on_socket: Callable[[socket.socket], None],
) -> TLSTransport:
    """Do the client's TLS handshake on a connected socket."""
    return take(tls_steps(sock, context, on_socket, server_hostname=server_hostname), deadline)


def ignore(sock: socket.socket) -> None:
    """Take no interest in a socket."""


def in_thread(target: Callable[[], object]) -> Callable[[], object]:
    """Run ``target`` in a thread; the returned function joins it and gives its result or its error."""
    results: list[object] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(target())
        except BaseException as exc:  # noqa: BLE001 - raised again where it is joined
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> object:
        thread.join(WAIT)
        if errors:
            raise errors[0]
        return results[0]

    return join


class TransportCase(LeakTestCase):
    directory: ClassVar[str]
    authority: ClassVar[CertificateAuthority]
    certificate: ClassVar[tuple[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.directory = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.authority = CertificateAuthority(cls.directory)
        cls.certificate = cls.authority.issue()

    def sockets(self, *, tcp: bool = False) -> tuple[socket.socket, socket.socket]:
        """Return a connected pair, closed at the end of the test."""
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                one = socket.create_connection(listener.getsockname())
                two = listener.accept()[0]
        else:
            one, two = socket.socketpair()
        for sock in (one, two):
            self.addCleanup(sock.close)
        return one, two

    def plain_pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        one, two = self.sockets(tcp=tcp)
        return PlainTransport(one), PlainTransport(two)

    def tls_pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        """Return both ends of a TLS connection: the client's and the server's."""
        one, two = self.sockets(tcp=tcp)
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        accept = in_thread(lambda: accept_tls(two, server_context(*self.certificate), Deadline(WAIT)))
        client = connect_tls(one, context, "localhost", Deadline(WAIT), ignore)
        self.addCleanup(client.close)
        server = cast(Transport, accept())
        self.addCleanup(server.close)
        return client, server


class CommonTests(TransportCase):
    """What every kind has to do; import the module, not this name, or the loader runs it without a kind."""

    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        raise NotImplementedError

    def fill(self, transport: Transport) -> bytes:
        """Send until nothing more is taken; return what was taken."""
        taken = b""
        block = bytes(range(256)) * 64
        while True:
            view = block
            sent = transport.try_send(view)
            taken += view[:sent]
            if sent < len(view):
                return taken

    def receive(self, transport: Transport, size: int) -> bytes:
        """Receive exactly ``size`` bytes."""
        data = b""
        while len(data) < size:
            received = transport.recv(min(65536, size - len(data)), Deadline(WAIT))
            self.assertTrue(received, "the stream ended")
            data += received
        return data

    def test_recv_and_send(self) -> None:
        """Bytes arrive in order in both directions."""
        one, two = self.pair()
        one.send(b"hello", Deadline(WAIT))
        self.assertEqual(two.recv(3, Deadline(WAIT)), b"hel")
        self.assertEqual(two.recv(100, Deadline(WAIT)), b"lo")
        two.sendall(b"world")
        self.assertEqual(self.receive(one, 5), b"world")

    def test_recv_into(self) -> None:
        """recv_into fills as much of the buffer as there is."""
        one, two = self.pair()
        one.sendall(memoryview(b"hello"))
        buffer = bytearray(100)
        size = two.recv_into(memoryview(buffer))
        self.assertEqual(buffer[:size], b"hello")

    def test_try_recv_into(self) -> None:
        """try_recv_into takes what is there, unread bytes first; it tells nothing yet from the end."""
        one, two = self.pair()
        buffer = bytearray(1 << 16)
        view = memoryview(buffer)
        self.assertRaises(TimeoutError, one.recv, 1, Deadline(SHORT))  # takes in the session tickets of TLS
        self.assertIsNone(two.try_recv_into(view))
        one.sendall(b"hello")
        two.unread(b"well, ")
        self.assertTrue(two.has_unread)
        self.assertEqual(two.try_recv_into(view), 6)
        self.assertFalse(two.has_unread)
        wait(two.fileno(), READABLE, Deadline(WAIT))
        self.assertEqual(two.try_recv_into(view), 5)
        self.assertEqual(buffer[:5], b"hello")
        self.assertIsNone(two.try_recv_into(view))
        one.close()
        wait(two.fileno(), READABLE, Deadline(WAIT))
        self.assertEqual([two.try_recv_into(view) for _ in range(2)], [0, 0])

    def test_all_there_is_at_once(self) -> None:
        """Whatever has come is had in one call, as long as there is room for 16 KiB more."""
        for receive in ("recv_into", "try_recv_into"):
            with self.subTest(receive=receive):
                one, two = self.pair()
                for size in (16384, 40000, 49152, 50000):
                    data = random.Random(size).randbytes(size)
                    one.sendall(data)
                    buffer = bytearray(1 << 16)
                    self.assertEqual(getattr(two, receive)(memoryview(buffer)), size)
                    self.assertEqual(buffer[:size], data)

    def test_recv_deadline(self) -> None:
        """recv gives up at its deadline, and the next one goes on."""
        one, two = self.pair()
        self.assertRaises(TimeoutError, two.recv, 100, Deadline(SHORT))
        self.assertRaises(TimeoutError, two.recv, 100, Deadline(0))
        one.sendall(b"late")
        self.assertEqual(two.recv(100, Deadline(WAIT)), b"late")

    def test_send_deadline(self) -> None:
        """send gives up at its deadline when the peer takes nothing."""
        one, _ = self.pair()
        self.fill(one)
        self.assertRaises(TimeoutError, one.send, bytes(1 << 20), Deadline(SHORT))

    def test_send_waits_for_room(self) -> None:
        """send waits for room while the peer takes some, and nothing is lost or doubled."""
        one, two = self.pair()
        data = random.Random(1).randbytes(3 << 20)
        join = in_thread(lambda: self.receive(two, len(data)))
        one.send(data, Deadline(WAIT))
        self.assertEqual(join(), data)

    def test_sendall_waits_for_room(self) -> None:
        """sendall does the same without a deadline."""
        one, two = self.pair()
        data = random.Random(2).randbytes(3 << 20)
        join = in_thread(lambda: self.receive(two, len(data)))
        one.sendall(memoryview(data))
        self.assertEqual(join(), data)

    def test_both_directions_at_once(self) -> None:
        """One thread may receive while another sends, on both sides."""
        one, two = self.pair()
        up, down = random.Random(3).randbytes(2 << 20), random.Random(4).randbytes(2 << 20)
        joins = [in_thread(lambda: one.sendall(up)), in_thread(lambda: two.sendall(down))]
        found_up = in_thread(lambda: self.receive(two, len(up)))
        found_down = in_thread(lambda: self.receive(one, len(down)))
        self.assertEqual((found_up(), found_down()), (up, down))
        for join in joins:
            join()

    def test_try_send_with_room(self) -> None:
        """try_send takes it all when there is room."""
        one, two = self.pair()
        self.assertEqual(one.try_send(b"hello"), 5)
        self.assertEqual(self.receive(two, 5), b"hello")

    def test_try_send_without_room(self) -> None:
        """try_send takes a part, then nothing, and never blocks; all that was taken arrives."""
        one, two = self.pair()
        taken = self.fill(one)
        self.assertGreater(len(taken), 0)
        for _ in range(2):  # small pieces may still fit
            rest = bytes(range(256)) * 64
            sent = one.try_send(rest)
            taken += rest[:sent]
        self.assertEqual(self.receive(two, len(taken)), taken)
        self.assertRaises(TimeoutError, two.recv, 1, Deadline(SHORT))
        self.assertEqual(one.try_send(rest[sent:]), len(rest) - sent)
        self.assertEqual(self.receive(two, len(rest) - sent), rest[sent:])

    def test_unread(self) -> None:
        """What is given back is received first, by either call, in any pieces."""
        one, two = self.pair()
        one.sendall(b"!")
        two.unread(b"world")
        two.unread(b"hello ")
        self.assertEqual(two.recv(3, Deadline(0)), b"hel")
        buffer = bytearray(4)
        self.assertEqual(two.recv_into(memoryview(buffer)), 4)
        self.assertEqual(buffer, b"lo w")
        self.assertEqual(two.recv(100, Deadline(0)), b"orld")
        self.assertEqual(two.recv(100, Deadline(WAIT)), b"!")

    def test_unread_nothing(self) -> None:
        """Giving back nothing is no end of the stream."""
        one, two = self.pair()
        two.unread(b"")
        self.assertRaises(TimeoutError, two.recv, 1, Deadline(SHORT))
        one.sendall(b"x")
        self.assertEqual(two.recv(1, Deadline(WAIT)), b"x")

    def test_end_of_stream(self) -> None:
        """The end of the stream is no bytes, again and again, after all that was sent."""
        one, two = self.pair()
        # Takes in the session tickets of TLS: a close with unread bytes would be a reset.
        self.assertRaises(TimeoutError, one.recv, 1, Deadline(SHORT))
        one.sendall(b"last")
        one.close()
        self.assertEqual(self.receive(two, 4), b"last")
        for _ in range(2):
            self.assertEqual(two.recv(1, Deadline(WAIT)), b"")
            self.assertEqual(two.recv_into(memoryview(bytearray(1))), 0)

    def test_send_to_a_closed_peer(self) -> None:
        """Sending to a peer that is gone raises TransportClosed, in all three ways."""
        block = bytes(1 << 16)

        def until_closed(send: Callable[[], object]) -> None:
            for _ in range(1000):
                send()

        for send in (
            lambda transport: transport.sendall(block),
            lambda transport: transport.try_send(block),
            lambda transport: transport.send(block, Deadline(WAIT)),
        ):
            one, two = self.pair()
            two.close()
            self.assertRaises(TransportClosed, until_closed, lambda one=one, send=send: send(one))

    def wakes(self, transport: Transport, call: Callable[[], object]) -> None:
        """Check that ``abort`` ends a call that blocks, by the end of the stream or by TransportClosed."""
        started = threading.Event()

        def run() -> object:
            started.set()
            try:
                return call()
            except TransportClosed:
                return 0

        join = in_thread(run)
        self.assertTrue(started.wait(WAIT))
        transport.abort()
        self.assertFalse(join())

    def test_abort_wakes_a_receiver(self) -> None:
        """abort wakes a blocked recv_into and a blocked recv at once."""
        one, _ = self.pair()
        self.wakes(one, lambda: one.recv_into(memoryview(bytearray(1))))
        one, _ = self.pair()
        self.wakes(one, lambda: one.recv(1, Deadline(WAIT)))

    def test_abort_wakes_a_sender(self) -> None:
        """abort wakes a blocked sendall and a blocked send at once."""
        one, _ = self.pair()
        self.fill(one)
        self.wakes(one, lambda: one.sendall(bytes(1 << 24)))
        one, _ = self.pair()
        self.fill(one)
        self.wakes(one, lambda: one.send(bytes(1 << 24), Deadline(WAIT)))

    def test_abort_wakes_both(self) -> None:
        """abort wakes a receiver and a sender of the same transport."""
        one, _ = self.pair()
        self.fill(one)
        receiver = in_thread(lambda: self.wakes(one, lambda: one.recv_into(memoryview(bytearray(1)))))
        self.wakes(one, lambda: one.sendall(bytes(1 << 24)))
        receiver()

    def test_abort_again(self) -> None:
        """abort may be called any number of times, also when all is closed; then nothing can be sent."""
        one, two = self.pair()
        one.abort()
        one.abort()
        self.assertRaises(TransportClosed, one.sendall, b"x")
        self.assertRaises(TransportClosed, one.try_send, b"x")
        self.assertEqual(two.recv(1, Deadline(WAIT)), b"")
        one.close()
        one.abort()
        one.close()

    def test_broken_off(self) -> None:
        """A sender is woken and nothing is sent any more, but what comes can still be received."""
        one, two = self.pair(tcp=True)  # the end of a direction wakes nobody at a Unix socket
        self.fill(one)
        sender = in_thread(lambda: self.assertRaises(TransportClosed, one.sendall, bytes(1 << 24)))
        one.break_off()
        one.break_off()
        sender()
        self.assertRaises(TransportClosed, one.try_send, b"x")
        two.sendall(b"hello")
        self.assertEqual(one.recv(5, Deadline(WAIT)), b"hello")
        one.close()
        one.break_off()

    def test_given_back(self) -> None:
        """A socket that is somebody else's is ended, not closed, and left blocking and without TLS."""
        one, two = self.pair()
        two.sendall(b"more than anybody reads")
        one.give_back()
        one.give_back()
        sock = one._sock
        self.assertTrue(sock.getblocking())
        while sock.recv(4096):  # blocking, and no error, whatever had come
            pass
        self.assertRaises(BrokenPipeError, sock.sendall, b"x")
        self.assertEqual(two.recv(1, Deadline(WAIT)), b"")
        one.close()
        one.give_back()

    def test_closed_already(self) -> None:
        """Every call on a closed transport raises TransportClosed."""
        one, _ = self.pair()
        one.close()
        for call in (
            lambda: one.recv(1, Deadline(WAIT)),
            lambda: one.recv_into(memoryview(bytearray(1))),
            lambda: one.send(b"x", Deadline(WAIT)),
            lambda: one.sendall(b"x"),
            lambda: one.try_send(b"x"),
        ):
            self.assertRaises(TransportClosed, call)

    def test_many_small_pieces(self) -> None:
        """A peer that sends byte by byte is woken for sixteen times, and then what came is taken together."""
        one, two = self.pair()
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            one.sendall(b"x" * 100)

        with mock.patch("wsproxy.net.transport.time.sleep", pause):
            for _ in range(16):
                one.sendall(b"x")
                self.assertEqual(two.recv_sparingly(4096, Deadline(WAIT)), b"x")
            self.assertEqual(pauses, [])
            for _ in range(3):
                one.sendall(b"x")
                self.assertEqual(two.recv_sparingly(4096, Deadline(WAIT)), b"x" * 101)
        self.assertEqual(pauses, [0.1] * 3)

    def test_many_small_pieces_until_the_deadline(self) -> None:
        """The pause ends at the deadline, which counts although something is there."""
        one, two = self.pair()
        for _ in range(16):
            one.sendall(b"x")
            two.recv_sparingly(4096, Deadline(WAIT))
        one.sendall(b"x")
        with self.assertRaises(TimeoutError):
            two.recv_sparingly(4096, Deadline(0))
        self.assertEqual(two.recv_sparingly(4096, Deadline(WAIT)), b"x")

    def test_many_large_pieces(self) -> None:
        """A peer that sends as much as is asked for is never paused for."""
        one, two = self.pair()
        with mock.patch("wsproxy.net.transport.time.sleep") as sleep:
            for _ in range(50):
                one.sendall(bytes(1000))
                self.assertEqual(len(two.recv_sparingly(1000, Deadline(WAIT))), 1000)
        sleep.assert_not_called()

    def test_linger(self) -> None:
        """linger ends our direction and waits for the peer to end its own, so that nothing sent is lost."""
        one, two = self.pair()
        two.sendall(b"a request that nobody reads")
        one.sendall(b"the last word")
        join = in_thread(lambda: one.linger(Deadline(WAIT)))
        self.assertEqual(self.receive(two, 13), b"the last word")
        self.assertEqual(two.recv(1, Deadline(WAIT)), b"")
        two.close()
        self.assertIsNone(join())

    def test_linger_deadline(self) -> None:
        """linger gives up at its deadline, whatever the peer still sends."""
        one, two = self.pair()
        two.sendall(bytes(1000))
        one.linger(Deadline(SHORT))

    def test_linger_of_a_broken_connection(self) -> None:
        """linger on a connection that is gone returns."""
        one, two = self.pair()
        two.close()
        one.linger(Deadline(WAIT))
        one.abort()
        one.linger(Deadline(WAIT))
        one.close()
        one.linger(Deadline(WAIT))

    def test_traffic(self) -> None:
        """On TCP it is known what the peer's kernel took, and when bytes passed; elsewhere not."""
        one, _ = self.pair()
        self.assertIsNone(one.traffic())
        one, two = self.pair(tcp=True)
        before = one.traffic()
        if before is None:
            self.skipTest("this system does not tell")
        self.settle()
        started = time.monotonic()
        one.sendall(bytes(10000))
        self.receive(two, 10000)
        two.sendall(b"x")
        self.receive(one, 1)  # an acknowledgement came with it
        after = one.traffic()
        passed = time.monotonic() - started
        assert after is not None
        self.assertGreaterEqual(after.taken - before.taken, 10000)
        self.assertLessEqual(after.sent_ago, passed + _JIFFY)
        self.assertLessEqual(after.heard_ago, passed + _JIFFY)
        self.settle()
        later = one.traffic()
        assert later is not None
        self.assertGreaterEqual(later.heard_ago, after.heard_ago + SHORT - _JIFFY)
        self.assertGreaterEqual(later.sent_ago, after.sent_ago + SHORT - _JIFFY)
        one.close()
        self.assertIsNone(one.traffic())

    def settle(self) -> None:
        """Let a time pass that can be measured."""
        threading.Event().wait(SHORT)
