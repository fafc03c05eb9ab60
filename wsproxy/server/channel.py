"""Messages between the supervisor and one worker: JSON objects, a line each, over a socket pair."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from ..protocol.strict_json import parse_json

__all__ = ["MAX_MESSAGE", "Channel"]

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
