"""RFB without I/O: the refusal, the lengths of a client's messages, and the parser of what a client sends."""

from __future__ import annotations

import random
import unittest
from collections.abc import Iterable
from dataclasses import replace

from wsproxy.protocol import rfb
from wsproxy.protocol.rfb import ClientMessage, ClientMessageType, ClientParser, RFBError
from wsproxy.testing.rfb import messages as rfb_messages

HANDSHAKE = rfb.VERSION_3_8 + b"\x01\x01"

MESSAGES: list[tuple[ClientMessageType, bytes]] = [
    (ClientMessageType.SET_PIXEL_FORMAT, rfb_messages.SetPixelFormat(rfb_messages.RGBX).encode()),
    (ClientMessageType.SET_ENCODINGS, rfb_messages.SetEncodings((0, 1, -223, -258)).encode()),
    (ClientMessageType.SET_ENCODINGS, rfb_messages.SetEncodings(()).encode()),
    (
        ClientMessageType.FRAMEBUFFER_UPDATE_REQUEST,
        rfb_messages.FramebufferUpdateRequest(True, 1, 2, 3, 4).encode(),
    ),
    (ClientMessageType.KEY_EVENT, rfb_messages.KeyEvent(True, 0xFF0D).encode()),
    (ClientMessageType.POINTER_EVENT, rfb_messages.PointerEvent(1, 10, 20).encode()),
    (ClientMessageType.CLIENT_CUT_TEXT, rfb_messages.ClientCutText(b"clipboard").encode()),
    (ClientMessageType.CLIENT_CUT_TEXT, b"\x06\0\0\0" + (-6).to_bytes(4, "big", signed=True) + b"flagsz"),
    (ClientMessageType.QEMU, rfb_messages.ExtendedKeyEvent(True, 0x61, 0x1E).encode()),
    (ClientMessageType.ENABLE_CONTINUOUS_UPDATES, b"\x96\x01" + bytes(8)),
    (ClientMessageType.CLIENT_FENCE, b"\xf8\0\0\0" + bytes(4) + b"\x03abc"),
    (ClientMessageType.XVP, b"\xfa\0\x01\x02"),
    (ClientMessageType.SET_DESKTOP_SIZE, b"\xfb\0\x02\x80\x01\xe0\x01\0" + bytes(16)),
]


def parse(chunks: Iterable[bytes], parser: ClientParser | None = None) -> list[ClientMessage]:
    """Return everything a parser makes of a stream that comes in these chunks."""
    parser = parser or ClientParser()
    return [message for chunk in chunks for message in parser.receive(chunk)]


def random_cuts(data: bytes, dice: random.Random) -> list[bytes]:
    """Return the data in pieces of random lengths, empty ones among them."""
    places = sorted(dice.choices(range(len(data) + 1), k=dice.randrange(1, 20)))
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


class RefusalTest(unittest.TestCase):
    def test_refusal_bytes(self) -> None:
        """A refusal is the version, then no security types, the reason's length and the reason."""
        version, rest = rfb.refusal("token expired")
        self.assertEqual(version, b"RFB 003.008\n")
        self.assertEqual(rest, b"\0\0\0\0\x0dtoken expired")

    def test_refusal_counts_bytes(self) -> None:
        """The length of a reason is that of its UTF-8 bytes, not of its characters."""
        self.assertEqual(rfb.refusal("zu spät")[1], b"\0\0\0\0\x08" + "zu spät".encode())

    def test_refusal_survives_lone_surrogates(self) -> None:
        """A reason that UTF-8 cannot carry is shown with a replacement."""
        self.assertEqual(rfb.refusal("\udc80")[1], b"\0\0\0\0\x01?")


class VersionTest(unittest.TestCase):
    def test_versions(self) -> None:
        """A protocol version is read into its two numbers."""
        self.assertEqual(rfb.parse_version(b"RFB 003.008\n"), (3, 8))
        self.assertEqual(rfb.parse_version(b"RFB 004.001\n"), (4, 1))

    def test_not_versions(self) -> None:
        """Anything that is not exactly twelve well-formed bytes is refused."""
        for data in (
            b"",
            b"RFB 003.008",
            b"RFB 003.008\r",
            b"RFB +03.008\n",
            b"GET / HTTP/1",
            b"RFB 003.008\n\n",
        ):
            with self.subTest(data=data), self.assertRaises(RFBError):
                rfb.parse_version(data)


class MessageLengthTest(unittest.TestCase):
    def test_lengths(self) -> None:
        """Each message's length is known from its own head, and from no less than its head."""
        for kind, data in MESSAGES:
            with self.subTest(kind=kind):
                known = [rfb.client_message_length(data[:end]) for end in range(len(data) + 1)]
                self.assertEqual(known[-1], len(data))
                self.assertEqual(set(known), {None, len(data)})

    def test_extended_pointer(self) -> None:
        """With extended mouse buttons, bit 7 of the mask adds a seventh byte to a PointerEvent."""
        plain, extended = b"\x05\x01" + bytes(4), b"\x05\x81" + bytes(5)
        self.assertEqual(rfb.client_message_length(plain, extended_pointer=True), 6)
        self.assertEqual(rfb.client_message_length(extended, extended_pointer=True), 7)
        self.assertIsNone(rfb.client_message_length(b"\x05", extended_pointer=True))
        self.assertEqual(rfb.client_message_length(extended), 6)


class ClientParserTest(unittest.TestCase):
    def setUp(self) -> None:
        self.stream = HANDSHAKE + b"".join(data for _, data in MESSAGES)
        self.expected = [
            ClientMessage(ClientMessageType.VERSION, rfb.VERSION_3_8),
            ClientMessage(ClientMessageType.SECURITY_TYPE, b"\x01"),
            ClientMessage(ClientMessageType.CLIENT_INIT, b"\x01"),
            *(ClientMessage(kind, data) for kind, data in MESSAGES),
        ]

    def test_whole(self) -> None:
        """A whole session in one piece comes out as its messages, with their own bytes."""
        self.assertEqual(parse([self.stream]), self.expected)

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives the same messages."""
        self.assertEqual(parse(self.stream[at : at + 1] for at in range(len(self.stream))), self.expected)

    def test_random_cuts(self) -> None:
        """Cut anywhere, the stream gives the same messages."""
        dice = random.Random(6143)
        for _ in range(300):
            self.assertEqual(parse(random_cuts(self.stream, dice)), self.expected)

    def test_abandoned_iterator(self) -> None:
        """Messages that one call's iterator left over come out of the next call's."""
        parser = ClientParser()
        next(parser.receive(self.stream))
        self.assertEqual(list(parser.receive(b"")), self.expected[1:])

    def test_unknown_messages_fail_closed(self) -> None:
        """After an unknown message nothing more is parsed; what stood before it came out."""
        unknown = (b"\x01", b"\x07", b"\xfe", b"\xff\x01", b"\xf8" + bytes(7) + b"\x41", b"\x80")
        for data in unknown:
            with self.subTest(data=data):
                parser = ClientParser()
                messages = parser.receive(HANDSHAKE + MESSAGES[0][1] + data)
                self.assertEqual([next(messages) for _ in range(4)], self.expected[:4])
                with self.assertRaises(RFBError):
                    next(messages)
                with self.assertRaises(RFBError):
                    list(parser.receive(MESSAGES[0][1]))

    def test_long_message(self) -> None:
        """A message over the limit is refused from its head, before its body is stored."""
        for length in (100, -100):
            head = b"\x06\0\0\0" + length.to_bytes(4, "big", signed=True)
            with self.subTest(length=length):
                self.assertEqual(len(parse([HANDSHAKE + head], ClientParser(max_message=108))), 3)
                with self.assertRaises(RFBError):
                    parse([HANDSHAKE + head], ClientParser(max_message=107))

    def test_version_3_3(self) -> None:
        """RFB 3.3, where the server picks the security type, cannot be followed and is refused."""
        with self.assertRaises(RFBError):
            parse([b"RFB 003.003\n"])
        self.assertEqual(len(parse([b"RFB 003.007\n\x01\x01"])), 3)

    def test_other_security(self) -> None:
        """A security type other than None is refused, each time it is looked at."""
        parser = ClientParser()
        for data in (rfb.VERSION_3_8 + b"\x02", b"", b"\x01"):
            with self.subTest(data=data), self.assertRaises(RFBError):
                parse([data], parser)

    def test_extended_pointer(self) -> None:
        """The seventh byte of an extended PointerEvent belongs to it."""
        event = b"\x05\x81\0\x01\0\x02\x01"
        messages = parse([HANDSHAKE + event + MESSAGES[4][1]], ClientParser(extended_pointer=True))
        self.assertEqual([message.data for message in messages[3:]], [event, MESSAGES[4][1]])


class EndpointMessagesTest(unittest.TestCase):
    def test_round_trips(self) -> None:
        """What an endpoint encodes, it parses back to the same value."""
        values = (
            rfb_messages.SetPixelFormat(rfb_messages.RGBX),
            rfb_messages.SetEncodings((0, -223)),
            rfb_messages.FramebufferUpdateRequest(False, 0, 1, 640, 480),
            rfb_messages.KeyEvent(False, 0x01000394),
            rfb_messages.ExtendedKeyEvent(True, 0xFF0D, 0x1C),
            rfb_messages.PointerEvent(5, 639, 479),
            rfb_messages.ServerInit(640, 480, rfb_messages.RGBX, "ubuntu"),
        )
        for value in values:
            with self.subTest(value=value):
                self.assertEqual(type(value).parse(value.encode()), value)

    def test_pixel_formats_that_cannot_be(self) -> None:
        """A format with odd pixels, or with colours that do not fit in, is refused."""
        good = rfb_messages.PixelFormat(16, 16, True, True, 31, 63, 31, 11, 5, 0)
        self.assertEqual(rfb_messages.PixelFormat.parse(good.encode()), good)
        bad = (
            replace(good, bits_per_pixel=24),
            replace(good, red_max=0),
            replace(good, red_shift=12),
            replace(good, blue_shift=200),
        )
        for each in bad:
            with self.subTest(each=each), self.assertRaises(RFBError):
                rfb_messages.PixelFormat.parse(each.encode())

    def test_cut_server_init(self) -> None:
        """A ServerInit that is cut or too long is refused."""
        whole = rfb_messages.ServerInit(640, 480, rfb_messages.RGBX, "ubuntu").encode()
        for data in (whole[:10], whole[:-1], whole + b"x"):
            with self.subTest(data=data), self.assertRaises(RFBError):
                rfb_messages.ServerInit.parse(data)

    def test_no_security_types(self) -> None:
        """An empty list of security types would be a refusal without its reason, so it is not made."""
        with self.assertRaises(ValueError):
            rfb_messages.security_types()
        self.assertEqual(rfb_messages.security_types(1, 2), b"\x02\x01\x02")


if __name__ == "__main__":
    unittest.main()
