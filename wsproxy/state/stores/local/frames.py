"""Messages between a process and the store's process: JSON behind its length, four bytes. No I/O."""

from __future__ import annotations

import json
import struct
from typing import Any, NoReturn

__all__ = ["MOST_BYTES", "Inbox", "packed", "unpacked"]

MOST_BYTES = 16 * 1024 * 1024
"""Of a message. A member with 10,000 sessions may have 50,000 messages in one answer, which take 6 MB."""

_HEAD = struct.Struct(">I")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def packed(value: object) -> bytes:
    """Return the message that stands for a value of JSON.

    :raises ValueError: if it is too long.
    """
    text = _ENCODER.encode(value).encode("ascii")
    if len(text) > MOST_BYTES:
        raise ValueError(f"a message of {len(text)} bytes is too long")
    return _HEAD.pack(len(text)) + text


def unpacked(text: bytes) -> Any:
    """Return the value in a message.

    :param text: the message without its length.
    :raises ValueError: if it is not JSON.
    """
    try:
        return _DECODER.decode(text.decode("ascii"))
    except RecursionError:
        raise ValueError("the message is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the message is not ASCII") from None


class Inbox:
    """Bytes that have arrived, and have not been taken. One thread at a time."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        """Whether the last message that has begun has also been taken."""
        return not self._data

    def feed(self, data: bytes) -> None:
        """Add bytes.

        :raises ValueError: if so many wait that they cannot be one message.
        """
        self._data += data
        if len(self._data) > _HEAD.size + MOST_BYTES + len(data):
            raise ValueError("too many messages at a time")

    def take(self) -> bytes | None:
        """Take the next message, without its length; None if it is not complete.

        :raises ValueError: if it is too long.
        """
        if len(self._data) < _HEAD.size:
            return None
        (length,) = _HEAD.unpack_from(self._data)
        if length > MOST_BYTES:
            raise ValueError(f"a message of {length} bytes is too long")
        end = _HEAD.size + length
        if len(self._data) < end:
            return None
        text = bytes(memoryview(self._data)[_HEAD.size : end])
        del self._data[:end]
        return text
