"""From JWTs to grants: what is refused, as what, and that no text ever holds a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import time
import traceback
from typing import Any, ClassVar
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.issuer import SigningKey
from tests.support.jws import signed_token
from wsproxy.exceptions import BadToken, ConfigError, Forbidden, TokenExpired, TokenNotYetValid
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.threads import start_thread
from wsproxy.testing.case import LeakTestCase
from wsproxy.tokens.algorithms import PUBLIC_KEY_ALGORITHMS
from wsproxy.tokens.claims import ClaimRules, Grant
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.keys import Keyring, VerificationKey, load_keys
from wsproxy.tokens.verifier import MAX_TOKEN_SIZE, TokenVerifier

SECRET = "a secret of at least thirty-two bytes"
MISSING = object()


def now() -> float:
    return time.time()  # noqa: TID251 - tokens are about the wall clock


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes, claims: bytes, secret: str | bytes = SECRET, *, between: str = ".") -> str:
    """Return a token of any bytes with a right HS256 signature."""
    signing_input = f"{b64(header)}{between}{b64(claims)}"
    raw = secret.encode() if isinstance(secret, str) else secret
    return f"{signing_input}.{b64(hmac.new(raw, signing_input.encode(), hashlib.sha256).digest())}"


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with some of them replaced, or left out where the value is MISSING."""
    good: dict[str, Any] = {
        "id": 5,
        "exp": now() + 600,
        "lab_instance": {
            "lab_id": 1,
            "lab_instance_id": 2,
            "namespace_name": "lab-1",
            "allowed_vmi_names": ["ubuntu", "debian"],
        },
    }
    return {name: value for name, value in (good | changes).items() if value is not MISSING}


def lab(**changes: Any) -> dict[str, Any]:
    """Return a good lab_instance claim with some members replaced or left out."""
    good = dict(claims()["lab_instance"])
    return {name: value for name, value in (good | changes).items() if value is not MISSING}


def token_of(payload: Any, header: dict[str, Any] | None = None, secret: str | bytes = SECRET) -> str:
    """Return a rightly signed token with this payload."""
    full_header = {"alg": "HS256", "typ": "JWT"} | (header or {})
    return signed(json.dumps(full_header).encode(), json.dumps(payload).encode(), secret)


def verifier_of(
    secret: str | bytes, algorithms: tuple[str, ...] | None = None, rules: ClaimRules | None = None
) -> TokenVerifier:
    return TokenVerifier(Keyring(load_keys(secret, algorithms)), rules)


class TokensCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.verifier = verifier_of(SECRET)

    def refuse(
        self, token: str, kind: type[BadToken] = BadToken, verifier: TokenVerifier | None = None
    ) -> BadToken:
        """Check that a token is refused, with no text that holds any of it."""
        with self.assertRaises(BadToken) as caught:
            (verifier or self.verifier).verify(token)
        exc = caught.exception
        self.assertIs(type(exc), kind)
        shown = "".join(traceback.format_exception(type(exc), exc, None))
        shown += f"{exc!r} {exc.log_detail} {exc.headers}"
        for part in (token, *token.split(".")):
            if len(part) > 8:
                self.assertNotIn(part, shown)
        return exc


class VerifyTest(TokensCase):
    def test_good_token(self) -> None:
        """A good token grants its namespace and its VMIs until it expires."""
        exp = now() + 600
        token = token_of(claims(exp=exp))
        grant = self.verifier.verify(token)
        signed_part = token.rpartition(".")[0].encode()
        token_id = hashlib.sha256(signed_part).hexdigest()[:16]
        self.assertEqual(grant, Grant(5, "lab-1", ("ubuntu", "debian"), exp, token_id))
        self.assertAlmostEqual(grant.seconds_left(), 600, delta=5)

    def test_token_id(self) -> None:
        """A short jti names the token; without one, or with another, its hash does."""
        for jti in ("a", "7e57ab1e-0000-4000-8000-000000000000", "!" * 64):
            self.assertEqual(self.verifier.verify(token_of(claims(jti=jti))).token_id, jti)
        for other in (MISSING, "", "!" * 65, "a b", "a\nb", "\xe9"):
            with self.subTest(jti=other):
                token = token_of(claims(jti=other))
                signed_part = token.rpartition(".")[0].encode()
                expected = hashlib.sha256(signed_part).hexdigest()[:16]
                self.assertEqual(self.verifier.verify(token).token_id, expected)

    def test_known_again(self) -> None:
        """A token that comes again is not verified again, until it expires; another one is."""
        token, other = token_of(claims()), token_of(claims(id=6))
        grant = self.verifier.verify(token)
        with mock.patch("wsproxy.tokens.keys.Keyring.verifies", return_value=False):
            self.assertEqual(self.verifier.verify(token), grant)
            self.refuse(other)
        with mock.patch("wsproxy.tokens.claims.time.time", return_value=now() + 10_000):
            self.assertLess(grant.seconds_left(), 0)
            self.refuse(token, TokenExpired)

    def test_refused_again(self) -> None:
        """The verifier keeps no grant of a refused token; a verifier with another key has other grants."""
        bad = token_of(claims(), secret="another secret, also of 32 bytes!")
        for _ in range(2):
            self.refuse(bad)
        other = verifier_of("another secret, also of 32 bytes!")
        self.assertEqual(other.verify(bad).namespace, "lab-1")
        self.refuse(bad)

    def test_known_tokens_are_bounded(self) -> None:
        """The number of kept grants is limited."""
        with mock.patch("wsproxy.tokens.verifier._MAX_KNOWN", 3):
            for user in range(10):
                self.verifier.verify(token_of(claims(id=user)))
                self.assertLessEqual(len(self.verifier._known), 3)

    def test_not_ascii(self) -> None:
        """A token with other characters than ASCII is refused."""
        for text in ("é", "\ud800", "ü.é.ö"):
            self.refuse(text)
            self.refuse(token_of(claims()) + text)

    def test_shapes_of_the_original(self) -> None:
        """Tokens of every version of lab-orchestrator-lib-auth verify, with exp of either number type."""
        for payload in (
            claims(exp=int(now()) + 600),
            claims(exp=now() + 600.5),
            claims(id="someone"),
            claims(lab_instance=lab(additional_data={"a": {"b": [1]}})),
            claims(lab_instance=lab(additional_data=None, lab_id=MISSING, lab_instance_id=MISSING)),
            claims(lab_instance=lab(allowed_vmi_names=[])),
            claims(other=[1, 2]),
        ):
            with self.subTest(payload=payload):
                self.assertEqual(self.verifier.verify(token_of(payload)).namespace, "lab-1")

    def test_every_hmac(self) -> None:
        """Each HMAC algorithm verifies when it is configured, and only then."""
        secret = "x" * 64
        for algorithm in ("HS256", "HS384", "HS512"):
            token = make_token(secret, namespace="lab-1", vmis=["a"], algorithm=algorithm)
            for allowed in ("HS256", "HS384", "HS512"):
                verifier = verifier_of(secret, (allowed,))
                with self.subTest(algorithm=algorithm, allowed=allowed):
                    if allowed == algorithm:
                        self.assertEqual(verifier.verify(token).vmis, ("a",))
                    else:
                        self.refuse(token, verifier=verifier)

    def test_expired(self) -> None:
        """An expired token gets another error than a bad one."""
        for exp in (0, 1, now() - 1, -5.5):
            with self.subTest(exp=exp):
                self.refuse(token_of(claims(exp=exp)), TokenExpired)

    def test_expired_and_forged(self) -> None:
        """A forged token is bad, and the error does not mention its expiry."""
        self.refuse(token_of(claims(exp=1), secret="another secret of thirty-two bytes.."))

    def test_not_yet_valid(self) -> None:
        """A token that is not valid yet is refused."""
        self.refuse(token_of(claims(nbf=now() + 600)), TokenNotYetValid)

    def test_garbage(self) -> None:
        """Texts that are not a JWT are refused."""
        good = token_of(claims())
        header, payload, signature = good.split(".")
        for token in (
            "",
            ".",
            "..",
            "...",
            "a",
            "a.b",
            "a.b.c",
            "undefined",
            header,
            f"{header}.{payload}",
            f"{header}.{payload}.",
            f"{header}..{signature}",
            f".{payload}.{signature}",
            f"{good}.",
            f"{good}.{signature}",
            f".{good}",
            f"{payload}.{header}.{signature}",
            "Bearer " + good,
            "ä" * 20,
            "\0.\0.\0",
            "\udcff.\udcff.\udcff",
            f"{b64(b'[]')}.{payload}.{signature}",
            f"{b64(b'null')}.{payload}.{signature}",
            f"{b64(bytes(range(256)))}.{payload}.{signature}",
        ):
            with self.subTest(token=token):
                self.refuse(token)

    def test_wrong_secret(self) -> None:
        """A token that was signed with another secret is refused."""
        self.refuse(token_of(claims(), secret="another secret of thirty-two bytes.."))

    def test_changed_claims(self) -> None:
        """A token whose claims were changed behind the signature is refused."""
        header, _, signature = token_of(claims()).split(".")
        payload = b64(json.dumps(claims(lab_instance=lab(allowed_vmi_names=["other"]))).encode())
        self.refuse(f"{header}.{payload}.{signature}")

    def test_alg_none(self) -> None:
        """The algorithm "none", in any spelling, is refused (CVE-2015-9235)."""
        for name in ("none", "None", "NONE", "nOnE"):
            header = b64(json.dumps({"alg": name, "typ": "JWT"}).encode())
            payload = b64(json.dumps(claims()).encode())
            for signature in ("", b64(b"x"), token_of(claims()).rpartition(".")[2]):
                with self.subTest(name=name, signature=signature):
                    self.refuse(f"{header}.{payload}.{signature}")
            self.refuse(token_of(claims(), {"alg": name}))

    def test_alg_of_another_type(self) -> None:
        """An alg that is missing, or no string, is refused."""
        for alg in (None, 5, [], ["HS256"], {"HS256": 1}, True, ""):
            with self.subTest(alg=alg):
                self.refuse(token_of(claims(), {"alg": alg}))
        self.refuse(signed(b'{"typ": "JWT"}', json.dumps(claims()).encode()))

    def test_canonical_base64(self) -> None:
        """Each part must be canonical base64url, so that one token has one spelling."""
        payload = json.dumps(claims(pad="?>" * 9)).encode()  # which has "-" and "_" in base64url
        for size in range(3):
            good = signed(b'{"alg": "HS256"}', payload + b" " * size)
            self.verifier.verify(good)
            parts = good.split(".")
            for number, part in enumerate(parts):
                others = [part + "=" * more for more in (1, 2, 3)]
                others += [part + more for more in (" ", "\n", "A", "!", "%3D", "-")]
                others += [part[:4] + more + part[4:] for more in ("\n", " ", "=", "*", "\0")]
                others += [part[:-1] + chr(ord(part[-1]) + 1)]  # other loose bits, or another last byte
                if part != part.replace("-", "+").replace("_", "/"):
                    others += [part.replace("-", "+").replace("_", "/")]
                for other in others:
                    with self.subTest(part=number, other=other[-5:]):
                        self.refuse(".".join([*parts[:number], other, *parts[number + 1 :]]))

    def test_loose_bits_under_a_right_signature(self) -> None:
        """Loose bits in the header or the claims are refused even if the signature is over them."""
        for header, payload in (
            (b'{"alg":"HS256"} ', b"{}"),
            (b'{"alg": "HS256"}', json.dumps(claims()).encode()),
        ):
            for pad in range(3):
                first, second = b64(header), b64(payload + b" " * pad)
                for part in (0, 1):
                    parts = [first, second]
                    if len(parts[part]) % 4 == 0:
                        continue
                    parts[part] = parts[part][:-1] + chr(ord(parts[part][-1]) + 1)
                    signing_input = ".".join(parts)
                    signature = hmac.new(SECRET.encode(), signing_input.encode(), hashlib.sha256).digest()
                    with self.subTest(part=part, pad=pad):
                        exc = self.refuse(f"{signing_input}.{b64(signature)}")
                        self.assertEqual(exc.log_detail, "it is not canonical base64url")

    def test_doubled_names(self) -> None:
        """A name that is given twice, in the header or the claims, could be read in two ways."""
        payload = json.dumps(claims()).encode()
        for header in (b'{"alg": "none", "alg": "HS256"}', b'{"alg": "HS256", "\\u0061lg": "HS256"}'):
            self.assertIn("duplicate", str(self.refuse(signed(header, payload)).log_detail))
        doubled = payload.replace(b'"ubuntu"', b'"ubuntu"', 1).replace(b"{", b'{"id": 6, ', 1)
        self.assertIn("duplicate", str(self.refuse(signed(b'{"alg": "HS256"}', doubled)).log_detail))
        inner = payload.replace(b'"lab_id"', b'"namespace_name": "lab-2", "lab_id"')
        self.assertIn("duplicate", str(self.refuse(signed(b'{"alg": "HS256"}', inner)).log_detail))

    def test_not_json(self) -> None:
        """Python's extensions of JSON are refused, signed or not."""
        payload = json.dumps(claims(x=1))
        for text in (payload.replace('"x": 1', '"x": NaN'), payload.replace('"x": 1', '"x": -Infinity')):
            self.refuse(signed(b'{"alg": "HS256"}', text.encode()))
        self.refuse(signed(b'{"alg": "HS256"}', payload.encode("utf-16")))
        self.refuse(signed('{"alg": "HS256"}'.encode("utf-16"), payload.encode()))
        self.refuse(signed(b'{"alg": "HS256"}', b"\xef\xbb\xbf" + payload.encode()))

    def test_encrypted(self) -> None:
        """A JWE is refused unread, and so is what pretends to be half of one (CVE-2024-28102)."""
        header = b64(b'{"alg": "dir", "enc": "A256GCM", "zip": "DEF"}')
        exc = self.refuse(f"{header}..{b64(b'x' * 12)}.{b64(b'y' * 100)}.{b64(b'z' * 16)}")
        self.assertIn("encrypted", str(exc))
        for name, value in (("enc", "A256GCM"), ("zip", "DEF"), ("b64", True), ("b64", False), ("zip", None)):
            with self.subTest(name=name):
                self.assertIn(name, str(self.refuse(token_of(claims(), {name: value}))))

    def test_type(self) -> None:
        """A type must be that of a JWT or an access token, and not another's (RFC 8725 section 3.11)."""
        for kind in ("JWT", "jwt", "application/jwt", "at+jwt", "AT+JWT", "Application/AT+JWT"):
            self.verifier.verify(token_of(claims(), {"typ": kind}))
        self.verifier.verify(signed(b'{"alg": "HS256"}', json.dumps(claims()).encode()))
        others: tuple[Any, ...] = ("", "JOSE", "logout+jwt", "dpop+jwt", "text/jwt", "jwt ", None, 5, ["JWT"])
        for kind in others:
            with self.subTest(kind=kind):
                self.refuse(token_of(claims(), {"typ": kind}))

    def test_kid_tricks(self) -> None:
        """A kid is compared with names of keys and used for nothing else; it must be a string."""
        named = Keyring(VerificationKey(key.key, key.algorithms, "a") for key in load_keys(SECRET))
        verifier = TokenVerifier(named)
        verifier.verify(token_of(claims(), {"kid": "a"}))
        verifier.verify(token_of(claims()))
        for kid in (
            "/dev/null",
            "../../../../dev/null",
            "x' UNION SELECT 'key' --",
            "|id",
            "a\0",
            "A",
            "",
            "http://a/",
        ):
            with self.subTest(kid=kid):
                self.refuse(token_of(claims(), {"kid": kid}), verifier=verifier)
                for secret in (b"", b"\0", b"key"):
                    self.refuse(token_of(claims(), {"kid": kid}, secret=secret), verifier=verifier)
                self.verifier.verify(token_of(claims(), {"kid": kid}))  # a key without a name serves all
        others: tuple[Any, ...] = (None, 5, ["a"], {"a": 1}, True)
        for odd in others:
            self.refuse(token_of(claims(), {"kid": odd}), verifier=verifier)

    def test_critical_headers_come_first(self) -> None:
        """They are refused whatever else is wrong, before the signature is looked at."""
        exc = self.refuse(token_of(claims(exp=1), {"crit": ["x"], "alg": "none", "typ": 5}, secret=b"other"))
        self.assertIn("crit", str(exc))

    def test_rules(self) -> None:
        """The rules for the claims are those that the verifier was made with."""
        rules = ClaimRules(issuers=("a",), audiences=("b",), leeway=10)
        verifier = verifier_of(SECRET, rules=rules)
        verifier.verify(token_of(claims(iss="a", aud=["b"], exp=now() - 5)))
        self.refuse(token_of(claims(iss="a", aud="c")), verifier=verifier)
        self.refuse(token_of(claims(iss="b", aud="b")), verifier=verifier)
        self.refuse(token_of(claims(aud="b")))
        with self.assertRaises(Forbidden):
            verifier_of(SECRET, rules=ClaimRules(namespaces=("lab-2",))).verify(token_of(claims()))

    def test_known_by_its_keys(self) -> None:
        """A known token is verified again after the keys have changed, and refused without its key."""
        source = mock.Mock(current=mock.Mock(return_value=Keyring(load_keys(SECRET))))
        verifier, token = TokenVerifier(source), token_of(claims())
        for _ in range(2):
            verifier.verify(token)
        source.current.return_value = Keyring(load_keys(SECRET))
        verifier.verify(token)
        source.current.return_value = Keyring(load_keys("another secret of thirty-two bytes.."))
        self.refuse(token, verifier=verifier)
        source.current.return_value = Keyring(())
        self.assertEqual(self.refuse(token, verifier=verifier).log_detail, "there are no keys")
        source.await_key.assert_not_called()

    def test_key_that_comes_late(self) -> None:
        """A token of an unknown public key is verified with the keys that there are after waiting."""
        private, public = PublicKeyTest.pems(ec.generate_private_key(ec.SECP256R1()))
        source = mock.Mock(current=mock.Mock(return_value=Keyring(load_keys(SECRET))))
        deadline = Deadline(5)

        def arrive(kid: str | None, until: Deadline) -> None:
            self.assertEqual((kid, until), ("new", deadline))
            source.current.return_value = Keyring(load_keys(public))

        source.await_key.side_effect = arrive
        verifier = TokenVerifier(source)
        token = signed_token(claims(), private, "ES256", {"kid": "new"})
        verifier.verify(token, deadline)
        verifier.verify(token)
        source.await_key.assert_called_once()

    def test_critical_headers(self) -> None:
        """A token with critical headers is refused, since none are understood (CVE-2026-32597)."""
        for crit in (["exp"], ["b64"], [], None, "x", ["x", "y"]):
            with self.subTest(crit=crit):
                self.refuse(token_of(claims(), {"crit": crit, "x": 1, "y": 1}))

    def test_unencoded_payload(self) -> None:
        """RFC 7797's unencoded payloads are refused."""
        self.refuse(token_of(claims(), {"b64": False, "crit": ["b64"]}))

    def test_oversize(self) -> None:
        """A token of more than 8 KiB is refused unread, however good; one of just that size is not."""
        exp = int(now()) + 600
        pad = 5000
        while len(token_of(claims(exp=exp, pad="x" * pad))) < MAX_TOKEN_SIZE:
            pad += 1
        token = token_of(claims(exp=exp, pad="x" * pad))
        self.assertEqual(len(token), MAX_TOKEN_SIZE)
        self.verifier.verify(token)
        for more in (1, 100, 10**6):
            with self.subTest(more=more):
                self.assertIn("too long", str(self.refuse(token_of(claims(exp=exp, pad="x" * (pad + more))))))


class ClaimTypesTest(TokensCase):
    def test_payload_is_no_object(self) -> None:
        """A payload that is no JSON object is refused, signed or not."""
        payloads: tuple[Any, ...] = ([], "x", 5, None, True)
        for payload in payloads:
            with self.subTest(payload=payload):
                self.refuse(token_of(payload))
        self.refuse(signed(b'{"alg": "HS256"}', b"not JSON"))
        self.refuse(signed(b'{"alg": "HS256"}', b"\xff\xfe"))

    def test_exp(self) -> None:
        """An exp that is missing, or no finite number, is refused."""
        for exp in (MISSING, None, "9999999999", "x", [], {}, [9999999999], math.inf, -math.inf, math.nan):
            with self.subTest(exp=exp):
                self.refuse(token_of(claims(exp=exp)))

    def test_exp_of_true(self) -> None:
        """An exp of true or false is refused, as a bad one or as one of 1970."""
        for exp in (True, False):
            with self.subTest(exp=exp), self.assertRaises(BadToken):
                self.verifier.verify(token_of(claims(exp=exp)))

    def test_huge_exp(self) -> None:
        """An exp beyond every float is refused like any other that is wrong, and is no crash."""
        for exp in (10**400, -(10**400)):
            with self.subTest(exp=exp), self.assertRaises(BadToken):
                self.verifier.verify(token_of(claims(exp=exp)))
        self.refuse(
            signed(
                b'{"alg": "HS256"}', json.dumps(claims()).encode().replace(b'"exp": ', b'"exp": 1e999, "x": ')
            )
        )

    def test_id(self) -> None:
        """An id that is neither a string nor an integer is refused."""
        for user in (MISSING, None, True, False, 1.5, [], {}, ["5"]):
            with self.subTest(user=user):
                self.refuse(token_of(claims(id=user)))

    def test_lab_instance(self) -> None:
        """A lab_instance that is no object is refused."""
        for value in (MISSING, None, [], "x", 5, True, ["namespace_name"]):
            with self.subTest(value=value):
                self.refuse(token_of(claims(lab_instance=value)))

    def test_namespace_name(self) -> None:
        """A namespace that is no DNS-1123 label is refused, so that it can never bend an API path."""
        for name in (MISSING, None, 5, True, [], {}, "", "a/b", "..", "A", "a.b", "a%2fb", "a\nb", "a" * 64):
            with self.subTest(name=name):
                self.refuse(token_of(claims(lab_instance=lab(namespace_name=name))))

    def test_allowed_vmi_names_as_a_string(self) -> None:
        """A string of names is refused: in the original "in" was a search for a part of it."""
        for names in ("ubuntu", "ubuntu,debian", ""):
            with self.subTest(names=names):
                self.refuse(token_of(claims(lab_instance=lab(allowed_vmi_names=names))))

    def test_allowed_vmi_names(self) -> None:
        """Anything but a list of strings is refused."""
        for names in (MISSING, None, 5, True, {}, {"ubuntu": 1}, [5], ["ubuntu", None], [["ubuntu"]], [True]):
            with self.subTest(names=names):
                self.refuse(token_of(claims(lab_instance=lab(allowed_vmi_names=names))))


class PublicKeyTest(TokensCase):
    rsa_pem: ClassVar[tuple[str, str]]
    ec_pem: ClassVar[tuple[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.rsa_pem = cls.pems(rsa.generate_private_key(65537, 2048))
        cls.ec_pem = cls.pems(ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def pems(key: Any) -> tuple[str, str]:
        """Return a key's private and public PEM."""
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return private.decode(), public.decode()

    def test_each_kind(self) -> None:
        """A token of a private key verifies with its public key."""
        for (private, public), algorithm in ((self.rsa_pem, "RS256"), (self.ec_pem, "ES256")):
            verifier = verifier_of(public, (algorithm,))
            token = make_token(private, namespace="lab-1", vmis=["a"], algorithm=algorithm)
            self.assertEqual(verifier.verify(token).vmis, ("a",))
            self.refuse(make_token(private, namespace="lab-1", vmis=["a"], algorithm=algorithm))

    def test_hmac_with_the_public_key(self) -> None:
        """A token that was "signed" by HS256 with the text of the public key is refused (CVE-2016-10555)."""
        for (_, public), algorithm in ((self.rsa_pem, "RS256"), (self.ec_pem, "ES256")):
            verifier = verifier_of(public, (algorithm,))
            for key in (public, public.strip(), public.encode()):
                for alg in ("HS256", algorithm):
                    with self.subTest(algorithm=algorithm, alg=alg):
                        self.refuse(token_of(claims(), {"alg": alg}, secret=key), verifier=verifier)

    def test_embedded_keys(self) -> None:
        """Keys that a token brings along, or points to, are never used."""
        private, public = self.rsa_pem
        verifier = verifier_of(public, ("RS256",))
        other = SigningKey("RS256")
        self.refuse(other.token(), verifier=verifier)
        headers: tuple[dict[str, Any], ...] = (
            {"jwk": {"kty": "oct", "k": b64(b"x" * 32)}},
            {"jwk": other.jwk},
            {"jku": "http://localhost:9/"},
            {"x5u": "http://localhost:9/"},
            {"x5c": ["MII="]},
            {"x5t": "x"},
        )
        for header in headers:
            self.refuse(token_of(claims(), header, secret=b"x" * 32))
            self.verifier.verify(token_of(claims(), header))
            forged = signed_token(claims(), other.private, "RS256", header)
            self.refuse(forged, verifier=verifier)
            verifier.verify(signed_token(claims(), private, "RS256", header))


class NestingTest(TokensCase):
    """Nested JSON in a thread with a session's small stack: the parser's recursion could kill the process."""

    def refuse_in_session_thread(self, token: str) -> None:
        seen: list[BadToken] = []
        start_thread("wsproxy-test", lambda: seen.append(self.refuse(token)), self).join()
        self.assertEqual(len(seen), 1)

    def test_nested_header(self) -> None:
        """A deeply nested header, which is parsed before the signature is checked, is refused."""
        for bomb in (
            b"[" * 6000,
            b'{"a":' * 1200,
            b"[" * 33,
            b'{"alg":"HS256","x":' + b"[" * 3000 + b"]" * 2900 + b"}",
            ("[" * 2900).encode("utf-16"),
        ):
            with self.subTest(bomb=bomb[:20]):
                self.refuse_in_session_thread(f"{b64(bomb)}.{b64(b'{}')}.{b64(b'x')}")
                self.refuse_in_session_thread(f"{b64(bomb)}.")
                self.refuse_in_session_thread(b64(bomb))

    def test_nested_claims(self) -> None:
        """Deeply nested claims are refused even with a right signature."""
        for bomb in (b"[" * 5000, b'{"a":' * 1150, b'{"exp": 9999999999, "x": ' + b"[" * 5000):
            with self.subTest(bomb=bomb[:20]):
                self.refuse_in_session_thread(signed(b'{"alg": "HS256"}', bomb))

    def test_claims_of_more_than_one_segment(self) -> None:
        """A dot within the claims, which base64 decoders skip, does not hide nesting; it is no JWT."""
        bomb = signed(b'{"alg": "HS256"}', b"[" * 5000)
        header, payload, _ = bomb.split(".")
        signing_input = f"{header}.{payload[:4]}.{payload[4:]}"
        signature = b64(hmac.new(SECRET.encode(), signing_input.encode(), hashlib.sha256).digest())
        self.refuse_in_session_thread(f"{signing_input}.{signature}")
        payload = b64(json.dumps(claims()).encode())
        signing_input = f"{header}.{payload[:4]}.{payload[4:]}"
        signature = b64(hmac.new(SECRET.encode(), signing_input.encode(), hashlib.sha256).digest())
        self.refuse(f"{signing_input}.{signature}")

    def test_ordinary_nesting(self) -> None:
        """Claims as nested as a program would make them pass in a thread with a small stack."""
        data: Any = 1
        for _ in range(100):
            data = {"x": [data]}
        seen: list[Grant] = []
        token = token_of(claims(lab_instance=lab(additional_data=data)))
        start_thread("wsproxy-test", lambda: seen.append(self.verifier.verify(token)), self).join()
        self.assertEqual(seen[0].user, 5)


class GrantTest(TokensCase):
    grant = Grant(5, "lab-1", ("ubuntu", "debian"), 1.0, "t")

    def test_allowed(self) -> None:
        """A VMI of the list may be opened, with the granted namespace named or not."""
        self.grant.authorize("ubuntu")
        self.grant.authorize("debian", "lab-1")

    def test_wrong_vmi(self) -> None:
        """Any other VMI is forbidden; a part or a continuation of a name is another name."""
        for vmi in ("windows", "ubunt", "ubuntu2", "", "u", "UBUNTU"):
            with self.subTest(vmi=vmi):
                self.assertRaises(Forbidden, self.grant.authorize, vmi)

    def test_wrong_namespace(self) -> None:
        """The same VMI in another namespace is forbidden."""
        for namespace in ("lab-2", "", "lab"):
            with self.subTest(namespace=namespace):
                self.assertRaises(Forbidden, self.grant.authorize, "ubuntu", namespace)

    def test_nothing_allowed(self) -> None:
        """A token for no VMI opens none."""
        self.assertRaises(Forbidden, Grant(5, "lab-1", (), 1.0, "t").authorize, "ubuntu")

    def test_seconds_left(self) -> None:
        """What is left of an expired grant is negative."""
        self.assertLess(self.grant.seconds_left(), 0)


class MakeTokenTest(TokensCase):
    def test_round_trip(self) -> None:
        """A token that is made here verifies here, with all that was asked for."""
        token = make_token(
            SECRET,
            namespace="lab-1",
            vmis=("ubuntu",),
            user="someone",
            expires_in=60,
            lab_id=3,
            lab_instance_id=4,
            additional_data={"a": 1},
        )
        grant = self.verifier.verify(token)
        self.assertEqual((grant.user, grant.namespace, grant.vmis), ("someone", "lab-1", ("ubuntu",)))
        self.assertAlmostEqual(grant.seconds_left(), 60, delta=5)
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        self.assertEqual(set(found), {"id", "iat", "exp", "lab_instance"})
        self.assertEqual(found["lab_instance"]["lab_id"], 3)
        self.assertEqual(found["lab_instance"]["additional_data"], {"a": 1})

    def test_every_algorithm(self) -> None:
        """Each kind of key signs with each algorithm that it is for."""
        for algorithm in (*sorted(PUBLIC_KEY_ALGORITHMS), "HS256", "HS384", "HS512"):
            private = public = "x" * 64
            if algorithm in PUBLIC_KEY_ALGORITHMS:
                private, public = PublicKeyTest.pems(SigningKey(algorithm).private)
            for secret in (private, private.encode()):
                token = make_token(secret, namespace="lab-1", vmis=["a"], algorithm=algorithm)
                with self.subTest(algorithm=algorithm):
                    self.assertEqual(verifier_of(public, (algorithm,)).verify(token).vmis, ("a",))
                    self.refuse(token)

    def test_keys_that_cannot_sign(self) -> None:
        """A key that is not for the algorithm, or is no secret, is refused; no text shows it."""
        private, public = PublicKeyTest.pems(rsa.generate_private_key(65537, 2048))
        ec_private, _ = PublicKeyTest.pems(ec.generate_private_key(ec.SECP256R1()))
        for secret, algorithm, word in (
            ("", "HS256", "empty"),
            (" \0", "HS256", "empty"),
            ("\udcff", "HS256", "UTF-8"),
            (public, "HS256", "PEM"),
            (private, "HS512", "PEM"),
            (base64.b64encode(public.encode()), "HS256", "PEM in base64"),
            (public, "RS256", "not a private key"),
            (SECRET, "RS256", "not a private key"),
            (private, "ES256", "not for ES256"),
            (private, "EdDSA", "not for EdDSA"),
            (ec_private, "ES384", "not for ES384"),
            (ec_private, "PS256", "not for PS256"),
            (SECRET, "none", "algorithms"),
            ("", "none", "algorithms"),
            (SECRET, "hs256", "algorithms"),
        ):
            with self.subTest(algorithm=algorithm, word=word):
                with self.assertRaisesRegex(ConfigError, word) as caught:
                    make_token(secret, namespace="lab-1", vmis=["a"], algorithm=algorithm)
                shown = "".join(traceback.format_exception(None, caught.exception, None))
                raw = secret if isinstance(secret, str) else secret.decode()
                for line in raw.splitlines():
                    if len(line) > 20 and "-----" not in line:
                        self.assertNotIn(line, shown)

    def test_data_that_is_not_json(self) -> None:
        """A token that no proxy would accept is refused when it is made."""
        with self.assertRaises(ValueError):
            make_token(SECRET, namespace="lab-1", vmis=["a"], additional_data={"x": math.nan})
        with self.assertRaises(TypeError):
            make_token(SECRET, namespace="lab-1", vmis=["a"], additional_data={"x": object()})

    def test_one_vmi(self) -> None:
        """A single text as the VMIs means that one, and not its letters."""
        grant = self.verifier.verify(make_token(SECRET, namespace="lab-1", vmis="ubuntu"))
        self.assertEqual(grant.vmis, ("ubuntu",))

    def test_expired(self) -> None:
        """A negative lifetime makes an expired token."""
        self.refuse(make_token(SECRET, namespace="lab-1", vmis=["a"], expires_in=-1), TokenExpired)
