"""Signals as bytes on a socket, and signals that change nothing any more."""

from __future__ import annotations

import signal
import socket
import threading

from wsproxy.runtime.signals import ignore_signals, signals_for_proxy, signals_to
from wsproxy.testing.case import LeakTestCase


class SignalsTest(LeakTestCase):
    """Handlers come back at the end, but for those of ignored signals."""

    def setUp(self) -> None:
        super().setUp()
        self.heard: list[int] = []
        before = signal.signal(signal.SIGUSR2, lambda number, frame: self.heard.append(number))
        self.addCleanup(signal.signal, signal.SIGUSR2, before)
        self.waker, self.woken = socket.socketpair()
        self.woken.setblocking(False)
        self.addCleanup(self.waker.close)
        self.addCleanup(self.woken.close)

    def signal_self(self) -> None:
        signal.raise_signal(signal.SIGUSR2)  # to this thread, at once

    def test_signals_to(self) -> None:
        """Inside, a signal is a byte; afterwards the program's own handler is back."""
        with signals_to(self.waker, [signal.SIGUSR2]):
            self.signal_self()
            self.assertEqual(self.woken.recv(2), bytes([signal.SIGUSR2]))
        self.assertEqual(self.heard, [])
        self.signal_self()
        self.assertEqual(self.heard, [signal.SIGUSR2])

    def test_ignored_inside(self) -> None:
        """A signal that is ignored still wakes who waits for it, and does nothing afterwards."""
        with signals_to(self.waker, [signal.SIGUSR2]), signals_to(self.waker, [signal.SIGUSR2]):
            ignore_signals([signal.SIGUSR2])
            self.signal_self()
            self.assertEqual(self.woken.recv(2), bytes([signal.SIGUSR2]))
        self.signal_self()
        self.assertEqual(self.heard, [])

    def test_ignored_before(self) -> None:
        """A signal that is blocked while it comes to be ignored is not lost."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        self.addCleanup(signal.pthread_sigmask, signal.SIG_UNBLOCK, [signal.SIGUSR2])
        self.signal_self()
        ignore_signals([signal.SIGUSR2])
        with signals_to(self.waker, [signal.SIGUSR2]):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
            self.assertEqual(self.woken.recv(2), bytes([signal.SIGUSR2]))
        self.signal_self()
        self.assertEqual(self.heard, [])

    def test_for_proxy(self) -> None:
        """A proxy leaves a program its own handler of SIGHUP, but counts an ignored SIGHUP as free."""
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        for handler, is_free in ((signal.SIG_DFL, True), (signal.SIG_IGN, True), (print, False)):
            signal.signal(signal.SIGHUP, handler)
            with self.subTest(handler=handler):
                self.assertEqual(signal.SIGHUP in signals_for_proxy(), is_free)
        ignore_signals([signal.SIGHUP])
        self.assertIn(signal.SIGHUP, signals_for_proxy())

    def test_other_thread(self) -> None:
        """Another thread than the main one changes nothing, since Python does not permit it."""
        thread = threading.Thread(target=ignore_signals, args=([signal.SIGUSR2],))
        thread.start()
        thread.join()
        self.signal_self()
        self.assertEqual(self.heard, [signal.SIGUSR2])
