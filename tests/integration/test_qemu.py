"""A real virtual machine behind the stand-in."""

from __future__ import annotations

from tests.integration.machine import MachineTestCase
from wsproxy.testing.image import Image
from wsproxy.testing.kubevirt_backends import UnixBackend

_UPSTREAM_CLOSED = 1011
_LINE_HEIGHT = 16


def _lit_pixels(image: Image, line: int) -> int:
    """Return how many pixels of a line are not black; -1 if lines further down are not empty."""
    below = image.crop(0, 2 * _LINE_HEIGHT, image.width, image.height - 2 * _LINE_HEIGHT)
    if any(below.rgb):
        return -1
    row = image.crop(0, line * _LINE_HEIGHT, image.width, _LINE_HEIGHT)
    return row.width * row.height - row.count((0, 0, 0))


class QEMUTest(MachineTestCase):
    """In the in-cluster configuration: TLS and bearer token upstream."""

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("machine", self.namespace, backend=UnixBackend(self.start_machine()))
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
