"""From claims to grants, and what a grant allows."""

from __future__ import annotations

import math
import time
import unittest
from typing import Any
from unittest import mock

from wsproxy.exceptions import BadToken, ConfigError, Forbidden, TokenExpired, TokenNotYetValid
from wsproxy.tokens.claims import ClaimRules, Grant, Pointer

NOW = 1_800_000_000.0


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with some of them replaced or added."""
    lab = {"namespace_name": "lab-1", "allowed_vmi_names": ["ubuntu", "web-*"]}
    return {"id": 5, "exp": NOW + 600, "lab_instance": lab} | changes


class ClaimsCase(unittest.TestCase):
    def setUp(self) -> None:
        patch = mock.patch("wsproxy.tokens.claims.time.time", return_value=NOW)
        patch.start()
        self.addCleanup(patch.stop)

    def grant(self, found: object, **rules: Any) -> Grant:
        return ClaimRules(**rules).grant(found, "the-hash")

    def refuse(self, found: object, kind: type[Exception] = BadToken, **rules: Any) -> str:
        with self.assertRaises(kind) as caught:
            self.grant(found, **rules)
        self.assertIs(type(caught.exception), kind)
        return str(caught.exception)


class TimesTest(ClaimsCase):
    def test_expiry(self) -> None:
        """A token expires at its exp, and not before."""
        self.assertEqual(self.grant(claims(exp=NOW + 0.5)).expires_at, NOW + 0.5)
        for exp in (NOW, NOW - 0.001, 0, -1):
            self.refuse(claims(exp=exp), TokenExpired)

    def test_begin(self) -> None:
        """A token with a future nbf or iat is refused; the issuer's clock may be ahead by 5 s."""
        for name in ("nbf", "iat"):
            for value in (NOW, NOW - 1, 0, -5, NOW + 5):
                self.assertEqual(self.grant(claims(exp=NOW + 9, **{name: value})).expires_at, NOW + 9)
            self.assertIn(name, self.refuse(claims(**{name: NOW + 5.1}), TokenNotYetValid))
            self.refuse(claims(**{name: NOW + 0.1}), TokenNotYetValid, leeway=0)

    def test_leeway(self) -> None:
        """The leeway counts at both ends, and lengthens a session."""
        self.assertEqual(self.grant(claims(exp=NOW - 9.9), leeway=10).expires_at, NOW + 0.1)
        self.refuse(claims(exp=NOW - 10), TokenExpired, leeway=10)
        for name in ("nbf", "iat"):
            self.grant(claims(**{name: NOW + 10}), leeway=10)
            self.refuse(claims(**{name: NOW + 10.1}), TokenNotYetValid, leeway=10)

    def test_types(self) -> None:
        """A time that is not a number of seconds is refused in each of the claims."""
        bad: tuple[Any, ...] = (None, "5", [], {}, True, False, math.nan, math.inf, -math.inf, 10**400, 1e300)
        for name in ("exp", "nbf", "iat"):
            for value in (*bad, NOW * 1000, -NOW * 1000):
                with self.subTest(name=name, value=value):
                    self.assertIn(name, self.refuse(claims(**{name: value}), eternal=True))

    def test_eternal(self) -> None:
        """A token without exp is refused, unless the settings accept eternal tokens."""
        eternal = {name: value for name, value in claims().items() if name != "exp"}
        self.assertIn("exp", self.refuse(eternal))
        grant = self.grant(eternal, eternal=True)
        self.assertEqual((grant.expires_at, grant.seconds_left()), (math.inf, math.inf))
        self.refuse(claims(exp=NOW - 1), TokenExpired, eternal=True)
        self.refuse(claims(nbf=NOW + 6), TokenNotYetValid, eternal=True)


class PartiesTest(ClaimsCase):
    def test_issuer(self) -> None:
        """The issuer is compared as a whole; a part of its name is another issuer (CVE-2024-53861)."""
        rules: dict[str, Any] = {"issuers": ("https://a.example", "https://b.example/")}
        self.grant(claims(iss="https://a.example"), **rules)
        self.grant(claims(iss="https://b.example/"), **rules)
        values: tuple[Any, ...] = (
            "",
            "https",
            "https://a",
            "https://a.example/",
            "HTTPS://a.example",
            "https://a.example.evil",
            " https://a.example",
            ["https://a.example"],
            {"https://a.example": 1},
            None,
            5,
        )
        for iss in values:
            with self.subTest(iss=iss):
                self.assertIn("issuer", self.refuse(claims(iss=iss), **rules))
        self.refuse(claims(), **rules)
        for iss in values:
            self.grant(claims(iss=iss))

    def test_audience(self) -> None:
        """One of the token's audiences must be one of ours, as a whole."""
        rules: dict[str, Any] = {"audiences": ("consoles", "c2")}
        for good in ("consoles", ["consoles"], ["other", "c2"], ["c2", 5]):
            self.grant(claims(aud=good), **rules)
        bad: tuple[Any, ...] = (
            "",
            "console",
            "consoles2",
            "c",
            [],
            ["console"],
            [["c2"]],
            {"c2": 1},
            None,
            5,
        )
        for aud in bad:
            with self.subTest(aud=aud):
                self.assertIn("audience", self.refuse(claims(aud=aud), **rules))
        self.refuse(claims(), **rules)

    def test_audience_of_others(self) -> None:
        """A proxy without an audience refuses a token that has one (RFC 7519 section 4.1.3)."""
        for aud in ("consoles", ["a", "b"], "", [], None):
            with self.subTest(aud=aud):
                self.refuse(claims(aud=aud))

    def test_nobody(self) -> None:
        """Rules with an empty list accept no token; only None accepts all."""
        self.refuse(claims(iss="https://a.example"), issuers=())
        self.refuse(claims(), issuers=())
        self.refuse(claims(aud="consoles"), audiences=())
        self.refuse(claims(), audiences=())
        self.grant(claims(iss="https://a.example"), issuers=None, audiences=None)


class MappingTest(ClaimsCase):
    def test_kubernetes(self) -> None:
        """Claims of another issuer are found by pointers; a slash within a name is ~1."""
        rules = ClaimRules.load(
            user=["/email", "/sub"], namespace="/kubernetes.io/namespace", vmis="/https:~1~1a.example~1vmis"
        )
        found = {
            "sub": "system:serviceaccount:lab-2:x",
            "exp": NOW + 60,
            "kubernetes.io": {"namespace": "lab-2"},
            "https://a.example/vmis": ["vm"],
        }
        grant = rules.grant(found, "t")
        self.assertEqual(grant, Grant("system:serviceaccount:lab-2:x", "lab-2", ("vm",), NOW + 60, "t"))
        self.assertEqual(rules.grant(found | {"email": "eve@a.example"}, "t").user, "eve@a.example")

    def test_pointers(self) -> None:
        """A pointer leads through objects only, and decodes its escapes in the right order."""
        whole = {"a": {"b": 1, "": 2, "~1": 3, "/": 4, "~": 5}, "l": [{"b": 1}], "s": "b", "": 6}
        for text, expected in (
            ("/a/b", 1),
            ("/a/", 2),
            ("/a/~01", 3),
            ("/a/~1", 4),
            ("/a/~0", 5),
            ("/", 6),
            ("/a/c", None),
            ("/A/b", None),
            ("/l/0/b", None),
            ("/s/0", None),
            ("/s/b", None),
            ("/a/b/c", None),
        ):
            with self.subTest(text=text):
                self.assertEqual(Pointer(text).find(whole), expected)
                self.assertEqual(str(Pointer(text)), text)

    def test_no_pointers(self) -> None:
        """Each setting that is not a pointer to a claim is a fault; all are listed."""
        with self.assertRaises(ConfigError) as caught:
            ClaimRules.load(user=["sub", "/id", "/a~b"], namespace="", vmis="a.b")
        self.assertEqual(len(caught.exception.faults), 4)
        with self.assertRaisesRegex(ConfigError, "claim_user"):
            ClaimRules.load(user=[], namespace="/a", vmis="/b")

    def test_one_name(self) -> None:
        """lab-orchestrator-lib-auth 0.0.0 and 0.0.1 name one VM; if there is a list, it alone counts."""
        lab = {"lab_id": 1, "namespace_name": "lab-1"}
        for more, expected in (
            ({"vmi_name": "ubuntu"}, ("ubuntu",)),
            ({"vmi_name": "ubuntu", "allowed_vmi_names": ["web-1"]}, ("web-1",)),
            ({"vmi_name": "ubuntu", "allowed_vmi_names": []}, ()),
        ):
            with self.subTest(more=more):
                self.assertEqual(self.grant(claims(lab_instance=lab | more)).vmis, expected)
        others: tuple[dict[str, Any], ...] = (
            {},
            {"vmi_name": None},
            {"vmi_name": 5},
            {"vmi_name": ["ubuntu"]},
            {"vmi_name": "ubuntu", "allowed_vmi_names": None},
            {"vmi_name": "ubuntu", "allowed_vmi_names": "ubuntu"},
        )
        for more in others:
            with self.subTest(more=more):
                self.refuse(claims(lab_instance=lab | more))
        rules = ClaimRules.load(user=["/id"], namespace="/lab_instance/namespace_name", vmis="/vmis")
        with self.assertRaises(BadToken):
            rules.grant(claims(lab_instance=lab | {"vmi_name": "ubuntu"}), "the-hash")

    def test_takeover(self) -> None:
        """A token permits takeovers unless the claim is false; the claim must be a boolean."""
        rules = ClaimRules.load(
            user=["/id"],
            namespace="/lab_instance/namespace_name",
            vmis="/lab_instance/allowed_vmi_names",
            takeover="/x/take",
        )
        for found, expected in (
            ({}, True),
            ({"take": True}, True),
            ({"take": None}, True),
            ({"take": False}, False),
        ):
            with self.subTest(found=found):
                self.assertIs(rules.grant(claims(x=found), "t").may_take_over, expected)
        wrong: tuple[object, ...] = (0, "false", [], {})
        for value in wrong:
            with self.subTest(value=value), self.assertRaisesRegex(BadToken, "/x/take must be true or false"):
                rules.grant(claims(x={"take": value}), "t")

    def test_user(self) -> None:
        """The user is in the first claim that is there, and must be a short string or a whole number."""
        self.assertEqual(self.grant(claims(sub="eve")).user, 5)
        self.assertEqual(self.grant(claims(id=None, sub="eve")).user, "eve")
        for user in ("", "x" * 255, "\u00e9\u4e16", 0, -5, 2**63 - 1):
            self.assertEqual(self.grant(claims(id=user)).user, user)
        texts = ("x" * 256, "a\nb", "a\0", "\ud800", "\u202eevil")
        bad: tuple[Any, ...] = (None, True, 1.5, [], {}, 2**63, 10**400, *texts)
        for value in bad:
            with self.subTest(user=value):
                self.assertIn("/id or /sub", self.refuse(claims(id=value)))
        self.refuse(claims(id=True, sub="eve"))

    def test_token_id(self) -> None:
        """A jti that is a short word identifies the token; a jti that is not a string is refused."""
        for jti, expected in (("a-1", "a-1"), ("", "the-hash"), ("a b", "the-hash"), ("x" * 65, "the-hash")):
            self.assertEqual(self.grant(claims(jti=jti)).token_id, expected)
        bad: tuple[Any, ...] = (None, 5, [], True)
        for odd in bad:
            self.assertIn("jti", self.refuse(claims(jti=odd)))

    def test_namespaces(self) -> None:
        """A valid token for a namespace that the proxy does not serve is forbidden."""
        self.grant(claims(), namespaces=("lab-0", "lab-1"))
        for namespaces in (("lab-0",), ("lab",), ("lab-11",), ()):
            self.refuse(claims(), Forbidden, namespaces=namespaces)

    def test_no_object(self) -> None:
        """Claims that are not an object are refused."""
        for found in (None, [], "x", 5, [claims()]):
            self.refuse(found)


class PatternsTest(ClaimsCase):
    def allows(self, names: list[str], vmi: str, *, patterns: bool = True) -> bool:
        lab = {"namespace_name": "lab-1", "allowed_vmi_names": names}
        grant = self.grant(claims(lab_instance=lab), patterns=patterns)
        try:
            grant.authorize(vmi)
        except Forbidden:
            return False
        return True

    def test_off(self) -> None:
        """Unless patterns are allowed, a name with a star matches no VMI."""
        for names in (["*"], ["web-*"], ["*1"]):
            self.assertFalse(self.allows(names, "web-1", patterns=False))
        self.assertTrue(self.allows(["web-*", "web-1"], "web-1", patterns=False))

    def test_star(self) -> None:
        """A star stands for any characters, also for none, anywhere and any number of times."""
        for pattern, vmi, expected in (
            ("web-*", "web-1", True),
            ("web-*", "web-", True),
            ("web-*", "web", False),
            ("web-*", "xweb-1", False),
            ("*-1", "web-1", True),
            ("*-1", "web-12", False),
            ("*", "anything", True),
            ("*", "", True),
            ("a*a", "a", False),
            ("a*a", "aa", True),
            ("a*b*c", "abc", True),
            ("a*b*c", "a-b-b-c", True),
            ("a*b*c", "acb", False),
            ("a*bc*bc", "abc", False),
            ("a*bc*bc", "abcbc", True),
            ("a**b", "ab", True),
            ("*a*", "bab", True),
            ("*a*", "bbb", False),
            ("web-1", "web-1", True),
            ("", "web-1", False),
        ):
            with self.subTest(pattern=pattern, vmi=vmi):
                self.assertIs(self.allows([pattern], vmi), expected)

    def test_nothing_else_is_special(self) -> None:
        """No other character stands for anything but itself, and case matters."""
        for pattern in (
            "web-?",
            "web-[0-9]",
            "web-.*",
            "^web-1$",
            "WEB-*",
            "web-\\*",
            "w.b-*",
            "web-1|x",
            "{web-1}",
        ):
            with self.subTest(pattern=pattern):
                self.assertFalse(self.allows([pattern], "web-1"))

    def test_namespace(self) -> None:
        """A pattern is about the VMI; the namespace is the token's only one."""
        grant = self.grant(claims(), patterns=True)
        grant.authorize("web-7", "lab-1")
        self.assertRaises(Forbidden, grant.authorize, "web-7", "lab-2")

    def test_linear(self) -> None:
        """A malicious pattern takes no long time, as it would as a regular expression."""
        started = time.process_time()
        for pattern in ("a*" * 2000 + "b", "*a" * 2000 + "*b", "*" * 4000 + "b"):
            self.assertFalse(self.allows([pattern], "a" * 253))
        self.assertLess(time.process_time() - started, 1)
