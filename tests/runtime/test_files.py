"""What can be found out about a file without touching it."""

from __future__ import annotations

import os
import tempfile
import unittest
from unittest import mock

from wsproxy.runtime.files import check_can_create


class CanCreateTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def test_creates_nothing(self) -> None:
        """A file that could be created is not there afterwards."""
        check_can_create(os.path.join(self.directory, "file"))
        self.assertEqual(os.listdir(self.directory), [])

    def test_faults(self) -> None:
        """The directory must exist, be one, and let this user write."""
        file = os.path.join(self.directory, "file")
        with open(file, "wb"):
            pass
        for path, fault in (
            (f"{self.directory}/none/x", FileNotFoundError),
            (f"{file}/x", NotADirectoryError),
        ):
            with self.subTest(path=path), self.assertRaises(fault):
                check_can_create(path)
        with mock.patch("os.access", return_value=False), self.assertRaises(PermissionError):
            check_can_create(os.path.join(self.directory, "other"))

    def test_relative(self) -> None:
        """A name alone is in the working directory."""
        with mock.patch("os.access", return_value=True) as asked:
            check_can_create("file")
        self.assertEqual(asked.call_args.args[0], ".")


if __name__ == "__main__":
    unittest.main()
