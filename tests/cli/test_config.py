"""``wsproxy config``: the settings that count, and their sources."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from tests.cli.test_program import call
from tests.test_config import SECRET
from wsproxy.config import config_from_env
from wsproxy.settings.table import FIELDS
from wsproxy.tokens.keys import Keyring, load_keys
from wsproxy.tokens.verifier import TokenVerifier

_DEV = {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true"}


class ConfigFileCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "wsproxy.toml")


class ConfigCommandTest(ConfigFileCase):
    def shown(self, *arguments: str, **environ: str) -> dict[str, tuple[str, str]]:
        """Return for each setting what is printed, and its origin."""
        status, out, err = call("config", *arguments, **_DEV, **environ)
        self.assertEqual((status, err), (0, ""))
        lines = [line.rpartition(" # ") for line in out.splitlines() if " # " in line]
        return {line.removeprefix("# ").split()[0]: (line.strip(), origin) for line, _, origin in lines}

    def test_origins(self) -> None:
        """Every setting is there, with its value and its origin."""
        self.path.write_text('max_age = 5\nnamespaces = ["a", "b"]', encoding="utf-8")
        shown = self.shown("--config", str(self.path), "--port", "8080", WSPROXY_GRACE="inf")
        self.assertEqual(set(shown), set(FIELDS))
        self.assertEqual(shown["port"], ("port = 8080", "flag --port"))
        self.assertEqual(shown["grace"], ("grace = inf", "environment WSPROXY_GRACE"))
        self.assertEqual(shown["max_age"], ("max_age = 5", f"{self.path}, key max_age"))
        self.assertEqual(shown["namespaces"][0], 'namespaces = ["a", "b"]')
        self.assertEqual(shown["tickets"], ("tickets = false", "default"))
        self.assertEqual(shown["jwks"], ("# jwks is not set", "default"))
        self.assertEqual(shown["remote_url"], ('remote_url = "ws://localhost:8001"', "default"))

    def test_secrets(self) -> None:
        """A secret, and a part of a URL that may be one, is not shown, whatever its source."""
        self.path.write_text(
            f'secret_key = "{SECRET}-in-the-file"\njwks = "https://a.example/?key=hunter2"', encoding="utf-8"
        )
        for flags in ([], ["--secret-key", f"{SECRET}-flag"]):
            status, out, err = call("config", "--config", str(self.path), *flags, LOCAL_DEV_MODE="true")
            self.assertEqual((status, err), (0, ""))
            self.assertNotIn(SECRET, out)
            self.assertNotIn("hunter2", out)
            self.assertIn('# secret_key = "********" ', out)
            self.assertIn('# jwks = "https://a.example/?..." ', out)

    def test_password_of_a_store(self) -> None:
        """The rest of the URL is shown, and a URL without a password is shown as it is."""
        shown = self.shown(WSPROXY_STATE="rediss://lab:hunter2@redis.example/1")
        self.assertEqual(shown["state"][0], '# state = "rediss://lab:********@redis.example/1"')
        for url in ("redis://lab@redis.example", "redis+unix:///run/a@b", "local:/run/x"):
            self.assertEqual(self.shown(WSPROXY_STATE=url)["state"][0], f'state = "{url}"')

    def test_is_a_file(self) -> None:
        """The output is a file with the same settings."""
        environ = _DEV | {
            "HOST_PATH_PREFIX": "a/b",
            "WSPROXY_GRACE": "inf",
            "WSPROXY_NAMESPACES": "a,b",
            "WSPROXY_CONSOLE": "exam-*/*=refuse,takeover",
            "WSPROXY_COOKIE_NAME": "__Host-x",
            "WSPROXY_CA_FILE": '/a "quoted"/ü',
        }
        status, out, _ = call("config", **environ)
        self.assertEqual(status, 0)
        self.path.write_text(out, encoding="utf-8")
        again = {"SECRET_KEY": SECRET, "WSPROXY_CONFIG": str(self.path)}
        self.assertEqual(config_from_env(again), config_from_env(environ))

    def test_faults(self) -> None:
        """Faulty settings are reported as by wsproxy serve."""
        status, out, err = call("config", "--port", "x", **_DEV)
        self.assertEqual((status, out), (2, ""))
        self.assertIn("\n  - --port is 'x'; it must be a whole number\n", err)


class OtherCommandsTest(ConfigFileCase):
    def test_token(self) -> None:
        """``wsproxy token`` signs with the secret in the file, or in a key file that the file names."""
        verifier = TokenVerifier(Keyring(load_keys(SECRET)))
        key = self.path.with_name("key")
        key.write_text(SECRET, encoding="utf-8")
        wanted = ("token", "--vmi", "ubuntu", "--namespace", "lab-1", "--config", str(self.path))
        for text in (
            f'secret_key = "{SECRET}"',
            f'secret_key = ["{SECRET}"]',
            f'secret_key_files = ["{key}"]',
        ):
            self.path.write_text(text, encoding="utf-8")
            with self.subTest(text[:16]):
                status, out, err = call(*wanted)
                self.assertEqual((status, err), (0, ""))
                self.assertEqual(verifier.verify(out.strip()).namespace, "lab-1")
        self.assertEqual(call(*wanted, SECRET_KEY="x" * 32)[0], 0)

    def test_sessions(self) -> None:
        """``wsproxy sessions`` finds the operator's listener by the file."""
        self.path.write_text(f'admin = "unix:{self.path}.nope"', encoding="utf-8")
        for name, arguments in (("WSPROXY_CONFIG", []), ("X", ["--config", str(self.path)])):
            status, _, err = call("sessions", *arguments, **{name: str(self.path)})
            self.assertEqual(status, 1)
            self.assertIn(f"no answer from unix:{self.path}.nope: No such file or directory", err)

    def test_bad_file(self) -> None:
        """A file that cannot be read is a fault here, too."""
        status, _, err = call("sessions", "--config", "/nope")
        self.assertEqual(status, 2)
        self.assertIn("\n  - --config names /nope, which cannot be read: No such file or directory; ", err)
