"""Real virtual machines behind the stand-in: QEMU's, with display and serial port on Unix sockets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tests.integration.programs import ProgramTestCase, needs
from tests.integration.qemu import LOAD_ADDRESS, start_machine, start_serial_echo
from wsproxy.testing.image import Image
from wsproxy.testing.kubevirt_backends import UnixBackend
from wsproxy.testing.raw_client import RawClient

_BINARY = 2
_UPSTREAM_CLOSED = 1011
_LINE_HEIGHT = 16
_BANNER = b"wsproxy test machine, type something:\r\n\0"

# 16-bit code, which the BIOS loads to 0000:7C00. It shows the banner, then reads keys for ever; each one it
# writes to the first serial port and echoes on the screen.
_CODE = bytes.fromhex(
    "31 C0"  #          xor ax, ax
    "8E D8"  #          mov ds, ax
    "8E D0"  #          mov ss, ax
    "BC 00 7C"  #       mov sp, 0x7c00
    "FB"  #             sti
    "FC"  #             cld
    "B8 03 00"  #       mov ax, 0x0003   80 x 25 characters
    "CD 10"  #          int 0x10
    "BE 00 00"  #       mov si, banner   behind the code, see _code
    "AC"  #       show: lodsb
    "84 C0"  #          test al, al
    "74 09"  #          jz key
    "B4 0E"  #          mov ah, 0x0e     write a character
    "BB 07 00"  #       mov bx, 0x0007
    "CD 10"  #          int 0x10
    "EB F2"  #          jmp show
    "31 C0"  #     key: xor ax, ax       wait for a key
    "CD 16"  #          int 0x16
    "84 C0"  #          test al, al
    "74 F8"  #          jz key
    "BA F8 03"  #       mov dx, 0x03f8
    "EE"  #             out dx, al
    "B4 0E"  #          mov ah, 0x0e
    "BB 07 00"  #       mov bx, 0x0007
    "CD 10"  #          int 0x10
    "EB EB"  #          jmp key
)
_MOV_SI = b"\xbe"


def _code() -> bytes:
    banner = (LOAD_ADDRESS + len(_CODE)).to_bytes(2, "little")
    return _CODE.replace(_MOV_SI + b"\0\0", _MOV_SI + banner) + _BANNER


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
        self.qemu = self.start_qemu()
        self.api.add_vmi("machine", self.namespace, backend=UnixBackend(self.path("vnc")))
        self.viewer = self.connect(self.url(self.start_proxy(), "machine"))

    def start_qemu(self) -> subprocess.Popen[bytes]:
        """Start a machine that boots the code above."""
        options = ("-serial", f"file:{self.serial}", "-vnc", f"unix:{self.path('vnc')}")
        qemu = start_machine(self, _code(), *options)
        self.wait_for(lambda: os.path.exists(self.path("vnc")), "the socket of QEMU")
        return qemu

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
