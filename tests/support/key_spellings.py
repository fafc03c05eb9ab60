"""Keys that are no secrets, in the spellings in which people have them."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .jws import public_jwk

__all__ = ["spellings", "undamaged_spellings"]


def undamaged_spellings() -> Iterator[tuple[str, bytes]]:
    """Yield public keys of each kind, private ones and certificates, in each spelling, with a name."""
    for kind, private in (
        ("RSA", rsa.generate_private_key(65537, 2048)),
        ("P-256", ec.generate_private_key(ec.SECP256R1())),
        ("P-521", ec.generate_private_key(ec.SECP521R1())),
        ("brainpool", ec.generate_private_key(ec.BrainpoolP256R1())),
        ("Ed25519", ed25519.Ed25519PrivateKey.generate()),
    ):
        for name, text in _spellings_of(private):
            yield f"{kind}: {name}", text


def spellings() -> Iterator[tuple[str, bytes]]:
    """Yield these, and what is left of some of them after mishaps."""
    for name, text in undamaged_spellings():
        yield name, text
        if name.endswith(": public, base64"):
            yield f"{name}, the last third cut", text[: len(text) * 2 // 3]
            yield f"{name}, in quotes", b'"' + text + b'"\n'
            yield f"{name}, by spaces", b" ".join(text[at : at + 64] for at in range(0, len(text), 64))
            yield f"{name}, a remark before", b"# of January\n" + b"\n".join(_lines(text))
            yield f"{name}, line breaks as \\n", b"\\n".join(_lines(text))


def _lines(text: bytes) -> list[bytes]:
    return [text[at : at + 64] for at in range(0, len(text), 64)]


def _spellings_of(private: Any) -> Iterator[tuple[str, bytes]]:
    public = private.public_key()
    for name, der, pem in (
        ("public", *_public(public, PublicFormat.SubjectPublicKeyInfo)),
        *(
            [("PKCS #1", *_public(public, PublicFormat.PKCS1))]
            if isinstance(public, rsa.RSAPublicKey)
            else []
        ),
        ("private", *_private(private)),
        ("certificate", *_certificate(private)),
    ):
        for spelling, text in _spellings_of_der(der, pem):
            yield f"{name}, {spelling}", text
    if not (isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name.startswith("brainpool")):
        yield from _texts(public)
    if isinstance(public, ec.EllipticCurvePublicKey) and not public.curve.name.startswith("brainpool"):
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        yield "point", point
        yield "point, base64url", base64.urlsafe_b64encode(point).rstrip(b"=")


def _public(key: Any, form: PublicFormat) -> tuple[bytes, bytes]:
    return key.public_bytes(Encoding.DER, form), key.public_bytes(Encoding.PEM, form)


def _private(key: Any) -> tuple[bytes, bytes]:
    form = (PrivateFormat.PKCS8, NoEncryption())
    return key.private_bytes(Encoding.DER, *form), key.private_bytes(Encoding.PEM, *form)


def _certificate(private: Any) -> tuple[bytes, bytes]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer.example")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 5, begin, begin.replace(year=2036))
    made = builder.sign(private, None if isinstance(private, ed25519.Ed25519PrivateKey) else SHA256())
    return made.public_bytes(Encoding.DER), made.public_bytes(Encoding.PEM)


def _spellings_of_der(der: bytes, pem: bytes) -> Iterator[tuple[str, bytes]]:
    plain = base64.b64encode(der)
    text = pem.decode()
    body = "\n".join(text.splitlines()[1:-1])
    yield "DER", der
    yield "DER and a line break", der + b"\n"
    yield "base64", plain
    yield "base64url", base64.urlsafe_b64encode(der).rstrip(b"=")
    yield "hexadecimal", der.hex().encode()
    yield "hexadecimal with colons", der.hex(":").encode()
    yield (
        "hexadecimal in lines, as OpenSSL shows it",
        ":\n    ".join(der[at : at + 15].hex(":") for at in range(0, len(der), 15)).encode(),
    )
    yield "hexadecimal, an array in C", ", ".join(f"0x{byte:02x}" for byte in der).encode()
    yield "hexadecimal, a string in C", "".join(f"\\x{byte:02x}" for byte in der).encode()
    yield "lines of base64", body.encode()
    yield "lines of base64, line breaks as \\n", body.replace("\n", "\\n").encode()
    yield "lines of base64, line breaks as \\r\\n", body.replace("\n", "\\r\\n").encode()
    yield "lines of base64, for a URL", quote(body, safe="").encode()
    yield "lines of base64, CRLF", body.replace("\n", "\r\n").encode()
    yield "PEM without dashes", text.replace("-", "").encode()
    yield "PEM with other dashes", text.replace("-----", "\u2013\u2013").encode()
    yield "PEM with four dashes", text.replace("-----", "----").encode()
    yield "base64 of PEM", base64.b64encode(pem)
    yield "base64 of base64 of PEM", base64.b64encode(base64.b64encode(pem))
    yield "base64 of base64", base64.b64encode(plain)
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        yield f"PEM in {codec}", text.encode(codec)
        yield f"base64 in {codec}", plain.decode().encode(codec)
        yield f"PEM in {codec}, its last line break cut", text.encode(codec).rstrip(b"\r\n")
    yield "base64 with a byte order mark", b"\xef\xbb\xbf" + plain
    yield "base64 of PEM in utf-16", base64.b64encode(text.encode("utf-16"))
    yield "JSON of Keycloak's realm", json.dumps({"realm": "lab", "public_key": plain.decode()}).encode()
    yield "data URL", b"data:application/octet-stream;base64," + plain


def _texts(public: Any) -> Iterator[tuple[str, bytes]]:
    jwk = public_jwk(public) | {"kid": "a", "use": "sig"}
    for name, found in (("JWK", jwk), ("JWK Set", {"keys": [jwk]}), ("JWKs in an array", [jwk])):
        text = json.dumps(found)
        yield name, text.encode()
        yield f"{name}, compact", json.dumps(found, separators=(",", ":")).encode()
        yield f"{name}, indented", json.dumps(found, indent=4).encode()
        yield f"{name}, as a string", json.dumps(text).encode()
        yield f"{name}, as Python shows it", str(found).encode()
        yield f"{name}, for a URL", quote(text, safe="").encode()
        yield f"{name}, base64", base64.b64encode(text.encode())
        yield f"{name}, utf-16", text.encode("utf-16")
        yield f"{name}, byte order mark", text.encode("utf-8-sig")
    yield "JWK in YAML", "\n".join(f"{member}: {value}" for member, value in jwk.items()).encode()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for name, text in (
        ("SSH", line.decode()),
        ("SSH, with a remark", f"{line.decode()} eve@example"),
        ("SSH, with options", f'no-pty,command="/bin/true" {line.decode()}'),
        ("SSH, of a host", f"host.example {line.decode()}"),
        ("SSH, without its kind", line.decode().split()[1]),
    ):
        yield name, text.encode()
        yield f"{name}, base64", base64.b64encode(text.encode())
        yield f"{name}, utf-16", text.encode("utf-16")
