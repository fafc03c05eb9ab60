"""Settings from a file: their rank, their values, and the errors for a bad file."""

from __future__ import annotations

import math
import tempfile
import unittest
from pathlib import Path

from tests.test_config import SECRET, config
from wsproxy.config import Config, config_from_env, settings_of_program
from wsproxy.exceptions import ConfigError

_POD = {"SECRET_KEY": SECRET, "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


class ConfigFileCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "wsproxy.toml")

    def read(self, text: str, flags: dict[str, str | None] | None = None, **environ: str) -> Config:
        """Return the settings of a program in a pod that has this file."""
        self.path.write_text(text, encoding="utf-8")
        return config_from_env(_POD | {"WSPROXY_CONFIG": str(self.path)} | environ, flags)

    def fault(self, text: str, **environ: str) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.read(text, None, **environ)
        (fault,) = caught.exception.faults
        return fault


class WhatCountsTest(ConfigFileCase):
    def test_order(self) -> None:
        """A flag overrides the environment, the environment the file, and the file the default."""
        self.assertEqual(self.read("").max_sessions, 0)
        self.assertEqual(self.read("max_sessions = 1").max_sessions, 1)
        self.assertEqual(self.read("max_sessions = 1", WSPROXY_MAX_SESSIONS="2").max_sessions, 2)
        flags: dict[str, str | None] = {"WSPROXY_MAX_SESSIONS": "3"}
        self.assertEqual(self.read("max_sessions = 1", flags, WSPROXY_MAX_SESSIONS="2").max_sessions, 3)

    def test_empty_variable(self) -> None:
        """An empty variable leaves what the file says."""
        self.assertEqual(self.read("port = 8080", PORT="").port, 8080)

    def test_flag_names_the_file(self) -> None:
        """The file of the flag is read, and that of the environment is not."""
        self.path.write_text("port = 8080", encoding="utf-8")
        environ = _POD | {"WSPROXY_CONFIG": "/nope"}
        self.assertEqual(config_from_env(environ, {"WSPROXY_CONFIG": str(self.path)}).port, 8080)

    def test_values(self) -> None:
        """A file has values of the settings' own kinds, or texts as the environment has them."""
        found = self.read(
            'namespaces = ["lab-1", "lab-2"]\nsubresources = "console,usbredir"\ntickets = true\n'
            'show_user = "yes"\ngrace = inf\nidle_timeout = 5\nlog_level = "debug"\nleeway = 2.5\n'
        )
        self.assertEqual(
            (found.namespaces, found.subresources), (("lab-1", "lab-2"), ("console", "usbredir"))
        )
        self.assertEqual((found.tickets, found.show_user, found.grace), (True, True, math.inf))
        self.assertEqual((found.idle_timeout, found.log_level, found.leeway), (5, "DEBUG", 2.5))

    def test_whole(self) -> None:
        """A file alone is enough."""
        self.path.write_text(
            f'remote_url = "wss://10.96.0.1:443"\nsecret_key = "{SECRET}"\n', encoding="utf-8"
        )
        self.assertEqual(config_from_env({"WSPROXY_CONFIG": str(self.path)}), config())

    def test_url(self) -> None:
        """A URL in the file overrides the variables that Kubernetes sets in pods, but not those of a user."""
        url = 'remote_url = "wss://api.example"'
        self.assertEqual(self.read(url).remote_url, "wss://api.example")
        flags: dict[str, str | None] = {"KUBERNETES_SERVICE_HOST": "a", "KUBERNETES_SERVICE_PORT": "1"}
        self.assertEqual(self.read(url, flags).remote_url, "wss://a:1")
        dev = 'local_dev_mode = true\nremote_url = "ws://a:1"'
        self.assertEqual(self.read(dev).remote_url, "ws://a:1")
        self.assertEqual(self.read(dev, WS_REMOTE_URL="ws://b:1").remote_url, "ws://b:1")

    def test_ca_file(self) -> None:
        """The CA's file is a part of TLS's options, which the environment changes without the rest."""
        text = '[sslopt]\nca_certs = "/a"\nserver_hostname = "api"\n'
        self.assertEqual(self.read(text).sslopt, {"ca_certs": "/a", "server_hostname": "api"})
        found = self.read(text, WSPROXY_CA_FILE="/b")
        self.assertEqual(found.sslopt, {"ca_certs": "/b", "server_hostname": "api"})
        self.assertEqual(self.read('ca_file = "/c"').sslopt, {"ca_certs": "/c"})

    def test_socket_of_systemd(self) -> None:
        """A socket that systemd passes is where to listen; a file that says something else is a fault."""
        self.path.write_text("", encoding="utf-8")
        environ = _POD | {"WSPROXY_CONFIG": str(self.path)}
        found, origins = settings_of_program(environ, {}, 3)
        self.assertEqual((found.listen, origins["listen"]), ("fd:3", "systemd"))
        self.path.write_text('listen = "unix:/run/x"', encoding="utf-8")
        with self.assertRaisesRegex(ConfigError, f"^listen in {self.path} is set, but systemd passes"):
            settings_of_program(environ, {}, 3)

    def test_origins(self) -> None:
        """Each given setting has its source."""
        self.path.write_text("max_age = 5\n[sslopt]\ncheck_hostname = true\n", encoding="utf-8")
        environ = _POD | {"WSPROXY_CONFIG": str(self.path), "PORT": "1", "WSPROXY_CA_FILE": "/a"}
        _, origins = settings_of_program(environ, {"WSPROXY_CONFIG": None, "WSPROXY_GRACE": "1"})
        self.assertEqual(
            origins,
            {
                "config": "environment WSPROXY_CONFIG",
                "grace": "flag --grace",
                "max_age": f"{self.path}, key max_age",
                "port": "environment PORT",
                "remote_url": "environment KUBERNETES_SERVICE_HOST and environment KUBERNETES_SERVICE_PORT",
                "secret_key": "environment SECRET_KEY",
                "sslopt": f"environment WSPROXY_CA_FILE; {self.path}, key sslopt",
            },
        )


class BadFileTest(ConfigFileCase):
    def test_not_there(self) -> None:
        """If the file cannot be read, the fault names the flag or variable that names the file."""
        with self.assertRaisesRegex(
            ConfigError, "^WSPROXY_CONFIG names /nope, which cannot be read: No such file"
        ):
            config_from_env(_POD | {"WSPROXY_CONFIG": "/nope"})
        with self.assertRaisesRegex(ConfigError, "^--config names /nope, which cannot be read"):
            config_from_env(_POD, {"WSPROXY_CONFIG": "/nope"})
        with self.assertRaisesRegex(ConfigError, "which cannot be read: Is a directory"):
            config_from_env(_POD | {"WSPROXY_CONFIG": str(self.path.parent)})

    def test_no_toml(self) -> None:
        """If the file is not TOML, the fault names the position, and quotes nothing that may be a secret."""
        fault = self.fault(f"port = 1\nsecret_key = {SECRET}\n")
        self.assertRegex(fault, r"which is not TOML at line 2, column \d+; write lines such as port = 5001$")
        self.assertNotIn(SECRET, fault)
        self.path.write_bytes(b"\xff\xfe")
        with self.assertRaisesRegex(ConfigError, "which is not TOML; write"):
            config_from_env(_POD | {"WSPROXY_CONFIG": str(self.path)})

    def test_unknown_keys(self) -> None:
        """A key that is not a setting is a fault, so that a misspelt limit is noticed."""
        self.assertEqual(
            self.fault("max_sesions = 1"),
            f"'max_sesions' in {self.path} is not a setting; did you mean max_sessions?",
        )
        for key in ("zzz", "PORT", "config", "WSPROXY_CONFIG"):
            with self.subTest(key):
                self.assertIn(f"'{key}' in {self.path} is not a setting; ", self.fault(f'{key} = "/a"'))
        self.assertIn("'limits' in", self.fault("[limits]\nmax_sessions = 1"))

    def test_empty_text(self) -> None:
        """An empty text is a fault. If it meant that the setting is missing, it would allow everything."""
        for name in ("namespaces", "tls_client_ca", "require_origin"):
            with self.subTest(name):
                self.assertIn(f"{name} in {self.path} is ", self.fault(f'{name} = ""'))

    def test_both_in_one_file(self) -> None:
        """Settings in one file that contradict each other are a fault."""
        fault = self.fault('remote_url = "wss://a"\nws_remote_url = "ws://b"')
        self.assertIn("remote_url and ws_remote_url in", fault)
        self.assertIn("ca_file in", self.fault('ca_file = "/a"\n[sslopt]\nca_certs = "/b"'))
