"""A value made from files that are swapped under us."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from unittest import mock

from wsproxy.runtime.reloading import Reloaded
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.service_account import ServiceAccountDirectory


class ReloadedTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.account = ServiceAccountDirectory(temporary.name)
        self.account.write(token=b"one", ca_crt=b"ca one")
        self.path = self.account.path("token")
        self.loads = 0

    def load(self) -> str:
        """Read the token file; an empty one is not usable."""
        self.loads += 1
        with open(self.path, encoding="ascii") as file:
            text = file.read()
        if not text:
            raise ValueError("the file is empty")
        return text

    def reloaded(self, *paths: str) -> Reloaded[str]:
        return Reloaded("the token", paths or (self.path,), self.load)

    def test_loaded_once(self) -> None:
        """While the file stays the same it is not read again."""
        value = self.reloaded()
        self.assertEqual([value.get(), value.get(), value.get()], ["one"] * 3)
        self.assertEqual(self.loads, 1)

    def test_not_loaded_before_needed(self) -> None:
        """Making the object touches no file."""
        Reloaded("the token", ["/nonexistent"], self.load)
        self.assertEqual(self.loads, 0)

    def test_symlink_swap(self) -> None:
        """A swap of the directory behind the symbolic link is seen at the next call."""
        value = self.reloaded()
        self.assertEqual(value.get(), "one")
        self.account.write(token=b"two")
        self.assertEqual(value.get(), "two")
        self.account.write(token=b"tri")  # of the same size
        self.assertEqual(value.get(), "tri")
        self.assertEqual(self.loads, 3)

    def test_second_file(self) -> None:
        """A change of any of the files makes the value new."""
        value = self.reloaded(self.path, self.account.path("ca.crt"))
        value.get()
        replacement = self.account.path("new")
        with open(replacement, "wb") as file:
            file.write(b"ca two")
        os.replace(replacement, self.account.path("ca.crt"))
        value.get()
        self.assertEqual(self.loads, 2)

    def test_written_in_place(self) -> None:
        """A file that is rewritten in place, to another size, is seen too."""
        value = self.reloaded()
        value.get()
        with open(self.path, "w", encoding="ascii") as file:
            file.write("longer")
        self.assertEqual(value.get(), "longer")

    def test_unreadable_later(self) -> None:
        """While a file is gone the value from before goes on, with a warning; then the new one is taken."""
        value = self.reloaded()
        value.get()
        os.rename(self.path, self.path + ".away")
        with self.assertLogs("wsproxy.reloaded", logging.WARNING) as logs:
            self.assertEqual(value.get(), "one")
        self.assertIn("the token cannot be read again", logs.output[0])
        os.remove(self.path + ".away")
        with open(self.path, "w", encoding="ascii") as file:
            file.write("two")
        self.assertEqual(value.get(), "two")

    def test_unusable_later(self) -> None:
        """A new file with unusable content changes nothing either, until it is usable again."""
        value = self.reloaded()
        value.get()
        self.account.write(token=b"")
        with self.assertLogs("wsproxy.reloaded", logging.WARNING):
            self.assertEqual(value.get(), "one")
        self.account.write(token=b"three")
        self.assertEqual(value.get(), "three")

    def test_one_warning(self) -> None:
        """Files that stay unusable are tried once a second at most, and complained about once."""
        value = self.reloaded()
        with mock.patch("wsproxy.runtime.reloading.time.monotonic") as clock:
            clock.return_value = 100.0
            value.get()
            self.account.write(token=b"")
            with self.assertLogs("wsproxy.reloaded", logging.WARNING) as logs:
                for now, loads in ((100.0, 1), (100.5, 0), (100.9, 0), (101.0, 1), (101.9, 0)):
                    clock.return_value = now
                    before = self.loads
                    self.assertEqual(value.get(), "one")
                    self.assertEqual(self.loads - before, loads)
            self.assertEqual(len(logs.output), 1)
            self.account.write(token=b"two")
            self.assertEqual(value.get(), "two", "other files are tried at once")

    def test_reload(self) -> None:
        """It is loaded again when asked to, though the files look as before, or failed a moment ago."""
        value = self.reloaded()
        value.reload()
        self.assertEqual((value.get(), self.loads), ("one", 1))
        value.reload()
        self.assertEqual((value.get(), self.loads), ("one", 2))
        with mock.patch("wsproxy.runtime.reloading.time.monotonic", return_value=100.0):
            self.account.write(token=b"")
            with self.assertLogs("wsproxy.reloaded", logging.WARNING) as logs:
                value.reload()
                self.assertEqual((value.get(), self.loads), ("one", 3))
            self.assertEqual([record.levelname for record in logs.records], ["ERROR"])
            with self.assertLogs("wsproxy.reloaded", logging.ERROR):
                value.reload()
            self.assertEqual(self.loads, 4)
        self.account.write(token=b"two")
        value.reload()
        self.assertEqual((value.get(), self.loads), ("two", 5))

    def test_never_readable(self) -> None:
        """A file that could never be read raises, every time."""
        os.rename(self.path, self.path + ".away")
        value = self.reloaded()
        for _ in range(2):
            self.assertRaises(OSError, value.get)
        os.rename(self.path + ".away", self.path)
        self.assertEqual(value.get(), "one")

    def test_never_usable(self) -> None:
        """Content that was never usable raises."""
        self.account.write(token=b"")
        value = self.reloaded()
        self.assertRaises(ValueError, value.get)

    def test_other_errors_are_not_hidden(self) -> None:
        """A bug in what loads is raised even when there is an older value."""
        broken = False

        def load() -> str:
            if broken:
                raise KeyError("a bug")
            return "value"

        value = Reloaded("the token", [self.path], load)
        value.get()
        broken = True
        self.account.write(token=b"two")
        self.assertRaises(KeyError, value.get)

    def test_no_files(self) -> None:
        """A value made from no files is made once."""
        value = Reloaded("a value", [], self.load)
        value.get()
        self.account.write(token=b"two")
        self.assertEqual(value.get(), "one")

    def test_loaded_once_by_many(self) -> None:
        """Threads that ask at the same moment get one and the same loading."""
        value = self.reloaded()
        barrier = threading.Barrier(8, timeout=60)
        found: list[str] = []

        def ask() -> None:
            barrier.wait()
            found.append(value.get())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, ["one"] * 8)
        self.assertEqual(self.loads, 1)
