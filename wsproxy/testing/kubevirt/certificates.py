"""A certificate authority for tests and the demo, and the certificates that it issues."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CertificateAuthority"]

_ALWAYS = ("localhost", "127.0.0.1", "::1")
# Clocks differ between machines. A machine whose clock is behind would refuse a certificate valid from now.
_BACKDATED = datetime.timedelta(hours=1)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(path: str, data: bytes) -> None:
    """Write a file that only its owner can read at any time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class CertificateAuthority:
    """A new certificate authority with its own key (EC P-256). It writes files.

    Its certificates satisfy ``ssl.VERIFY_X509_STRICT``, the default of Python 3.13 and newer.

    :param directory: an existing directory; several authorities may share one.
    :param days: validity of the authority and its certificates, which begins an hour ago.
    :param name: the authority's common name.
    :raises OSError: if a file cannot be written.
    """

    def __init__(self, directory: str, *, days: int = 7, name: str = "wsproxy test authority") -> None:
        self._directory = directory
        self._not_before = datetime.datetime.now(datetime.timezone.utc) - _BACKDATED
        self._not_after = self._not_before + datetime.timedelta(days=days)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = self._sign_itself()
        self._serial = f"{self._certificate.serial_number:040x}"
        self._issued = 0
        self.ca_file = self._path("ca.crt")
        """File with the authority's own certificate (PEM), which clients have to trust."""
        _write_private(self._path("ca.key"), _pem(self._key))
        _write_private(self.ca_file, self.ca_pem)

    @property
    def ca_pem(self) -> bytes:
        """The authority's own certificate, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Iterable[str] = (), *, seconds: float | None = None) -> tuple[str, str]:
        """Write a server certificate for ``localhost``, ``127.0.0.1``, ``::1`` and the given names.

        :param names: further host names and IP addresses. The first is the common name.
        :param seconds: validity from now; negative for an expired certificate; None for the authority's own.
        :return: the paths of the certificate and of its key (PEM, mode 0600).
        :raises OSError: if a file cannot be written.
        """
        every = list(dict.fromkeys((*names, *_ALWAYS)))
        return self._issue(every, ExtendedKeyUsageOID.SERVER_AUTH, seconds)

    def issue_client(self, name: str, *, seconds: float | None = None) -> tuple[str, str]:
        """Write a client's certificate with a common name, and its key. Otherwise like :meth:`issue`."""
        return self._issue([name], ExtendedKeyUsageOID.CLIENT_AUTH, seconds)

    def _issue(
        self, names: list[str], usage: x509.ObjectIdentifier, seconds: float | None
    ) -> tuple[str, str]:
        not_after = self._not_after
        if seconds is not None:
            not_after = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign_end_entity(key.public_key(), names, usage, not_after)
        self._issued += 1
        certfile, keyfile = self._path(f"{self._issued}.crt"), self._path(f"{self._issued}.key")
        _write_private(certfile, certificate.public_bytes(serialization.Encoding.PEM))
        _write_private(keyfile, _pem(key))
        return certfile, keyfile

    def _path(self, ending: str) -> str:
        return os.path.join(self._directory, f"{self._serial[-12:]}-{ending}")

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, not_after: datetime.datetime
    ) -> x509.CertificateBuilder:
        identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._not_before)
            .not_valid_after(not_after)
            .add_extension(identifier, critical=False)
            .add_extension(authority, critical=False)
        )

    def _sign_itself(self) -> x509.Certificate:
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(self._name, self._key.public_key(), self._not_after)
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def _sign_end_entity(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: list[str],
        usage: x509.ObjectIdentifier,
        not_after: datetime.datetime,
    ) -> x509.Certificate:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = self._builder(_name(names[0][:64]), public_key, not_after)
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self._key, hashes.SHA256())
