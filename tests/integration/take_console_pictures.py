"""Reads every cause in a browser and, if all is as it should be, writes docs/console.md with pictures."""

from __future__ import annotations

import sys
import unittest

from tests.integration.console_document import DOCUMENT, PICTURES, write
from tests.integration.test_console_words import ConsoleWords


def main() -> int:
    """Read everything and write the tables and pictures; return the exit status."""
    ConsoleWords.takes_pictures = True
    for old in PICTURES.glob("*.png"):
        old.unlink()
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(ConsoleWords)
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    if not result.wasSuccessful() or result.skipped:
        print(f"the tables of {DOCUMENT.name} are left as they are", file=sys.stderr)
        return 1
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
