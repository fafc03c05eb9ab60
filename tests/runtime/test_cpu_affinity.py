"""One CPU for the threads that take turns."""

from __future__ import annotations

import os
import re
import unittest
from collections.abc import Callable
from unittest import mock

from tests.support.proxy_process import ProxyProcess, needs_proc
from wsproxy.runtime import cpu_affinity
from wsproxy.runtime.threads import start_thread
from wsproxy.testing.case import LeakTestCase, ProxyTestCase

CPUs = set[int]
_STARTED = re.compile(rb"worker \d+ \(pid (\d+)\) started\n")


def allowed() -> CPUs:
    return os.sched_getaffinity(0)


def in_a_thread(function: Callable[[], None]) -> None:
    """Run a function in a thread of its own: an affinity is a thread's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    start_thread("test", run, None).join()
    if failures:
        raise failures[0]


@unittest.skipUnless(hasattr(os, "sched_setaffinity"), "the system knows no affinity")
class Settle(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(setattr, cpu_affinity, "_allowed", cpu_affinity._allowed)

    def test_numbers_in_a_row_spread(self) -> None:
        cpus = sorted(allowed())
        found: list[CPUs] = []

        def settle(choice: int) -> None:
            cpu_affinity.settle(choice)
            found.append(allowed())

        for choice in range(len(cpus) + 1):
            in_a_thread(lambda choice=choice: settle(choice))  # type: ignore[misc]
        self.assertEqual(found, [{cpu} for cpu in (*cpus, cpus[0])])

    def test_threads_follow(self) -> None:
        def settle() -> None:
            cpu_affinity.settle(0)
            in_a_thread(lambda: self.assertEqual(allowed(), {min(before)}))

        before = allowed()
        in_a_thread(settle)
        self.assertEqual(allowed(), before)

    def test_anywhere(self) -> None:
        def settle() -> None:
            cpu_affinity.settle(0)
            with cpu_affinity.anywhere():
                self.assertEqual(allowed(), before)
            self.assertEqual(allowed(), {min(before)})

        before = allowed()
        in_a_thread(settle)

    def test_not_settled(self) -> None:
        before = allowed()
        with cpu_affinity.anywhere():
            self.assertEqual(allowed(), before)
        self.assertEqual(allowed(), before)

    def test_not_allowed(self) -> None:
        """If a sandbox forbids to set the affinity, the process serves all the same."""
        before = allowed()
        with mock.patch("os.sched_setaffinity", side_effect=PermissionError):
            cpu_affinity.settle(0)
            with cpu_affinity.anywhere():
                pass
        self.assertEqual(allowed(), before)

    def test_taken_away_meanwhile(self) -> None:
        def settle() -> None:
            cpu_affinity.settle(0)
            taken = OSError(22, "Invalid argument")
            with mock.patch("os.sched_setaffinity", side_effect=taken), cpu_affinity.anywhere():
                pass

        in_a_thread(settle)

    def test_unknown_to_the_system(self) -> None:
        with mock.patch("os.sched_getaffinity", side_effect=AttributeError):
            cpu_affinity.settle(0)
        self.assertEqual(cpu_affinity._allowed, frozenset())


@needs_proc
class Program(ProxyTestCase):
    def test_one_process(self) -> None:
        with ProxyProcess(self.api) as proxy:
            tasks = os.listdir(f"/proc/{proxy.process.pid}/task")
            found = {frozenset(os.sched_getaffinity(int(task))) for task in tasks}
        self.assertEqual({len(cpus) for cpus in found}, {1})
        self.assertEqual(len(found), 1)
        self.assertGreater(len(tasks), 2)

    def test_workers_spread(self) -> None:
        with ProxyProcess(self.api, WSPROXY_WORKERS="2") as proxy:
            pids = [int(pid) for pid in _STARTED.findall(proxy.output)]
            found = [os.sched_getaffinity(pid) for pid in pids]
            supervisor = os.sched_getaffinity(proxy.process.pid)
        self.assertEqual(supervisor, allowed())
        self.assertEqual([len(cpus) for cpus in found], [1, 1])
        self.assertEqual(len(set.union(*found)), min(2, len(allowed())))

    def test_off(self) -> None:
        with ProxyProcess(self.api, WSPROXY_CPU_AFFINITY="off") as proxy:
            self.assertEqual(os.sched_getaffinity(proxy.process.pid), allowed())
        with ProxyProcess(self.api, WSPROXY_CPU_AFFINITY="off", WSPROXY_WORKERS="2") as proxy:
            for pid in _STARTED.findall(proxy.output):
                self.assertEqual(os.sched_getaffinity(int(pid)), allowed())
