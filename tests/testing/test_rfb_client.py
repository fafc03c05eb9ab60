"""The viewer: the handshake, updates, refusals, and what it makes of a WebSocket."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import struct
import threading
import unittest
from collections.abc import Callable

import websocket

from wsproxy.rfb import VERSION_3_8, RFBError, reason_text, refusal
from wsproxy.testing import rfb_messages
from wsproxy.testing.canvas import Rectangle
from wsproxy.testing.desktop import Desktop
from wsproxy.testing.image import Image
from wsproxy.testing.rfb_client import (
    ConsoleClosed,
    RFBClient,
    RFBRefused,
    UpgradeRefused,
    WebSocketStream,
    open_websocket,
)
from wsproxy.testing.rfb_messages import RGBX, Encoding, ServerInit
from wsproxy.testing.rfb_updates import (
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
from wsproxy.testing.rfb_viewer import RFBViewer

TIMEOUT = 10.0
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
        """Rectangles that reach outside of the screen, and impossible screens, are refused."""
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
        """Return a viewer to which all this is said; then the server stops talking, or has `gone`."""
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
        """A refusal is raised with its reason, and the end of the connection after it is told."""
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
        with self.assertRaises(TimeoutError):
            client.wait_until(lambda image: False, 0.1)
        client.type("on")


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


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return an unmasked frame of at most 125 payload bytes."""
    return bytes(((0x80 if fin else 0) | opcode, len(payload))) + payload


class WebSocketStreamTest(unittest.TestCase):
    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.peer.settimeout(TIMEOUT)
        connection = websocket.WebSocket(enable_multithread=False)
        connection.sock = ours
        connection.connected = True
        self.stream = WebSocketStream(connection, timeout=0.2)
        self.addCleanup(self.stream.close)

    def take_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next short frame the stream sent, unmasked."""
        head = self.peer.recv(2, socket.MSG_WAITALL)
        self.assertTrue(head[1] & 0x80, "a client's frame has to be masked")
        mask = self.peer.recv(4, socket.MSG_WAITALL)
        length = head[1] & 0x7F
        data = self.peer.recv(length, socket.MSG_WAITALL) if length else b""
        return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def test_fragments_are_one_stream(self) -> None:
        """Messages and fragments, empty ones among them, are joined; no more is returned than asked for."""
        self.peer.sendall(frame(2, b"ab", fin=False) + frame(0, b"") + frame(2, b"cdef") + frame(1, b"g"))
        self.assertEqual([self.stream.recv(3) for _ in range(4)], [b"ab", b"cde", b"f", b"g"])

    def test_pings(self) -> None:
        """A ping is answered with its payload and is not part of the stream."""
        self.peer.sendall(frame(9, b"ping") + frame(10, b"pong") + frame(2, b"data"))
        self.assertEqual(self.stream.recv(99), b"data")
        self.assertEqual(self.take_frame(), (10, b"ping"))

    def test_sending(self) -> None:
        """Bytes go out as one masked binary message."""
        self.stream.sendall(b"keys")
        self.assertEqual(self.take_frame(), (2, b"keys"))

    def test_close_from_the_server(self) -> None:
        """The server's Close is raised with code and reason, each time, and answered with its code."""
        self.peer.sendall(frame(2, b"x") + frame(8, struct.pack(">H", 4411) + "expired: spät".encode()))
        self.assertEqual(self.stream.recv(9), b"x")
        for _ in range(2):
            with self.assertRaises(ConsoleClosed) as caught:
                self.stream.recv(9)
            self.assertEqual((caught.exception.code, caught.exception.reason), (4411, "expired: spät"))
        self.assertEqual(self.take_frame(), (8, struct.pack(">H", 4411)))
        self.stream.close()
        self.assertEqual(self.peer.recv(1), b"")

    def test_close_without_a_code(self) -> None:
        """An empty Close is code 1005 and gets an empty answer."""
        self.peer.sendall(frame(8, b""))
        with self.assertRaises(ConsoleClosed) as caught:
            self.stream.recv(9)
        self.assertEqual(caught.exception.code, 1005)
        self.assertEqual(self.take_frame(), (8, b""))

    def test_our_close(self) -> None:
        """Our Close carries the code, the answer is kept, and no second Close follows."""
        self.peer.sendall(frame(2, b"dropped") + frame(8, struct.pack(">H", 1000)))
        self.stream.close(4000)
        self.assertEqual(self.take_frame(), (8, struct.pack(">H", 4000)))
        self.assertEqual(self.peer.recv(1), b"")
        assert self.stream.closed is not None
        self.assertEqual(self.stream.closed.code, 1000)
        self.stream.close()

    def test_our_close_unanswered(self) -> None:
        """A server that does not answer our Close costs no more than the timeout."""
        self.stream.close()
        self.assertIsNone(self.stream.closed)

    def test_end_without_close(self) -> None:
        """TCP that ends without a Close frame is the end of the stream."""
        self.peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.stream.recv(9), b"")

    def test_half_a_frame(self) -> None:
        """A timeout within a frame loses nothing."""
        whole = frame(2, b"whole")
        self.peer.sendall(whole[:4])
        with self.assertRaises(TimeoutError):
            self.stream.recv(9)
        self.peer.sendall(whole[4:])
        self.assertEqual(self.stream.recv(9), b"whole")

    def test_broken_frame(self) -> None:
        """A frame with reserved bits is an error of the connection."""
        self.peer.sendall(b"\xf2\x01x")
        with self.assertRaisesRegex(ConnectionError, "RFC 6455"):
            self.stream.recv(9)


class ClosedWhileSendingTest(unittest.TestCase):
    def test_close_that_was_not_read_yet(self) -> None:
        """A key that cannot be sent any more raises the Close that the server sent before it left."""
        ours, theirs = socket.socketpair()
        connection = websocket.WebSocket(enable_multithread=False)
        connection.sock = ours
        connection.connected = True
        theirs.sendall(frame(8, struct.pack(">H", 4412)))
        theirs.close()
        with RFBViewer(WebSocketStream(connection, 0.2), TIMEOUT) as client:
            with self.assertRaises(ConsoleClosed) as caught:
                client.key(0x61)
            self.assertEqual(caught.exception.code, 4412)


class ConnectTest(unittest.TestCase):
    """Against a listening socket that answers one opening handshake by a script."""

    def serve(self, answer: Callable[[bytes], bytes]) -> str:
        """Answer the next request head with these bytes, then end, and return the URL to connect to."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.head = b""

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(TIMEOUT)
                while b"\r\n\r\n" not in self.head:
                    self.head += connection.recv(4096)
                connection.sendall(answer(self.head))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=run, name="scripted-server")
        thread.start()
        self.addCleanup(thread.join, TIMEOUT)
        return f"ws://127.0.0.1:{listener.getsockname()[1]}/TOKEN/ubuntu"

    def test_refusal_inside_the_websocket(self) -> None:
        """A refusal over a WebSocket is raised, and the Close after it is told."""
        said = b"".join(refusal("token-expired"))
        url = self.serve(lambda head: accept(head) + frame(2, said) + frame(8, b"\x11\x31token-expired"))
        with RFBClient.connect(url, TIMEOUT) as client:
            with self.assertRaisesRegex(RFBRefused, "token-expired"):
                client.handshake()
            end = client.wait_closed()
        self.assertEqual((end.code, end.reason), (4401, "token-expired"))

    def test_refused_upgrade(self) -> None:
        """An HTTP status instead of 101 is raised with its headers and body."""
        url = self.serve(lambda head: b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\n{}")
        with self.assertRaises(UpgradeRefused) as caught:
            RFBClient.connect(url, TIMEOUT)
        self.assertEqual((caught.exception.status, caught.exception.body), (403, b"{}"))
        self.assertEqual(caught.exception.headers["x-why"], "no")

    def test_redirects_are_not_followed(self) -> None:
        """A redirect is an error: a token must not be sent elsewhere."""
        url = self.serve(
            lambda head: b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        )
        with self.assertRaises(ConnectionError):
            RFBClient.connect(url, TIMEOUT)

    def test_headers(self) -> None:
        """Only the Origin, headers and subprotocols that were given are sent."""
        url = self.serve(accept)
        RFBClient.connect(url, TIMEOUT, header=["X-Test: yes"], origin="http://lab").close()
        self.assertIn(b"\r\nOrigin: http://lab\r\n", self.head)
        self.assertIn(b"\r\nX-Test: yes\r\n", self.head)
        url = self.serve(accept)
        RFBClient.connect(url, TIMEOUT).close()
        self.assertNotIn(b"Origin", self.head)
        self.assertNotIn(b"Sec-WebSocket-Protocol", self.head)
        self.assertTrue(self.head.startswith(b"GET /TOKEN/ubuntu HTTP/1.1\r\n"))

    def test_other_urls(self) -> None:
        """URLs that no console has, and TLS for one without, are refused before anything is dialled."""
        for url in ("http://127.0.0.1/", "127.0.0.1:1", "ws:///x"):
            with self.subTest(url=url), self.assertRaises(ValueError):
                open_websocket(url)


def accept(head: bytes) -> bytes:
    """Return the 101 that answers a request head (RFC 6455 section 4.2.2)."""
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    digest = hashlib.sha1(lines[b"Sec-WebSocket-Key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


if __name__ == "__main__":
    unittest.main()
