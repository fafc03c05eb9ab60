"""Kicks of users whose tokens the real lab-orchestrator-lib-auth makes: these have no ``iat``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import unittest
from typing import Any

from tests.integration.test_original_tokens import DIRECTORY, original_token
from tests.support.jws import unverified_claims
from wsproxy.cli import main
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

_VERSIONS = {"0.0.2": 600.0, "2.2.0": 3600.0}
"""The lives of tokens, unless the platform says something else; seconds."""

_MISSING = [version for version in _VERSIONS if not os.path.isdir(os.path.join(DIRECTORY, version))]
_VMI = "ubuntu"


@unittest.skipIf(
    _MISSING, f"lab-orchestrator-lib-auth {_MISSING} is not there; scripts/integration installs it"
)
class KickedTokensTest(ProxyTestCase):
    """A kick by user, who need not be there."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi(_VMI, self.namespace)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.admin = f"unix:{directory.name}/admin"

    def start(self, **options: Any) -> None:
        # The tokens are issued milliseconds after the kick; so the clocks must not differ.
        self.proxy = self.start_proxy(admin=self.admin, leeway=0.0, **options)

    def status(self, token: str) -> int:
        with RawClient.open(self.url(self.proxy, _VMI, token)) as client:
            return client.status

    def command(self, *arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(main([*arguments, "--admin", self.admin]), 0)
        return output.getvalue()

    def listed(self) -> dict[str, Any]:
        """Return the only kick of the list."""
        (kick,) = json.loads(self.command("revocations", "--json"))["revocations"]
        found: dict[str, Any] = kick
        return found

    def test_without_lifetime(self) -> None:
        """Nobody knows when the tokens were issued: all are refused until the kick is lifted."""
        for version in _VERSIONS:
            with self.subTest(version=version):
                self.start()
                token = original_token(version)
                self.assertNotIn("iat", unverified_claims(token))
                self.assertEqual(self.status(token), 101)
                told = self.command("sessions", "kick", "--user", "5")
                self.assertIn("until you lift the kick", told)
                self.assertIn("tokens without iat are refused, too, if they are issued later", told)
                self.assertIn("see WSPROXY_TOKEN_LIFETIME", told)
                self.assertEqual(self.status(token), 401)
                self.assertEqual(self.status(original_token(version)), 401)
                self.assertEqual(self.status(original_token(version, user_id=6)), 101)
                kick = self.listed()
                self.assertEqual((kick["until"], kick["needs_iat"]), (None, True))
                self.assertRegex(self.command("revocations"), r"user=5 .* when lifted  with iat ")
                self.command("revocations", "lift", kick["kick"])
                self.assertEqual(self.status(token), 101)
                self.proxy.stop_thread()

    def test_with_lifetime(self) -> None:
        """``exp`` tells when a token was issued: later ones are accepted, and the kick has an end."""
        for version, lifetime in _VERSIONS.items():
            with self.subTest(version=version):
                self.start(token_lifetime=lifetime)
                token = original_token(version)
                told = self.command("sessions", "kick", "--user", "5")
                self.assertNotIn("iat", told)
                self.assertIn("refused from now on, until 20", told)
                self.assertEqual(self.status(token), 401)
                self.assertEqual(self.status(original_token(version)), 101)
                kick = self.listed()
                self.assertFalse(kick["needs_iat"])
                self.assertIsNotNone(kick["until"])
                self.assertRegex(
                    self.command("revocations"), r"user=5 .* in (10m00s|9m5\ds|1h00m|59m5\ds) +all "
                )
                self.proxy.stop_thread()


if __name__ == "__main__":
    unittest.main()
