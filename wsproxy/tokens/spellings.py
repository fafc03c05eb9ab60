"""Detects keys and certificates that a setting gives as an HMAC secret. No I/O.

If the proxy used the text of a public key as an HMAC secret, everybody who has the key could sign tokens.
Such a text has many encodings. This file decodes each, and reports it only if the result is a key. So random
secrets are accepted in every encoding.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import NamedTuple

from .public_keys import kind_of_der

__all__ = ["Mistaken", "is_blank", "mistaken_for_secret"]

_MOST_LAYERS = 4  # such as base64 of UTF-16 of base64 of DER

_ARMOUR = re.compile(rb"-----BEGIN|BEGIN [A-Z0-9 ]{0,40}(?:KEY|CERTIFICATE)")
_JWK = re.compile(
    rb"""["']kty\\?["']\s*:|["']keys\\?["']\s*:\s*\[|\bkty["']?\s*[:=]\s*["']?(?:RSA|EC|OKP|oct)\b"""
)
_XML_KEY = re.compile(rb"<(?:\w+:)?(?:RSA|DSA|EC|ECDSA)KeyValue")  # XML Signature, .NET
_SSH_LINE = re.compile(rb"\s*(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp)")
_SSH_BLOB = re.compile(rb"\0\0\0[\x07-\x40](?:ssh-|ecdsa-sha2-|sk-)|openssh-key-v1\0", re.DOTALL)
# Object identifiers of public keys and signatures: PKCS #1, ANSI X9.62, RFC 8410.
_KEY_OID = re.compile(
    rb"\x30.{0,60}?(?:\x2a\x86\x48\x86\xf7\x0d\x01\x01|\x2a\x86\x48\xce\x3d|\x06\x03\x2b\x65[\x6e-\x71])",
    re.DOTALL,
)
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")
_LINE = re.compile(rb"[A-Za-z0-9+/_=-]+")
_BETWEEN_HEX = rb"(?:[\s:,]|0x)"  # in OpenSSL's output, and in arrays in C
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}%b{0,8}){32,}" % _BETWEEN_HEX)
_ESCAPED_BREAK = re.compile(rb"(?:\\r)?\\n")
_ESCAPED = re.compile(rb"(?:%|\\x|\\u00)([0-9A-Fa-f]{2})")

_AS_PEM = "pass the public key as PEM in UTF-8, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"


class Mistaken(NamedTuple):
    """A key or a certificate that a setting gives as a secret.

    :ivar what: a noun for it, with its encodings.
    :ivar remedy: what the operator has to do instead.
    """

    what: str
    remedy: str


def is_blank(raw: bytes) -> bool:
    """Whether a secret is empty, or has only whitespace, zero bytes and invisible characters.

    HMAC pads a key with zeros (RFC 2104 section 2), so a key of zeros is the same as an empty key.
    """
    return all(char.isspace() or char in "\0\ufeff\u200b" for char in raw.decode("utf-8", "replace"))


def mistaken_for_secret(raw: bytes) -> Mistaken | None:
    """Return what a secret really is, if it is a key or a certificate; None if it is not."""
    for data, layers in _spellings(raw):
        found = _recognised(data)
        if found:
            return found._replace(what=" in ".join((found.what, *reversed(layers))))
    return None


def _recognised(data: bytes) -> Mistaken | None:
    if _ARMOUR.search(data):
        return Mistaken("PEM", _AS_PEM)
    if _JWK.search(data):
        return Mistaken("a JWK", "put it into a file, as a JWK Set, and name the file in WSPROXY_JWKS")
    if _SSH_LINE.match(data) or _SSH_BLOB.match(data):
        return Mistaken("an SSH key", _AS_PEM)
    if _XML_KEY.search(data):
        return Mistaken("a key in XML", _AS_PEM)
    if data[:1] in (b"\x30", b"\4"):
        kind = kind_of_der(data)
        if kind:
            return Mistaken(f"{kind} as DER", _AS_PEM)
        if _KEY_OID.match(data):
            return Mistaken("a part of a public key", _AS_PEM)
    return None


def _spellings(raw: bytes) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Yield the bytes, and all that they could encode, each with the names of its encodings, outer first."""
    seen = {raw}
    found: list[tuple[bytes, tuple[str, ...]]] = [(raw, ())]
    for data, layers in found:
        yield data, layers
        if len(layers) < _MOST_LAYERS:
            for name, inner in _undone(data):
                if inner not in seen:
                    seen.add(inner)
                    found.append((inner, (*layers, name) if name else layers))


def _undone(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", data.strip()
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        text = data[: len(data) & ~3 if "32" in codec else len(data) & ~1].decode(codec, "replace")
        if text and text.lstrip("\ufeff").isascii():
            yield codec[:6].upper(), text.lstrip("\ufeff").encode("ascii")
    for run in _runs(data):
        digits = run.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        yield "base64", b64decode(digits + b"=" * (-len(digits) % 4))
    for number in _HEX.findall(data):
        yield "hexadecimal digits", binascii.unhexlify(re.sub(_BETWEEN_HEX, b"", number))
    yield "escapes", _unescaped(data)


def _unescaped(data: bytes) -> bytes:
    r"""Decode the escapes of environment variables, JSON, C and URLs, such as ``\n`` and ``%20``."""
    with_breaks = _ESCAPED_BREAK.sub(b"\n", data)
    return _ESCAPED.sub(lambda found: binascii.unhexlify(found[1]), with_breaks)


def _runs(data: bytes) -> Iterator[bytes]:
    """Yield all runs that could be base64: in consecutive lines joined, and in the bytes as they are."""
    joined: list[bytes] = []
    for line in (*data.splitlines(), b""):
        word = b"".join(line.split())
        if _LINE.fullmatch(word):
            joined.append(word)
        else:
            yield from _RUN.findall(b"".join(joined))
            joined = []
    yield from _RUN.findall(data)
