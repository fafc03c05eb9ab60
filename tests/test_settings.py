"""The program's settings."""

from __future__ import annotations

import math
import unittest
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.test_config import SECRET, config
from wsproxy.config import Config, config_from_env, config_from_mapping
from wsproxy.exceptions import ConfigError
from wsproxy.net.addresses import WebURL
from wsproxy.settings.service_links import without_service_links
from wsproxy.settings.setting import REQUIRED
from wsproxy.settings.table import SETTINGS

IN_CLUSTER = {
    "SECRET_KEY": SECRET,
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}
DEV = {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true"}


class SettingsCase(unittest.TestCase):
    def faults(self, environ: dict[str, str], flags: dict[str, str | None] | None = None) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            config_from_env(environ, flags)
        self.assertNotIn(SECRET, str(caught.exception))
        return caught.exception.faults


class FromEnvTest(SettingsCase):
    VALUES: tuple[tuple[str, str, str, object], ...] = (
        ("HOST", "::", "host", "::"),
        ("PORT", "8080", "port", 8080),
        ("HOST_PATH_PREFIX", "/ws_proxy", "host_path_prefix", "/ws_proxy"),
        ("LOGLEVEL", "debug", "log_level", "DEBUG"),
        ("WSPROXY_LOG_FORMAT", "JSON", "log_format", "json"),
        ("WSPROXY_AUDIT_LOG", "/var/log/audit", "audit_log", "/var/log/audit"),
        ("WSPROXY_ADMIN", "unix:/run/wsproxy", "admin", "unix:/run/wsproxy"),
        ("WSPROXY_ADMIN_HOSTS", "wsproxy-admin, other", "admin_hosts", ("wsproxy-admin", "other")),
        (
            "WSPROXY_API_PATH",
            "/{namespace}/{vmi_name}/console",
            "api_path",
            "/{namespace}/{vmi_name}/console",
        ),
        ("WSPROXY_SUBRESOURCES", "console, usbredir,", "subresources", ("console", "usbredir")),
        ("WSPROXY_ALGORITHMS", "HS384,HS512", "algorithms", ("HS384", "HS512")),
        ("SECRET_KEY_FILE", "/etc/a, /etc/b", "secret_key_files", ("/etc/a", "/etc/b")),
        ("WSPROXY_JWKS", "https://issuer.example/jwks", "jwks", "https://issuer.example/jwks"),
        ("WSPROXY_JWKS_INTERVAL", "60", "jwks_interval", 60.0),
        ("WSPROXY_JWKS_CA_FILE", "/etc/ca.crt", "jwks_ca_file", "/etc/ca.crt"),
        (
            "WSPROXY_ISSUER",
            "https://a.example,https://b.example",
            "issuer",
            ("https://a.example", "https://b.example"),
        ),
        ("WSPROXY_AUDIENCE", "consoles", "audience", ("consoles",)),
        ("WSPROXY_LEEWAY", "2.5", "leeway", 2.5),
        ("WSPROXY_ALLOW_ETERNAL_TOKENS", "yes", "allow_eternal_tokens", True),
        ("WSPROXY_CLAIM_USER", "/email,/sub", "claim_user", ("/email", "/sub")),
        (
            "WSPROXY_CLAIM_NAMESPACE",
            "/k8s.io/namespace",
            "claim_namespace",
            "/k8s.io/namespace",
        ),
        ("WSPROXY_CLAIM_VMIS", "/vmis", "claim_vmis", "/vmis"),
        ("WSPROXY_CLAIM_TAKEOVER", "/takeover", "claim_takeover", "/takeover"),
        ("WSPROXY_ALLOW_VMI_PATTERNS", "1", "allow_vmi_patterns", True),
        ("WSPROXY_NAMESPACES", "lab-1,lab-2", "namespaces", ("lab-1", "lab-2")),
        ("WSPROXY_CA_FILE", "/etc/ca.crt", "sslopt", {"ca_certs": "/etc/ca.crt"}),
        ("WSPROXY_TOKEN_FILE", "/etc/token", "token_file", "/etc/token"),
        ("WSPROXY_TLS_CERT", "/tls/tls.crt", "tls_cert", "/tls/tls.crt"),
        ("WSPROXY_REJECT", "HTTP", "reject", "http"),
        ("WSPROXY_CREDENTIALS", "header, query", "credentials", ("header", "query")),
        ("WSPROXY_COOKIE_NAME", "__Host-jwt", "cookie_name", "__Host-jwt"),
        ("WSPROXY_ALLOW_ORIGIN", "https://a, http://b:81", "allow_origin", ("https://a", "http://b:81")),
        ("WSPROXY_REQUIRE_ORIGIN", "true", "require_origin", True),
        ("WSPROXY_TRUSTED_PROXIES", "10.0.0.0/8,::1", "trusted_proxies", ("10.0.0.0/8", "::1")),
        ("WSPROXY_TICKETS", "on", "tickets", True),
        ("WSPROXY_WEB", "/usr/share/novnc", "web", "/usr/share/novnc"),
        ("WSPROXY_CONSOLE_PAGE", "true", "console_page", True),
        ("WSPROXY_SCREENSHOTS", "true", "screenshots", True),
        ("WSPROXY_CONSOLE", "exam-*/*=refuse, takeover", "console", ("exam-*/*=refuse", "takeover")),
        ("WSPROXY_SHOW_USER", "1", "show_user", True),
        ("WSPROXY_REQUEST_TIMEOUT", "1.5", "request_timeout", 1.5),
        ("WSPROXY_DIAL_TIMEOUT", "2", "dial_timeout", 2.0),
        ("WSPROXY_CLOSE_TIMEOUT", "3", "close_timeout", 3.0),
        ("WSPROXY_PING_INTERVAL", "4", "ping_interval", 4.0),
        ("WSPROXY_MAX_FRAME_SIZE", "65536", "max_frame_size", 65536),
        ("WSPROXY_MAX_HEAD_SIZE", "65536", "max_head_size", 65536),
        ("WSPROXY_MAX_PENDING", "8", "max_pending", 8),
        ("WSPROXY_MAX_SESSIONS", "100", "max_sessions", 100),
        ("WSPROXY_MAX_SESSIONS_PER_USER", "3", "max_sessions_per_user", 3),
        ("WSPROXY_MAX_SESSIONS_PER_VMI", "1", "max_sessions_per_vmi", 1),
        ("WSPROXY_MAX_PENDING_PER_ADDRESS", "20", "max_pending_per_address", 20),
        ("WSPROXY_MAX_FAILURES", "10", "max_failures", 10),
        ("WSPROXY_GRACE", "inf", "grace", math.inf),
        ("WSPROXY_IDLE_TIMEOUT", "600", "idle_timeout", 600.0),
        ("WSPROXY_MAX_AGE", "3600.5", "max_age", 3600.5),
        ("WSPROXY_WORKERS", "64", "workers", 64),
        ("WSPROXY_CPU_AFFINITY", "OFF", "cpu_affinity", "off"),
        ("WSPROXY_LISTEN", "unix:/run/wsproxy/socket", "listen", "unix:/run/wsproxy/socket"),
        ("WSPROXY_REUSE_PORT", "true", "reuse_port", True),
        ("WSPROXY_DRAIN_GRACE", "5", "drain_grace", 5.0),
        ("WSPROXY_DRAIN_TIMEOUT", "600", "drain_timeout", 600.0),
        ("WSPROXY_STATE", "local:/run/wsproxy/state", "state", "local:/run/wsproxy/state"),
        ("WSPROXY_STATE_UNAVAILABLE", "LOCAL", "state_unavailable", "local"),
        ("WSPROXY_STATE_LEASE", "0.3", "state_lease", 0.3),
        ("WSPROXY_STATE_FILE", "/var/lib/wsproxy/revocations", "state_file", "/var/lib/wsproxy/revocations"),
        ("WSPROXY_REPLICA_NAME", "blue 1", "replica_name", "blue 1"),
        ("WSPROXY_TOKEN_LIFETIME", "3600", "token_lifetime", 3600.0),
    )
    ELSEWHERE = frozenset(
        {
            "SECRET_KEY",
            "LOCAL_DEV_MODE",
            "WSPROXY_CONFIG",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "WS_REMOTE_URL",
            "WSPROXY_ADMIN_TOKEN_FILE",
            "WSPROXY_FORWARDED_HEADERS",
            "WSPROXY_FRAME_ANCESTORS",
            "WSPROXY_NOVNC",
            "WSPROXY_PROXY_PROTOCOL",
            "WSPROXY_STATE_CA_FILE",
            "WSPROXY_STATE_GROUP",
            "WSPROXY_STATE_PASSWORD_FILE",
            "WSPROXY_STATE_PREFIX",
            "WSPROXY_XTERM",
            "WSPROXY_TLS_CLIENT_CA",
            "WSPROXY_TLS_KEY",
        }
    )

    def test_every_setting_is_tested(self) -> None:
        """The table of this test names every setting, apart from those with tests of their own."""
        self.assertEqual(
            {row[0] for row in self.VALUES} | self.ELSEWHERE, {setting.env for setting in SETTINGS}
        )

    def test_minimum(self) -> None:
        """In a cluster the secret is all that has to be given; the rest has its default."""
        self.assertEqual(config_from_env(IN_CLUSTER), config())

    def test_every_setting(self) -> None:
        """Each variable sets its field."""
        for env, text, target, value in self.VALUES:
            with self.subTest(env=env):
                self.assertEqual(getattr(config_from_env(IN_CLUSTER | {env: text}), target), value)

    def test_flags_win(self) -> None:
        """A flag of the same name wins over the environment; one that is not given does not."""
        for env, text, target, value in self.VALUES:
            with self.subTest(env=env):
                found = config_from_env(
                    IN_CLUSTER | {env: "nonsense"}, {env: text, "PORT": None} | {env: text}
                )
                self.assertEqual(getattr(found, target), value)
        self.assertEqual(config_from_env(IN_CLUSTER | {"PORT": "1"}, {"PORT": None}).port, 1)

    def test_empty_variables(self) -> None:
        """An empty variable counts as not set; only an empty secret is a fault."""
        empty = {setting.env: "" for setting in SETTINGS} | IN_CLUSTER
        self.assertEqual(config_from_env(empty), config())
        self.assertEqual(config_from_env(IN_CLUSTER | {"WSPROXY_UNKNOWN": ""}), config())
        for environ in (
            IN_CLUSTER | {"SECRET_KEY": ""},
            {k: v for k, v in IN_CLUSTER.items() if k != "SECRET_KEY"},
        ):
            (fault,) = self.faults(environ)
            self.assertIn("SECRET_KEY is empty", fault)

    def test_tls_towards_clients(self) -> None:
        """The key, if in a file of its own, and the authorities of clients are of no use by themselves."""
        both = {"WSPROXY_TLS_KEY": "/k", "WSPROXY_TLS_CLIENT_CA": "/c"}
        found = config_from_env(IN_CLUSTER | both | {"WSPROXY_TLS_CERT": "/a"})
        self.assertEqual((found.tls_cert, found.tls_key, found.tls_client_ca), ("/a", "/k", "/c"))
        for fault, name in zip(self.faults(IN_CLUSTER | both), ("tls_key", "tls_client_ca"), strict=True):
            remedy = f"set tls_cert, too, or leave {name} out"
            self.assertEqual(fault, f"{name} is set but tls_cert is not; {remedy}")

    def test_console_page(self) -> None:
        """What the console page is made of, and who may frame it, is of no use without the page."""
        parts = {
            "WSPROXY_NOVNC": "/n",
            "WSPROXY_XTERM": "/x",
            "WSPROXY_FRAME_ANCESTORS": "self, https://a.example",
        }
        found = config_from_env(IN_CLUSTER | parts | {"WSPROXY_CONSOLE_PAGE": "true"})
        self.assertEqual((found.novnc, found.xterm), ("/n", "/x"))
        self.assertEqual(found.frame_ancestors, ("self", "https://a.example"))
        for fault, name in zip(
            self.faults(IN_CLUSTER | parts), ("novnc", "xterm", "frame_ancestors"), strict=True
        ):
            self.assertIn(f"{name} is set but ", fault)
        del parts["WSPROXY_NOVNC"], parts["WSPROXY_XTERM"]
        config_from_env(IN_CLUSTER | parts | {"WSPROXY_WEB": "/w"})

    def test_operator(self) -> None:
        """The operator's token is of no use without a listener to show it to."""
        token = {"WSPROXY_ADMIN_TOKEN_FILE": "/t"}
        found = config_from_env(IN_CLUSTER | token | {"WSPROXY_ADMIN": "unix:/a"})
        self.assertEqual((found.admin, found.admin_token_file), ("unix:/a", "/t"))
        (fault,) = self.faults(IN_CLUSTER | token)
        self.assertIn("admin_token_file is set but admin is not", fault)

    def test_state(self) -> None:
        """Some settings are for a Redis only, or for the store of one host."""
        environ = IN_CLUSTER | {
            "WSPROXY_STATE": "rediss://wsproxy@redis.example",
            "WSPROXY_STATE_PREFIX": "lab-1",
            "WSPROXY_STATE_CA_FILE": "/etc/ca.crt",
            "WSPROXY_STATE_PASSWORD_FILE": "/etc/password",
        }
        rules = config_from_env(environ).state_rules
        self.assertEqual((rules.place.user, rules.prefix), ("wsproxy", "lab-1"))
        self.assertEqual((rules.ca_file, rules.password_file), ("/etc/ca.crt", "/etc/password"))
        environ["WSPROXY_STATE"] = "memory"
        self.assertEqual(len(self.faults(environ)), 3)
        environ = IN_CLUSTER | {"WSPROXY_STATE": "local:/run/s", "WSPROXY_STATE_GROUP": "lab"}
        self.assertEqual(config_from_env(environ).state_rules.group, "lab")

    def test_dev_mode(self) -> None:
        """In dev mode the API is at WS_REMOTE_URL, by default that of kubectl proxy, and nowhere else."""
        self.assertEqual(config_from_env(DEV).remote_url, "ws://localhost:8001")
        self.assertEqual(config_from_env(DEV | {"WS_REMOTE_URL": "ws://a:1"}).remote_url, "ws://a:1")
        self.assertEqual(config_from_env(DEV | IN_CLUSTER).remote_url, "ws://localhost:8001")
        (fault,) = self.faults(DEV | {"WS_REMOTE_URL": "wss://a:1"})
        self.assertIn("wss://a:1", fault)

    def test_remote_url_is_of_dev_mode_only(self) -> None:
        """In a cluster WS_REMOTE_URL means nothing, as in the original."""
        self.assertEqual(
            config_from_env(IN_CLUSTER | {"WS_REMOTE_URL": "ws://evil"}).remote_url, "wss://10.96.0.1:443"
        )

    def test_spellings_of_a_flag(self) -> None:
        """The original's spellings of true and false work, in any case."""
        for text in ("y", "yes", "t", "true", "on", "1", "True", " TRUE "):
            self.assertTrue(config_from_env(DEV | {"LOCAL_DEV_MODE": text}).local_dev_mode, text)
        for text in ("n", "no", "f", "false", "off", "0", "False"):
            self.assertFalse(config_from_env(IN_CLUSTER | {"LOCAL_DEV_MODE": text}).local_dev_mode, text)
        (fault,) = self.faults(IN_CLUSTER | {"LOCAL_DEV_MODE": "maybe"})
        self.assertIn("LOCAL_DEV_MODE is 'maybe'", fault)

    def test_ipv6_host(self) -> None:
        """An IPv6 address of the API gets brackets."""
        found = config_from_env(IN_CLUSTER | {"KUBERNETES_SERVICE_HOST": "fd00::1"})
        self.assertEqual(found.remote_url, "wss://[fd00::1]:443")
        self.assertEqual(found.upstream, WebURL("wss", "fd00::1", 443, ""))

    def test_outside_a_cluster(self) -> None:
        """Outside a cluster, and not in dev mode, the fault says what to do."""
        for missing in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            (fault,) = self.faults(IN_CLUSTER | {missing: ""})
            self.assertIn("LOCAL_DEV_MODE=true", fault)

    def test_port_of_the_api(self) -> None:
        """A port that does not exist is a fault of the variable that has it."""
        for port in ("70000", "0", "-1", "https", "tcp://10.96.0.1:443", "443 "):
            (fault,) = self.faults(IN_CLUSTER | {"KUBERNETES_SERVICE_PORT": port})
            self.assertEqual(fault, f"KUBERNETES_SERVICE_PORT is {port!r}; it must be 1 to 65535")

    def test_unknown_setting(self) -> None:
        """An unknown WSPROXY_ variable is a fault, so that a misspelt limit never goes unseen."""
        for name in ("WSPROXY_X", "WSPROXY_REQUEST_TIME", "WSPROXY_", "WSPROXY_HOST", "WSPROXY_SERVIC_X"):
            with self.subTest(name=name):
                (fault,) = self.faults(IN_CLUSTER | {name: "1"})
                self.assertIn(name, fault)

    def test_setting_that_is_meant(self) -> None:
        """A misspelt setting is told what may be meant; one like no other, where the settings are listed."""
        for name, meant in (
            ("WSPROXY_CAFILE", "did you mean WSPROXY_CA_FILE?"),
            ("WSPROXY_TICKET", "did you mean WSPROXY_TICKETS?"),
            ("WSPROXY_PORT", "did you mean PORT?"),
            ("WSPROXY_SECRET_KEY", "did you mean SECRET_KEY?"),
            ("WSPROXY_X", "see wsproxy serve --help"),
        ):
            self.assertEqual(self.faults(IN_CLUSTER | {name: "5001"}), (f"{name} is not a setting; {meant}",))

    def test_names(self) -> None:
        """No two settings share a name or a flag."""
        self.assertEqual(len({setting.env for setting in SETTINGS}), len(SETTINGS))
        self.assertEqual(len({setting.flag for setting in SETTINGS}), len(SETTINGS))

    def test_other_variables(self) -> None:
        """Variables of others are none of ours."""
        self.assertEqual(
            config_from_env(IN_CLUSTER | {"PATH": "/bin", "wsproxy_x": "1", "XWSPROXY_Y": "1"}), config()
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
                    (fault,) = self.faults(IN_CLUSTER | {env: text})
                    self.assertIn(f"{env} is '{text}'", fault)

    def test_all_faults_at_once(self) -> None:
        """Faults of variables, of settings and unknown names are listed together."""
        faults = self.faults(
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
            "WSPROXY_CLOSE_TIMEOUT",
            "WSPROXY_REJECT",
            "TYPO ",
            "TYPO_2",
            "SECRET_KEY",
        ):
            self.assertEqual(sum(word in fault for fault in faults), 1, word)
        self.assertEqual(len(faults), 7)

    def test_lists_without_names(self) -> None:
        """A list that is given, but names nothing, is a fault and never means that everything is allowed."""
        names = (
            "SECRET_KEY_FILE",
            "WSPROXY_ISSUER",
            "WSPROXY_AUDIENCE",
            "WSPROXY_CLAIM_USER",
            "WSPROXY_NAMESPACES",
        )
        for name in names:
            for text in (",", " ", " , "):
                with self.subTest(name=name, text=text):
                    (fault,) = self.faults(IN_CLUSTER | {name: text})
                    self.assertIn(f"{name} is {text!r}; it must name at least one", fault)

    def test_public_key(self) -> None:
        """A PEM public key may be the secret, with its algorithm named or not, but not with an HMAC's."""
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        found = config_from_env(IN_CLUSTER | {"SECRET_KEY": pem, "WSPROXY_ALGORITHMS": "ES256"})
        self.assertEqual(found.algorithms, ("ES256",))
        found = config_from_env(IN_CLUSTER | {"SECRET_KEY": pem})
        self.assertEqual(found.keyring.keys[0].algorithms, ("ES256",))
        (fault,) = self.faults(IN_CLUSTER | {"SECRET_KEY": pem, "WSPROXY_ALGORITHMS": "HS256"})
        self.assertIn("PEM", fault)


class SettingTest(unittest.TestCase):
    def test_flags(self) -> None:
        """A flag is made from the variable's name, without our prefix."""
        flags = {setting.env: setting.flag for setting in SETTINGS}
        self.assertEqual(flags["SECRET_KEY"], "--secret-key")
        self.assertEqual(flags["WSPROXY_CA_FILE"], "--ca-file")
        self.assertEqual(flags["KUBERNETES_SERVICE_HOST"], "--kubernetes-service-host")

    def test_help(self) -> None:
        """Every setting says in sentences what it is for, and the secret has no default to show."""
        for setting in SETTINGS:
            self.assertRegex(setting.text, r"\A[A-Z`].*[.]\Z", setting.env)
            for sentence in setting.text.split(". "):
                self.assertLessEqual(len(sentence.split()), 25, sentence)
        self.assertIs(next(item.default for item in SETTINGS if item.env == "SECRET_KEY"), REQUIRED)


def service_links(
    name: str, address: str, *ports: tuple[str, int, str], brackets: bool = True
) -> dict[str, str]:
    """Return what a kubelet puts into the environment of each pod for a Service of its namespace.

    :param name: of the Service.
    :param address: the Service's cluster IP.
    :param ports: name ("" for none), number and protocol of each.
    :param brackets: whether an IPv6 address has them in URLs; old kubelets leave them out.
    """
    prefix = name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address and brackets else address
    first = ports[0]
    found = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(first[1]),
        f"{prefix}_PORT": f"{first[2].lower()}://{host}:{first[1]}",
    }
    for port_name, number, protocol in ports:
        if port_name:
            found[f"{prefix}_SERVICE_PORT_{port_name.upper().replace('-', '_')}"] = str(number)
        link = f"{prefix}_PORT_{number}_{protocol}"
        found |= {
            link: f"{protocol.lower()}://{host}:{number}",
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(number),
            f"{link}_ADDR": address,
        }
    return found


class ServiceLinks(SettingsCase):
    """Variables that Kubernetes injects: any Service called wsproxy, or wsproxy-something, makes some."""

    def test_table(self) -> None:
        """What a kubelet makes of a Service called wsproxy, written out."""
        links = service_links("wsproxy", "10.96.0.7", ("http", 80, "TCP"), ("tls-8443", 8443, "TCP"))
        self.assertEqual(
            links,
            {
                "WSPROXY_SERVICE_HOST": "10.96.0.7",
                "WSPROXY_SERVICE_PORT": "80",
                "WSPROXY_SERVICE_PORT_HTTP": "80",
                "WSPROXY_SERVICE_PORT_TLS_8443": "8443",
                "WSPROXY_PORT": "tcp://10.96.0.7:80",
                "WSPROXY_PORT_80_TCP": "tcp://10.96.0.7:80",
                "WSPROXY_PORT_80_TCP_PROTO": "tcp",
                "WSPROXY_PORT_80_TCP_PORT": "80",
                "WSPROXY_PORT_80_TCP_ADDR": "10.96.0.7",
                "WSPROXY_PORT_8443_TCP": "tcp://10.96.0.7:8443",
                "WSPROXY_PORT_8443_TCP_PROTO": "tcp",
                "WSPROXY_PORT_8443_TCP_PORT": "8443",
                "WSPROXY_PORT_8443_TCP_ADDR": "10.96.0.7",
            },
        )

    def test_services(self) -> None:
        """No Service of any name keeps a pod from starting, or sets anything."""
        names = (
            "wsproxy",
            "wsproxy-metrics",
            "wsproxy-admin",
            "wsproxy-port",
            "wsproxy-service",
            "wsproxy-service-port",
            "wsproxy-reuse",  # WSPROXY_REUSE_PORT is a setting, too
            "wsproxy-max-frame",
            "wsproxy-2",
        )
        ports = (("", 9100, "TCP"),), (("metrics", 1, "TCP"), ("8083", 65535, "UDP"), ("x-1", 5, "SCTP"))
        for name in names:
            for given in ports:
                for address in ("10.96.0.7", "fd00:10:96::7"):
                    for brackets in (True, False):
                        links = service_links(name, address, *given, brackets=brackets)
                        with self.subTest(name=name, address=address):
                            self.assertEqual(config_from_env(IN_CLUSTER | links), config())
                            self.assertEqual(without_service_links(links), {})

    def test_setting_of_such_a_name(self) -> None:
        """A setting whose name a Service may have, too, is told from it by its value."""
        link = {"WSPROXY_REUSE_PORT": "tcp://10.96.0.7:80"}
        self.assertFalse(config_from_env(IN_CLUSTER | link).reuse_port)
        self.assertTrue(config_from_env(IN_CLUSTER | {"WSPROXY_REUSE_PORT": "true"}).reuse_port)
        (fault,) = self.faults(IN_CLUSTER | {"WSPROXY_REUSE_PORT": "tcp"})
        self.assertIn("WSPROXY_REUSE_PORT is 'tcp'", fault)
        (fault,) = self.faults(IN_CLUSTER, {"WSPROXY_REUSE_PORT": "tcp://10.96.0.7:80"})
        self.assertIn("--reuse-port is 'tcp://10.96.0.7:80'", fault)

    def test_misspelt_settings(self) -> None:
        """What only looks like one of these, by its name or by its value, is a misspelt setting."""
        for name, value in (
            ("WSPROXY_PORT", "5001"),
            ("WSPROXY_METRICS_PORT", "9100"),
            ("WSPROXY_METRICS_PORT", "http://10.96.0.7:9100"),
            ("WSPROXY_METRICS_PORT", "tcp://metrics:9100"),
            ("WSPROXY_PORT_5001_TCP", "true"),
            ("WSPROXY_PORT_5001_TCP_PROTO", "http"),
            ("WSPROXY_PORT_5001_TCP_ADDR", "localhost"),
            ("WSPROXY_PORT_5001_HTTP", "tcp://10.96.0.7:5001"),
            ("WSPROXY_PORTS", "tcp://10.96.0.7:5001"),
            ("WSPROXY_METRICS", "tcp://10.96.0.7:9100"),
            ("WSPROXY_SERVICE_HOST", "wsproxy.lab.svc"),
            ("WSPROXY_SERVICE_PORT", "http"),
            ("WSPROXY_SERVICE_X", "10.96.0.7"),
            ("WSPROXY_SERVICE_HOST_X", "10.96.0.7"),
            ("WSPROXY_MAX_SESSION", "5"),
        ):
            with self.subTest(name=name, value=value):
                (fault,) = self.faults(IN_CLUSTER | {name: value})
                self.assertTrue(fault.startswith(f"{name} is not a setting; "), fault)

    def test_where_the_api_is(self) -> None:
        """What Kubernetes says of itself in this way stays."""
        links = service_links("kubernetes", "10.96.0.1", ("https", 443, "TCP"))
        found = config_from_env({"SECRET_KEY": SECRET} | links)
        self.assertEqual(found.remote_url, "wss://10.96.0.1:443")

    def test_no_setting_has_an_ambiguous_name(self) -> None:
        """No setting has a name that a Service may have with any number, or any address, as its value."""
        for setting in SETTINGS:
            for value in ("5001", "10.96.0.7", "tcp"):
                if not setting.env.startswith("KUBERNETES_"):
                    with self.subTest(setting.env):
                        self.assertEqual(without_service_links({setting.env: value}), {setting.env: value})


class FromMappingTest(unittest.TestCase):
    """Settings from a dict."""

    ROWS = tuple(row for row in FromEnvTest.VALUES if row[2] != "sslopt")  # the environment has a part of it

    def faults(self, given: Mapping[Any, object]) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            config_from_mapping(given)
        self.assertNotIn(SECRET, str(caught.exception))
        return caught.exception.faults

    def test_same_as_the_environment(self) -> None:
        """The environment's names with texts mean what they mean there; so do the fields' names."""
        for environ in (IN_CLUSTER, DEV, DEV | {"WS_REMOTE_URL": "ws://a:1"}):
            self.assertEqual(config_from_mapping(environ), config_from_env(environ))
        for env, text, target, value in self.ROWS:
            for name in (env, target):
                with self.subTest(name):
                    self.assertEqual(getattr(config_from_mapping(IN_CLUSTER | {name: text}), target), value)

    def test_values(self) -> None:
        """Either name may have a value of the field's own type; a list does for a tuple."""
        for env, _, target, value in self.ROWS:
            as_json = list(value) if isinstance(value, tuple) else value
            for name in (env, target):
                with self.subTest(name):
                    found = config_from_mapping(IN_CLUSTER | {name: as_json})
                    self.assertEqual(getattr(found, target), value)

    def test_fields(self) -> None:
        """All fields of a Config may be given by their names, and make an equal one."""
        options = {"ca_certs": "/a", "check_hostname": False}
        for given in (config(), config(sslopt=options, algorithms=("HS256", "HS384"))):
            values = {item.name: getattr(given, item.name) for item in fields(Config) if item.init}
            self.assertEqual(config_from_mapping(values), given)
        keys = [SECRET, SECRET.encode()]
        self.assertEqual(config_from_mapping(IN_CLUSTER | {"SECRET_KEY": keys}).secret_key, tuple(keys))
        found = config_from_mapping({"secret_key": SECRET.encode(), "remote_url": "wss://a", "leeway": 2})
        self.assertEqual((found.secret_key, found.remote_url, found.leeway), (SECRET.encode(), "wss://a", 2))

    def test_not_given(self) -> None:
        """None and an empty text count as not given."""
        for nothing in (None, ""):
            given: dict[str, object] = {item.name: nothing for item in fields(Config) if item.init}
            del given["secret_key"]
            self.assertEqual(config_from_mapping(given | IN_CLUSTER), config_from_env(IN_CLUSTER))

    def test_where_the_api_is(self) -> None:
        """The API is at the URL, or where Kubernetes says; in dev mode there is a default."""
        port: dict[str, object] = IN_CLUSTER | {"KUBERNETES_SERVICE_PORT": 6443}
        self.assertEqual(config_from_mapping(port).remote_url, "wss://10.96.0.1:6443")
        dev = {"secret_key": SECRET, "local_dev_mode": True}
        self.assertEqual(config_from_mapping(dev).remote_url, "ws://localhost:8001")
        self.assertEqual(config_from_mapping(dev | {"remote_url": "ws://a:1"}).remote_url, "ws://a:1")
        missing = "remote_url is missing; give the URL of the Kubernetes API, such as wss://10.96.0.1:443"
        for given in ({}, {"WS_REMOTE_URL": "ws://a"}, {"KUBERNETES_SERVICE_HOST": "a"}):
            with self.subTest(given):
                self.assertEqual(self.faults({"secret_key": SECRET} | given), (missing,))

    def test_ca_file(self) -> None:
        """The CA's file is an option of TLS, as in the environment."""
        found = config_from_mapping(IN_CLUSTER | {"WSPROXY_CA_FILE": "/a"})
        self.assertEqual(found.sslopt, {"ca_certs": "/a"})

    def test_every_fault(self) -> None:
        """One error lists every fault: of keys, of types, of texts and of the whole."""
        given: dict[Any, object] = {
            "secret_key": 5,
            "remote_url": 7,
            "WS_REMOTE_URL": "ws://a",
            "pings_interval": 5,
            "WSPROXY_ZZZZZZZZ": None,
            8: "x",
            "SECRET_KEY": SECRET,
            "local_dev_mode": "maybe",
            "port": True,
            "WSPROXY_MAX_PENDING": 8.0,
            "leeway": "a bit",
            "ping_interval": False,
            "allow_origin": ["https://a.example", 5],
            "sslopt": ["ca_certs"],
            "WSPROXY_CA_FILE": "/a",
            "tickets": 1,
            "reject": b"http",
            "close_timeout": -1,
        }
        expected = """\
'pings_interval' is not a setting; did you mean ping_interval?
'WSPROXY_ZZZZZZZZ' is not a setting
8 is not a setting
secret_key and SECRET_KEY are the same setting; give one
secret_key must be text, bytes or a list of these, but is of type int
remote_url must be text, but is of type int
local_dev_mode is 'maybe'; it must be true or false
port must be a whole number, but is of type bool
WSPROXY_MAX_PENDING must be a whole number, but is of type float
leeway is 'a bit'; it must be a number of seconds
ping_interval must be a number, but is of type bool
allow_origin must be text or a list of texts, but has an item of type int
sslopt must be a dict with texts as keys, but is of type list
tickets must be true or false, but is of type int
reject must be text, but is of type bytes
close_timeout is -1; it must be more than 0 seconds and less than a day
WSPROXY_CA_FILE and sslopt are both given; name the file in sslopt, as ca_certs
remote_url and WS_REMOTE_URL are both given; give remote_url alone"""
        self.assertEqual("\n".join(self.faults(given)), expected)

    def test_every_setting_has_a_type(self) -> None:
        """A value of an unheard-of type is a fault, whichever setting it is for."""
        names = [item.name for item in fields(Config) if item.init] + [setting.env for setting in SETTINGS]
        names.remove("WSPROXY_CONFIG")  # which a dict cannot name
        for name in names:
            with self.subTest(name):
                faults = self.faults(DEV | {name: object()})
                self.assertTrue(any(f"{name} must be" in fault or "same" in fault for fault in faults))
