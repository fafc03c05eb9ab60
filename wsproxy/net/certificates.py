"""Checks the files of a TLS server: its certificate, its private key, and the CAs of its clients.

OpenSSL reads the files, too, but its errors name neither the file nor the fault.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

__all__ = ["check_authorities", "check_certificate", "days_left"]


def check_certificate(certfile: str, keyfile: str) -> x509.Certificate:
    """Return the server's own certificate, the first of ``certfile``. Blocks on the file system only.

    :param certfile: the certificate chain (PEM).
    :param keyfile: the private key (PEM); may be the same file.
    :raises ValueError: if a file cannot be used, or the key does not fit; the text names the file.
    """
    certificate = _certificates(certfile)[0]
    key = _key(keyfile)
    if _spki(certificate) != _spki(key):
        raise ValueError(
            f"the key in {keyfile} does not belong to the first certificate in {certfile}; "
            "a chain must begin with the server's own certificate"
        )
    return certificate


def check_authorities(file: str) -> None:
    """Check that a file holds certificates. Blocks on the file system only.

    :raises ValueError: if it does not, or cannot be read.
    """
    _certificates(file)


def days_left(certificate: x509.Certificate, now: datetime.datetime | None = None) -> int:
    """Return for how many whole days a certificate is still valid.

    :param now: a time with a time zone; None for the current time.
    :raises ValueError: if the certificate is not valid yet, or has expired.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    if now < certificate.not_valid_before_utc:
        raise ValueError(f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if now > certificate.not_valid_after_utc:
        raise ValueError(f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return (certificate.not_valid_after_utc - now).days


def _certificates(file: str) -> list[x509.Certificate]:
    data = _read(file)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{file} holds no certificate in PEM form") from None


def _key(file: str) -> PrivateKeyTypes:
    data = _read(file)
    try:
        return load_pem_private_key(data, None)
    except TypeError:  # the key needs a password, which a server cannot ask for
        raise ValueError(f"the private key in {file} is encrypted; store it without a password") from None
    except (ValueError, UnsupportedAlgorithm):  # not chained, because its text may quote the key
        raise ValueError(f"{file} holds no private key in PEM form") from None


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as exc:
        raise ValueError(f"{file} cannot be read: {exc.strerror}") from exc


def _spki(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
