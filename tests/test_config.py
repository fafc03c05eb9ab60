"""Every setting: where it comes from, what it may be, and that all faults are said at once."""

from __future__ import annotations

import unittest
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wsproxy.config import (
    DEFAULT_API_PATH,
    SERVICE_ACCOUNT_CA,
    SERVICE_ACCOUNT_TOKEN,
    SETTINGS,
    Config,
    UpstreamURL,
)
from wsproxy.exceptions import ConfigError

SECRET = "the-very-secret-of-at-least-32-bytes"
IN_CLUSTER = {
    "SECRET_KEY": SECRET,
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}
DEV = {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true"}


def config(**changes: Any) -> Config:
    return Config(**({"remote_url": "wss://10.96.0.1:443", "secret_key": SECRET} | changes))


class ConfigCase(unittest.TestCase):
    def faults(self, **changes: Any) -> tuple[str, ...]:
        """Return the faults of settings; the secret is in none of them."""
        with self.assertRaises(ConfigError) as caught:
            config(**changes)
        self.assertNotIn(SECRET, str(caught.exception))
        return caught.exception.faults

    def env_faults(
        self, environ: dict[str, str], flags: dict[str, str | None] | None = None
    ) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            Config.from_env(environ, flags)
        self.assertNotIn(SECRET, str(caught.exception))
        return caught.exception.faults


class UpstreamURLTest(unittest.TestCase):
    def test_parse(self) -> None:
        """Scheme, host, port and path are taken apart, with the scheme's default port."""
        for url, expected in (
            ("ws://localhost:8001", UpstreamURL("localhost", 8001, "", False)),
            ("wss://10.96.0.1:443", UpstreamURL("10.96.0.1", 443, "", True)),
            ("wss://api", UpstreamURL("api", 443, "", True)),
            ("ws://api", UpstreamURL("api", 80, "", False)),
            ("WSS://API.example/", UpstreamURL("api.example", 443, "", True)),
            ("wss://[fd00::1]:6443", UpstreamURL("fd00::1", 6443, "", True)),
            ("wss://api/k8s/clusters/c-1/", UpstreamURL("api", 443, "/k8s/clusters/c-1", True)),
        ):
            with self.subTest(url=url):
                self.assertEqual(UpstreamURL.parse(url), expected)

    def test_url(self) -> None:
        """A whole URL has brackets around an IPv6 address, the port, and the path in front."""
        for url, whole in (
            ("ws://localhost:8001", "ws://localhost:8001/x"),
            ("wss://[fd00::1]", "wss://[fd00::1]:443/x"),
            ("wss://api/k8s/", "wss://api:443/k8s/x"),
        ):
            self.assertEqual(UpstreamURL.parse(url).url("/x"), whole)

    def test_password_is_not_quoted(self) -> None:
        """A URL with a password in it is refused in words that do not hold it."""
        with self.assertRaises(ConfigError) as caught:
            UpstreamURL.parse("wss://admin:hunter2@api")
        self.assertNotIn("hunter2", str(caught.exception))

    def test_faults(self) -> None:
        """What is no plain WebSocket URL is a fault."""
        for url in (
            "",
            "localhost:8001",
            "http://localhost:8001",
            "https://api",
            "ws://",
            "ws:///path",
            "ws://:8001",
            "ws://host:port",
            "ws://host:99999",
            "ws://[fd00::1",
            "ws://host?x=1",
            "ws://host#x",
            "ws://user@host",
            "ws://user:word@host",
            "ws://ho st",
            "ws://host/\r\nX: y",
            "ws://hö.example",
        ):
            with self.subTest(url=url), self.assertRaises(ConfigError) as caught:
                UpstreamURL.parse(url)
            self.assertIn("remote_url", caught.exception.faults[0])


class FieldsTest(ConfigCase):
    def test_defaults(self) -> None:
        """The defaults are the ones that are promised."""
        found = config()
        self.assertEqual(found.api_path, DEFAULT_API_PATH)
        self.assertEqual(found.sslopt, {"ca_certs": SERVICE_ACCOUNT_CA})
        self.assertEqual(found.token_file, SERVICE_ACCOUNT_TOKEN)
        self.assertEqual((found.host, found.port), ("0.0.0.0", 5001))
        self.assertEqual((found.request_timeout, found.dial_timeout, found.close_timeout), (10, 10, 5))
        self.assertEqual((found.ping_interval, found.max_frame_size), (25, 16 * 1024 * 1024))
        self.assertEqual((found.reject, found.log_level, found.algorithms), ("auto", "INFO", ("HS256",)))
        self.assertEqual((found.local_dev_mode, found.host_path_prefix), (False, None))
        self.assertEqual(found.workers, 1)

    def test_what_is_made(self) -> None:
        """The URL, the key, the path template and the prefix are made while checking."""
        found = config(host_path_prefix="/a/b/", subresources=("console",))
        self.assertEqual(found.upstream, UpstreamURL("10.96.0.1", 443, "", True))
        self.assertEqual(found.verification_key.key, SECRET.encode())
        self.assertEqual(found.prefix, ("a", "b"))
        self.assertTrue(
            found.path_template.path("n", "v").endswith("/namespaces/n/virtualmachineinstances/v/vnc")
        )
        self.assertEqual(found.enabled_subresources, {"vnc", "console"})

    def test_secret_is_never_shown(self) -> None:
        """The repr shows neither the secret nor the TLS options."""
        for secret in (SECRET, SECRET.encode()):
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
            ("max_frame_size", (0, -1, 65535)),
            ("port", (-1, 65536)),
            ("workers", (0, -1, 65)),
            ("cpu_affinity", ("", "AUTO", "0")),
            ("subresources", (("VNC",), ("",), ("vnc/x",), ("..",), ("console", "a b"))),
            ("algorithms", ((), ("none",), ("HS256", "none"))),
        ]
        for name, values in cases:
            for value in values:
                with self.subTest(name=name, value=value):
                    (fault,) = self.faults(**{name: value})
                    self.assertIn(name, fault)
        for name, value in (
            ("SECRET_KEY", {"secret_key": ""}),
            ("HOST_PATH_PREFIX", {"host_path_prefix": "a b"}),
        ):
            (fault,) = self.faults(**value)
            self.assertIn(name, fault)
        (fault,) = self.faults(log_level="LOUD")
        self.assertIn("LOGLEVEL", fault)

    def test_edges(self) -> None:
        """The edges of every range are within it."""
        config(port=0)
        config(port=65535, max_frame_size=65536)
        config(workers=1)
        config(workers=64)
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
        )
        self.assertEqual(len(faults), 14)


class FromEnvTest(ConfigCase):
    VALUES: tuple[tuple[str, str, str, object], ...] = (
        ("HOST", "::", "host", "::"),
        ("PORT", "8080", "port", 8080),
        ("HOST_PATH_PREFIX", "/ws_proxy", "host_path_prefix", "/ws_proxy"),
        ("LOGLEVEL", "debug", "log_level", "DEBUG"),
        (
            "WSPROXY_API_PATH",
            "/{namespace}/{vmi_name}/console",
            "api_path",
            "/{namespace}/{vmi_name}/console",
        ),
        ("WSPROXY_SUBRESOURCES", "console, usbredir,", "subresources", ("console", "usbredir")),
        ("WSPROXY_ALGORITHMS", "HS384,HS512", "algorithms", ("HS384", "HS512")),
        ("WSPROXY_CA_FILE", "/etc/ca.crt", "sslopt", {"ca_certs": "/etc/ca.crt"}),
        ("WSPROXY_TOKEN_FILE", "/etc/token", "token_file", "/etc/token"),
        ("WSPROXY_REJECT", "HTTP", "reject", "http"),
        ("WSPROXY_REQUEST_TIMEOUT", "1.5", "request_timeout", 1.5),
        ("WSPROXY_DIAL_TIMEOUT", "2", "dial_timeout", 2.0),
        ("WSPROXY_CLOSE_TIMEOUT", "3", "close_timeout", 3.0),
        ("WSPROXY_PING_INTERVAL", "4", "ping_interval", 4.0),
        ("WSPROXY_MAX_FRAME_SIZE", "65536", "max_frame_size", 65536),
        ("WSPROXY_WORKERS", "64", "workers", 64),
        ("WSPROXY_CPU_AFFINITY", "OFF", "cpu_affinity", "off"),
    )
    ELSEWHERE = frozenset(
        {
            "SECRET_KEY",
            "LOCAL_DEV_MODE",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "WS_REMOTE_URL",
        }
    )

    def test_every_setting_is_tested(self) -> None:
        """The table of this test names every setting, apart from those with tests of their own."""
        self.assertEqual(
            {row[0] for row in self.VALUES} | self.ELSEWHERE, {setting.env for setting in SETTINGS}
        )

    def test_minimum(self) -> None:
        """In a cluster the secret is all that has to be given; the rest has its default."""
        self.assertEqual(Config.from_env(IN_CLUSTER), config())

    def test_every_setting(self) -> None:
        """Each variable sets its field."""
        for env, text, target, value in self.VALUES:
            with self.subTest(env=env):
                self.assertEqual(getattr(Config.from_env(IN_CLUSTER | {env: text}), target), value)

    def test_flags_win(self) -> None:
        """A flag of the same name wins over the environment; one that is not given does not."""
        for env, text, target, value in self.VALUES:
            with self.subTest(env=env):
                found = Config.from_env(
                    IN_CLUSTER | {env: "nonsense"}, {env: text, "PORT": None} | {env: text}
                )
                self.assertEqual(getattr(found, target), value)
        self.assertEqual(Config.from_env(IN_CLUSTER | {"PORT": "1"}, {"PORT": None}).port, 1)

    def test_empty_variables(self) -> None:
        """An empty variable counts as not set; only an empty secret is a fault."""
        empty = {setting.env: "" for setting in SETTINGS} | IN_CLUSTER
        self.assertEqual(Config.from_env(empty), config())
        self.assertEqual(Config.from_env(IN_CLUSTER | {"WSPROXY_UNKNOWN": ""}), config())
        for environ in (
            IN_CLUSTER | {"SECRET_KEY": ""},
            {k: v for k, v in IN_CLUSTER.items() if k != "SECRET_KEY"},
        ):
            (fault,) = self.env_faults(environ)
            self.assertIn("SECRET_KEY is empty", fault)

    def test_dev_mode(self) -> None:
        """In dev mode the API is at WS_REMOTE_URL, by default that of kubectl proxy, and nowhere else."""
        self.assertEqual(Config.from_env(DEV).remote_url, "ws://localhost:8001")
        self.assertEqual(Config.from_env(DEV | {"WS_REMOTE_URL": "ws://a:1"}).remote_url, "ws://a:1")
        self.assertEqual(Config.from_env(DEV | IN_CLUSTER).remote_url, "ws://localhost:8001")
        (fault,) = self.env_faults(DEV | {"WS_REMOTE_URL": "wss://a:1"})
        self.assertIn("wss://a:1", fault)

    def test_remote_url_is_of_dev_mode_only(self) -> None:
        """In a cluster WS_REMOTE_URL means nothing, as in the original."""
        self.assertEqual(
            Config.from_env(IN_CLUSTER | {"WS_REMOTE_URL": "ws://evil"}).remote_url, "wss://10.96.0.1:443"
        )

    def test_spellings_of_a_flag(self) -> None:
        """The original's spellings of true and false work, in any case."""
        for text in ("y", "yes", "t", "true", "on", "1", "True", " TRUE "):
            self.assertTrue(Config.from_env(DEV | {"LOCAL_DEV_MODE": text}).local_dev_mode, text)
        for text in ("n", "no", "f", "false", "off", "0", "False"):
            self.assertFalse(Config.from_env(IN_CLUSTER | {"LOCAL_DEV_MODE": text}).local_dev_mode, text)
        (fault,) = self.env_faults(IN_CLUSTER | {"LOCAL_DEV_MODE": "maybe"})
        self.assertIn("LOCAL_DEV_MODE is 'maybe'", fault)

    def test_ipv6_host(self) -> None:
        """An IPv6 address of the API gets brackets."""
        found = Config.from_env(IN_CLUSTER | {"KUBERNETES_SERVICE_HOST": "fd00::1"})
        self.assertEqual(found.remote_url, "wss://[fd00::1]:443")
        self.assertEqual(found.upstream, UpstreamURL("fd00::1", 443, "", True))

    def test_outside_a_cluster(self) -> None:
        """Outside a cluster, and not in dev mode, the fault says what to do."""
        for missing in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            (fault,) = self.env_faults(IN_CLUSTER | {missing: ""})
            self.assertIn("LOCAL_DEV_MODE=true", fault)

    def test_unknown_setting(self) -> None:
        """An unknown WSPROXY_ variable is a fault, so that a misspelt limit never goes unseen."""
        for name in ("WSPROXY_X", "WSPROXY_REQUEST_TIME", "WSPROXY_", "WSPROXY_HOST", "WSPROXY_SERVIC_X"):
            with self.subTest(name=name):
                (fault,) = self.env_faults(IN_CLUSTER | {name: "1"})
                self.assertIn(name, fault)

    def test_variables_that_kubernetes_injects(self) -> None:
        """What Kubernetes injects for a Service named wsproxy is no fault and no setting."""
        injected = {
            "WSPROXY_PORT": "tcp://10.96.0.7:5001",
            "WSPROXY_PORT_5001_TCP": "tcp://10.96.0.7:5001",
            "WSPROXY_PORT_5001_TCP_ADDR": "10.96.0.7",
            "WSPROXY_SERVICE_HOST": "10.96.0.7",
            "WSPROXY_SERVICE_PORT": "5001",
            "WSPROXY_SERVICE_PORT_HTTP": "5001",
        }
        self.assertEqual(Config.from_env(IN_CLUSTER | injected), config())
        self.assertFalse(injected.keys() & {setting.env for setting in SETTINGS})

    def test_no_setting_uses_an_injected_name(self) -> None:
        """No setting has a name that Kubernetes may inject, and no two share a name or a flag."""
        for setting in SETTINGS:
            self.assertFalse(setting.env.startswith(("WSPROXY_PORT", "WSPROXY_SERVICE_")), setting.env)
        self.assertEqual(len({setting.env for setting in SETTINGS}), len(SETTINGS))
        self.assertEqual(len({setting.flag for setting in SETTINGS}), len(SETTINGS))

    def test_other_variables(self) -> None:
        """Variables of others are none of ours."""
        self.assertEqual(
            Config.from_env(IN_CLUSTER | {"PATH": "/bin", "wsproxy_x": "1", "XWSPROXY_Y": "1"}), config()
        )

    def test_unreadable_values(self) -> None:
        """A value of the wrong kind is a fault that names its variable and quotes it."""
        for env in (
            "PORT",
            "WSPROXY_REQUEST_TIMEOUT",
            "WSPROXY_DIAL_TIMEOUT",
            "WSPROXY_CLOSE_TIMEOUT",
            "WSPROXY_PING_INTERVAL",
            "WSPROXY_MAX_FRAME_SIZE",
            "WSPROXY_WORKERS",
        ):
            for text in ("x", "1s", "1,5", "0x10"):
                with self.subTest(env=env, text=text):
                    (fault,) = self.env_faults(IN_CLUSTER | {env: text})
                    self.assertIn(f"{env} is '{text}'", fault)

    def test_all_faults_at_once(self) -> None:
        """Faults of variables, of settings and unknown names are listed together."""
        faults = self.env_faults(
            {
                "LOCAL_DEV_MODE": "false",
                "PORT": "x",
                "WSPROXY_CLOSE_TIMEOUT": "0",
                "WSPROXY_REJECT": "never",
                "WSPROXY_TYPO": "1",
                "WSPROXY_TYPO_2": "1",
            }
        )
        for word in (
            "KUBERNETES_SERVICE_HOST",
            "PORT is",
            "close_timeout",
            "reject",
            "TYPO ",
            "TYPO_2",
            "SECRET_KEY",
        ):
            self.assertEqual(sum(word in fault for fault in faults), 1, word)
        self.assertEqual(len(faults), 7)

    def test_public_key(self) -> None:
        """A PEM public key may be the secret, with its algorithm named."""
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        found = Config.from_env(IN_CLUSTER | {"SECRET_KEY": pem, "WSPROXY_ALGORITHMS": "ES256"})
        self.assertEqual(found.algorithms, ("ES256",))
        (fault,) = self.env_faults(IN_CLUSTER | {"SECRET_KEY": pem})
        self.assertIn("PEM", fault)


class SettingTest(unittest.TestCase):
    def test_flags(self) -> None:
        """A flag is made from the variable's name, without our prefix."""
        flags = {setting.env: setting.flag for setting in SETTINGS}
        self.assertEqual(flags["SECRET_KEY"], "--secret-key")
        self.assertEqual(flags["WSPROXY_CA_FILE"], "--ca-file")
        self.assertEqual(flags["KUBERNETES_SERVICE_HOST"], "--kubernetes-service-host")

    def test_help(self) -> None:
        """Every setting has a line of help, and the secret no default to show."""
        for setting in SETTINGS:
            self.assertTrue(setting.help, setting.env)
            self.assertLess(len(setting.help), 80, setting.env)
        self.assertIsNone(next(setting.default for setting in SETTINGS if setting.env == "SECRET_KEY"))
