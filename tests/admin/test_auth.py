"""How the operator authenticates."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import unittest
from unittest import mock

from wsproxy.admin.auth import (
    Guard,
    default_token_file,
    operator_guard,
    read_operator_token,
    token_file_fault,
)
from wsproxy.exceptions import BadToken, ConfigError
from wsproxy.net.addresses import ListenAddress
from wsproxy.protocol.request import RequestHead

PORT, PATH = ListenAddress("127.0.0.1", 9100), ListenAddress(path="/run/x")


class OperatorTokenTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.file = os.path.join(self.directory, "token")
        patcher = mock.patch.object(tempfile, "tempdir", self.directory)
        patcher.start()
        self.addCleanup(patcher.stop)

    def lets_in(self, guard: Guard, *values: str) -> bool:
        head = RequestHead(
            "GET", "/", "1.1", [(b"authorization", value.encode("latin-1")) for value in values]
        )
        try:
            guard(head)
        except BadToken as refused:
            self.assertEqual(refused.message, "this request needs the operator's token")
            return False
        return True

    def test_path(self) -> None:
        """A listener at a path needs no token unless a file is named."""
        self.assertTrue(self.lets_in(operator_guard(None, PATH)))
        self.assertEqual(os.listdir(self.directory), [])
        self.assertFalse(self.lets_in(operator_guard(self.file, PATH)))

    def test_named_file(self) -> None:
        """A missing file is created once; the guard accepts its token and no other."""
        guard = operator_guard(self.file, PORT)
        token = read_operator_token(self.file)
        self.assertTrue(self.lets_in(guard, f"Bearer {token}"))
        self.assertTrue(self.lets_in(operator_guard(self.file, PORT), f"BEARER  {token} "))
        for values in (
            (),
            (token,),
            (f"Bearer {token}", f"Bearer {token}"),
            (f"Bearer {token}\xff",),
            ("Bearer ",),
        ):
            self.assertFalse(self.lets_in(guard, *values), values)
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.directory), ["token"])

    def test_own_directory(self) -> None:
        """The default file is in a directory that no other user may access."""
        guard = operator_guard(None, PORT)
        path = default_token_file()
        self.assertEqual(os.path.dirname(os.path.dirname(path)), self.directory)
        self.assertEqual(os.stat(os.path.dirname(path)).st_mode & 0o777, 0o700)
        self.assertTrue(self.lets_in(guard, f"Bearer {read_operator_token()}"))
        self.assertTrue(self.lets_in(operator_guard(None, PORT), f"Bearer {read_operator_token()}"))

    def test_directory_of_somebody_else(self) -> None:
        """If another user may have created the default directory, the guard refuses every request."""
        place = os.path.dirname(default_token_file())
        target = os.path.join(self.directory, "elsewhere")
        os.mkdir(target, 0o700)

        def open_to_others() -> None:
            os.mkdir(place)
            os.chmod(place, 0o750)

        def link() -> None:
            os.symlink(target, place)

        for make in (link, open_to_others):
            make()
            with self.assertLogs("wsproxy.admin", "WARNING") as logged:
                guard = operator_guard(None, PORT)
            self.assertIn("the proxy refuses all requests about sessions", logged.output[0])
            self.assertFalse(self.lets_in(guard, "Bearer " + "x" * 32))
            self.assertFalse(self.lets_in(guard))
            self.assertRaises(ValueError, read_operator_token)
            self.assertEqual(os.listdir(target), [])
            os.rename(place, f"{place}-{make.__name__}")
        with mock.patch("os.getuid", lambda: os.geteuid() + 1):
            os.mkdir(os.path.dirname(default_token_file()), 0o700)
            with self.assertLogs("wsproxy.admin", "WARNING"):
                self.assertFalse(self.lets_in(operator_guard(None, PORT)))

    def test_no_temporary_directory(self) -> None:
        """If no file can be created, as in a read-only container, the guard refuses every request."""
        nowhere = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
        with (
            mock.patch("tempfile.gettempdir", side_effect=nowhere),
            self.assertLogs("wsproxy.admin", "WARNING") as logged,
        ):
            guard = operator_guard(None, PORT)
        for words in ("No usable temporary directory", "refuses all requests", "admin_token_file"):
            self.assertIn(words, logged.output[0])
        self.assertFalse(self.lets_in(guard))

    def test_faults(self) -> None:
        """A named file that cannot be used stops the start."""
        for path in ("/nowhere/token", self.directory):
            with self.assertRaisesRegex(ConfigError, "cannot use the operator.s token in"):
                operator_guard(path, PORT)
            self.assertIn("cannot use the operator's token in", token_file_fault(path) or "")
        self.assertIsNone(token_file_fault(self.file))
        os.symlink("/nowhere/token", self.file)
        self.assertIn("No such file", token_file_fault(self.file) or "")
        with self.assertRaisesRegex(ConfigError, "No such file"):
            operator_guard(self.file, PORT)

    def test_made_by_two(self) -> None:
        """If two proxies create the file at once, both get the token of the first."""
        barrier, link = threading.Barrier(2), os.link

        def wait_and_link(source: str, path: str) -> None:
            barrier.wait(60)
            link(source, path)

        guards: list[Guard] = []
        with mock.patch("os.link", wait_and_link):
            threads = [
                threading.Thread(target=lambda: guards.append(operator_guard(self.file, PORT)))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(os.listdir(self.directory), ["token"])
        self.assertEqual(
            [self.lets_in(guard, f"Bearer {read_operator_token(self.file)}") for guard in guards],
            [True, True],
        )


if __name__ == "__main__":
    unittest.main()
