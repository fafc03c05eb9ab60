"""The store that workers share if the settings name none."""

from __future__ import annotations

import logging
import os
import tempfile
from unittest import mock

from wsproxy.exceptions import ConfigError
from wsproxy.state.stores.local.own import own_store
from wsproxy.state.stores.local.store import LocalStore
from wsproxy.testing.case import LeakTestCase

_NO_DIRECTORY = mock.patch("tempfile.mkdtemp", side_effect=OSError(30, "Read-only file system"))


class OwnStoreTest(LeakTestCase):
    def test_there(self) -> None:
        """It answers, and its directory goes at the end."""
        with own_store(4, []) as state:
            path = state.removeprefix("local:")
            store = LocalStore(path, starts=False)
            self.assertEqual(store.members(), ())
            store.close()
        self.assertFalse(os.path.exists(os.path.dirname(path)))

    def test_needed(self) -> None:
        """If settings need it, it is a fault that there can be none."""
        with _NO_DIRECTORY, self.assertRaises(ConfigError) as caught, own_store(4, ["tickets", "admin"]):
            pass
        self.assertIn("4 workers with tickets and admin need a store in common", caught.exception.faults[0])

    def test_not_needed(self) -> None:
        """If it only saves work, the workers do without."""
        with (
            _NO_DIRECTORY,
            self.assertLogs("wsproxy.state.local", logging.INFO) as logs,
            own_store(4, []) as state,
        ):
            self.assertEqual(state, "")
        self.assertIn("each worker fetches keys", logs.output[0])

    def test_long_directory(self) -> None:
        """A directory for temporary files whose sockets would have too long a path is as good as none."""
        with tempfile.TemporaryDirectory() as outer:
            deep = os.path.join(outer, "x" * 90)
            os.mkdir(deep)
            with mock.patch("tempfile.tempdir", deep):
                with (
                    self.assertLogs("wsproxy.state.local", logging.INFO) as logs,
                    own_store(4, []) as state,
                ):
                    self.assertEqual(state, "")
                with self.assertRaisesRegex(ConfigError, f"{deep} is too long"), own_store(4, ["tickets"]):
                    pass
            self.assertEqual(os.listdir(deep), [])
        self.assertIn("is too long for a socket's path", logs.output[0])
