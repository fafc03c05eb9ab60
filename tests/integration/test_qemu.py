"""Real virtual machines behind the stand-in: QEMU's, with display and serial port on Unix sockets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tests.integration.programs import ProgramTestCase, needs
from tests.integration.qemu import start_screen_echo, start_serial_echo
from wsproxy.testing.kubevirt.backends import UnixBackend
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.testing.screen.image import Image

_BINARY = 2
_UPSTREAM_CLOSED = 1011
_LINE_HEIGHT = 16


def _lit_pixels(image: Image, line: int) -> int:
    """Return how many pixels of a line are not black; -1 if lines further down are not empty."""
    below = image.crop(0, 2 * _LINE_HEIGHT, image.width, image.height - 2 * _LINE_HEIGHT)
    if any(below.rgb):
        return -1
    row = image.crop(0, line * _LINE_HEIGHT, image.width, _LINE_HEIGHT)
    return row.width * row.height - row.count((0, 0, 0))


@needs("qemu-system-x86_64", "qemu-system-x86")
class QEMUTest(ProgramTestCase):
    """In the in-cluster configuration: TLS and bearer token upstream."""

    def setUp(self) -> None:
        super().setUp()
        self.serial = self.path("serial")
        self.qemu = start_screen_echo(self, self.path("vnc"), self.serial)
        self.api.add_vmi("machine", self.namespace, backend=UnixBackend(self.path("vnc")))
        self.viewer = self.connect(self.url(self.start_proxy(), "machine"))

    def test_typing(self) -> None:
        """What the machine shows is seen, and keys arrive: on its serial port and on its screen."""
        self.viewer.wait_until(lambda image: _lit_pixels(image, 0) > 500 and _lit_pixels(image, 1) < 100)
        text = "Hello from the outside 123"
        self.viewer.type(text)
        self.wait_for_file(self.serial, text.encode())
        self.viewer.wait_until(lambda image: _lit_pixels(image, 1) > 10 * len(text))

    def test_machine_ends(self) -> None:
        """When the machine is gone, the client gets Close 1011 with a reason."""
        self.viewer.screenshot()
        self.end_program(self.qemu)
        end = self.viewer.wait_closed()
        self.assertEqual((end.code, end.reason.split(":")[0]), (_UPSTREAM_CLOSED, "upstream-closed"))


@needs("qemu-system-x86_64", "qemu-system-x86")
class SerialPortTest(ProgramTestCase):
    """The serial console, in the in-cluster configuration."""

    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"subresources": ("console",)})

    def setUp(self) -> None:
        super().setUp()
        self.qemu = start_serial_echo(self, self.path("serial"))
        self.api.add_vmi("machine", self.namespace, console_backend=UnixBackend(self.path("serial")))

    def open(self) -> RawClient:
        """Open the serial console; it is closed with the test."""
        client = RawClient.open(f"{self.url(self.console_proxy, 'machine')}/console")
        self.addCleanup(client.close)
        return client

    def assert_echoes(self, client: RawClient, text: bytes) -> None:
        """Type letters, and wait until the machine has returned all of them."""
        client.send_frame(_BINARY, text)
        received = b""
        while len(received) < len(text):
            frame = client.recv_frame()
            self.assertEqual(frame.opcode, _BINARY)
            received += frame.payload
        self.assertEqual(received, text.swapcase())

    def test_typing(self) -> None:
        """What is typed arrives at the port, and what the machine sends comes back."""
        client = self.open()
        for text in (b"Hello", b"fromTheOutside", b"x" * 1000):
            self.assert_echoes(client, text)

    def test_taken_over(self) -> None:
        """A second client takes the port over; the first one is told that it was closed."""
        first = self.open()
        self.assert_echoes(first, b"first")
        second = self.open()
        code, reason = first.recv_close()
        self.assertEqual((code, reason.split(":")[0]), (_UPSTREAM_CLOSED, "upstream-closed"))
        self.assert_echoes(second, b"second")

    def test_machine_ends(self) -> None:
        """When the machine is gone, the client gets Close 1011 with a reason."""
        client = self.open()
        self.assert_echoes(client, b"x")
        self.end_program(self.qemu)
        code, reason = client.recv_close()
        self.assertEqual((code, reason.split(":")[0]), (_UPSTREAM_CLOSED, "upstream-closed"))
