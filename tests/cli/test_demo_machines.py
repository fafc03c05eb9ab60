"""The machines of the demo."""

from __future__ import annotations

import threading
import unittest
from functools import partial
from unittest import mock

from tests.support.proxy_process import wait_until
from wsproxy.cli.demo_machines import EXAM, MAIN, SECOND, SLEEPER, Sleeper, machines
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI

_TIMEOUT = 60.0
_LONG = 3600.0


class SleeperTest(LeakTestCase):
    """The VM that starts when a client asks for it."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = FakeKubeVirtAPI().add_vmi("debian")  # nothing has to serve it here

    def sleeper(self, starts_after: float, runs_for: float) -> Sleeper:
        """Return one that is closed at the end."""
        sleeper = Sleeper(self.vmi, starts_after=starts_after, runs_for=runs_for)
        self.addCleanup(sleeper.close)
        return sleeper

    def has_phase(self, phase: str) -> bool:
        """Whether the VM is in it."""
        return self.vmi.phase == phase

    def test_starts_when_asked(self) -> None:
        """The VM is stopped at first, and runs after a client has asked for it."""
        sleeper = self.sleeper(0.0, _LONG)
        self.assertEqual(self.vmi.phase, "Succeeded")
        sleeper.ask()
        self.assertTrue(wait_until(lambda: self.vmi.phase == "Running", _TIMEOUT))

    def test_stops_again(self) -> None:
        """After some time it stops and its sessions end. This repeats with each request."""
        dropped = threading.Semaphore(0)
        with mock.patch.object(self.vmi, "drop_sessions", dropped.release):
            sleeper = self.sleeper(0.0, 0.0)
            for _ in range(3):
                sleeper.ask()
                self.assertTrue(dropped.acquire(timeout=_TIMEOUT))
                self.assertEqual(self.vmi.phase, "Succeeded")

    def test_close(self) -> None:
        """It can be closed at any time, and does nothing more then."""
        for starts_after, phase in ((_LONG, "Succeeded"), (0.0, "Running")):
            with self.subTest(phase):
                sleeper = self.sleeper(starts_after, _LONG)
                sleeper.ask()
                self.assertTrue(wait_until(partial(self.has_phase, phase), _TIMEOUT))
                sleeper.close()
                sleeper.close()
                self.assertEqual(self.vmi.phase, phase)
        self.sleeper(0.0, 0.0).close()
        self.assertEqual(self.vmi.phase, "Succeeded")

    def test_close_while_it_stops(self) -> None:
        """It can be closed in the very moment in which the VM stops."""
        sleeper = self.sleeper(0.0, 0.0)
        clear = sleeper._asked.clear

        def close_and_clear() -> None:
            sleeper._closing.set()
            sleeper._asked.set()
            clear()

        with mock.patch.object(sleeper._asked, "clear", close_and_clear):
            sleeper.ask()
            sleeper._thread.join(_TIMEOUT)
        self.assertFalse(sleeper._thread.is_alive())


class MachinesTest(LeakTestCase):
    """All of them."""

    def test_desktops_differ(self) -> None:
        """All desktops look different, and each shows its user."""
        with machines() as running:
            self.assertEqual(set(running.desktops), {MAIN, SECOND, SLEEPER, EXAM})
            pictures = {desktop.screenshot().rgb for desktop in running.desktops.values()}
            self.assertEqual(len(pictures), len(running.desktops))
            desktop = running.desktops[MAIN]
            seen = []
            for user in ("student", "teacher"):
                running.show_facts(MAIN, user, ("127.0.0.1", 5001))
                seen.append(desktop.screenshot().crop(24, 48, 700, 110))
            self.assertNotEqual(*seen)
            running.show_facts("router", "student", ("127.0.0.1", 5001))  # has no desktop


if __name__ == "__main__":
    unittest.main()
