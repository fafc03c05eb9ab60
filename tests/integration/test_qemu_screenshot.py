"""Pictures of a real machine, taken as KubeVirt takes them since 1.7: by QEMU's monitor, not by VNC."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tests.integration.programs import ProgramTestCase, needs
from tests.integration.qemu import start_screen_echo
from wsproxy.testing.kubevirt.backends import UnixBackend
from wsproxy.testing.screen.image import Image

_SECONDS = 60.0
_CHARACTER = (9, 16)  # pixels of one on a VGA


def text_of(image: Image) -> Image:
    """Return the banner's beginning, and below it what was typed, less the cursor that blinks behind it."""
    return image.crop(0, 0, _CHARACTER[0] * len("onetwothree"), 2 * _CHARACTER[1])


class Monitor:
    """QEMU's monitor protocol, of which libvirt's screenshots are made. Safe from several threads.

    :param path: of its Unix socket.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()  # guards the conversation
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> None:
        """Execute a command, and wait for its end."""
        with self._lock:
            request = {"execute": command, "arguments": arguments}
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while "return" not in (answer := json.loads(self._lines.readline())):
                assert "error" not in answer, answer  # what else comes is events

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@needs("qemu-system-x86_64", "qemu-system-x86")
class ScreenshotTest(ProgramTestCase):
    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"screenshots": True})

    def setUp(self) -> None:
        super().setUp()
        monitor = self.path("monitor")
        start_screen_echo(
            self, self.path("vnc"), self.path("serial"), "-qmp", f"unix:{monitor},server=on,wait=off"
        )
        self.wait_for(lambda: os.path.exists(monitor), "the socket of QEMU's monitor")
        self.monitor = Monitor(monitor)
        self.addCleanup(self.monitor.close)
        self.api.add_vmi(
            "machine", self.namespace, backend=UnixBackend(self.path("vnc")), screen=self.dump_screen
        )

    def dump_screen(self) -> bytes:
        """Return what the machine shows, as QEMU says."""
        path = self.path("screen.png")
        self.monitor.execute("screendump", filename=path, format="png")
        with open(path, "rb") as file:
            return file.read()

    def ask_for_picture(self) -> Image:
        """Return the picture that the proxy answers with."""
        connection = http.client.HTTPConnection(*self.console_proxy.address, timeout=_SECONDS)
        try:
            bearer = {"Authorization": f"Bearer {self.token('machine')}"}
            connection.request("GET", "/-/machine/screenshot.png", headers=bearer)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "image/png"), body[:200])
        return Image.from_png(body)

    def test_viewer_stays(self) -> None:
        """A picture shows what the viewer sees, and its console goes on as if there had been none."""
        with self.open_console("machine") as viewer:
            viewer.wait_until(lambda image: image.count((0, 0, 0)) < image.width * image.height - 500)
            self.wait_for(  # the machine changes its resolution as it starts
                lambda: self.ask_for_picture().size == viewer.screenshot().size, "a picture of the same size"
            )
            seen = viewer.screenshot()
            for word in ("one", "two", "three"):
                viewer.type(word)
                self.wait_for_file(self.path("serial"), word.encode())
            self.wait_for(
                lambda: text_of(self.ask_for_picture()) == text_of(viewer.screenshot()), "the same picture"
            )
            self.assertNotEqual(text_of(viewer.screenshot()), text_of(seen))
            viewer.type("four")
            self.wait_for_file(self.path("serial"), b"onetwothreefour")
        self.assertEqual(len(self.api.consoles), 1)
