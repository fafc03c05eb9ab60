"""How long a proxy takes to find a dead peer: what the tests with frozen programs and cut links share."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from tests.integration.peers import ANSWERED
from wsproxy.testing.kubevirt.frames import CLOSE, PING, PONG, parse_close
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["INTERVAL", "LONGEST", "Peer", "Told", "Verdict"]

INTERVAL = 3.0
"""Seconds between pings."""

LONGEST = 2 * INTERVAL + 20.0
"""Seconds in which a dead peer has to be found: two intervals, and what a busy machine needs.

Its kernel may take a little more after the program has stopped, for some tenths of a second."""

_TIMEOUT = 60.0


class Peer:
    """A program of :mod:`tests.integration.peers`; use ``with``, which kills it."""

    def __init__(self, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.integration.peers", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._killer = threading.Timer(_TIMEOUT, self.process.kill)  # so that no read here is for ever
        self._killer.start()

    def line(self) -> str:
        """Return the next line that it writes."""
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the peer has ended"
        return line

    def wait_for_answer(self) -> None:
        """Wait until it has just answered a ping."""
        assert self.line() == ANSWERED

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._killer.cancel()
        self._killer.join()
        self.process.kill()  # also one that is stopped
        self.process.communicate()


class Told:
    """A client that answers pings in a thread of its own, until it is told why its session ends."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._close: tuple[int, str] | None = None
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while (frame := self._client.recv_frame(_TIMEOUT)).opcode != CLOSE:
            if frame.opcode == PING:
                self._client.send_frame(PONG, frame.payload)
        self._close = parse_close(frame.payload)
        self._client.send_frame(CLOSE, frame.payload[:2])

    def wait(self) -> tuple[int, str] | None:
        """Wait for the end, and return its code and reason."""
        self._thread.join()
        return self._close


class Verdict(logging.Handler):
    """Hears of the first leg that the relay finds dead; use ``with``.

    :ivar text: what the log says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._found = threading.Event()
        self._at = 0.0
        self._logger = logging.getLogger("wsproxy.relay")

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        if not self.text and "is dead" in record.getMessage():
            self._at, self.text = time.monotonic(), record.getMessage()
            self._found.set()

    def seconds_since(self, then: float) -> float:
        """Wait for the verdict, and return how long after ``then``, by the monotonic clock, it came."""
        assert self._found.wait(_TIMEOUT), "nobody was found dead"
        return self._at - then

    def __enter__(self) -> Verdict:
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
