"""The kinds of settings: what a value of each may be, and the one form that it gets."""

from __future__ import annotations

import enum
import math
import unittest
from collections.abc import Iterable
from dataclasses import fields
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from tests.test_config import SECRET, ConfigCase, config
from wsproxy.config import Config
from wsproxy.exceptions import ConfigError, Refused
from wsproxy.kinds import FAULTY, KINDS, setting_value, shown_url
from wsproxy.settings.table import FIELDS, SETTINGS


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    LAB = "lab"


_NUMBERS = ("int", "float", "Port", "Count", "Timeout", "Pause", "Age")
_LISTS = ("Texts", "Files", "Rules", "OrderedTexts", "Restriction")
_FIELDS = {name: item.kind + (" | None" if item.nullable else "") for name, item in FIELDS.items()}


def of_kind(*kinds: str) -> list[str]:
    """Return the fields of Config that are of one of these kinds."""
    return [name for name, kind in _FIELDS.items() if kind.removesuffix(" | None") in kinds]


class KindsTest(unittest.TestCase):
    def fault(self, kind: str, value: object) -> str:
        with self.assertRaises(ConfigError) as caught:
            setting_value(kind, "it", value)
        (fault,) = caught.exception.faults
        self.assertTrue(fault.startswith("it "), fault)
        return fault

    def test_every_field_has_a_kind(self) -> None:
        """Every field of Config is declared, and has a kind; every kind has a field."""
        self.assertEqual({item.name for item in fields(Config)}, set(_FIELDS))
        self.assertEqual({kind.removesuffix(" | None") for kind in _FIELDS.values()}, set(KINDS))

    def test_flags(self) -> None:
        """Only true and false are flags: text is not, as "false" would be true, nor is a number."""
        self.assertIs(setting_value("bool", "it", True), True)
        self.assertIs(setting_value("bool", "it", False), False)
        others: tuple[object, ...] = ("false", "true", "", 0, 1, None, [], b"", Level.LOW)
        for wrong in others:
            with self.subTest(wrong=wrong):
                self.assertIn("must be true or false, but is ", self.fault("bool", wrong))

    def test_numbers(self) -> None:
        """Numbers are no text, no flags, and no others that happen to compare like numbers."""
        for kind in _NUMBERS:
            for wrong in ("5", "", True, False, None, b"5", [5], Decimal(5), 5j):
                with self.subTest(kind=kind, wrong=wrong):
                    self.assertIn("must be a ", self.fault(kind, wrong))
            self.assertIn("too large", self.fault(kind, 10**5000))
            self.assertEqual(setting_value(kind, "it", Level.LOW), 1)
        for kind in ("int", "Port", "Count"):
            self.assertIn("must be a whole number, but is of type float", self.fault(kind, 5.0))

    def test_ranges(self) -> None:
        """Each kind of number has its range; what is no number is in none."""
        for kind, good, bad in (
            ("Port", (0, 1, 65535), (-1, 65536, 70000)),
            ("Count", (0, 1, 10**6), (-1,)),
            ("Timeout", (0.001, 1, 86399.9), (0, -1, 86400, math.nan, math.inf, -math.inf)),
            ("Pause", (0, 0.5, 86399), (-0.1, 86400, math.nan, math.inf)),
            ("Age", (0, 1e9), (-1, math.nan, math.inf)),
            ("float", (0, math.inf), ()),
        ):
            for value in good:
                self.assertEqual(setting_value(kind, "it", value), value)
            for value in bad:
                with self.subTest(kind=kind, value=value):
                    self.assertIn(f"it is {value}; it must be ", self.fault(kind, value))

    def test_text(self) -> None:
        """Text is text, or a path; bytes, numbers and what only has a text are not; it is not empty."""
        for kind in ("str", "AnyText"):
            for good in ("lab", PurePosixPath("lab"), Word.LAB):
                found = setting_value(kind, "it", good)
                self.assertEqual((found, type(found)), ("lab", str))
            for wrong in (b"lab", 5, None, ["lab"], object(), True):
                with self.subTest(kind=kind, wrong=wrong):
                    self.assertIn("must be text, but is ", self.fault(kind, wrong))
        self.assertIn("is empty", self.fault("str", ""))
        self.assertEqual(setting_value("AnyText", "it", ""), "")

    def test_lists(self) -> None:
        """Whatever yields texts is a list of them, and one text is a list of one, not of characters."""
        for kind in _LISTS:
            for given, value in (
                ("lab", ("lab",)),
                ("a,b", ("a,b",)),
                (PurePosixPath("lab"), ("lab",)),
                (["b", "a"], ("b", "a")),
                (("b", "a"), ("b", "a")),
                ({"b": 1, "a": 2}.keys(), ("b", "a")),
                ((name for name in "ba"), ("b", "a")),
                (iter(["b", Word.LAB]), ("b", "lab")),
            ):
                with self.subTest(kind=kind, given=given):
                    found = setting_value(kind, "it", given)
                    self.assertEqual((found, type(found)), (value, tuple))
            for wrong in (b"lab", bytearray(b"lab"), memoryview(b"lab"), 5, None, True, {"lab": 1}, object()):
                with self.subTest(kind=kind, wrong=wrong):
                    self.assertIn("must be text or a list of texts, but is ", self.fault(kind, wrong))
            for items in ([5], ["lab", None], ("lab", b"a"), [["lab"]], (iter([1]))):
                with self.subTest(kind=kind, items=items):
                    self.assertIn("but has an item of type ", self.fault(kind, items))
            for empty in ("", [""], ("lab", "")):
                self.assertIn("has an empty item", self.fault(kind, empty))

    def test_order(self) -> None:
        """A set is a list where the order does not count, always the same one, and no list elsewhere."""
        for given in ({"b", "a", "c"}, frozenset("cab")):
            for kind in ("Texts", "Files", "Restriction"):
                self.assertEqual(setting_value(kind, "it", given), ("a", "b", "c"))
            for kind in ("Rules", "OrderedTexts"):
                self.assertIn("has no order", self.fault(kind, given))

    def test_empty_lists(self) -> None:
        """A list that is empty is none, but for one that restricts: it would allow everything."""
        nothing: tuple[Iterable[str], ...] = ((), [], set(), iter(()))
        for empty in nothing:
            self.assertEqual(setting_value("Texts", "it", empty), ())
            self.assertIn("name at least one", self.fault("Restriction", empty))
        self.assertIsNone(setting_value("Restriction | None", "it", None))

    def test_secrets(self) -> None:
        """Secrets are text or bytes; a path is none, since it would be the secret itself."""
        for one in ("a", b"a", ""):
            self.assertEqual(setting_value("Secrets", "it", one), one)
        self.assertEqual(setting_value("Secrets", "it", iter(["a", b"b"])), ("a", b"b"))
        for wrong in (
            None,
            5,
            PurePosixPath("/etc/key"),
            {"kty": "oct"},
            bytearray(b"a"),
            ["a", None],
            [["a"]],
        ):
            with self.subTest(wrong=wrong):
                self.assertIn("must be text, bytes or a list of these, but ", self.fault("Secrets", wrong))

    def test_options(self) -> None:
        """Options are a dict with texts as keys, of which a copy is taken."""
        given: dict[str, Any] = {"ca_certs": "/a"}
        found = setting_value("Options", "it", given)
        given["ca_certs"] = "/b"
        self.assertEqual(found, {"ca_certs": "/a"})
        for wrong in (None, "ca_certs", [("ca_certs", "/a")], {1: "/a"}):
            self.assertIn("must be a dict", self.fault("Options", wrong))

    def test_optional(self) -> None:
        """None is a value of optional kinds only."""
        for kind in KINDS:
            self.assertIsNone(setting_value(f"{kind} | None", "it", None))
            self.assertIn("None", self.fault(kind, None))

    def test_faults_hold_no_value(self) -> None:
        """A fault quotes no text: it may be a secret in the wrong place."""
        for kind in KINDS:
            for wrong in (SECRET.encode(), [SECRET, 5], {SECRET: SECRET, 5: 5}, {SECRET: 5}.items()):
                if kind != "Secrets" or not isinstance(wrong, bytes):
                    with self.subTest(kind=kind):
                        self.assertNotIn(SECRET, self.fault(kind, wrong))


class FieldsOfAWrongType(ConfigCase):
    """What every setting does with what it is not; the class of faults is one that fails open."""

    def test_each_field(self) -> None:
        """Whatever is of no kind at all is one fault, which names the field, and so is None."""
        for name, kind in _FIELDS.items():
            for wrong in (object(), None):
                if wrong is not None or not kind.endswith(" | None"):
                    with self.subTest(name=name, wrong=wrong):
                        (fault,) = self.faults(**{name: wrong})
                        self.assertTrue(fault.startswith(f"{name} must be "), fault)

    def test_flags(self) -> None:
        """No text and no number switches anything on, or off."""
        for name in of_kind("bool"):
            for wrong in ("false", "true", "no", "", 0, 1):
                with self.subTest(name=name, wrong=wrong):
                    (fault,) = self.faults(**{name: wrong})
                    self.assertIn(f"{name} must be true or false", fault)

    def test_numbers(self) -> None:
        """Text, flags, and what is no number are no numbers."""
        for name in of_kind(*_NUMBERS):
            for wrong in ("5", True, math.nan, -1, b"5"):
                with self.subTest(name=name, wrong=wrong):
                    (fault,) = self.faults(**{name: wrong})
                    self.assertTrue(fault.startswith(f"{name} "), fault)

    def test_one_text_where_a_list_is_meant(self) -> None:
        """It is that one: its characters allow nothing, and it is compared as a whole."""
        for name, text in (
            ("namespaces", "lab"),
            ("issuer", "https://issuer.example"),
            ("audience", "wsproxy-prod"),
            ("algorithms", "HS384"),
            ("subresources", "console"),
            ("credentials", "path"),
            ("allow_origin", "https://lab.example"),
            ("trusted_proxies", "10.0.0.0/8"),
            ("claim_user", "/sub"),
            ("console", "refuse"),
            ("secret_key_files", "/etc/key"),
            ("admin_hosts", "lab.example"),
        ):
            with self.subTest(name=name):
                self.assertEqual(config(**{name: text}), config(**{name: (text,)}))
        framed = config(console_page=True, frame_ancestors="https://lab.example")
        self.assertEqual(framed.frame_ancestors, ("https://lab.example",))
        self.assertEqual(len(config(subresources="console").routes.enabled), 2)

    def test_parts_of_a_text(self) -> None:
        """No part of one text is taken for it: not of an audience, an issuer or a namespace."""
        claims = {
            "id": 5,
            "exp": 4e9,
            "iss": "https://issuer.example",
            "aud": "wsproxy-prod",
            "lab_instance": {"namespace_name": "lab", "allowed_vmi_names": []},
        }
        rules = config(namespaces="lab", issuer="https://issuer.example", audience="wsproxy-prod").claim_rules
        self.assertEqual(rules.grant(claims, "id").namespace, "lab")
        for changed in (
            {"aud": "prod"},
            {"aud": ["w", "proxy"]},
            {"iss": "https://issuer"},
            {"iss": "h"},
            {"lab_instance": {"namespace_name": "la", "allowed_vmi_names": []}},
        ):
            with self.subTest(changed=changed), self.assertRaises(Refused):
                rules.grant(claims | changed, "id")

    def test_every_list_is_tested(self) -> None:
        """Lists are read in one way, whatever they are for."""
        for name in of_kind(*_LISTS):
            for wrong in (b"lab", 5, {"lab": 1}, ["lab", 5], [b"lab"], "", [""]):
                with self.subTest(name=name, wrong=wrong):
                    (fault,) = self.faults(**{name: wrong})
                    self.assertTrue(fault.startswith(f"{name} "), fault)

    def test_nothing_that_is_allowed(self) -> None:
        """A list of all that is allowed is a fault if it is empty, however a program came to have it."""
        self.assertEqual(
            of_kind("Restriction"), ["algorithms", "issuer", "audience", "namespaces", "allow_origin"]
        )
        for name in of_kind("Restriction"):
            nothing: tuple[Iterable[str], ...] = ((), [], set(), iter([]), filter(None, [""]))
            for empty in nothing:
                with self.subTest(name=name, empty=empty):
                    (fault,) = self.faults(**{name: empty})
                    self.assertIn(f"{name} is an empty list; name at least one", fault)

    def test_empty_texts(self) -> None:
        """No name of a file, a host or a claim is empty: "" would be the current directory, or a default."""
        for name in of_kind("str"):
            with self.subTest(name=name):
                (fault,) = self.faults(**{name: ""})
                self.assertIn(name, fault)
        self.assertEqual(config(host_path_prefix="", host="").routes.prefix, ())

    def test_read_once(self) -> None:
        """What can be read once only is read once: everything that is made of it has all of it."""
        found = config(namespaces=iter(["lab-1", "lab-2"]), subresources=(name for name in ["console"]))
        for namespaces in (found.namespaces, found.claim_rules.namespaces, found.access_rules.namespaces):
            self.assertEqual(namespaces, ("lab-1", "lab-2"))
        self.assertEqual((found.subresources, found.routes.enabled), (("console",), {"console", "vnc"}))

    def test_lists_are_the_settings_own(self) -> None:
        """What a program does to its lists afterwards changes nothing."""
        namespaces, options = ["lab-1"], {"ca_certs": "/a"}
        found = config(namespaces=namespaces, sslopt=options)
        namespaces.append("lab-2")
        options["cert_reqs"] = "none"
        self.assertEqual((found.namespaces, found.sslopt), (("lab-1",), {"ca_certs": "/a"}))

    def test_tls_options(self) -> None:
        """Nothing that only happens to be false switches a check of the API's certificate off."""
        for wrong in (
            {"check_hostname": None},
            {"check_hostname": 0},
            {"check_hostname": "false"},
            {"cert_reqs": None},
            {"cert_reqs": False},
            {"cert_reqs": "CERT_NONE"},
            {"cert_reqs": 0.0},
            {"ca_certs": ""},
            {"ca_certs": b"/a"},
            {"ca_certs": ["/a"]},
            {"keyfile": 5},
            {"server_hostname": ""},
            {"ciphers": True},
            {"ca_cert": "/a"},
        ):
            with self.subTest(wrong=wrong):
                (fault,) = self.faults(sslopt=wrong)
                self.assertIn("sslopt has ", fault)
                self.assertIn(next(iter(wrong)), fault)
        config(sslopt={"ca_certs": None, "check_hostname": False, "cert_reqs": 0})

    def test_all_at_once(self) -> None:
        """Faults of kind stand beside all others, and none of them causes a further one."""
        faults = self.faults(
            remote_url=5,
            secret_key=None,
            local_dev_mode="false",
            tls_cert=b"/cert",
            tls_key="/key",
            admin=5,
            admin_token_file="/token",
            console_page="yes",
            novnc="/novnc",
            credentials=["cookie"],
            allow_origin=[],
            namespaces="Lab",
            workers="2",
            max_sessions=1,
            ping_interval="5",
            close_timeout=-1,
            leeway=301,
        )
        right = {"tls_key", "admin_token_file", "novnc", "credentials", "max_sessions"}
        self.assertEqual(len(faults), 17 - len(right))
        self.assertFalse(right & {fault.split()[0] for fault in faults}, faults)

    def test_mode_that_is_none(self) -> None:
        """Where the mode is wrong, or the URL, neither is held against the other."""
        for wrong in (
            {"local_dev_mode": "false", "remote_url": "ws://localhost:8001"},
            {"local_dev_mode": "true", "remote_url": "wss://10.96.0.1"},
            {"local_dev_mode": True, "remote_url": 5},
            {"local_dev_mode": False, "remote_url": None},
        ):
            with self.subTest(wrong=wrong):
                self.assertEqual(len(self.faults(**wrong)), 1)

    def test_fault_that_was_told(self) -> None:
        """What stands for a fault that has been told makes no settings, and no further fault."""
        for name in _FIELDS:
            with self.subTest(name=name):
                self.assertEqual(self.faults(**{name: FAULTY}), ())


class RestrictionsOfTheEnvironment(unittest.TestCase):
    def test_converters(self) -> None:
        """A variable of a list that restricts names at least one, too."""
        for setting in SETTINGS:
            if _FIELDS.get(setting.name) == "Restriction | None":
                with self.subTest(setting.env), self.assertRaisesRegex(ConfigError, "at least one"):
                    setting.parse(" , ")


class ShownURLTest(unittest.TestCase):
    def test_what_lets_in_is_left_out(self) -> None:
        """A fault shows a URL without user name, password, query and fragment."""
        for url, shown in (
            ("https://a.example:80/x", "'https://a.example:80/x'"),
            ("https://user:word@a.example/x", "'...@a.example/x'"),
            ("https://a.example/?key=word", "'https://a.example/?...'"),
            ("https://a.example/#word", "'https://a.example/#...'"),
            ("https://user:w?rd@a.example/?key=w@rd", "'...@rd'"),
            ("user:word@a.example\n", "'...@a.example\\n'"),
            ("", "''"),
        ):
            with self.subTest(url=url):
                self.assertEqual(shown_url(url), shown)

    def test_settings(self) -> None:
        """No setting that holds URLs shows a password in its fault."""
        for name, value in (
            ("remote_url", "wss://user:hunter2@api"),
            ("jwks", "https://user:hunter2@a.example"),
            ("allow_origin", ["https://user:hunter2@a.example"]),
            ("frame_ancestors", ["https://user:hunter2@a.example"]),
            ("allow_origin", ["https://a.example/?hunter2"]),
        ):
            with self.subTest(name=name), self.assertRaises(ConfigError) as caught:
                config(**{name: value, "console_page": True})
            self.assertNotIn("hunter2", str(caught.exception))
            self.assertIn(name, str(caught.exception))
