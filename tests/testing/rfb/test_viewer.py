"""The viewer: the handshake, updates, refusals, keys and pointer."""

from __future__ import annotations

import random
import socket
import struct
import threading
import unittest

from wsproxy.protocol.rfb import VERSION_3_8, RFBError, reason_text, refusal
from wsproxy.testing.rfb import messages as rfb_messages
from wsproxy.testing.rfb.client import ConsoleClosed, RFBRefused
from wsproxy.testing.rfb.messages import RGBX, Encoding, ServerInit
from wsproxy.testing.rfb.updates import (
    Bell,
    CopyRectangle,
    CutText,
    Framebuffer,
    NewSize,
    RawRectangle,
    ServerMessage,
    ServerParser,
    UpdateEnd,
)
from wsproxy.testing.rfb.viewer import PictureTimeout, RFBViewer
from wsproxy.testing.screen.canvas import Rectangle
from wsproxy.testing.screen.desktop import Desktop
from wsproxy.testing.screen.image import Image

TIMEOUT = 60.0
OPENING = VERSION_3_8 + b"\x01\x01" + rfb_messages.SECURITY_OK


def update(*rectangles: bytes) -> bytes:
    """Return a FramebufferUpdate of these rectangles."""
    return rfb_messages.framebuffer_update_header(len(rectangles)) + b"".join(rectangles)


def raw(x: int, y: int, width: int, height: int, pixels: bytes) -> bytes:
    """Return a Raw rectangle."""
    return rfb_messages.rectangle_header(x, y, width, height) + pixels


def copy(x: int, y: int, width: int, height: int, from_x: int, from_y: int) -> bytes:
    """Return a CopyRect rectangle."""
    head = rfb_messages.rectangle_header(x, y, width, height, Encoding.COPY_RECT)
    return head + struct.pack(">HH", from_x, from_y)


def new_size(width: int, height: int) -> bytes:
    """Return a DesktopSize pseudo-rectangle."""
    return rfb_messages.rectangle_header(0, 0, width, height, Encoding.DESKTOP_SIZE)


class ServerParserTest(unittest.TestCase):
    stream = b"".join(
        (
            update(raw(0, 0, 2, 1, b"RGBxrgbx"), copy(1, 1, 1, 1, 0, 0)),
            rfb_messages.bell(),
            rfb_messages.server_cut_text(b"clip"),
            update(new_size(8, 6)),
            update(),
            rfb_messages.server_cut_text(b""),
        )
    )
    expected: tuple[ServerMessage, ...] = (
        RawRectangle(Rectangle(0, 0, 2, 1), b"RGBxrgbx"),
        CopyRectangle(Rectangle(1, 1, 1, 1), 0, 0),
        UpdateEnd(),
        Bell(),
        CutText(b"clip"),
        NewSize(8, 6),
        UpdateEnd(),
        UpdateEnd(),
        CutText(b""),
    )

    def parse(self, *chunks: bytes) -> tuple[ServerMessage, ...]:
        """Return everything a fresh parser makes of these chunks."""
        parser = ServerParser()
        return tuple(message for chunk in chunks for message in parser.receive(chunk))

    def test_whole(self) -> None:
        """A stream in one piece comes out as its messages."""
        self.assertEqual(self.parse(self.stream), self.expected)

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives the same messages."""
        self.assertEqual(self.parse(*(bytes((byte,)) for byte in self.stream)), self.expected)

    def test_random_cuts(self) -> None:
        """Cut anywhere, the stream gives the same messages."""
        dice = random.Random(6143)
        for _ in range(300):
            places = sorted(dice.choices(range(len(self.stream) + 1), k=dice.randrange(1, 12)))
            ends = zip([0, *places], [*places, len(self.stream)], strict=True)
            self.assertEqual(self.parse(*(self.stream[start:stop] for start, stop in ends)), self.expected)

    def test_bad_streams(self) -> None:
        """Unknown messages and encodings, and absurd sizes, are refused and stay refused."""
        bad = (
            b"\x01",
            b"\xff",
            update(rfb_messages.rectangle_header(0, 0, 1, 1, 5)),
            update(rfb_messages.rectangle_header(0, 0, 65535, 65535)),
            b"\x03\0\0\0\xff\xff\xff\xff",
        )
        for data in bad:
            with self.subTest(data=data):
                parser = ServerParser()
                messages = parser.receive(rfb_messages.bell() + data)
                self.assertEqual(next(messages), Bell())
                for _ in range(2):
                    with self.assertRaises(RFBError):
                        list(parser.receive(rfb_messages.bell()))


class FramebufferTest(unittest.TestCase):
    def test_overlapping_copy(self) -> None:
        """A copy onto itself, shifted, moves the old pixels."""
        framebuffer = Framebuffer(4, 1)
        framebuffer.apply(RawRectangle(Rectangle(0, 0, 4, 1), b"AAA.BBB.CCC.DDD."))
        framebuffer.apply(CopyRectangle(Rectangle(1, 0, 3, 1), 0, 0))
        self.assertEqual(framebuffer.image(), Image(4, 1, b"AAAAAABBBCCC"))

    def test_outside(self) -> None:
        """Rectangles outside the screen, and impossible screens, are refused."""
        framebuffer = Framebuffer(4, 4)
        bad = (
            RawRectangle(Rectangle(3, 3, 2, 1), bytes(8)),
            CopyRectangle(Rectangle(0, 0, 2, 2), 3, 0),
            NewSize(0, 4),
            NewSize(65535, 65535),
        )
        for message in bad:
            with self.subTest(message=message), self.assertRaises(RFBError):
                framebuffer.apply(message)


class ScriptedTest(unittest.TestCase):
    """A viewer whose server is a list of bytes: they are in the socket before the viewer reads."""

    def client(self, *said: bytes, end: bool = True, gone: bool = False) -> RFBViewer:
        """Return a viewer whose server sends these bytes and then is silent, or has `gone`."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        ours.settimeout(0.05)
        theirs.sendall(b"".join(said))
        if end:
            theirs.shutdown(socket.SHUT_WR)
        if gone:
            theirs.close()
        client = RFBViewer(ours, TIMEOUT)
        self.addCleanup(client.close)
        return client

    def test_handshake(self) -> None:
        """The handshake tells the desktop's name and size."""
        client = self.client(OPENING, ServerInit(4, 2, RGBX, "Zürich").encode())
        client.handshake()
        self.assertEqual((client.name, client.size), ("Zürich", (4, 2)))

    def test_refusal(self) -> None:
        """A refusal is raised with its reason, and with the Close that follows."""
        client = self.client(*refusal("bad-token: zu spät"))
        with self.assertRaises(RFBRefused) as caught:
            client.handshake()
        self.assertEqual(caught.exception.reason, "bad-token: zu spät")
        self.assertEqual(client.wait_closed().code, 1006)

    def test_failed_security(self) -> None:
        """A SecurityResult other than OK is a refusal with a reason too."""
        client = self.client(VERSION_3_8 + b"\x01\x01\0\0\0\x01", reason_text("no"))
        with self.assertRaisesRegex(RFBRefused, "no"):
            client.handshake()

    def test_servers_it_cannot_follow(self) -> None:
        """Another protocol, an old version, other security or an endless reason is an RFBError."""
        bad = (
            b"HTTP/1.1 400",
            b"RFB 003.007\n",
            VERSION_3_8 + b"\x01\x02",
            VERSION_3_8 + b"\0\x7f\xff\xff\xff",
            OPENING + bytes(24),
        )
        for said in bad:
            with self.subTest(said=said), self.assertRaises(RFBError):
                self.client(said).handshake()

    def test_server_that_vanishes(self) -> None:
        """The end of the stream within the handshake is a closed console, code 1006."""
        with self.assertRaises(ConsoleClosed) as caught:
            self.client(OPENING).handshake()
        self.assertEqual(caught.exception.code, 1006)

    def test_server_that_says_nothing(self) -> None:
        """A silent server costs no more than the timeout."""
        with self.assertRaises(TimeoutError):
            self.client(VERSION_3_8, end=False).handshake(0.1)

    def test_screenshot_over_several_updates(self) -> None:
        """A screenshot is whole only when every pixel has come, whatever comes in between."""
        client = self.client(
            OPENING,
            ServerInit(2, 2, RGBX, "vm").encode(),
            update(),
            update(raw(0, 0, 2, 1, b"aaa.bbb.")),
            rfb_messages.bell() + rfb_messages.server_cut_text(b"text"),
            update(copy(0, 1, 1, 1, 1, 0), raw(1, 1, 1, 1, b"ccc.")),
        )
        client.handshake()
        self.assertEqual(client.screenshot(), Image(2, 2, b"aaabbbbbbccc"))
        self.assertEqual((client.bells, client.cut_text), (1, b"text"))

    def test_new_size_in_a_screenshot(self) -> None:
        """When the screen changes its size meanwhile, the screenshot is of the new one."""
        client = self.client(
            OPENING,
            ServerInit(1, 1, RGBX, "vm").encode(),
            update(new_size(2, 1)),
            update(raw(0, 0, 2, 1, b"aaa.bbb.")),
        )
        client.handshake()
        self.assertEqual(client.screenshot(), Image(2, 1, b"aaabbb"))

    def test_sending_to_a_server_that_left(self) -> None:
        """A key for a server that has gone is a closed console, not a broken pipe."""
        client = self.client(OPENING, ServerInit(1, 1, RGBX, "vm").encode(), gone=True)
        with self.assertRaises(ConsoleClosed):
            client.handshake()
            client.type("x")

    def test_wait_until_nothing(self) -> None:
        """Waiting for a picture that does not come ends with the timeout, and the viewer goes on."""
        client = self.client(
            OPENING, ServerInit(1, 1, RGBX, "vm").encode(), update(raw(0, 0, 1, 1, b"abc.")), end=False
        )
        client.handshake()
        with self.assertRaisesRegex(PictureTimeout, "within 0.5 s") as caught:
            client.wait_until(lambda image: False, 0.5)
        self.assertEqual(caught.exception.image, Image(1, 1, b"abc"))
        client.type("on")

    def test_wait_for_a_change_of_size(self) -> None:
        """Another size is a change, also of an area that is not there any more."""
        client = self.client(
            OPENING,
            ServerInit(2, 1, RGBX, "vm").encode(),
            update(raw(0, 0, 2, 1, b"aaa.bbb.")),
            update(raw(0, 0, 1, 1, b"xxx.")),
            update(new_size(1, 1), raw(0, 0, 1, 1, b"bbb.")),
        )
        client.handshake()
        before = Image(2, 1, b"aaabbb")
        self.assertEqual(client.wait_for_change(before, area=(1, 0, 1, 1)), Image(1, 1, b"bbb"))


class DesktopTest(unittest.TestCase):
    def setUp(self) -> None:
        self.desktop = Desktop("ubuntu", {"user": "5"})
        ours, theirs = socket.socketpair()
        ours.settimeout(0.25)
        thread = threading.Thread(target=self.desktop.serve, args=(theirs,), name="desktop-serve")
        self.addCleanup(thread.join, TIMEOUT)
        self.addCleanup(self.desktop.close)
        self.client = RFBViewer(ours, TIMEOUT)
        self.addCleanup(self.client.close)
        thread.start()
        self.client.handshake()

    def test_typing_is_seen(self) -> None:
        """Typed text is the desktop's text and appears in the viewer's picture."""
        before = self.client.screenshot().crop(24, 140, 592, 200)
        self.client.type("uname -a\n")
        self.assertTrue(self.desktop.wait_for_text("uname -a\n", TIMEOUT))
        self.client.wait_until(lambda image: image.crop(24, 140, 592, 200) != before)

    def test_click(self) -> None:
        """A click is a press and a release, and the pointer stays there."""
        self.client.click(120, 60)
        seen = self.desktop.wait_for(
            lambda: self.desktop.pointer == (120, 60) and not self.desktop.buttons, TIMEOUT
        )
        self.assertTrue(seen)

    def test_drag(self) -> None:
        """A drag ends at its end, the button up again."""
        self.client.drag((10, 20), (130, 70), button=3)
        seen = self.desktop.wait_for(
            lambda: self.desktop.pointer == (130, 70) and not self.desktop.buttons, TIMEOUT
        )
        self.assertTrue(seen)

    def test_pointer_that_cannot_be(self) -> None:
        """Places outside the screen, and impossible buttons, are refused."""
        for place in ((-1, 0), (0, -1), (640, 0), (0, 480)):
            for act in (self.client.move, self.client.click):
                with self.subTest(place=place), self.assertRaisesRegex(ValueError, "640 x 480"):
                    act(*place)
        for button in (0, 9, -1):
            with self.subTest(button=button), self.assertRaisesRegex(ValueError, "1 to 8"):
                self.client.click(1, 1, button)

    def test_keys(self) -> None:
        """Named keys, shifted characters and characters that Latin-1 has not arrive."""
        self.client.type("Grüße, €!")
        self.client.key("BackSpace")
        self.client.key("KP_Enter")
        self.assertTrue(self.desktop.wait_for_text("Grüße, €\n", TIMEOUT))

    def test_wait_for_change(self) -> None:
        """The viewer waits for a change of the area. Changes elsewhere, such as the clock, do not count."""
        before = self.client.screenshot()
        self.client.move(5, 5)
        before = self.client.wait_for_change(before)
        self.client.move(45, 5)
        self.client.wait_for_change(before)
        with self.assertRaises(TimeoutError):
            self.client.wait_for_change(before, area=self.desktop.terminal_area, timeout=0.2)
        self.client.type("x")
        self.client.wait_for_change(before, area=self.desktop.terminal_area)

    def test_many_waits(self) -> None:
        """Waiting again and again, with keys between, always ends with the picture that was waited for."""
        image = self.client.screenshot()
        for character in "abcdefgh":
            self.client.type(character)
            self.assertTrue(self.desktop.wait_for_text(character, TIMEOUT))
            image = self.client.wait_until(lambda now, before=image: now != before)  # type: ignore[misc]

    def test_leaving(self) -> None:
        """Leaving the context ends the connection; closing again does nothing."""
        with self.client:
            pass
        self.client.close()
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.viewers == 0, TIMEOUT))
