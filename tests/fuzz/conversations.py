"""Target: the short conversation in which a browser that is not let in is told why not.

It is the only place where frames of a client that has proved nothing are understood, by wsproto.
"""

from __future__ import annotations

import random
import socket

from tests.support.frame_streams import passed, random_cuts
from wsproxy.exceptions import BadToken, TransportClosed
from wsproxy.net.transport import Transport
from wsproxy.protocol.frames import FrameScanner, Opcode
from wsproxy.protocol.handshake import Upgrade
from wsproxy.protocol.request import HeadReader
from wsproxy.runtime.deadline import Deadline
from wsproxy.server.refusal import Refuser
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["check"]

_REFUSER = Refuser("auto")
_REQUEST = RawClient.request("/x.y.z/vm", ["Origin: https://console.example"])
_QUICK = 12  # pieces
_REASON = b"bad-token: the token is not valid"


class _Scripted(Transport):
    """Receives what was written down beforehand, and then the end."""

    def __init__(self, sock: socket.socket, script: list[bytes]) -> None:
        super().__init__(sock)
        self._script = [piece for piece in script if piece]
        self.sent = b""

    def _try_recv(self, size: int) -> bytes:
        if not self._script:
            return b""
        piece = self._script.pop(0)
        if piece[size:]:
            self._script.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: bytes, deadline: Deadline) -> None:
        self.sent += data

    def linger(self, deadline: Deadline) -> None:
        self._script.clear()


def check(data: bytes) -> None:
    """Refuse a browser that sends ``data``; its first byte says whether it is on a route that speaks RFB."""
    rfb_route, stream = bool(data[:1] > b"\x7f"), data[1:]
    pieces = random_cuts(stream, random.Random(data))
    head = HeadReader().feed(_REQUEST)
    assert head is not None
    with socket.socket() as sock:
        transport = _Scripted(sock, [*pieces[:_QUICK], b"".join(pieces[_QUICK:])])
        try:
            refused = BadToken("the token is not valid")
            _REFUSER.refuse(transport, refused, Upgrade(head), Deadline(5), rfb_route=rfb_route)
        except TransportClosed:
            pass
    _check_answer(transport.sent, stream, rfb_route)


def _check_answer(sent: bytes, stream: bytes, rfb_route: bool) -> None:
    response, _, frames = sent.partition(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 101 ")
    result = passed(FrameScanner(False), [frames])
    assert result.violation is None and result.forwarded == frames, "what we say is no stream of frames"
    assert not result.held and not result.mid_frame
    closes = [payload for _, opcode, payload, _ in result.controls if opcode is Opcode.CLOSE]
    pongs = [payload for _, opcode, payload, _ in result.controls if opcode is Opcode.PONG]
    assert len(closes) + len(pongs) == len(result.controls) and len(closes) <= 1
    assert closes or rfb_route, (
        "nothing is said at the end"
    )  # who leaves before its RFB version hears no more
    assert not closes or closes[0].endswith(_REASON) or len(stream) >= 2, "another end that nobody asked for"
    assert len(pongs) <= len(stream) // 6, "more answers than pings"
    assert frames.startswith(b"\x82\x0cRFB 003.008\n") == rfb_route
    assert len(frames) <= 200 + len(stream), "more is said than was heard"
