"""Messages between the supervisor and one worker: JSON objects, one per line, over a socket pair.

A worker sends that it is ready. When the supervisor asks, the worker sends its numbers. The supervisor passes
requests of the operator on, each as a socket.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import Busy
from ..protocol.strict_json import parse_json
from ..runtime.logs import get_logger
from ..telemetry.counters import Snapshot

__all__ = ["MAX_MESSAGE", "Channel", "WorkerProcess", "pass_to_one"]

logger = get_logger("wsproxy.supervisor")

MAX_MESSAGE = 16 * 1024
"""Most bytes of a message, with its newline."""

_MAX_BRACKETS = 100
_MOST_PASSED = 16  # descriptors in one message
_BUFFER_SIZE = 8 * MAX_MESSAGE  # macOS has 8 KiB by default, which may not hold one message


class Channel:
    """One end of a socket pair. One thread at a time may use it; nothing here blocks.

    :param sock: the socket, which the channel owns and closes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
        self._received = b""
        self._passed: deque[int] = deque()  # descriptors

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message comes."""
        return self._sock.fileno()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._sock.fileno() < 0

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. If the other side is gone or does not read, it is lost, and the channel ends."""
        line = json.dumps(message).encode() + b"\n"
        assert len(line) <= MAX_MESSAGE
        try:
            whole = self._sock.send(line) == len(line)
        except OSError:
            whole = False
        if not whole:
            self._shut_down()

    def pass_on(self, message: Mapping[str, Any], sock: socket.socket) -> None:
        """Send a message with a socket, as :meth:`send` does. The caller closes its copy."""
        try:
            socket.send_fds(self._sock, [json.dumps(message).encode() + b"\n"], [sock.fileno()])
        except OSError:
            self._shut_down()

    def take_passed(self) -> socket.socket | None:
        """Return the socket that came with the first message whose socket was not taken yet; None without."""
        return socket.socket(fileno=self._passed.popleft()) if self._passed else None

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages that have come; None if the other side is gone, or has sent a malformed one."""
        try:
            received, passed, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, _MOST_PASSED)
            self._passed.extend(passed)
        except BlockingIOError:
            return []
        except OSError:
            received = b""
        *lines, self._received = (self._received + received).split(b"\n")
        messages = [_parse(line) for line in lines]
        if not received or len(self._received) >= MAX_MESSAGE or None in messages:
            return None
        return [message for message in messages if message is not None]

    def close(self) -> None:
        """Close this end, and what came through it. Idempotent."""
        self._sock.close()
        while passed := self.take_passed():
            passed.close()

    def _shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = parse_json(line, _MAX_BRACKETS) if len(line) < MAX_MESSAGE else None
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


@dataclass
class WorkerProcess:
    """What the supervisor knows of a forked worker that it has not reaped yet.

    :ivar started: reading of the monotonic clock when the worker started.
    :ivar ready: whether it has sent that it serves.
    :ivar asked: whether it has not answered the last question yet.
    :ivar numbers: the last numbers that it sent.
    """

    number: int
    pid: int
    channel: Channel
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    asked: bool = False
    numbers: Snapshot = field(default_factory=Snapshot)

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    def ask(self) -> None:
        """Ask the worker for its numbers, if it is ready and owes no answer."""
        if self.ready and not self.asked and not self.channel.closed:
            self.asked = True
            self.channel.send({"ask": "numbers"})

    def hear(self) -> bool:
        """Receive and handle the worker's messages; return whether there were any."""
        messages = self.channel.receive()
        if messages is None:  # the worker is gone; if it is not, the end of the channel stops it
            self.channel.close()
        for message in messages or ():
            if not self.channel.closed:  # a malformed message closes it
                self._take(message)
        return bool(messages)

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready = True
            return
        try:
            self.numbers, self.asked = Snapshot.from_json(message.get("numbers")), False
        except ValueError as exc:
            logger.error("%s is dropped: %s", self, exc)
            self.channel.close()


def pass_to_one(workers: Iterable[WorkerProcess], sock: socket.socket) -> None:
    """Have a worker answer the request of the operator that comes through a socket, and close that here.

    :raises Busy: if none serves.
    """
    for worker in workers:
        if worker.ready and not worker.channel.closed:
            with sock:
                worker.channel.pass_on({"operator": True}, sock)
            return
    raise Busy("no worker serves now", retry_after=1)
