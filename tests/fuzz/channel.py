"""Target: what two processes say to each other, read from a socket pair at any cuts."""

from __future__ import annotations

import json
import math
import random
import re
import socket
from typing import Any

from tests.support.frame_streams import bytewise, random_cuts
from wsproxy.server.channel import MAX_MESSAGE, Channel
from wsproxy.telemetry.counters import Snapshot

from .texts import assert_own_text

__all__ = ["check"]

_LONG = b"\xff"  # stands for so many spaces, as a fuzzer's inputs are shorter than a message may be
_SPACES = b" " * 1000
_ZERO = Snapshot()
_MOST = 2**64  # what a count of bytes can be in a thousand years


def check(data: bytes) -> None:
    """Receive ``data``, whole and in pieces, and read the numbers in every message."""
    stream = data.replace(_LONG, _SPACES)[: 4 * MAX_MESSAGE]
    whole, ended = _received([stream])
    cuts = [random_cuts(stream, random.Random(data))]
    if len(stream) <= 300:
        cuts.append(bytewise(stream))
    for pieces in cuts:
        again, ended_again = _received(pieces)
        assert ended_again == ended, "the cuts decide whether it is nonsense"
        # Of what stands in front of nonsense as much is lost as came with it.
        shorter, longer = sorted((whole, again), key=len)
        assert longer[: len(shorter)] == shorter and (ended or longer == shorter), "the cuts make a message"
    own, own_end = _own_reading(stream)
    assert ended == own_end and own[: len(whole)] == whole and (ended or own == whole)
    for message in whole:
        _check_sent(message)
        _check_numbers(message.get("numbers"))


def _received(pieces: list[bytes]) -> tuple[list[dict[str, Any]], bool]:
    """Return the messages, and whether the channel ended before the other side did."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    messages: list[dict[str, Any]] = []
    try:
        for piece in pieces:
            theirs.sendall(piece)
            while _is_readable(ours):
                found = channel.receive()
                if found is None:
                    return messages, True
                messages += found
        assert channel.receive() == [], "the other side is there"
        theirs.close()
        assert channel.receive() is None, "the end is not noticed"
        return messages, False
    finally:
        theirs.close()
        channel.close()


def _is_readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def _own_reading(stream: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Return what a reader sees that has the whole stream, and whether some of it is no message."""
    messages: list[dict[str, Any]] = []
    *lines, rest = stream.split(b"\n")
    for line in lines:
        try:
            message = json.loads(
                line.decode(), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite
            )
        except (ValueError, RecursionError):
            return messages, True
        if (
            not isinstance(message, dict)
            or len(line) >= MAX_MESSAGE
            or len(re.findall(rb"[\[{]", line)) > 100
        ):
            return messages, True
        messages.append(message)
    return messages, len(rest) >= MAX_MESSAGE


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(number: str) -> float:
    if abs(float(number)) == math.inf:
        raise ValueError(number)
    return float(number)


def _check_sent(message: dict[str, Any]) -> None:
    """A message that was understood arrives as the same when it is sent."""
    if len(json.dumps(message)) >= MAX_MESSAGE:
        return
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours), Channel(theirs)
    try:
        sender.send(message)
        assert receiver.receive() == [message], "a message changes on its way"
    finally:
        sender.close()
        receiver.close()


def _check_numbers(found: object) -> None:
    try:
        numbers = Snapshot.from_json(found)
    except ValueError as wrong:  # anything else is a finding
        assert_own_text(wrong)
        return
    assert Snapshot.from_json(numbers.to_json()) == numbers, "what was read cannot be told on"
    assert json.loads(json.dumps(numbers.to_json(), allow_nan=False)) == numbers.to_json()
    assert _counted(_ZERO + numbers) == _counted(numbers), "nothing more is something else"
    total = numbers + numbers.totals()
    assert total.opened == 2 * numbers.opened and total.sessions == numbers.sessions
    assert 0 <= numbers.bytes_up < _MOST and float(total.opened) >= 0 and str(total)
    for _, below in numbers.session_seconds.cumulative():
        assert 0 <= below < _MOST


def _counted(numbers: Snapshot) -> dict[str, Any]:
    """Return all that is not 0."""
    found = numbers.to_json()
    for name in ("refused", "ended", "limits", "handshakes"):
        found[name] = {word: count for word, count in found[name].items() if count}
    return found
