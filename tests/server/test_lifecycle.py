"""What a process that serves does on its signals; whole programs are in tests/behaviour/test_drain.py."""

from __future__ import annotations

import logging
import signal
import socket
import threading

from wsproxy.runtime.signals import STOP_SIGNALS
from wsproxy.server.lifecycle import next_event, stop_in_good_order
from wsproxy.testing.case import LeakTestCase

logger = logging.getLogger("wsproxy.test-of-lifecycle")


class StopTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.waker, self.woken = socket.socketpair()
        self.addCleanup(self.waker.close)
        self.addCleanup(self.woken.close)
        self.woken.settimeout(60)
        self.hurried = threading.Event()

    def test_stop_that_fails(self) -> None:
        """If stopping fails, whoever waits for it is woken all the same, and the log says why."""
        for exc in (ZeroDivisionError(), SystemExit()):

            def stop(exc: BaseException = exc) -> None:
                raise exc

            with self.assertLogs(logger, "ERROR") as logs:
                stop_in_good_order(
                    stop,
                    self.hurried.set,
                    self.waker,
                    lambda: next_event(self.woken, STOP_SIGNALS),
                    self,
                    logger,
                )
            self.assertIn(type(exc).__name__, logs.output[0])
            self.assertTrue(self.hurried.is_set())

    def test_second_signal(self) -> None:
        """A second signal hurries the stop, which is waited for."""
        self.waker.send(bytes([signal.SIGTERM]))
        stopped = []

        def stop() -> None:
            stopped.append(self.hurried.wait(60))

        with self.assertLogs(logger, "INFO") as logs:
            stop_in_good_order(
                stop, self.hurried.set, self.waker, lambda: next_event(self.woken, STOP_SIGNALS), self, logger
            )
        self.assertEqual((stopped, logs.records[0].getMessage()), ([True], "SIGTERM: stopping now"))
