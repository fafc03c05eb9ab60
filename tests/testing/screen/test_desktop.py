"""The desktop: what it shows, how it takes input, and how its viewers come and go."""

from __future__ import annotations

import socket
import struct
import threading
import unittest
from datetime import datetime, timedelta

from wsproxy.protocol.rfb import VERSION_3_8
from wsproxy.testing.rfb import messages as rfb_messages
from wsproxy.testing.rfb.errors import ConsoleClosed, RFBRefused
from wsproxy.testing.rfb.messages import RGBX, FramebufferUpdateRequest, PixelFormat
from wsproxy.testing.rfb.viewer import RFBViewer
from wsproxy.testing.screen import font
from wsproxy.testing.screen.canvas import Canvas, Rectangle, encode_pixels
from wsproxy.testing.screen.desktop import Desktop
from wsproxy.testing.screen.image import Image
from wsproxy.testing.screen.look import LOOKS
from wsproxy.testing.screen.screen import Screen

TIMEOUT = 60.0
NOON = datetime(2026, 1, 1, 12, 0, 0)


class Viewers(unittest.TestCase):
    """A desktop whose clock stands still, and connections to it that are gone when the test is over."""

    def setUp(self) -> None:
        self.time = NOON
        self.desktop = Desktop("ubuntu", {"namespace": "lab-1"}, now=lambda: self.time, max_viewers=3)
        self.threads: list[threading.Thread] = []
        self.addCleanup(self.join_all)
        self.addCleanup(self.desktop.close)

    def join_all(self) -> None:
        """Wait for every serve() to return: it has to."""
        for thread in self.threads:
            thread.join(TIMEOUT)
            self.assertFalse(thread.is_alive(), "serve() did not return")
        self.assertEqual(self.desktop.viewers, 0)

    def connect(self) -> socket.socket:
        """Return one end of a connection whose other end is being served."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        ours.settimeout(TIMEOUT)
        thread = threading.Thread(target=self.desktop.serve, args=(theirs,), name="desktop-serve")
        self.threads.append(thread)
        thread.start()
        return ours

    def view(self) -> RFBViewer:
        """Return a viewer that has gone through the handshake."""
        client = RFBViewer(self.connect(), TIMEOUT)
        client.handshake()
        return client

    def view_raw(self) -> socket.socket:
        """Return a connection after the handshake, to be spoken to in bytes."""
        ours = self.connect()
        ours.sendall(VERSION_3_8 + b"\x01\x01")
        take(ours, 12 + 2 + 4 + 24 + len("ubuntu"))
        return ours


def take(connection: socket.socket, length: int) -> bytes:
    """Return exactly this many bytes."""
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError(f"{len(data)} of {length} bytes")
        data += part
    return data


def take_update(connection: socket.socket, size: int) -> list[tuple[Rectangle, bytes]]:
    """Return the Raw rectangles of one update, with pixels of `size` bytes."""
    count = int.from_bytes(take(connection, 4)[2:], "big")
    rectangles = []
    for _ in range(count):
        x, y, width, height, encoding = struct.unpack(">HHHHi", take(connection, 12))
        assert encoding == 0
        rectangles.append((Rectangle(x, y, width, height), take(connection, width * height * size)))
    return rectangles


class InputTest(Viewers):
    def test_typed_text(self) -> None:
        """Typed characters, shifted ones as keysyms, are the desktop's text."""
        client = self.view()
        client.type("Hello, World! ~{}")
        self.assertTrue(self.desktop.wait_for_text("Hello, World! ~{}", TIMEOUT))
        self.assertEqual(self.desktop.text, "Hello, World! ~{}")

    def test_text_is_seen(self) -> None:
        """What is typed changes the terminal on the screen, and nothing but it and the status line."""
        client = self.view()
        before = client.screenshot()
        client.type("x")
        self.assertTrue(self.desktop.wait_for_text("x", TIMEOUT))
        after = client.screenshot()
        self.assertNotEqual(after.crop(24, 140, 592, 250), before.crop(24, 140, 592, 250))
        self.assertEqual(after.crop(0, 0, 640, 100), before.crop(0, 0, 640, 100))

    def test_backspace_and_return(self) -> None:
        """Backspace takes the last character, Return ends the line, keys without a character do nothing."""
        client = self.view()
        client.type("ab\b\b\bc\nd\t")
        client.key(0xFFE1)  # Shift
        client.key(0xFFB7)  # 7 on the keypad
        client.type("é€")
        self.assertTrue(self.desktop.wait_for_text("€", TIMEOUT))
        self.assertEqual(self.desktop.text, "c\nd\t7é€")

    def test_extended_keys(self) -> None:
        """A key that comes with its keycode types the same."""
        ours = self.view_raw()
        ours.sendall(rfb_messages.ExtendedKeyEvent(True, ord("q"), 0x10).encode())
        self.assertTrue(self.desktop.wait_for_text("q", TIMEOUT))

    def test_text_that_does_not_come(self) -> None:
        """Waiting for text that nobody types ends with the timeout."""
        self.assertFalse(self.desktop.wait_for_text("nobody", 0.0))

    def test_pointer(self) -> None:
        """The pointer goes where the client says, stays on the screen, and its buttons are known."""
        client = self.view()
        client.move(100, 50)
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.pointer == (100, 50), TIMEOUT))
        ours = self.view_raw()
        ours.sendall(rfb_messages.PointerEvent(5, 9999, 9999).encode())
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.buttons == 5, TIMEOUT))
        self.assertEqual(self.desktop.pointer, (639, 479))

    def test_pointer_leaves_no_trace(self) -> None:
        """When the pointer has moved on, the picture under it is as before."""
        client = self.view()
        client.move(100, 80)
        client.wait_until(lambda image: image.pixel(101, 82) == (255, 255, 255))
        before = self.desktop.screenshot()
        client.move(300, 300)
        client.move(100, 80)
        client.type("!")
        self.assertTrue(self.desktop.wait_for_text("!", TIMEOUT))
        self.assertEqual(self.desktop.screenshot().crop(0, 0, 640, 140), before.crop(0, 0, 640, 140))

    def test_clipboard(self) -> None:
        """What is cut reaches every viewer, and what a viewer pastes is on the desktop's clipboard."""
        client, ours = self.view(), self.view_raw()
        self.desktop.cut("caf\u00e9")
        self.assertEqual(self.desktop.clipboard, "caf\u00e9")
        client.type("!")
        client.wait_until(lambda image: client.cut_text == b"caf\xe9")
        ours.sendall(rfb_messages.ClientCutText(b"na\xefve").encode())
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.clipboard == "na\u00efve", TIMEOUT))
        with self.assertRaises(UnicodeEncodeError):
            self.desktop.cut("\u4e2d")
        self.assertEqual(self.desktop.clipboard, "na\u00efve")

    def test_other_messages(self) -> None:
        """Messages that need no answer are ignored."""
        ours = self.view_raw()
        ours.sendall(rfb_messages.SetEncodings((0, 5)).encode())
        ours.sendall(b"\xf8\0\0\0" + bytes(4) + b"\0" + rfb_messages.KeyEvent(True, ord("k")).encode())
        self.assertTrue(self.desktop.wait_for_text("k", TIMEOUT))


class UpdateTest(Viewers):
    def test_screenshot(self) -> None:
        """A full update shows exactly what the desktop shows."""
        client = self.view()
        self.assertEqual(client.name, "ubuntu")
        self.assertEqual(client.size, (640, 480))
        self.assertEqual(client.screenshot(), self.desktop.screenshot())

    def test_incremental_updates_are_small(self) -> None:
        """After a full update, a key press sends the line it changed, not the screen."""
        ours = self.view_raw()
        ours.sendall(FramebufferUpdateRequest(False, 0, 0, 640, 480).encode())
        take_update(ours, 4)
        ours.sendall(rfb_messages.KeyEvent(True, ord("a")).encode())
        self.assertTrue(self.desktop.wait_for_text("a", TIMEOUT))
        ours.sendall(FramebufferUpdateRequest(True, 0, 0, 640, 480).encode())
        areas = [area for area, _ in take_update(ours, 4)]
        self.assertEqual(len(areas), 2)  # the line and the status
        self.assertLess(sum(area.width * area.height for area in areas), 640 * 480 // 8)

    def test_a_part_of_the_screen(self) -> None:
        """Only the requested part is sent. Changes outside it wait for their own request."""
        ours = self.view_raw()
        whole = FramebufferUpdateRequest(False, 0, 0, 640, 480).encode()
        ours.sendall(whole)
        take_update(ours, 4)
        ours.sendall(FramebufferUpdateRequest(False, 10, 20, 30, 40).encode())
        self.assertEqual([area for area, _ in take_update(ours, 4)], [Rectangle(10, 20, 30, 40)])
        ours.sendall(rfb_messages.KeyEvent(True, ord("a")).encode())
        self.assertTrue(self.desktop.wait_for_text("a", TIMEOUT))
        ours.sendall(FramebufferUpdateRequest(True, 0, 0, 40, 480).encode())
        first = [area for area, _ in take_update(ours, 4)]
        ours.sendall(FramebufferUpdateRequest(True, 0, 0, 640, 480).encode())
        second = [area for area, _ in take_update(ours, 4)]
        self.assertTrue(all(area.x + area.width <= 40 for area in first))
        self.assertTrue(all(area.x >= 40 for area in second))

    def test_many_changes(self) -> None:
        """However much changed since the last request, one update of a few rectangles brings all of it."""
        client = self.view()
        client.screenshot()
        for step in range(60):
            client.move(step * 10, step * 7)
        client.type("end")
        self.assertTrue(self.desktop.wait_for_text("end", TIMEOUT))
        wanted = self.desktop.screenshot()
        self.assertEqual(client.wait_until(lambda image: image == wanted), wanted)
        ours = self.view_raw()
        for step in range(60):
            ours.sendall(rfb_messages.PointerEvent(0, step * 10, 479 - step * 7).encode())
        ours.sendall(FramebufferUpdateRequest(True, 0, 0, 640, 480).encode())
        self.assertLessEqual(len(take_update(ours, 4)), 24)

    def test_pixel_formats(self) -> None:
        """Pixels come in the format the client asked for: 8, 16 or 32 bits, either byte order."""
        formats = (
            PixelFormat(32, 24, False, True, 255, 255, 255, 16, 8, 0),
            PixelFormat(32, 24, True, True, 255, 255, 255, 16, 8, 0),
            PixelFormat(32, 30, False, True, 1023, 1023, 1023, 20, 10, 0),
            PixelFormat(16, 16, False, True, 31, 63, 31, 11, 5, 0),
            PixelFormat(16, 16, True, True, 31, 63, 31, 11, 5, 0),
            PixelFormat(16, 15, False, True, 31, 31, 31, 0, 5, 10),
            PixelFormat(8, 8, False, True, 7, 7, 3, 0, 3, 6),
        )
        ours = self.view_raw()
        for wanted in formats:
            with self.subTest(wanted=wanted):
                ours.sendall(rfb_messages.SetPixelFormat(wanted).encode())
                ours.sendall(FramebufferUpdateRequest(False, 0, 20, 640, 40).encode())
                ((_, pixels),) = take_update(ours, wanted.bytes_per_pixel)
                image = self.desktop.screenshot().crop(0, 20, 640, 40)
                self.assertEqual(pixels, encoded_one_by_one(image, wanted))

    def test_colour_map(self) -> None:
        """A client that wants a colour map is disconnected."""
        ours = self.view_raw()
        ours.sendall(rfb_messages.SetPixelFormat(PixelFormat(8, 8, False, False, 0, 0, 0, 0, 0, 0)).encode())
        self.assertEqual(ours.recv(1), b"")

    def test_clock_moves(self) -> None:
        """A viewer that waits sees the clock move on, and nothing else changes."""
        client = self.view()
        before = client.screenshot()
        self.time += timedelta(seconds=61)
        after = client.wait_until(lambda image: image != before)
        clock = (640 - 8 * 12 - 12, 6, 8 * 12, 20)
        self.assertNotEqual(after.crop(*clock), before.crop(*clock))
        self.assertEqual(after.crop(0, 34, 640, 446), before.crop(0, 34, 640, 446))

    def test_figure_moves(self) -> None:
        """A viewer that waits sees the figure move within the second, and nothing else changes."""
        self.desktop = Desktop("ubuntu", now=lambda: self.time, look="orbits")
        self.addCleanup(self.desktop.close)
        client = self.view()
        before = client.screenshot()
        self.time += timedelta(seconds=0.5)
        after = client.wait_until(lambda image: image != before)
        figure = (640 - 24 - 197, 48, 197, 225)
        self.assertNotEqual(after.crop(*figure), before.crop(*figure))
        self.assertEqual(after.crop(0, 0, 640, 48), before.crop(0, 0, 640, 48))
        self.assertEqual(after.crop(0, 48, 400, 432), before.crop(0, 48, 400, 432))

    def test_shared_by_all_viewers(self) -> None:
        """All viewers see what one of them types, and later viewers see it, too."""
        one, other = self.view(), self.view()
        before = other.screenshot()
        one.type("shared")
        self.assertTrue(self.desktop.wait_for_text("shared", TIMEOUT))
        other.wait_until(lambda image: image.crop(24, 140, 592, 250) != before.crop(24, 140, 592, 250))
        one.close()
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.viewers == 1, TIMEOUT))
        self.assertEqual(
            self.view().screenshot().crop(24, 140, 592, 250), other.screenshot().crop(24, 140, 592, 250)
        )

    def test_new_facts(self) -> None:
        """Connected viewers see new facts."""
        client = self.view()
        before = client.screenshot()
        self.desktop.set_facts({"namespace": "lab-2", "user": "5"})
        after = client.wait_until(lambda image: image != before)
        self.assertNotEqual(after.crop(24, 48, 592, 60), before.crop(24, 48, 592, 60))


def encoded_one_by_one(image: Image, wanted: PixelFormat) -> bytes:
    """Return a picture in a pixel format, computed the plain way."""
    order = ">" if wanted.big_endian else "<"
    form = struct.Struct(order + {8: "B", 16: "H", 32: "I"}[wanted.bits_per_pixel])
    data = bytearray()
    for at in range(0, len(image.rgb), 3):
        red, green, blue = image.rgb[at : at + 3]
        value = round(red * wanted.red_max / 255) << wanted.red_shift
        value |= round(green * wanted.green_max / 255) << wanted.green_shift
        value |= round(blue * wanted.blue_max / 255) << wanted.blue_shift
        data += form.pack(value)
    return bytes(data)


class EndTest(Viewers):
    def test_bad_peers(self) -> None:
        """Garbage at any stage ends that viewer, without an exception out of serve()."""
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", VERSION_3_8 + b"\x02", VERSION_3_8 + b"\x01\x01\x7b"):
            with self.subTest(garbage=garbage):
                ours = self.connect()
                ours.sendall(garbage)
                while ours.recv(4096):
                    pass
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.viewers == 0, TIMEOUT))

    def test_vanished_peers(self) -> None:
        """A peer that leaves at any stage ends its viewer."""
        for said in (b"", VERSION_3_8, VERSION_3_8 + b"\x01\x01"):
            with self.subTest(said=said):
                ours = self.connect()
                ours.sendall(said)
                ours.close()
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.viewers == 0, TIMEOUT))

    def test_peer_that_does_not_read(self) -> None:
        """A viewer that never reads does not delay other viewers, and close() ends it."""
        stuck = self.view_raw()
        stuck.sendall(FramebufferUpdateRequest(False, 0, 0, 640, 480).encode() * 50)
        client = self.view()
        client.type("still alive")
        self.assertTrue(self.desktop.wait_for_text("still alive", TIMEOUT))
        self.assertEqual(client.screenshot().width, 640)
        self.desktop.close()
        self.join_all()

    def test_close(self) -> None:
        """close() disconnects every viewer, and refuses later ones. It is idempotent."""
        client = self.view()
        self.desktop.close()
        self.desktop.close()
        with self.assertRaises(ConsoleClosed):
            client.screenshot()
        self.assertEqual(self.connect().recv(1), b"")

    def test_too_many_viewers(self) -> None:
        """One viewer more than allowed is refused with a reason it can show."""
        clients = [self.view() for _ in range(3)]
        with self.assertRaisesRegex(RFBRefused, "as many viewers"):
            self.view()
        self.assertTrue(self.desktop.wait_for(lambda: self.desktop.viewers == 3, TIMEOUT))
        self.assertEqual(clients[0].screenshot(), self.desktop.screenshot())

    def test_rfb_3_7(self) -> None:
        """A client of RFB 3.7 gets no result for the security type None."""
        ours = self.connect()
        ours.sendall(b"RFB 003.007\n\x01\x01")
        self.assertEqual(take(ours, 12 + 2 + 4), VERSION_3_8 + b"\x01\x01" + struct.pack(">HH", 640, 480))

    def test_context_manager(self) -> None:
        """Leaving the context closes the desktop."""
        with self.desktop:
            ours = self.connect()
            take(ours, 12)
        self.assertEqual(ours.recv(1), b"")


class DrawingTest(unittest.TestCase):
    def test_too_small(self) -> None:
        """A desktop too small for its own picture cannot be made; the smallest shows whatever it is given."""
        with self.assertRaises(ValueError):
            Desktop("tiny", size=(100, 100))
        screen = Screen("a name much longer than the screen is wide", {"k" * 90: "v" * 90, "": ""}, 320, 240)
        screen.set_text("\t\n" * 500 + "x" * 500)
        screen.set_pointer(319, 239, pressed=True)
        self.assertEqual(screen.front.image().width, 320)

    def test_no_facts(self) -> None:
        """Without facts the terminal takes their place."""
        with Desktop("plain") as desktop:
            self.assertEqual(desktop.screenshot().pixel(320, 200), (28, 32, 43))

    def test_looks(self) -> None:
        """Each look is a different picture, at any size. An unknown look is an error."""
        for size in ((640, 480), Screen.MINIMUM):
            screens = [Screen("ubuntu", {"user": "5"}, *size, look) for look in LOOKS.values()]
            self.assertEqual(len({bytes(screen.front.pixels) for screen in screens}), len(LOOKS))
        with self.assertRaises(KeyError):
            Desktop("ubuntu", look="ugly")

    def test_figures_move(self) -> None:
        """With the time a figure moves, and nothing else does; the same moment looks the same."""
        for name, look in LOOKS.items():
            with self.subTest(name):
                screen = Screen("ubuntu", {}, 640, 480, look)
                screen.set_moment(1.0)
                first, screen.damage = bytes(screen.front.pixels), []
                screen.set_moment(2.0)
                moved = bool(look.figure)
                self.assertEqual(bytes(screen.front.pixels) != first, moved)
                self.assertEqual(len(screen.damage), moved)
                screen.set_moment(1.0)
                self.assertEqual(bytes(screen.front.pixels), first)

    def test_damage_covers_every_change(self) -> None:
        """A change changes no pixel outside the rectangles that it reports."""
        screen = Screen("ubuntu", {"user": "5"}, 400, 300, LOOKS["orbits"])
        text = ""
        for step in range(120):
            before, screen.damage = bytes(screen.front.pixels), []
            text = (
                text[:-1]
                if step % 5 == 4
                else text + ("\n" if step % 7 == 6 else "some words "[: step % 11 + 1])
            )
            screen.set_text(text)
            screen.set_pointer(step * 37 % 400, step * 23 % 300, pressed=step % 2 == 0)
            screen.set_clock(f"{step:08}")
            screen.set_moment(step / 3)
            screen.set_status(f"{step}", "")
            after = Canvas(400, 300)
            after.pixels[:] = screen.front.pixels
            old = Canvas(400, 300)
            old.pixels[:] = before
            for area in screen.damage:
                old.copy_from(after, area)
            self.assertEqual(old.pixels, after.pixels)

    def test_wrapping(self) -> None:
        """A long line goes on in the next row, and only the last rows are seen."""
        one, other = (Screen("ubuntu", {}, 400, 300) for _ in range(2))
        columns = (400 - 48 - 24) // 12
        one.set_text("a" * columns + "b")
        other.set_text("a" * columns + "\nb")
        self.assertEqual(one.front.pixels, other.front.pixels)
        one.set_text("first\n" * 100 + "last")
        other.set_text("first\n" * 50 + "last")
        self.assertEqual(one.front.pixels, other.front.pixels)

    def test_drawing_is_clipped(self) -> None:
        """Drawing outside the canvas has no effect."""
        canvas = Canvas(20, 20)
        canvas.fill(Rectangle(-5, -5, 10, 10), (1, 2, 3))
        canvas.text(-6, 12, "ABC", (9, 9, 9), (8, 8, 8))
        canvas.text(0, 0, "", (9, 9, 9), (8, 8, 8))
        canvas.fill(Rectangle(30, 30, 5, 5), (4, 4, 4))
        self.assertEqual(len(canvas.pixels), 20 * 20 * 4)
        self.assertEqual(canvas.image().pixel(4, 4), (1, 2, 3))
        self.assertEqual(canvas.image().pixel(5, 5), (0, 0, 0))

    def test_difference(self) -> None:
        """The difference of two rectangles consists of disjoint parts."""
        whole = Rectangle(0, 0, 6, 5)
        for x in range(-2, 7):
            for y in range(-2, 6):
                other = Rectangle(x, y, 3, 2)
                parts = whole.difference(other)
                rest = whole.width * whole.height
                cut = whole.intersection(other)
                self.assertEqual(sum(p.width * p.height for p in parts), rest - cut.width * cut.height)
                self.assertFalse(any(part.intersection(other) for part in parts))

    def test_rgbx_needs_no_work(self) -> None:
        """Pixels in the canvas's own format are passed on as they are."""
        pixels = bytes(range(16))
        self.assertIs(encode_pixels(pixels, RGBX), pixels)


class FontTest(unittest.TestCase):
    def test_every_character_differs(self) -> None:
        """Each printable character has a shape of its own, the space an empty one."""
        shapes = {font.glyph(chr(code)) for code in range(0x20, 0x7F)}
        self.assertEqual(len(shapes), 95)
        self.assertEqual(font.glyph(" "), (0,) * font.CELL_HEIGHT)

    def test_cells(self) -> None:
        """A glyph fills its cell's height and leaves the last column and the last row free."""
        for code in range(0x20, 0x80):
            rows = font.glyph(chr(code))
            self.assertEqual(len(rows), font.CELL_HEIGHT)
            self.assertEqual(rows[-1], 0)
            self.assertTrue(all(row < 1 << font.CELL_WIDTH and not row & 1 for row in rows))

    def test_unknown_characters(self) -> None:
        """Characters the font lacks are all shown as the same box."""
        self.assertEqual({font.glyph(character) for character in "\0\x1f\x7fé€"}, {font.glyph("\x7f")})


if __name__ == "__main__":
    unittest.main()
