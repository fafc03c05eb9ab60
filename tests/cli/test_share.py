"""The manual page and what completes commands in a shell, which scripts/settings writes."""

from __future__ import annotations

import subprocess
import unittest
from pathlib import Path

from wsproxy.settings.table import SETTINGS

_SHARE = Path(__file__).parents[2] / "share"
_BASH = _SHARE / "bash-completion/completions/wsproxy"


class ShareTest(unittest.TestCase):
    def test_every_flag(self) -> None:
        """Each setting's flag is in the page and in both completions."""
        page = (_SHARE / "man/man1/wsproxy.1").read_text(encoding="utf-8").replace("\\-", "-")
        completions = [_BASH.read_text("utf-8"), (_SHARE / "zsh/site-functions/_wsproxy").read_text("utf-8")]
        for setting in SETTINGS:
            with self.subTest(setting.flag):
                self.assertIn(f"\\fB{setting.flag}\\fR", page)
                for completion in completions:
                    self.assertIn(setting.flag, completion)

    def completed(self, *words: str) -> list[str]:
        """Return what bash makes of a command's words, the last of which is not finished."""
        script = f"source {_BASH}; COMP_CWORD={len(words)}; COMP_WORDS=(wsproxy"
        script += (
            "".join(f" '{word}'" for word in words) + '); _shtab_wsproxy; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20, check=True)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash(self) -> None:
        """bash completes commands, flags, choices and files."""
        self.assertEqual(self.completed("con"), ["config"])
        sessions = ["--max-sessions", "--max-sessions-per-user", "--max-sessions-per-vmi"]
        self.assertEqual(self.completed("serve", "--max-ses"), sessions)
        self.assertEqual(self.completed("serve", "--reject", ""), ["auto", "http", "close"])
        self.assertEqual(self.completed("config", "--config", str(_BASH)[:-2]), [str(_BASH)])
