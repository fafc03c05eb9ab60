"""Transports, plain and TLS: receiving, sending, waking, and how they are connected."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, cast
from unittest import mock

from wsproxy.deadline import Deadline
from wsproxy.exceptions import ConfigError, TransportClosed
from wsproxy.sockets import READABLE, wait, wake
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.certificates import CertificateAuthority
from wsproxy.transport import (
    ClientTLS,
    PlainTransport,
    TLSSession,
    TLSTransport,
    Transport,
    accept_tls,
    connect_tls,
    server_context,
)

WAIT = 10.0
SHORT = 0.02


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
    """What both kinds have in common; the base class itself has no kind."""

    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        self.skipTest("has no kind")

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

        with mock.patch("wsproxy.transport.time.sleep", pause):
            for _ in range(16):
                one.sendall(b"x")
                self.assertEqual(two.recv(4096, Deadline(WAIT)), b"x")
            self.assertEqual(pauses, [])
            for _ in range(3):
                one.sendall(b"x")
                self.assertEqual(two.recv(4096, Deadline(WAIT)), b"x" * 101)
        self.assertEqual(pauses, [0.1] * 3)

    def test_many_small_pieces_until_the_deadline(self) -> None:
        """The pause ends at the deadline, which counts although something is there."""
        one, two = self.pair()
        for _ in range(16):
            one.sendall(b"x")
            two.recv(4096, Deadline(WAIT))
        one.sendall(b"x")
        with self.assertRaises(TimeoutError):
            two.recv(4096, Deadline(0))
        self.assertEqual(two.recv(4096, Deadline(WAIT)), b"x")

    def test_many_large_pieces(self) -> None:
        """A peer that sends as much as is asked for is never paused for."""
        one, two = self.pair()
        with mock.patch("wsproxy.transport.time.sleep") as sleep:
            for _ in range(50):
                one.sendall(bytes(1000))
                self.assertEqual(len(two.recv(1000, Deadline(WAIT))), 1000)
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

    def test_bytes_taken(self) -> None:
        """On TCP it is known what the peer's kernel took; elsewhere it is not."""
        one, _ = self.pair()
        self.assertIsNone(one.bytes_taken())
        one, two = self.pair(tcp=True)
        before = one.bytes_taken()
        if before is None:
            self.skipTest("this system does not tell")
        one.sendall(bytes(10000))
        self.receive(two, 10000)
        two.sendall(b"x")
        self.receive(one, 1)  # an acknowledgement came with it
        after = one.bytes_taken()
        assert after is not None
        self.assertGreaterEqual(after - before, 10000)
        one.close()
        self.assertIsNone(one.bytes_taken())


class PlainTransportTest(CommonTests):
    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        return self.plain_pair(tcp=tcp)

    def test_reset(self) -> None:
        """A connection that the peer resets raises TransportClosed."""
        one, two = self.pair(tcp=True)
        sock = two._sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        two.close()
        self.assertRaises(TransportClosed, one.recv, 1, Deadline(WAIT))

    def test_tcp_gives_up(self) -> None:
        """A peer that TCP has given up is a broken connection, not a deadline of ours."""
        one, _ = self.pair()
        error = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        with mock.patch.object(PlainTransport, "_try_recv", side_effect=error):
            self.assertRaises(TransportClosed, one.recv, 1, Deadline(WAIT))


class TLSTransportTest(CommonTests):
    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        return self.tls_pair(tcp=tcp)

    def test_read_that_has_to_write(self) -> None:
        """A read for which TLS has to send first, and cannot, is told from one that finds nothing."""
        _, two = self.pair()
        with mock.patch.object(two, "_tls") as tls:
            tls.recv_into.side_effect = ssl.SSLWantWriteError
            self.assertEqual(two.try_recv_into(memoryview(bytearray(1))), -1)
            tls.recv_into.side_effect = ssl.SSLWantReadError
            self.assertIsNone(two.try_recv_into(memoryview(bytearray(1))))

    def test_it_is_tls(self) -> None:
        """What goes over the wire is TLS 1.2 or newer."""
        one, _ = self.pair()
        assert isinstance(one, TLSTransport)
        self.assertIn(one._tls.version(), ("TLSv1.2", "TLSv1.3"))

    def test_records_larger_than_the_buffer(self) -> None:
        """What OpenSSL has decrypted already is received without the socket becoming readable again."""
        one, two = self.pair()
        one.sendall(bytes(range(200)))
        found = b"".join(two.recv(1, Deadline(WAIT)) for _ in range(200))
        self.assertEqual(found, bytes(range(200)))

    def test_garbage_on_the_wire(self) -> None:
        """Bytes that are no TLS raise TransportClosed."""
        one, two = self.pair()
        assert isinstance(two, TLSTransport)
        socket.socket.send(two._sock, b"GET / HTTP/1.1\r\n\r\n")
        self.assertRaises(TransportClosed, one.recv, 1, Deadline(WAIT))

    def test_stress(self) -> None:
        """Full load both ways at once stays intact on one TLS object."""
        one, two = self.pair()
        data = random.Random(5).randbytes(1 << 20)

        def send() -> None:
            for start in range(0, len(data), 999):
                two.sendall(data[start : start + 999])

        def echo() -> None:
            for _ in range(64):
                one.sendall(self.receive(one, 1 << 14))

        joins = [in_thread(send), in_thread(echo)]
        self.assertEqual(self.receive(two, 1 << 20), data)
        for join in joins:
            join()


class ConnectTLSTest(TransportCase):
    def handshake(self, sslopt: dict[str, Any], name: str = "localhost") -> str:
        """Return how the client's handshake fails, "" if it does not."""
        one, two = self.sockets()
        tls = ClientTLS(sslopt)
        accept = in_thread(lambda: accept_tls(two, server_context(*self.certificate), Deadline(WAIT)))
        text = ""
        try:
            connect_tls(one, tls.context(), tls.server_hostname(name), Deadline(WAIT), ignore).close()
        except TransportClosed as exc:
            text = str(exc) or repr(exc)
        try:
            cast(Transport, accept()).close()
        except TransportClosed:
            self.assertTrue(text)
        return text

    def test_names(self) -> None:
        """The certificate's names and addresses are accepted, and nothing else."""
        trusted = {"ca_certs": self.authority.ca_file}
        for name in ("localhost", "127.0.0.1", "::1"):
            self.assertEqual(self.handshake(trusted, name), "", name)
        for name in ("other.example", "127.0.0.2", "::2"):
            self.assertIn("verify failed", self.handshake(trusted, name), name)

    def test_other_authority(self) -> None:
        """A certificate of another authority, even of the same name, is refused."""
        other = CertificateAuthority(self.directory)
        self.assertIn("verify failed", self.handshake({"ca_certs": other.ca_file}))

    def test_system_authorities(self) -> None:
        """Without ca_certs the system's authorities are trusted, which do not know ours."""
        self.assertIn("verify failed", self.handshake({}))

    def test_switched_off(self) -> None:
        """Checks are off only where they are switched off."""
        trusted = {"ca_certs": self.authority.ca_file}
        self.assertEqual(self.handshake({"cert_reqs": ssl.CERT_NONE}, "other.example"), "")
        self.assertEqual(self.handshake(trusted | {"check_hostname": False}, "other.example"), "")
        self.assertIn("verify failed", self.handshake({"check_hostname": False}, "other.example"))

    def test_server_hostname(self) -> None:
        """Another name may be demanded of the certificate than that of the host."""
        trusted = {"ca_certs": self.authority.ca_file}
        self.assertEqual(self.handshake(trusted | {"server_hostname": "localhost"}, "other.example"), "")
        self.assertIn("verify failed", self.handshake(trusted | {"server_hostname": "x.example"}))

    def test_ciphers(self) -> None:
        """Ciphers may be chosen; a name that OpenSSL does not know is an error."""
        trusted = {"ca_certs": self.authority.ca_file}
        self.assertEqual(self.handshake(trusted | {"ciphers": "ECDHE+AESGCM"}), "")
        self.assertRaises(OSError, ClientTLS(trusted | {"ciphers": "NONSENSE"}).context)

    def test_client_certificate(self) -> None:
        """A client certificate is loaded with its key."""
        certfile, keyfile = self.certificate
        trusted = {"ca_certs": self.authority.ca_file, "certfile": certfile, "keyfile": keyfile}
        self.assertEqual(self.handshake(trusted), "")
        self.assertRaises(OSError, ClientTLS(trusted | {"keyfile": self.authority.ca_file}).context)

    def test_peer_is_no_tls(self) -> None:
        """A peer that does not speak TLS fails the handshake, on either side."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        one, two = self.sockets()
        two.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertRaises(TransportClosed, connect_tls, one, context, "localhost", Deadline(WAIT), ignore)
        one, two = self.sockets()
        one.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assertRaises(TransportClosed, accept_tls, two, server_context(*self.certificate), Deadline(WAIT))

    def test_peer_is_gone(self) -> None:
        """A peer that hangs up fails the handshake."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        one, two = self.sockets()
        two.close()
        self.assertRaises(TransportClosed, connect_tls, one, context, "localhost", Deadline(WAIT), ignore)

    def test_deadline(self) -> None:
        """A peer that says nothing is given up at the deadline."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        one, _ = self.sockets()
        self.assertRaises(TimeoutError, connect_tls, one, context, "localhost", Deadline(SHORT), ignore)

    def test_woken(self) -> None:
        """A handshake that hangs is ended by another thread that shuts the socket down."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        one, _ = self.sockets()
        with self.assertRaises(TransportClosed):
            connect_tls(one, context, "localhost", Deadline(WAIT), wake)

    def test_on_socket_refuses(self) -> None:
        """If whoever is shown the socket raises, it is closed and the error goes through."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        one, _ = self.sockets()

        def stop(sock: socket.socket) -> None:
            raise TransportClosed("stop")

        self.assertRaises(TransportClosed, connect_tls, one, context, "localhost", Deadline(WAIT), stop)


class ClientTLSTest(TransportCase):
    def test_unknown_option(self) -> None:
        """An option that is not known is a fault that names it and those that are."""
        with self.assertRaises(ConfigError) as caught:
            ClientTLS({"ca_certs": "/x", "ca_cert_path": "/y", "context": None})
        (fault,) = caught.exception.faults
        self.assertIn("ca_cert_path, context", fault)
        self.assertIn("server_hostname", fault)

    def test_every_option(self) -> None:
        """Each option of the promised vocabulary is known."""
        for name in (
            "ca_certs",
            "cert_reqs",
            "certfile",
            "check_hostname",
            "ciphers",
            "keyfile",
            "server_hostname",
        ):
            ClientTLS({name: None})

    def test_nothing_is_read_at_first(self) -> None:
        """Files are read when a context is needed; one that is missing is an OSError then."""
        self.assertRaises(OSError, ClientTLS({"ca_certs": "/nonexistent"}).context)

    def test_no_certificate_in_the_file(self) -> None:
        """A file that holds no certificate is an OSError too."""
        path = os.path.join(self.directory, "empty.crt")
        with open(path, "w", encoding="ascii") as file:
            file.write("nothing")
        self.assertRaises(OSError, ClientTLS({"ca_certs": path}).context)

    def test_built_again_on_change(self) -> None:
        """The context is shared until the authority's file changes; the old one is not altered."""
        path = os.path.join(self.directory, "current.crt")
        shutil.copy(self.authority.ca_file, path)
        tls = ClientTLS({"ca_certs": path})
        first = tls.context()
        self.assertIs(tls.context(), first)
        other = CertificateAuthority(self.directory, name="another authority")
        shutil.copy(other.ca_file, path + ".new")
        os.replace(path + ".new", path)
        second = tls.context()
        self.assertIsNot(second, first)
        self.assertNotEqual(first.get_ca_certs(True), second.get_ca_certs(True))
        self.assertIs(tls.context(), second)

    def test_safe_defaults(self) -> None:
        """By default certificates and names are checked, and nothing below TLS 1.2 is spoken."""
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        self.assertEqual((context.verify_mode, context.check_hostname), (ssl.CERT_REQUIRED, True))
        self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        self.assertEqual(server_context(*self.certificate).minimum_version, ssl.TLSVersion.TLSv1_2)

    def test_no_key_log(self) -> None:
        """The environment cannot make it write TLS keys to a file."""
        path = os.path.join(self.directory, "keys.log")
        with mock.patch.dict(os.environ, {"SSLKEYLOGFILE": path}):
            context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        self.assertIsNone(context.keylog_filename)


class ResumptionTest(TransportCase):
    """The session of the last full handshake, and when it is not resumed."""

    def setUp(self) -> None:
        super().setUp()
        self.server = server_context(*self.certificate)
        self.tls = self.client()

    def client(self, **sslopt: Any) -> ClientTLS:
        return ClientTLS({"ca_certs": self.authority.ca_file, **sslopt})

    def resumed(self, tls: ClientTLS | None = None, host: str = "localhost") -> bool:
        """Connect, exchange a byte, keep the session, and return whether one was resumed."""
        tls = tls or self.tls
        one, two = self.sockets()
        accept = in_thread(lambda: accept_tls(two, self.server, Deadline(WAIT)))
        client = tls.connect(one, host, Deadline(WAIT), ignore)
        server = cast(Transport, accept())
        server.send(b"x", Deadline(WAIT))
        self.assertEqual(client.recv(1, Deadline(WAIT)), b"x")
        tls.keep_session(client)
        resumed = client._tls.session_reused
        client.close()
        server.close()
        return bool(resumed)

    def test_resumed(self) -> None:
        """From the second connection on a session is resumed, in either version of TLS."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version):
                self.server = server_context(*self.certificate)
                self.server.maximum_version = version
                tls = self.client()
                self.assertEqual([self.resumed(tls) for _ in range(4)], [False, True, True, True])

    def test_server_without_tickets(self) -> None:
        """A server that gives no tickets gets a full handshake each time, and is not asked each time."""
        self.server.options |= ssl.OP_NO_TICKET
        self.server.num_tickets = 0
        with mock.patch("wsproxy.transport.TLSSession", wraps=TLSSession) as made:
            self.assertEqual([self.resumed() for _ in range(3)], [False, False, False])
        self.assertEqual(made.call_count, 1)

    def test_server_that_forgot(self) -> None:
        """A server that does not know the session makes a full handshake; its new session is kept."""
        self.assertEqual([self.resumed() for _ in range(2)], [False, True])
        self.server = server_context(*self.certificate)
        with mock.patch.object(TLSSession, "is_new", return_value=False):
            self.assertEqual([self.resumed() for _ in range(2)], [False, True])

    def test_authority_changed(self) -> None:
        """A session made under another authority's file is never resumed."""
        path = os.path.join(self.directory, "current.crt")
        shutil.copy(self.authority.ca_file, path)
        tls = self.client(ca_certs=path)
        self.assertEqual([self.resumed(tls) for _ in range(2)], [False, True])
        other = CertificateAuthority(self.directory, name="another authority")
        shutil.copy(other.ca_file, path + ".new")
        os.replace(path + ".new", path)
        kept = tls._session
        assert kept is not None
        self.assertIsNone(kept.fitting(tls.context(), "localhost"))
        self.server = server_context(*other.issue())
        self.assertEqual([self.resumed(tls) for _ in range(2)], [False, True])

    def test_authority_is_not_trusted_any_more(self) -> None:
        """The same server is refused as soon as its authority is gone from the file."""
        path = os.path.join(self.directory, "current.crt")
        shutil.copy(self.authority.ca_file, path)
        tls = self.client(ca_certs=path)
        self.resumed(tls)
        shutil.copy(CertificateAuthority(self.directory).ca_file, path + ".new")
        os.replace(path + ".new", path)
        one, two = self.sockets()
        accept = in_thread(lambda: accept_tls(two, self.server, Deadline(WAIT)))
        with self.assertRaisesRegex(TransportClosed, "verify failed"):
            tls.connect(one, "localhost", Deadline(WAIT), ignore)
        self.assertRaises(TransportClosed, accept)

    def test_other_name(self) -> None:
        """A session is resumed for the name that was verified only."""
        self.resumed()
        kept = self.tls._session
        assert kept is not None
        context = self.tls.context()
        self.assertIsNotNone(kept.fitting(context, "localhost"))
        self.assertIsNone(kept.fitting(context, "127.0.0.1"))
        self.assertFalse(self.resumed(host="127.0.0.1"))

    def test_old_session(self) -> None:
        """A session is not resumed for more than an hour, however often it was."""
        with mock.patch("wsproxy.transport._MAX_SESSION_SECONDS", SHORT):
            self.resumed()
        time.sleep(SHORT)
        self.assertFalse(self.resumed())

    def test_certificate_about_to_expire(self) -> None:
        """A session is not resumed beyond the time of the certificate that was verified."""
        self.resumed()
        kept = self.tls._session
        assert kept is not None
        self.assertGreater(kept._until.remaining(), 3500)
        with mock.patch("ssl.cert_time_to_seconds", return_value=0):
            tls = self.client()
            self.assertEqual([self.resumed(tls) for _ in range(2)], [False, False])

    def test_failed_handshake_forgets(self) -> None:
        """After a handshake that failed nothing is resumed."""
        self.resumed()
        one, two = self.sockets()
        two.close()
        self.assertRaises(TransportClosed, self.tls.connect, one, "localhost", Deadline(WAIT), ignore)
        self.assertEqual([self.resumed() for _ in range(2)], [False, True])

    def test_unverified(self) -> None:
        """Where certificates are not checked, sessions are resumed as well."""
        tls = self.client(cert_reqs=ssl.CERT_NONE)
        self.assertEqual([self.resumed(tls) for _ in range(2)], [False, True])


del CommonTests  # so that the loader finds its heirs only
