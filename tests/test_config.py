"""Every setting: where it comes from, what it may be, and that all faults are said at once."""

from __future__ import annotations

import unittest
from ipaddress import ip_network
from typing import Any

from wsproxy.config import Config
from wsproxy.exceptions import ConfigError
from wsproxy.net.addresses import WebURL
from wsproxy.protocol.client import TrustedProxies
from wsproxy.relay.lifetime import LifetimeRules
from wsproxy.state.limits import LimitRules
from wsproxy.upstream.location import DEFAULT_API_PATH, SERVICE_ACCOUNT_CA, SERVICE_ACCOUNT_TOKEN

SECRET = "the-very-secret-of-at-least-32-bytes"


def config(**changes: Any) -> Config:
    return Config(**({"remote_url": "wss://10.96.0.1:443", "secret_key": SECRET} | changes))


class ConfigCase(unittest.TestCase):
    def faults(self, **changes: Any) -> tuple[str, ...]:
        """Return the faults of settings; the secret is in none of them."""
        with self.assertRaises(ConfigError) as caught:
            config(**changes)
        self.assertNotIn(SECRET, str(caught.exception))
        return caught.exception.faults


class FieldsTest(ConfigCase):
    def test_defaults(self) -> None:
        """The defaults are the ones that are promised."""
        found = config()
        self.assertEqual(found.api_path, DEFAULT_API_PATH)
        self.assertEqual(found.sslopt, {"ca_certs": SERVICE_ACCOUNT_CA})
        self.assertEqual(found.token_file, SERVICE_ACCOUNT_TOKEN)
        self.assertEqual((found.host, found.port), ("::", 5001))
        self.assertEqual((found.request_timeout, found.dial_timeout, found.close_timeout), (10, 10, 5))
        self.assertEqual((found.ping_interval, found.max_frame_size), (25, 16 * 1024 * 1024))
        self.assertEqual((found.reject, found.log_level, found.algorithms), ("auto", "INFO", None))
        self.assertEqual((found.local_dev_mode, found.host_path_prefix), (False, None))
        self.assertEqual((found.workers, found.max_pending), (1, 512))
        self.assertEqual((found.listen, found.reuse_port), (None, False))
        self.assertEqual((found.drain_grace, found.drain_timeout), (0, 0))
        self.assertEqual((found.grace, found.idle_timeout, found.max_age), (0, 0, 0))
        self.assertEqual((found.secret_key_files, found.jwks, found.jwks_ca_file), ((), None, None))
        self.assertEqual((found.jwks_interval, found.leeway), (300, None))
        self.assertEqual((found.issuer, found.audience, found.namespaces), (None, None, None))
        self.assertEqual((found.allow_eternal_tokens, found.allow_vmi_patterns), (False, False))
        self.assertEqual((found.credentials, found.tickets), (("path", "header", "subprotocol"), False))
        self.assertEqual((found.allow_origin, found.require_origin, found.trusted_proxies), (None, False, ()))
        self.assertEqual((found.web, found.console_page, found.novnc, found.xterm), (None, False, None, None))
        self.assertEqual((found.frame_ancestors, found.ancestors), ((), "frame-ancestors 'none'"))

    def test_what_is_made(self) -> None:
        """The URL, the key, the path template and the prefix are made while checking."""
        found = config(host_path_prefix="/a/b/", subresources=("console",))
        self.assertEqual(found.upstream, WebURL("wss", "10.96.0.1", 443, ""))
        (key,) = found.keyring.keys
        self.assertEqual((key.key, key.algorithms), (SECRET.encode(), ("HS256",)))
        self.assertIsNone(found.jwks_location)
        self.assertEqual((found.routes.prefix, found.routes.default), (("a", "b"), "vnc"))
        self.assertTrue(
            found.path_template.path("n", "v", found.path_template.subresource).endswith(
                "/namespaces/n/virtualmachineinstances/v/vnc"
            )
        )
        self.assertEqual(found.routes.enabled, {"vnc", "console"})
        networks = config(trusted_proxies=("10.0.0.0/8", "::1")).trusted.networks
        self.assertEqual(networks, (ip_network("10.0.0.0/8"), ip_network("::1/128")))
        found = config(trusted_proxies=("unix", "10.0.0.0/8"))
        self.assertEqual(found.trusted, TrustedProxies((ip_network("10.0.0.0/8"),), unix=True))
        self.assertFalse(config(trusted_proxies=("10.0.0.0/8",)).trusted.unix)

    def test_several_secrets(self) -> None:
        """Several secrets are several keys, in their order; any that is empty is a fault."""
        other = "another secret of thirty-two bytes.."
        found = config(secret_key=[SECRET, other.encode()])
        self.assertEqual([key.key for key in found.keyring.keys], [SECRET.encode(), other.encode()])
        for bad in ([], [""], [SECRET, ""], [b" ", SECRET]):
            self.assertIn("SECRET_KEY is empty", self.faults(secret_key=bad)[0])

    def test_no_secret(self) -> None:
        """With a key file or a JWK Set no secret has to be given; it may be."""
        for options in ({"secret_key_files": ("/a",)}, {"jwks": "/a"}, {"jwks": "https://issuer.example/"}):
            nothing: tuple[Any, ...] = ("", b"", [], ())
            for none in nothing:
                with self.subTest(options=options, none=none):
                    self.assertEqual(config(secret_key=none, **options).keyring.keys, ())
            self.assertEqual(len(config(**options).keyring.keys), 1)
            self.assertIn("SECRET_KEY is empty", self.faults(secret_key=" ", **options)[0])

    def test_secret_is_never_shown(self) -> None:
        """The repr shows neither the secret nor the TLS options."""
        for secret in (SECRET, SECRET.encode(), [SECRET]):
            found = config(secret_key=secret, sslopt={"ca_certs": "/a", "keyfile": "/very/private"})
            self.assertNotIn(SECRET, repr(found))
            self.assertNotIn("/very/private", repr(found))

    def test_frozen(self) -> None:
        """Settings cannot be changed."""
        with self.assertRaises(AttributeError):
            config().port = 1  # type: ignore[misc]

    def test_scheme_and_mode(self) -> None:
        """In a cluster ws:// is a fault, never a silent downgrade; in dev mode wss:// is one."""
        (fault,) = self.faults(remote_url="ws://localhost:8001")
        self.assertIn("LOCAL_DEV_MODE=true", fault)
        (fault,) = self.faults(local_dev_mode=True)
        self.assertIn("local_dev_mode is on", fault)
        self.assertFalse(config(remote_url="ws://localhost:8001", local_dev_mode=True).upstream.tls)

    def test_each_fault(self) -> None:
        """Each setting out of its range is one fault that names it."""
        cases: list[tuple[str, tuple[Any, ...]]] = [
            ("remote_url", ("", "http://x")),
            ("api_path", ("", "/vnc", "/{namespace}/{vmi_name}")),
            ("reject", ("", "AUTO", "never")),
            ("request_timeout", (0, -1, 86400, float("nan"), float("inf"))),
            ("dial_timeout", (0, -1, 86400, float("nan"), float("inf"))),
            ("close_timeout", (0, -1, 86400, float("nan"), float("inf"))),
            ("ping_interval", (0, -1, 86400, float("nan"), float("inf"))),
            ("jwks_interval", (0, -1, 86400, float("nan"), float("inf"))),
            ("leeway", (-1, 301, float("nan"), float("inf"))),
            ("jwks", ("http://issuer.example/jwks", "ftp://localhost/", "file:///etc/jwks", "https://")),
            ("claim_user", ((), ("sub",), ("/id", ""), ("/a~2",))),
            ("claim_namespace", ("", "namespace", "/a~", "a/b")),
            ("claim_vmis", ("", "vmis")),
            ("namespaces", (("",), ("lab-*",), ("lab-1", "A"), ("a.b",))),
            ("max_frame_size", (0, -1, 65535)),
            ("max_head_size", (0, -1, 16383, 131073)),
            ("max_pending", (-1, 0, 7)),
            ("max_sessions", (-1,)),
            ("max_sessions_per_user", (-1,)),
            ("max_sessions_per_vmi", (-1,)),
            ("max_pending_per_address", (-1,)),
            ("max_failures", (-1,)),
            ("grace", (-1, float("nan"))),
            ("idle_timeout", (-1, float("nan"), float("inf"))),
            ("max_age", (-1, float("nan"), float("inf"))),
            ("port", (-1, 65536)),
            ("drain_grace", (-0.1, 86400, float("nan"))),
            ("drain_timeout", (-0.1, 86400, float("nan"))),
            (
                "listen",
                ("", "unix:", "unix:@name", "fd:", "fd:x", "127.0.0.1:80", "/a", "unix:/" + 100 * "a"),
            ),
            ("workers", (0, -1, 65)),
            ("cpu_affinity", ("", "AUTO", "0")),
            ("subresources", (("VNC",), ("",), ("vnc/x",), ("..",), ("console", "a b"))),
            ("algorithms", ((), ("none",), ("HS256", "none"))),
            ("credentials", ((), ("body",), ("path", ""))),
            ("cookie_name", ("", "a b", "a=b", "a;b", "t\xe4st")),
            ("allow_origin", (("null",), ("https://a/",), ("https://a", "b"))),
            ("novnc", ("", "/n")),
            ("xterm", ("", "/x")),
            ("frame_ancestors", (("self",), ("https://a.example",))),
            ("trusted_proxies", (("10.0.0.1/8",), ("proxy",), ("10.0.0.0/8", ""), ("::1/129",))),
        ]
        for name, values in cases:
            for value in values:
                with self.subTest(name=name, value=value):
                    (fault,) = self.faults(**{name: value})
                    self.assertIn(name, fault)
        (fault,) = self.faults(screenshots=True, api_path="/lab/{namespace}/{vmi_name}/vnc")
        self.assertIn("screenshots", fault)
        for sources in (("*",), ("self", "a.example")):
            (fault,) = self.faults(console_page=True, frame_ancestors=sources)
            self.assertIn("frame_ancestors", fault)
        for name, value in (
            ("SECRET_KEY", {"secret_key": ""}),
            ("HOST_PATH_PREFIX", {"host_path_prefix": "a b"}),
        ):
            (fault,) = self.faults(**value)
            self.assertIn(name, fault)
        (fault,) = self.faults(log_level="LOUD")
        self.assertIn("log_level", fault)

    def test_edges(self) -> None:
        """The edges of every range are within it."""
        config(port=0)
        config(port=65535, max_frame_size=65536)
        config(workers=1)
        config(workers=64)
        config(grace=float("inf"), idle_timeout=0.1, max_age=1e9)
        config(leeway=300, jwks_interval=86399)
        config(drain_grace=0, drain_timeout=86399)
        config(listen="unix:/" + 99 * "a", reuse_port=True)
        config(listen="fd:3")
        config(request_timeout=0.001, dial_timeout=86399, close_timeout=0.001, ping_interval=86399)

    def test_all_faults_at_once(self) -> None:
        """Every fault is listed, not only the first."""
        faults = self.faults(
            remote_url="ws://localhost",
            secret_key="",
            api_path="/",
            host_path_prefix="?",
            reject="x",
            request_timeout=0,
            dial_timeout=0,
            close_timeout=0,
            ping_interval=0,
            max_frame_size=1,
            port=-1,
            log_level="x",
            subresources=("X",),
            workers=0,
            jwks="http://issuer.example/",
            algorithms=("none",),
            leeway=-1,
            claim_vmis="x",
            namespaces=("X",),
            tls_key="/k",
            tls_client_ca="/c",
            credentials=("x",),
            cookie_name="",
            allow_origin=("x",),
            trusted_proxies=("x",),
        )
        self.assertEqual(len(faults), 24)

    def test_cookies_need_pages(self) -> None:
        """Cookies without a list of pages are a fault, and so is a list of all of them."""
        taken = ("header", "cookie")
        (fault,) = self.faults(credentials=taken)
        self.assertIn("allow_origin is not set", fault)
        (fault,) = self.faults(credentials=taken, allow_origin=("*",))
        self.assertIn("allow_origin has *", fault)
        (fault,) = self.faults(credentials=taken, allow_origin=("https://a", "*"))
        self.assertIn("allow_origin has *", fault)
        config(credentials=taken, allow_origin=("https://a",))
        self.assertTrue(config(allow_origin=("*",)).origin_policy.every)

    def test_inherited_descriptor_is_bound(self) -> None:
        """An inherited descriptor has its options already."""
        (fault,) = self.faults(listen="fd:3", reuse_port=True)
        self.assertIn("leave it out", fault)

    def test_lifetimes_and_limits(self) -> None:
        """The rules of lifetimes and limits are made of the settings."""
        found = config(grace=1, idle_timeout=2, max_age=3)
        self.assertEqual(found.lifetime_rules, LifetimeRules(grace=1, idle=2, age=3))
        found = config(
            max_sessions=1,
            max_sessions_per_user=2,
            max_sessions_per_vmi=3,
            max_pending_per_address=4,
            max_failures=5,
        )
        self.assertEqual(found.limit_rules, LimitRules(sessions=1, user=2, vmi=3, address=4, failures=5))
        self.assertEqual(config().limit_rules, LimitRules())

    def test_what_needs_one_truth(self) -> None:
        """Limits of sessions and failures, rules for consoles and tickets need it; nothing else does."""
        for name in ("max_sessions", "max_sessions_per_user", "max_sessions_per_vmi", "max_failures"):
            self.assertEqual(config(**{name: 1}, workers=2).needs_one_truth, [name])
        self.assertEqual(config(console="lab-1/*=refuse", workers=2).needs_one_truth, ["console"])
        self.assertEqual(config(tickets=True, max_sessions=1).needs_one_truth, ["max_sessions", "tickets"])
        own = {"grace": 1, "idle_timeout": 1, "max_age": 1, "max_pending": 8, "max_pending_per_address": 1}
        self.assertEqual(config(workers=2, console="passthrough", **own).needs_one_truth, [])

    def test_other_place_of_the_state(self) -> None:
        """The same settings with another place, for workers that share a store of their own."""
        before = config(max_sessions=1, workers=2)
        after = before.with_state("local:/run/x/state")
        self.assertEqual((before.is_state_shared, after.is_state_shared), (False, True))
        self.assertEqual((after.state_rules.place.path, after.max_sessions), ("/run/x/state", 1))

    def test_file_of_revocations_needs_one_process(self) -> None:
        """Workers would write over each other's."""
        (fault,) = self.faults(state_file="/tmp/x", workers=2)
        self.assertIn("set state to local:PATH or to a Redis", fault)
