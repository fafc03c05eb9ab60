"""What all sessions share, and what is looked at before there is any of it."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

from wsproxy import Config
from wsproxy.exceptions import ConfigError
from wsproxy.server.gateway import Gateway, check_files


class CheckFiles(unittest.TestCase):
    def faults(self, look: Any, **options: Any) -> tuple[str, ...]:
        given = {"remote_url": "wss://127.0.0.1:9", "secret_key": "x" * 32, **options}
        with self.assertRaises(ConfigError) as caught:
            look(Config(**given))
        return caught.exception.faults

    def test_as_the_gateway(self) -> None:
        """Whatever file a gateway could not be made of is found before, in the same words."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        missing = str(Path(directory.name, "missing"))
        for options in (
            {"tls_cert": missing, "tls_key": missing},
            {"web": missing},
            {"secret_key": None, "secret_key_files": (missing,)},
            {"secret_key": None, "jwks": missing},
            {"audit_log": f"{missing}/log"},
        ):
            with self.subTest(options=tuple(options)):
                self.assertEqual(self.faults(check_files, **options), self.faults(Gateway, **options))


if __name__ == "__main__":
    unittest.main()
