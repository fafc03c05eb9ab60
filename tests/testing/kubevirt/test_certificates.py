"""Tests of the certificate authority."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
import unittest

from wsproxy.testing.kubevirt.certificates import CertificateAuthority


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, hostname: str) -> None:
    """Do one TLS handshake over a socket pair and raise what the client raises."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            pass  # the client refused

    thread = threading.Thread(target=serve, name="tls-server")
    thread.start()
    try:
        ours.settimeout(60.0)
        with ours, client.wrap_socket(ours, server_hostname=hostname):
            pass
    finally:
        thread.join(60.0)
        theirs.close()


class CertificateAuthorityTest(unittest.TestCase):
    """What the authority issues is accepted by strict clients, and only for its names."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.authority = CertificateAuthority(self.directory)

    def _client(self, ca_file: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ca_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue(names))
        return context

    def test_strict_clients_accept_every_name(self) -> None:
        """A strict client accepts the three local names and the given name and address."""
        client, server = self._client(self.authority.ca_file), self._server("api.example", "10.0.0.1")
        for name in ("localhost", "127.0.0.1", "::1", "api.example", "10.0.0.1"):
            with self.subTest(name):
                _handshake(client, server, name)

    def test_other_names_are_refused(self) -> None:
        """A client refuses the certificate for a name it does not carry."""
        with self.assertRaises(ssl.SSLCertVerificationError):
            _handshake(self._client(self.authority.ca_file), self._server(), "other.example")

    def test_another_authority_is_refused(self) -> None:
        """A client that trusts another authority, even of the same name, refuses the certificate."""
        other = CertificateAuthority(self.directory)
        with self.assertRaises(ssl.SSLCertVerificationError):
            _handshake(self._client(other.ca_file), self._server(), "localhost")

    def test_files_are_private(self) -> None:
        """Every file has mode 0600, and two certificates do not share one."""
        certificates = [self.authority.issue(), self.authority.issue(["a.example"])]
        self.assertEqual(4, len({file for pair in certificates for file in pair}))
        for name in os.listdir(self.directory):
            self.assertEqual(0o600, os.stat(os.path.join(self.directory, name)).st_mode & 0o777, name)

    def test_ca_pem_is_the_file(self) -> None:
        """The PEM property and the CA file have the same content."""
        with open(self.authority.ca_file, "rb") as file:
            self.assertEqual(self.authority.ca_pem, file.read())
