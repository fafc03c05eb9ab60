"""Messages between the supervisor and one worker: JSON objects, a line each, over a socket pair.

The worker says that it is ready, and its numbers when it is asked.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..protocol.strict_json import parse_json
from ..runtime.logs import get_logger
from ..telemetry.counters import Snapshot

__all__ = ["MAX_MESSAGE", "Channel", "WorkerProcess"]

logger = get_logger("wsproxy.supervisor")

MAX_MESSAGE = 16 * 1024
"""Bytes of a message, with its newline."""

_MAX_BRACKETS = 100
_BUFFER_SIZE = 8 * MAX_MESSAGE  # macOS has 8 KiB by default, in which one message may not fit


class Channel:
    """One end of a socket pair. For one thread; nothing here blocks.

    :param sock: the end; owned and closed here.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
        self._received = b""

    def fileno(self) -> int:
        """The descriptor, to wait for messages with."""
        return self._sock.fileno()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._sock.fileno() < 0

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. To a side that is gone, or reads nothing, it is lost, and the channel ends."""
        line = json.dumps(message).encode() + b"\n"
        assert len(line) <= MAX_MESSAGE
        try:
            whole = self._sock.send(line) == len(line)
        except OSError:
            whole = False
        if not whole:
            self._shut_down()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages that are there, None at the end: the other side is gone, or talks nonsense."""
        try:
            received = self._sock.recv(MAX_MESSAGE)
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
        """Close this end. Idempotent."""
        self._sock.close()

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
    """What the supervisor knows of a process that was forked and not yet waited for.

    :ivar ready: whether it has said that it serves.
    :ivar asked: whether it owes an answer.
    :ivar numbers: what it said last.
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
        """Ask for its numbers, if it can answer and is not asked already."""
        if self.ready and not self.asked and not self.channel.closed:
            self.asked = True
            self.channel.send({"ask": "numbers"})

    def hear(self) -> bool:
        """Take its messages; return whether there were any."""
        messages = self.channel.receive()
        if messages is None:  # it has ended, or should
            self.channel.close()
        for message in messages or ():
            if not self.channel.closed:  # by what came before
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
