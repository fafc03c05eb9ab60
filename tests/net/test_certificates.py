"""What a TLS server's files hold, and what is said of those that are no good."""

from __future__ import annotations

import datetime
import os
import tempfile
import unittest
from unittest import mock

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from wsproxy.net.certificates import check_authorities, check_certificate, days_left
from wsproxy.testing.kubevirt.certificates import CertificateAuthority


class CertificateFiles(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.authority = CertificateAuthority(self.directory, days=30)
        self.certfile, self.keyfile = self.authority.issue()

    def write(self, *parts: bytes) -> str:
        """Write a file and return its path."""
        path = os.path.join(self.directory, os.urandom(4).hex())
        with open(path, "wb") as file:
            file.write(b"".join(parts))
        return path

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def encrypted(self) -> str:
        """Return a file with the key, encrypted."""
        key = load_pem_private_key(self.read(self.keyfile), None)
        return self.write(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
        )

    def test_good(self) -> None:
        """A certificate, or a chain, with its key, in two files or in one of either order."""
        chain = self.write(self.read(self.certfile), self.authority.ca_pem)
        certificate, key = self.read(self.certfile), self.read(self.keyfile)
        both, other = self.write(certificate, key), self.write(key, certificate)
        for certfile, keyfile in (
            (self.certfile, self.keyfile),
            (chain, self.keyfile),
            (both, both),
            (other, other),
        ):
            self.assertEqual(days_left(check_certificate(certfile, keyfile)), 29)
        check_authorities(self.authority.ca_file)

    def test_faults(self) -> None:
        """Each fault names the file and says what is wrong; none quotes a key."""
        other_key = self.authority.issue()[1]
        wrong_order = self.write(self.authority.ca_pem, self.read(self.certfile))
        damaged = self.write(self.read(self.keyfile)[:-60])
        binary = self.write(os.urandom(100))
        encrypted = self.encrypted()
        for certfile, keyfile, culprit, text in (
            ("/nonexistent/a", self.keyfile, "/nonexistent/a", "cannot be read: No such file"),
            (self.certfile, "/nonexistent/b", "/nonexistent/b", "cannot be read: No such file"),
            (self.directory, self.keyfile, self.directory, "cannot be read: Is a directory"),
            (self.keyfile, self.keyfile, self.keyfile, "holds no certificate"),
            (binary, self.keyfile, binary, "holds no certificate"),
            (self.certfile, self.certfile, self.certfile, "holds no private key"),
            (self.certfile, damaged, damaged, "holds no private key"),
            (self.certfile, binary, binary, "holds no private key"),
            (self.certfile, encrypted, encrypted, "without a password"),
            (self.certfile, other_key, other_key, f"not belong to the first certificate in {self.certfile}"),
            (wrong_order, self.keyfile, wrong_order, "a chain must begin with the server's own"),
        ):
            with self.subTest(text=text), self.assertRaises(ValueError) as caught:
                check_certificate(certfile, keyfile)
            self.assertIn(culprit, str(caught.exception))
            self.assertIn(text, str(caught.exception))
            self.assertNotIn("BEGIN", str(caught.exception))

    def test_no_permission(self) -> None:
        """A file that may not be read is named as well."""
        with (
            mock.patch("builtins.open", side_effect=PermissionError(13, "Permission denied")),
            self.assertRaisesRegex(ValueError, f"{self.certfile} cannot be read: Permission denied"),
        ):
            check_certificate(self.certfile, self.keyfile)

    def test_authorities(self) -> None:
        """A file without any certificate holds no authorities."""
        self.assertRaisesRegex(ValueError, "holds no certificate", check_authorities, self.keyfile)
        self.assertRaisesRegex(ValueError, "cannot be read", check_authorities, "/nonexistent")

    def test_days_left(self) -> None:
        """Whole days are counted; before and after its time a certificate is not valid."""
        certificate = check_certificate(self.certfile, self.keyfile)
        end, begin = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        second, day = datetime.timedelta(seconds=1), datetime.timedelta(days=1)
        self.assertEqual(days_left(certificate, end), 0)
        self.assertEqual(days_left(certificate, end - day), 1)
        self.assertEqual(days_left(certificate, end - day + second), 0)
        self.assertEqual(days_left(certificate, begin), 30)
        self.assertRaisesRegex(ValueError, "expired at 20", days_left, certificate, end + second)
        self.assertRaisesRegex(ValueError, "not valid before 20", days_left, certificate, begin - second)


if __name__ == "__main__":
    unittest.main()
