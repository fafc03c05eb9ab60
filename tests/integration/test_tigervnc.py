"""A real TigerVNC server behind the stand-in, with a real terminal in it."""

from __future__ import annotations

from tests.integration.programs import ProgramTestCase, needs
from wsproxy.testing.kubevirt.backends import UnixBackend

_UPSTREAM_CLOSED = 1011


@needs("Xvnc", "tigervnc-standalone-server")
@needs("xterm", "xterm")
class TigerVNCTest(ProgramTestCase):
    """In the in-cluster configuration: TLS and bearer token upstream."""

    def setUp(self) -> None:
        super().setUp()
        self.xvnc, self.display, socket_path = self.start_xvnc()
        self.api.add_vmi("desktop", self.namespace, backend=UnixBackend(socket_path))
        self.proxy = self.start_proxy()

    def test_typing(self) -> None:
        """The screen comes, a terminal that opens is seen, and what is typed is read by the program in it."""
        viewer = self.connect(self.url(self.proxy, "desktop"))
        self.assertEqual(viewer.size, (640, 480))
        self.assert_typing_arrives(viewer, self.display)

    def test_second_viewer(self) -> None:
        """A second session takes the display over as KubeVirt has it: the first ends with Close 1011."""
        first = self.connect(self.url(self.proxy, "desktop"))
        second = self.connect(self.url(self.proxy, "desktop"))
        self.assertEqual(first.wait_closed().code, _UPSTREAM_CLOSED)
        self.assertEqual(second.screenshot().width, 640)

    def test_server_ends(self) -> None:
        """When the VNC server ends, the client gets Close 1011 with a reason."""
        viewer = self.connect(self.url(self.proxy, "desktop"))
        viewer.screenshot()
        self.end_program(self.xvnc)
        end = viewer.wait_closed()
        self.assertEqual((end.code, end.reason.split(":")[0]), (_UPSTREAM_CLOSED, "upstream-closed"))
