"""Tests of virt-handler's framing."""

from __future__ import annotations

import os
import unittest

from tests.testing.rfb.raw_client import MASK
from wsproxy.testing.kubevirt.frames import (
    BINARY,
    CONTINUATION,
    FrameBuffer,
    close_payload,
    encode_frame,
    encode_message,
    parse_close,
)


class FramesTest(unittest.TestCase):
    """Encoding and parsing without a server."""

    def test_any_cut(self) -> None:
        """Frames parse alike whole and byte by byte, masked or not, at every length encoding."""
        for size in (0, 1, 125, 126, 65535, 65536):
            payload = os.urandom(size)
            for mask in (None, MASK):
                raw = encode_frame(BINARY, payload, fin=False, rsv=5, mask=mask)
                whole = FrameBuffer()
                whole.feed(raw)
                frame = whole.next()
                assert frame is not None
                self.assertEqual((False, BINARY, payload, raw), frame)
                self.assertEqual((5, mask is not None), (frame.rsv, frame.masked))
                if size < 1000:
                    self.assertEqual(frame, self._byte_by_byte(raw))

    def _byte_by_byte(self, raw: bytes) -> object:
        buffer = FrameBuffer()
        for index in range(len(raw)):
            self.assertIsNone(buffer.next())
            buffer.feed(raw[index : index + 1])
        return buffer.next()

    def test_framing_of_messages(self) -> None:
        """A message is cut into frames as gorilla/websocket cuts it."""
        cases = {
            0: [(True, BINARY, 0)],
            1: [(True, BINARY, 1)],
            10240: [(True, BINARY, 10240)],
            10241: [(False, BINARY, 10240), (True, CONTINUATION, 1)],
            20480: [(False, BINARY, 10240), (True, CONTINUATION, 10240)],
            20508: [(False, BINARY, 10240), (False, CONTINUATION, 10240), (True, CONTINUATION, 28)],
            20509: [(False, BINARY, 20509), (True, CONTINUATION, 0)],
            32768: [(False, BINARY, 32768), (True, CONTINUATION, 0)],
        }
        for size, expected in cases.items():
            buffer = FrameBuffer()
            buffer.feed(encode_message(bytes(size)))
            frames = [buffer.next() for _ in expected]
            got = [(frame.fin, frame.opcode, len(frame.payload)) for frame in frames if frame is not None]
            self.assertEqual((expected, b""), (got, buffer.rest), size)

    def test_close_payloads(self) -> None:
        """Code and reason of a Close survive; none is 1005."""
        self.assertEqual((4000, "grün"), parse_close(close_payload(4000, "grün")))
        self.assertEqual((1005, ""), parse_close(close_payload(None)))
        self.assertEqual(b"", close_payload(1005))


if __name__ == "__main__":
    unittest.main()
