"""The TLS transport, and TLS as a client: handshakes, contexts, resumption."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import socket
import ssl
import time
import unittest
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from unittest import mock

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support import transports
from tests.support.transports import SHORT, WAIT, TransportCase, connect_tls, ignore, in_thread
from wsproxy.exceptions import ConfigError, TransportClosed
from wsproxy.net.sockets import take, wake
from wsproxy.net.tls import TLSSession, TLSTransport, accept_tls, transport_of
from wsproxy.net.tls_context import ClientTLS, ServerTLS, ServerTLSFiles, server_context
from wsproxy.net.transport import PlainTransport, Transport
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.rfb.raw_client import client_context

_NO_NOTICE = (ssl.SSLError, BrokenPipeError)
"""What an end without close_notify is: OpenSSL 3.4 tells that it cannot complain of it to the peer."""


class TLSTransportTest(transports.CommonTests):
    def pair(self, *, tcp: bool = False) -> tuple[Transport, Transport]:
        return self.tls_pair(tcp=tcp)

    def test_read_that_has_to_write(self) -> None:
        """A read for which TLS has to send first, and cannot, is told from one that finds nothing."""
        _, two = self.pair()
        with mock.patch.object(two, "_tls") as tls:
            tls.read.side_effect = ssl.SSLWantWriteError
            self.assertEqual(two.try_recv_into(memoryview(bytearray(1))), -1)
            tls.read.side_effect = ssl.SSLWantReadError
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

    def test_part_of_a_record_is_unread(self) -> None:
        """What OpenSSL has left of a record counts as unread: no descriptor tells of it."""
        one, two = self.pair()
        one.sendall(bytes(100))
        self.assertEqual(two.recv(99, Deadline(WAIT)), bytes(99))
        self.assertTrue(two.has_unread)
        self.assertEqual(two.recv(99, Deadline(WAIT)), b"\0")
        self.assertFalse(two.has_unread)

    def strict_pair(self) -> tuple[ssl.SSLSocket, TLSTransport]:
        """Return a client that takes an end without close_notify for an error, and its server."""
        one, two = self.sockets()
        context = client_context(self.authority.ca_file)
        accept = in_thread(lambda: accept_tls(two, server_context(*self.certificate), Deadline(WAIT)))
        client = context.wrap_socket(one, server_hostname="localhost", suppress_ragged_eofs=False)
        client.settimeout(WAIT)
        self.addCleanup(client.close)
        server = cast(TLSTransport, accept())
        self.addCleanup(server.close)
        return client, server

    def test_orderly_ends(self) -> None:
        """An orderly end is told to the peer's TLS, behind what was sent; mere waking is not."""
        for end in (
            TLSTransport.shut_down,
            lambda transport: transport.linger(Deadline(SHORT)),
            TLSTransport.close,
        ):
            client, server = self.strict_pair()
            server.sendall(b"the last word")
            end(server)
            self.assertEqual((client.recv(100), client.recv(100)), (b"the last word", b""))
        client, server = self.strict_pair()
        server.abort()
        self.assertRaises(_NO_NOTICE, client.recv, 100)

    def test_orderly_end_of_both(self) -> None:
        """Where the peer has said good bye first, the answer to that is no error; nothing comes after it."""
        client, server = self.strict_pair()
        client.setblocking(False)
        self.assertRaises(ssl.SSLWantReadError, client.unwrap)
        client.settimeout(WAIT)
        self.assertEqual(server.recv(100, Deadline(WAIT)), b"")
        socket.socket.send(client, b"no TLS any more")
        server.shut_down()
        self.assertRaises(TransportClosed, server.sendall, b"x")
        self.assertRaises(TransportClosed, server.recv, 100, Deadline(WAIT))
        server.shut_down()
        server.close()
        server.shut_down()
        client.unwrap()

    def test_orderly_end_never_blocks(self) -> None:
        """An end is not waited for when the peer takes nothing."""
        client, server = self.strict_pair()
        self.fill(server)
        server.shut_down()
        with self.assertRaises(_NO_NOTICE):
            while client.recv(65536):
                pass

    def test_linger_with_more_data(self) -> None:
        """The peer's unread data spoils neither the last word nor its end."""
        client, server = self.strict_pair()
        client.sendall(bytes(50000))
        server.sendall(b"the last word")
        join = in_thread(lambda: server.linger(Deadline(WAIT)))
        self.assertEqual((client.recv(100), client.recv(100)), (b"the last word", b""))
        socket.socket.shutdown(client, socket.SHUT_WR)
        join()

    def test_end_without_notice(self) -> None:
        """A peer that ends TCP without telling TLS has ended; what we have to say still goes out."""
        client, server = self.strict_pair()
        socket.socket.shutdown(client, socket.SHUT_WR)
        self.assertEqual(server.recv(100, Deadline(WAIT)), b"")
        server.sendall(b"good bye")
        server.close()
        self.assertEqual((client.recv(100), client.recv(100)), (b"good bye", b""))

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


class BrokenConnectionTest(TransportCase):
    """A connection that breaks is no error of the next call on another one, in the same thread."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.tls_pair()[1]

    def assert_other_works(self) -> None:
        """Assert that nothing is found where nothing is to be read, and that what comes then is received."""
        self.assertIsNone(self.other.try_recv_into(memoryview(bytearray(1))))

    def cut(self, *, strict: bool = False) -> TLSTransport:
        """Return a connection whose peer takes nothing more.

        :param strict: whether TLS minds that, and wants to tell the peer.
        """
        one, two = self.sockets()
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        context = client_context(self.authority.ca_file) if strict else context
        accept = in_thread(lambda: accept_tls(two, server_context(*self.certificate), Deadline(WAIT)))
        cut = connect_tls(one, context, "localhost", Deadline(WAIT), ignore)
        self.addCleanup(cut.close)
        server = cast(TLSTransport, accept())
        server.sendall(bytes(16384))
        server.abort()
        self.addCleanup(server.close)
        return cut

    def test_sending(self) -> None:
        """Whichever way it was sent to."""
        for send in (
            lambda cut: cut.sendall(b"x"),
            lambda cut: cut.try_send(b"x"),
            lambda cut: cut.send(b"x", Deadline(WAIT)),
        ):
            self.assertRaises(TransportClosed, send, self.cut())
            self.assert_other_works()

    def test_ending(self) -> None:
        """Whichever way it was ended."""
        for end in (
            TLSTransport.shut_down,
            TLSTransport.close,
            TLSTransport.give_back,
            lambda cut: cut.linger(Deadline(WAIT)),
        ):
            end(self.cut())
            self.assert_other_works()

    def test_receiving(self) -> None:
        """Whichever way it was received from."""
        receives: tuple[Callable[[TLSTransport], object], ...] = (
            lambda cut: cut.recv(20000, Deadline(WAIT)),
            lambda cut: cut.recv_into(memoryview(bytearray(40000))),
            lambda cut: cut.try_recv_into(memoryview(bytearray(40000))),
        )
        for receive in receives:
            cut = self.cut(strict=True)
            self.assertTrue(receive(cut))
            self.assert_other_works()
            with suppress(TransportClosed):
                self.assertFalse(receive(cut))
            self.assert_other_works()

    def test_shaking_hands(self) -> None:
        """When its peer left instead of shaking hands."""
        one, two = self.sockets()
        two.close()
        context = ClientTLS({"ca_certs": self.authority.ca_file}).context()
        self.assertRaises(TransportClosed, connect_tls, one, context, "localhost", Deadline(WAIT), ignore)
        self.assert_other_works()

    def test_connection_of_others(self) -> None:
        """When it was not ours, and ours comes from the same server."""
        with self.assertRaises(OSError):
            self.cut()._tls.send(b"x")
        self.other = transport_of(cast(TLSTransport, self.other)._tls)
        self.assert_other_works()


class TransportOfTest(TransportCase):
    def test_kinds(self) -> None:
        """Any connected socket gets the transport that it needs."""
        one, two = self.tls_pair()
        assert isinstance(one, TLSTransport)
        self.assertIsInstance(transport_of(one._tls), TLSTransport)
        self.assertIsInstance(transport_of(self.sockets()[0]), PlainTransport)
        two.close()


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
        for name in ("ca_certs", "certfile", "ciphers", "keyfile", "server_hostname"):
            ClientTLS({name: None})
            ClientTLS({name: "some"})
        for checked in (True, False):
            ClientTLS({"check_hostname": checked})
        for demanded in (ssl.CERT_REQUIRED, ssl.CERT_NONE, 0, 2):
            ClientTLS({"cert_reqs": demanded})

    def test_no_option_is_off_by_accident(self) -> None:
        """What is no value of an option is a fault, most of all if it would switch verification off."""
        for wrong in ({"check_hostname": None}, {"cert_reqs": False}, {"cert_reqs": None}, {"ca_certs": ""}):
            with self.subTest(wrong=wrong), self.assertRaisesRegex(ConfigError, f"a {next(iter(wrong))} "):
                ClientTLS(wrong)

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


class ServerTLSTest(TransportCase):
    """TLS towards clients."""

    def file(self, name: str, *sources: str) -> str:
        """Make, or replace as a whole, a file with the content of others."""
        path = os.path.join(self.directory, name)
        with open(path + ".new", "wb") as new:
            for source in sources:
                with open(source, "rb") as old:
                    new.write(old.read())
        os.replace(path + ".new", path)
        return path

    def connect(self, tls: ServerTLS, context: ssl.SSLContext, **options: Any) -> ssl.SSLSocket:
        """Do a handshake, exchange a byte both ways, and return the client's end."""
        one, two = self.sockets()

        def serve() -> None:
            server = tls.wrap(two)
            self.addCleanup(server.close)
            try:
                server.handshake(Deadline(WAIT))
                server.send(server.recv(1, Deadline(WAIT)), Deadline(WAIT))
            except TransportClosed:
                server.close()
                raise

        served = in_thread(serve)
        one.settimeout(WAIT)
        try:
            client = context.wrap_socket(one, server_hostname="localhost", **options)
            self.addCleanup(client.close)
            client.send(b"x")
            client.recv(1)
        finally:
            one.close()
            served()
        return client

    def shown(self, tls: ServerTLS, context: ssl.SSLContext | None = None) -> str:
        """Return the serial number of the certificate that a client is shown."""
        client = self.connect(tls, context or client_context(self.authority.ca_file))
        return str((client.getpeercert() or {})["serialNumber"])

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, 1.1 is not."""
        tls = ServerTLS(ServerTLSFiles(*self.certificate))
        context = client_context(self.authority.ca_file)
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            context.minimum_version = context.maximum_version = version
            self.assertEqual(self.connect(tls, context).version(), name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        self.assertRaisesRegex(TransportClosed, "protocol", self.connect, tls, context)

    def test_protocol(self) -> None:
        """HTTP/1.1 is agreed on with a client that speaks others, too."""
        context = client_context(self.authority.ca_file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = self.connect(ServerTLS(ServerTLSFiles(*self.certificate)), context)
        self.assertEqual(client.selected_alpn_protocol(), "http/1.1")
        self.assertIsNone(client.compression())

    def test_context(self) -> None:
        """There is neither compression nor renegotiation, nor a file with the keys of every session."""
        path = os.path.join(self.directory, "keys.log")
        with mock.patch.dict(os.environ, {"SSLKEYLOGFILE": path}):
            context = server_context(*self.certificate)
        self.assertIsNone(context.keylog_filename)
        self.assertTrue(context.options & ssl.OP_NO_RENEGOTIATION)
        self.assertTrue(context.options & ssl.OP_NO_COMPRESSION)

    def test_unusable_files(self) -> None:
        """Files that cannot be used are one fault that names the file and the settings."""
        certfile, keyfile = self.certificate
        foreign = self.authority.issue()[1]
        for files, text in (
            (("/nonexistent", keyfile, None), "/nonexistent"),
            ((certfile, "/nonexistent", None), "/nonexistent"),
            ((certfile, foreign, None), f"{foreign} does not belong to the first certificate"),
            ((certfile, keyfile, "/nonexistent"), "/nonexistent"),
            ((certfile, keyfile, keyfile), f"{keyfile} holds no certificate"),
        ):
            with self.subTest(text=text), self.assertRaises(ConfigError) as caught:
                ServerTLS(ServerTLSFiles(*files))
            (fault,) = caught.exception.faults
            self.assertIn(text, fault)
            self.assertIn("tls_cert, tls_key and tls_client_ca", fault)

    def test_refused_by_openssl(self) -> None:
        """If OpenSSL rejects the files, that is a fault, too."""
        with (
            mock.patch.object(
                ssl.SSLContext, "load_cert_chain", side_effect=ssl.SSLError("ee key too small")
            ),
            self.assertRaisesRegex(ConfigError, "ee key too small"),
        ):
            ServerTLS(ServerTLSFiles(*self.certificate))

    def test_encrypted_key(self) -> None:
        """Nobody is asked for a password; neither for the certificate that the API is shown."""
        with open(self.certificate[1], "rb") as file:
            key = load_pem_private_key(file.read(), None)
        path = os.path.join(self.directory, "encrypted.key")
        with open(path, "wb") as file:
            encryption = BestAvailableEncryption(b"word")
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        self.assertRaisesRegex(
            ConfigError, "without a password", ServerTLS, ServerTLSFiles(self.certificate[0], path)
        )
        sslopt = {"certfile": self.certificate[0], "keyfile": path}
        self.assertRaises(OSError, ClientTLS(sslopt).context)

    def test_reload(self) -> None:
        """A new certificate is shown from the next handshake on, once it fits its key."""
        first, second = self.authority.issue(), self.authority.issue()
        certfile, keyfile = self.file("reloaded.crt", first[0]), self.file("reloaded.key", first[1])
        tls = ServerTLS(ServerTLSFiles(certfile, keyfile))
        before = self.shown(tls)
        self.file("reloaded.crt", second[0])
        with self.assertLogs("wsproxy.reloaded", "WARNING") as logs:
            self.assertEqual([self.shown(tls) for _ in range(3)], [before] * 3)
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn(
            f"the TLS certificate cannot be read again, the last one stays in use: the key in "
            f"{keyfile} does not belong",
            logs.output[0],
        )
        self.file("reloaded.key", second[1])
        after = self.shown(tls)
        self.assertNotEqual(after, before)
        os.remove(keyfile)
        with self.assertLogs("wsproxy.reloaded", "WARNING"):
            self.assertEqual(self.shown(tls), after)

    def test_session_ids(self) -> None:
        """Clients with certificates can resume their sessions, in either version of TLS."""
        tls = ServerTLS(ServerTLSFiles(*self.certificate, self.authority.ca_file))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version):
                context = client_context(self.authority.ca_file, self.authority.issue_client("someone"))
                context.maximum_version = version
                session = self.connect(tls, context).session
                self.assertTrue(self.connect(tls, context, session=session).session_reused)

    def test_session_of_an_expired_certificate(self) -> None:
        """A session is not resumed once the client's certificate has expired."""
        tls = ServerTLS(ServerTLSFiles(*self.certificate, self.authority.ca_file))
        context = client_context(self.authority.ca_file, self.authority.issue_client("someone", seconds=30))
        session = self.connect(tls, context).session
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=31)
        with mock.patch("wsproxy.net.tls.datetime.datetime") as clock:
            clock.now.return_value = later
            self.assertRaisesRegex(
                TransportClosed, "has expired", self.connect, tls, context, session=session
            )

    def test_other_authority_for_clients(self) -> None:
        """With other authorities for clients no session from before is resumed."""
        ours, theirs = CertificateAuthority(self.directory), CertificateAuthority(self.directory)
        path = self.file("clients.crt", ours.ca_file)
        tls = ServerTLS(ServerTLSFiles(*self.certificate, path))
        context = client_context(self.authority.ca_file, ours.issue_client("someone"))
        session = self.connect(tls, context).session
        self.file("clients.crt", theirs.ca_file)
        self.assertRaisesRegex(TransportClosed, "verify failed", self.connect, tls, context, session=session)

    def test_client_is_gone(self) -> None:
        """A client that is gone before its handshake is no bug."""
        one, two = self.sockets(tcp=True)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()
        with self.assertRaises(TransportClosed):
            transport = ServerTLS(ServerTLSFiles(*self.certificate)).wrap(two)
            self.addCleanup(transport.close)
            transport.handshake(Deadline(WAIT))


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
        client = take(tls.steps(one, host, ignore), Deadline(WAIT))
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
        with mock.patch("wsproxy.net.tls.TLSSession", wraps=TLSSession) as made:
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
            take(tls.steps(one, "localhost", ignore), Deadline(WAIT))
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
        with mock.patch("wsproxy.net.tls._MAX_SESSION_SECONDS", SHORT):
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
        steps = self.tls.steps(one, "localhost", ignore)
        self.assertRaises(TransportClosed, take, steps, Deadline(WAIT))
        self.assertEqual([self.resumed() for _ in range(2)], [False, True])

    def test_unverified(self) -> None:
        """Where certificates are not checked, sessions are resumed as well."""
        tls = self.client(cert_reqs=ssl.CERT_NONE)
        self.assertEqual([self.resumed(tls) for _ in range(2)], [False, True])


if __name__ == "__main__":
    unittest.main()
