"""Clients that come by TLS, end to end: handshakes, certificates, and what must not get lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import struct
import tempfile
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.support.proxy_process import ProxyProcess, needs_proc, wait_until
from wsproxy.access.sessions import SessionHandle
from wsproxy.config import Config
from wsproxy.exceptions import ConfigError
from wsproxy.net.tls import TLSTransport
from wsproxy.net.tls_context import ServerTLS
from wsproxy.protocol.client import Peer
from wsproxy.proxy import WebsocketProxy
from wsproxy.relay.poller import Poller
from wsproxy.runtime.deadline import Deadline
from wsproxy.server.connection import ClientConnection
from wsproxy.server.exchange import Exchange
from wsproxy.server.gateway import Gateway
from wsproxy.server.refusal import Refuser
from wsproxy.testing.case import SECRET, LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.backends import Echo, Script
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, encode_frame
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient, client_context

_TIMEOUT = 60.0
_WITHIN = 8.0  # seconds for what takes half a second and the client's last word
_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def _client_hello() -> bytes:
    """Return the first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


_HELLO = _client_hello()


def _sending(data: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(data)


class ClientTLSTestCase(ProxyTestCase):
    """A proxy that speaks TLS on both sides."""

    client_tls = True

    def connect(self, proxy: WebsocketProxy) -> socket.socket:
        """Return a plain connection to the proxy."""
        sock = socket.create_connection(proxy.address, timeout=_TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    def assert_works(self, proxy: WebsocketProxy, tls: ssl.SSLContext | None = None) -> None:
        """Assert that a client is answered."""
        with RawClient(proxy.address, tls=tls) as client:
            client.send_raw(_HEALTHZ)
            client.read_head()
            self.assertEqual((client.status, client.body()), (200, b"ok\n"))

    def assert_idle(self, proxy: WebsocketProxy, seconds: float = _WITHIN) -> None:
        """Assert that the proxy has no connection left, soon."""
        deadline, pause = Deadline(seconds), threading.Event()
        while proxy.connections and not deadline.passed:
            pause.wait(0.005)
        self.assertEqual(proxy.connections, 0)


class Handshakes(ClientTLSTestCase):
    """What clients send in place of a handshake, or in it."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(request_timeout=1.0)

    def assert_given_up(self, talk: Callable[[socket.socket], object], reason: str) -> bytes:
        """Assert that a client is let go in time, in one line with the reason; return what it was sent."""
        with self.assertLogs("wsproxy", "INFO") as logs:
            sock = self.connect(self.proxy)
            peer = "{}:{}".format(*sock.getsockname())
            talk(sock)
            received = b""
            try:
                while part := sock.recv(65536):
                    received += part
            except OSError:  # reset, or closed already
                pass
            sock.close()
            self.assert_idle(self.proxy)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertRegex(
            logs.output[0],
            rf"^INFO:wsproxy\.connection:connection \w+ from {peer}: no TLS handshake: {reason}",
        )
        self.assertEqual(logs.records[0].exc_info, None)
        return received

    def test_plain_http(self) -> None:
        """Plain HTTP is let go at once, in good order, and the log tells the remedy."""
        for request in (_HEALTHZ, RawClient.request("/x/vm"), b"POST /ticket HTTP/1.1\r\n\r\n"):
            reason = "http on a TLS port; the client has to use wss://"
            received = self.assert_given_up(_sending(request), reason)
            self.assertNotIn(b"HTTP", received)

    def test_garbage(self) -> None:
        """What is no TLS is let go at once."""
        for garbage in (
            b"\0" * 100,
            b"RFB 003.008\n",
            b"\x16\x03\x01\xff\xff" + bytes(65536),
            b"SSH-2.0-x\r\n",
        ):
            self.assert_given_up(_sending(garbage), r"\[SSL")

    def test_silence(self) -> None:
        """A client that says nothing is let go at the deadline."""
        self.assertEqual(self.assert_given_up(lambda sock: None, "deadline passed"), b"")

    def test_part_of_a_hello(self) -> None:
        """A client that stops anywhere in its first message is let go at the deadline."""
        for size in (1, 5, 100, len(_HELLO) - 1):
            self.assert_given_up(_sending(_HELLO[:size]), "deadline passed")

    def test_first_flight_only(self) -> None:
        """So is one that does not go on after it."""
        received = self.assert_given_up(_sending(_HELLO), "deadline passed")
        self.assertTrue(received.startswith(b"\x16\x03\x03"), received[:10])

    def test_byte_by_byte(self) -> None:
        """Bytes that keep coming do not move the deadline."""
        stop = threading.Event()

        def drip(sock: socket.socket) -> None:
            for byte in _HELLO:
                if stop.wait(0.02):
                    return
                try:
                    sock.sendall(bytes([byte]))
                except OSError:
                    return

        def start(sock: socket.socket) -> None:
            thread.append(threading.Thread(target=drip, args=(sock,)))
            thread[0].start()

        thread: list[threading.Thread] = []
        self.assertGreater(len(_HELLO) * 0.02, _WITHIN)
        try:
            self.assert_given_up(start, "deadline passed")
        finally:
            stop.set()
            thread[0].join()

    def test_leaves_in_the_handshake(self) -> None:
        """A client that leaves in its handshake, by FIN or by RST, is one line."""

        def end(sock: socket.socket) -> None:
            sock.sendall(_HELLO[:50])
            sock.shutdown(socket.SHUT_WR)

        def reset(sock: socket.socket) -> None:
            sock.sendall(_HELLO)
            sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

        self.assert_given_up(end, ".*EOF")
        self.assert_given_up(reset, ".*reset")

    def test_probe_of_the_port(self) -> None:
        """A client that says nothing and leaves, as a probe does, is not worth a line."""
        with self.assertNoLogs("wsproxy", "INFO"):
            sock = self.connect(self.proxy)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(sock.recv(1), b"")  # it has been accepted, and closed
            self.assert_idle(self.proxy)

    def test_client_that_does_not_trust_us(self) -> None:
        """The alert of a client that refuses our certificate is the reason in the log."""
        with tempfile.TemporaryDirectory() as directory:
            foreign = client_context(CertificateAuthority(directory).ca_file)
        with self.assertLogs("wsproxy.connection", "INFO") as logs:
            self.assertRaisesRegex(
                ConnectionError, "verify failed", RawClient, self.proxy.address, tls=foreign
            )
            self.assert_idle(self.proxy)
        self.assertRegex(logs.output[0], "no TLS handshake: .*unknown ca")

    def test_read_that_does_not_return(self) -> None:
        """A client that feeds OpenSSL with what it takes in by itself has the same time as others."""

        def swallow(transport: TLSTransport, size: int) -> bytes:
            while True:
                try:
                    if not socket.socket.recv(transport._tls, size):
                        return b""
                except BlockingIOError:
                    pause.wait(0.01)

        pause = threading.Event()
        with (
            mock.patch.object(TLSTransport, "_try_recv", swallow),
            mock.patch("wsproxy.server.connection.LAST_WORD_SECONDS", 0.2),
        ):
            deadline = Deadline(_WITHIN)
            sock = self.connect(self.proxy)
            assert self.client_context is not None
            with self.client_context.wrap_socket(sock, server_hostname="localhost") as client:
                client.send(_HEALTHZ)
                self.assert_idle(self.proxy)
            self.assertFalse(deadline.passed)

    def test_nobody_waits_for_a_silent_client(self) -> None:
        """Clients that hang in their handshakes delay no other: the accept thread does none."""
        proxy, threads = self.start_proxy(request_timeout=30), []
        handshake = TLSTransport.handshake

        def noted(transport: TLSTransport, deadline: Deadline) -> None:
            threads.append(threading.current_thread().name)
            handshake(transport, deadline)

        silent = [self.connect(proxy) for _ in range(20)]
        for sock in silent[10:]:
            sock.sendall(_HELLO[:100])
        deadline = Deadline(_WITHIN)
        with mock.patch.object(TLSTransport, "handshake", noted):
            self.assert_works(proxy)
        self.assertFalse(deadline.passed)
        self.assertTrue(any(name.startswith("wsproxy-") for name in threads))
        self.assertFalse(any(name.startswith("wsproxy-accept") for name in threads))
        proxy.stop_thread()
        self.assertFalse(deadline.passed, "stopping waits for handshakes")


class Phases(ClientTLSTestCase):
    """A client that ends its TLS, or its connection, in each phase."""

    def open(self, proxy: WebsocketProxy) -> tuple[RawClient, FakeConsole]:
        vmi = self.api.add_vmi("vm", self.namespace, backend=Echo())
        client = RawClient.open(self.url(proxy, "vm"))
        self.addCleanup(client.close)
        return client, vmi.wait_for_session()

    def say_good_bye(self, client: RawClient) -> None:
        """Send a close_notify, and nothing else."""
        assert isinstance(client.sock, ssl.SSLSocket)
        try:
            client.sock.unwrap()
        except ssl.SSLWantReadError:
            pass

    def test_good_bye_in_place_of_a_request(self) -> None:
        """A client that ends its TLS before, or in, its request is let go."""
        proxy = self.start_proxy()
        for part in (b"", b"GET /healthz HT"):
            with RawClient(proxy.address) as client:
                client.send_raw(part)
                self.say_good_bye(client)
                self.assert_idle(proxy)

    def test_good_bye_after_a_request(self) -> None:
        """A client that has ended its direction still gets its answer, and our own end."""
        sock = self.connect(self.start_proxy())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        assert self.client_context is not None
        tls = self.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def until_done(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    if not (received := sock.recv(65536)):
                        raise
                    incoming.write(received)

        until_done(tls.do_handshake)
        tls.write(_HEALTHZ)
        self.assertRaises(ssl.SSLWantReadError, tls.unwrap)  # in one piece with the request
        self.assertRegex(str(until_done(lambda: tls.read(65536))), r"HTTP/1\.1 200 .*ok")
        self.assertRaises(ssl.SSLZeroReturnError, until_done, lambda: tls.read(1))

    def test_ends_of_a_session(self) -> None:
        """However a client ends TLS or TCP in a session, the console is released at once."""
        proxy = self.start_proxy()
        for end in (self.say_good_bye, RawClient.drop, RawClient.reset, RawClient.close):
            client, console = self.open(proxy)
            client.send_frame(BINARY, b"hello")
            self.assertEqual(client.recv_frame().payload, b"hello")
            end(client)
            self.assertTrue(console.ended.wait(_TIMEOUT))
            self.assertEqual(console.close_received, (1000, "client-gone"))
            self.assert_idle(proxy)

    def test_reset_during_the_dial(self) -> None:
        """A client that is gone when its console is opened leaves nothing."""
        self.api.behaviour = Behaviour(hang=True)
        proxy = self.start_proxy(dial_timeout=5)
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            self.api.wait_for_requests(1)
            client.reset()
        self.assert_idle(proxy)
        self.assertTrue(self.api.wait_until_idle())

    def test_orderly_end_of_a_session(self) -> None:
        """A client can tell the end of a session from a cut connection, though it answers nothing."""
        vmi = self.api.add_vmi("vm", self.namespace, backend=Script(lambda console: console.send_close(1000)))
        client = RawClient.open(self.url(self.start_proxy(), "vm"))
        self.addCleanup(client.close)
        self.assertEqual(client.recv_close(), (1000, ""))
        self.assertTrue(client.wait_for_end())
        self.assertTrue(vmi.wait_for_session().ended.wait(_TIMEOUT))

    def test_hook_whose_connection_breaks(self) -> None:
        """The session's TLS does not notice that of a hook, which ran in the same thread."""
        broken: list[OSError] = []

        def on_open(session: SessionHandle) -> None:
            assert self.client_context is not None
            with self.client_context.wrap_socket(self.connect(proxy), server_hostname="localhost") as tls:
                socket.socket.shutdown(tls, socket.SHUT_WR)
                try:
                    tls.send(b"x")
                except OSError as exc:
                    broken.append(exc)

        with mock.patch.object(Poller, "available", False):  # or another thread waits for the client
            proxy = self.start_proxy(on_open=on_open)
        client, _ = self.open(proxy)
        for _ in range(2):
            client.send_frame(BINARY, b"hello")
            self.assertEqual(client.recv_frame().payload, b"hello")
        self.assertEqual(len(broken), 1)


class NothingGetsLost(ClientTLSTestCase):
    """What OpenSSL has decrypted, and no descriptor tells of."""

    def test_frames_in_the_record_of_the_request(self) -> None:
        """Frames behind a request in one record are delivered, wherever a read of the request ends."""
        received: list[bytes] = []

        def serve(console: FakeConsole) -> None:
            for _ in range(2):
                received.append(console.recv_frame(_TIMEOUT).payload)
            while console.recv_frame().opcode != CLOSE:
                pass
            console.send_close(1000)

        self.api.add_vmi("vm", self.namespace, backend=Script(serve))
        proxy = self.start_proxy()
        frames = encode_frame(BINARY, b"first", mask=b"mask") + encode_frame(
            BINARY, b"x" * 9000, mask=b"mask"
        )
        target = f"/{self.token('vm')}/vm"
        for size in (4095, 4096, 4097, 8192):  # the head is received by pieces of 4096 bytes
            with self.subTest(size=size):
                received.clear()
                request = RawClient.request(target, ["X: "])
                request = request.replace(b"X: ", b"X: " + b"x" * (size - len(request)))
                self.assertEqual(len(request), size)
                with RawClient(proxy.address) as client:
                    client.send_raw(request + frames)
                    client.read_head()
                    client.send_close(1000)
                    self.assertEqual(client.recv_close(), (1000, ""))
                self.assertEqual(received, [b"first", b"x" * 9000])

    def test_nothing_more_comes(self) -> None:
        """The same when the client sends no byte more, which would wake whoever waits."""
        self.api.add_vmi("vm", self.namespace, backend=Echo())
        proxy = self.start_proxy()
        request = RawClient.request(f"/{self.token('vm')}/vm", ["X: "])
        request = request.replace(b"X: ", b"X: " + b"x" * (4096 - len(request)))
        with RawClient(proxy.address) as client:
            client.send_raw(request + encode_frame(BINARY, b"hello", mask=b"mask"))
            client.read_head()
            self.assertEqual(client.recv_frame().payload, b"hello")

    def test_refusal_of_a_client_that_sends_more(self) -> None:
        """A refusal arrives whole, with its end, though the client has sent more than was read."""
        proxy = self.start_proxy()
        for _ in range(5):
            with RawClient(proxy.address) as client:
                client.send_raw(RawClient.request("/garbage/vm") + bytes(100_000))
                client.read_head()
                self.assertEqual(client.status, 401)
                self.assertEqual(json.loads(client.body())["reason"], "bad-token")
                client.drop()


class Reloading(ClientTLSTestCase):
    """New files while clients come and go."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.authority = CertificateAuthority(self.directory)
        self.context = client_context(self.authority.ca_file)
        self.certificate = os.path.join(self.directory, "both.pem")

    def rotate(self) -> None:
        """Put a new certificate with its key in place, in one step."""
        with open(self.certificate + ".new", "wb") as new:
            for path in self.authority.issue():
                with open(path, "rb") as old:
                    shutil.copyfileobj(old, new)
        os.replace(self.certificate + ".new", self.certificate)

    def serial(self, client: RawClient) -> str:
        assert isinstance(client.sock, ssl.SSLSocket)
        return str((client.sock.getpeercert() or {})["serialNumber"])

    def test_rotation_under_load(self) -> None:
        """Clients that connect while certificates change are all served, by the newest; sessions go on."""
        self.rotate()
        self.api.add_vmi("vm", self.namespace, backend=Echo())
        proxy = self.start_proxy(tls_cert=self.certificate, tls_key=None)
        session = RawClient.open(self.url(proxy, "vm"), tls=self.context)
        self.addCleanup(session.close)
        newest: list[str] = []  # serial numbers of the certificates, the newest last
        served: list[tuple[int, str]] = []  # how many of these there were when a client came, and its own
        failures: list[BaseException] = []
        over = threading.Event()

        def come() -> None:
            while not over.is_set():
                before = len(newest)
                try:
                    with RawClient(proxy.address, tls=self.context) as client:
                        served.append((before, self.serial(client)))
                        client.send_raw(_HEALTHZ)
                        client.read_head()
                        self.assertEqual(client.status, 200)
                except BaseException as exc:  # noqa: BLE001 - told by the test
                    failures.append(exc)
                    return

        def look() -> None:
            with RawClient(proxy.address, tls=self.context) as client:
                newest.append(self.serial(client))

        def is_seen() -> bool:
            return sum(before == len(newest) for before, _ in served) >= len(threads) or bool(failures)

        look()
        threads = [threading.Thread(target=come) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                self.rotate()
                look()
                self.assertTrue(wait_until(is_seen))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(len(set(newest)), 21)
        for before, serial in served:
            self.assertGreaterEqual(newest.index(serial), before - 1)
        session.send_frame(BINARY, b"still here")
        self.assertEqual(session.recv_frame().payload, b"still here")

    def test_broken_file(self) -> None:
        """A certificate that is no good later changes nothing for clients, and is one warning."""
        self.rotate()
        proxy = self.start_proxy(tls_cert=self.certificate, tls_key=None)
        with open(self.certificate, "w", encoding="ascii") as file:
            file.write("nothing")
        with self.assertLogs("wsproxy", "WARNING") as logs:
            for _ in range(5):
                self.assert_works(proxy, self.context)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn(f"{self.certificate} holds no certificate in PEM form", logs.output[0])
        self.rotate()
        with self.assertNoLogs("wsproxy", "WARNING"):
            self.assert_works(proxy, self.context)

    def test_faulty_at_the_start(self) -> None:
        """Files that do not belong together stop the start, with one message."""
        certfile, keyfile = self.authority.issue()[0], self.authority.issue()[1]
        options = self.proxy_options(tls_cert=certfile, tls_key=keyfile)
        with self.assertRaises(ConfigError) as caught:
            WebsocketProxy(**options)
        (fault,) = caught.exception.faults
        self.assertIn(f"the key in {keyfile} does not belong to the first certificate in {certfile}", fault)


class ClientCertificates(ClientTLSTestCase):
    """Where each client needs a certificate."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.server_ca = CertificateAuthority(directory.name)
        self.clients_ca = CertificateAuthority(directory.name, name="authority of clients")
        certfile, keyfile = self.server_ca.issue()
        self.proxy = self.start_proxy(
            tls_cert=certfile, tls_key=keyfile, tls_client_ca=self.clients_ca.ca_file, reject="http"
        )
        self.other_ca = CertificateAuthority(directory.name, name="authority of clients")

    def context(self, certificate: tuple[str, str] | None, **versions: Any) -> ssl.SSLContext:
        context = client_context(self.server_ca.ca_file, certificate)
        for name, version in versions.items():
            setattr(context, name, version)
        return context

    def test_good(self) -> None:
        """A client with a certificate of the authority is served, in either version of TLS."""
        certificate = self.clients_ca.issue_client("someone")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(certificate, maximum_version=version)
            for _ in range(3):
                self.assert_works(self.proxy, context)

    def test_others(self) -> None:
        """One with none, or one that is foreign, expired, or a server's, is refused before its request."""
        for what, certificate, reason in (
            ("none", None, "did not return a certificate"),
            ("foreign", self.other_ca.issue_client("someone"), "verify failed"),
            ("expired", self.clients_ca.issue_client("someone", seconds=-1), "certificate has expired"),
            ("server", self.clients_ca.issue(), "(unsuitable|unsupported) certificate purpose"),
        ):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(what=what, version=version):
                    self.assert_refused(self.context(certificate, maximum_version=version), reason)

    def test_foreign_page(self) -> None:
        """A browser sends its certificate for every page, so that has to be the proxy's own (CWE-1385)."""
        self.api.add_vmi("vm", self.namespace)
        context = self.context(self.clients_ca.issue_client("someone"))
        target = f"/{self.token('vm')}/vm"
        for origin in ("https://console.example", "null", "http://proxy", "https://proxy:8443"):
            with self.subTest(origin), RawClient(self.proxy.address, tls=context) as client:
                client.send_raw(RawClient.request(target, [f"Origin: {origin}"]))
                client.read_head()
                self.assertEqual(client.status, 403)
        self.assertEqual(self.api.connections, 0)
        for headers in (["Origin: https://proxy"], []):
            with RawClient(self.proxy.address, tls=context) as client:
                client.send_raw(RawClient.request(target, headers))
                client.read_head()
                self.assertEqual(client.status, 101)

    def assert_refused(self, context: ssl.SSLContext, reason: str) -> None:
        with self.assertLogs("wsproxy", "INFO") as logs:
            with (
                self.assertRaisesRegex(ConnectionError, "alert"),  # with TLS 1.3 the client learns it later
                RawClient(self.proxy.address, tls=context) as client,
            ):
                client.send_raw(_HEALTHZ)
                client.read_head()
            self.assert_idle(self.proxy)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertRegex(logs.output[0], f"no TLS handshake: .*{reason}")


class Aborted(LeakTestCase):
    """Ending a connection in its handshake, in whatever moment."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        certfile, keyfile = CertificateAuthority(directory.name).issue()
        config = Config(
            remote_url="ws://127.0.0.1:9",
            local_dev_mode=True,
            secret_key=SECRET,
            tls_cert=certfile,
            tls_key=keyfile,
        )
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(_TIMEOUT)
        self.addCleanup(self.peer.close)
        gateway = Gateway(config)
        gateway.housekeeping.start(self)
        self.addCleanup(gateway.housekeeping.stop)
        patcher = mock.patch(
            "wsproxy.server.connection.LAST_WORD_SECONDS", 0.01
        )  # for what has begun to come
        patcher.start()
        self.addCleanup(patcher.stop)
        self.exchange = Exchange(
            gateway, Refuser("auto"), ClientConnection(gateway, ours, Peer.at("192.0.2.1", 1234))
        )
        self.thread = threading.Thread(target=self.exchange.run)

    def assert_ends(self) -> None:
        deadline = Deadline(_WITHIN)
        while self.peer.recv(65536):
            pass
        self.thread.join(deadline.remaining())
        self.assertFalse(self.thread.is_alive())

    def test_before_the_start(self) -> None:
        """A stop that comes before the thread ends it."""
        self.exchange.stop()
        self.thread.start()
        self.assert_ends()

    def test_before_the_first_byte(self) -> None:
        """A stop ends a connection whose client has said nothing."""
        started = threading.Event()
        starts = TLSTransport.starts

        def noted(transport: TLSTransport, deadline: Deadline) -> bool:
            started.set()
            return starts(transport, deadline)

        with mock.patch("wsproxy.net.transport.Transport.starts", noted):
            self.thread.start()
            self.assertTrue(started.wait(_TIMEOUT))
            self.exchange.stop()
            self.assert_ends()

    def test_while_the_socket_is_handed_over(self) -> None:
        """A stop while the socket changes hands, when neither transport has it, is not forgotten."""
        wrap = ServerTLS.wrap

        def stopping(tls: ServerTLS, sock: socket.socket) -> TLSTransport:
            transport = wrap(tls, sock)
            self.exchange.stop()
            return transport

        self.peer.sendall(_HELLO[:50])
        with mock.patch.object(ServerTLS, "wrap", stopping):
            self.thread.start()
            self.assert_ends()

    def test_in_the_handshake(self) -> None:
        """A stop ends a handshake that hangs."""
        self.peer.sendall(_HELLO)
        self.thread.start()
        self.assertTrue(self.peer.recv(10))
        self.exchange.stop()
        self.assert_ends()

    def test_bug_in_the_handshake(self) -> None:
        """A bug of ours is logged with its traceback, and closes the connection."""
        self.peer.sendall(_HELLO)
        with (
            mock.patch.object(TLSTransport, "handshake", side_effect=ZeroDivisionError("a bug of ours")),
            self.assertLogs("wsproxy.connection", "ERROR") as logs,
        ):
            self.thread.start()
            with self.assertRaises(ConnectionResetError):  # what it sent was not read
                self.peer.recv(1)
            self.thread.join(_TIMEOUT)
        self.assertIn("ZeroDivisionError", logs.output[0])


@needs_proc
class Program(ProxyTestCase):
    """The program, with several processes."""

    client_tls = True

    def test_workers(self) -> None:
        """Every worker speaks TLS, and each shows a new certificate; the line when ready says so."""
        self.api.add_vmi("vm", self.namespace, backend=Echo())
        proxy = ProxyProcess(self.api, WSPROXY_WORKERS="2", **self.client_tls_settings)
        self.addCleanup(proxy.close)
        for _ in range(8):
            with RawClient.open(f"{proxy.url}/{self.token('vm')}/vm") as client:
                client.send_frame(BINARY, b"hello")
                self.assertEqual(client.recv_frame().payload, b"hello")
                client.send_close(1000)
                self.assertEqual(client.recv_close()[0], 1000)
        with tempfile.TemporaryDirectory() as directory:
            authority = CertificateAuthority(directory)
            for new, old in zip(authority.issue(), self.proxy_certificate, strict=True):
                shutil.copy(new, old)
            context = client_context(authority.ca_file)
        for _ in range(8):
            with RawClient(proxy.address, tls=context) as client:
                client.send_raw(_HEALTHZ)
                client.read_head()
                self.assertEqual(client.status, 200)
        proxy.stop()
        self.assertRegex(proxy.output, rb"listening on 127\.0\.0\.1:\d+ \(wss, https\)\n")


if __name__ == "__main__":
    unittest.main()
