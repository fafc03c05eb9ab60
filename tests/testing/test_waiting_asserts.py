"""Assertions that wait: those that hold, and the errors of those that fail."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from wsproxy.testing import Image, LoginShell, PictureTimeout, ProxyTestCase, RawClient, SocketBackend

_SOON = 0.05
_RED = (255, 0, 0)


class WaitingAsserts(ProxyTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def failure(self, assertion: Callable[[], object]) -> str:
        """Return what an assertion says that fails."""
        with self.assertRaises(AssertionError) as caught:
            assertion()
        return str(caught.exception)

    def saved(self) -> Image:
        return Image.load(self.directory / "seen.png")


class DesktopTest(WaitingAsserts):
    def test_text(self) -> None:
        """A typed text is found. For another one, the error shows the typed text and the viewers."""
        desktop = self.add_desktop("ubuntu")
        self.open_console("ubuntu").type("first\nhalo")
        desktop.assert_text("halo")
        text = self.failure(lambda: desktop.assert_text("hello", _SOON, save_to=self.directory))
        self.assertIn("'hello' was not typed within 0.05 s", text)
        self.assertIn("\n    | first\n    | halo\n", text)
        self.assertIn("1 viewer", text)
        self.assertIn(f"saved as {self.directory}/seen.png", text)
        self.assertEqual(self.saved(), desktop.screenshot())

    def test_nothing(self) -> None:
        """If nothing was typed, the error says so, and that there are no viewers."""
        text = self.failure(lambda: self.add_desktop("ubuntu").assert_text("hello", _SOON))
        self.assertIn("There is no text.", text)
        self.assertIn("0 viewers", text)

    def test_traceback(self) -> None:
        """What unittest shows of a failure ends at the line of the test."""

        class Case(unittest.TestCase):
            def runTest(case) -> None:
                self.add_desktop("ubuntu").assert_text("hello", 0.0)

        result = unittest.TestResult()
        Case().run(result)
        [(_, text)] = result.failures
        self.assertIn("waiting_asserts", text)
        self.assertNotIn("desktop.py", text)


class LoginShellTest(WaitingAsserts):
    def setUp(self) -> None:
        super().setUp()
        self.shell = LoginShell("ubuntu")
        self.addCleanup(self.shell.close)
        self.api.add_vmi("ubuntu", self.namespace, console_backend=SocketBackend(self.shell.serve))
        url = self.start_proxy(subresources=["console"]).console_url(
            self.token("ubuntu"), "ubuntu", subresource="console"
        )
        self.client = RawClient.open(url)
        self.addCleanup(self.client.close)

    def test_text(self) -> None:
        """A shown text is found. For another one, the error quotes the output, and escapes its sequences."""
        self.client.send_frame(2, b"\rstudent\r")
        self.shell.assert_text("ubuntu login: ")
        self.shell.assert_text("Password: ")
        text = self.failure(lambda: self.shell.assert_text("student@ubuntu:~$ ", _SOON))
        self.assertIn("'student@ubuntu:~$ ' was not shown within 0.05 s", text)
        self.assertIn("\n    | Password: \n", text)
        self.assertIn("\n    | [  \\x1b[32mOK", text)
        self.assertIn("nobody is logged in, and a client holds the line", text)

    def test_command(self) -> None:
        """A typed command is found. For another one, the error lists the typed commands."""
        self.client.send_frame(2, b"\rstudent\rstudent\rwhoami\r")
        self.shell.assert_command("whoami")
        text = self.failure(lambda: self.shell.assert_command("reboot", _SOON))
        self.assertIn("'reboot' was not typed at the prompt", text)
        self.assertIn("\n    | whoami\n", text)
        self.assertIn("student is logged in", text)


class ViewerTest(WaitingAsserts):
    def setUp(self) -> None:
        super().setUp()
        self.desktop = self.add_desktop("ubuntu")
        self.vm = self.open_console("ubuntu")

    def failure(self, assertion: Callable[[], object]) -> str:
        """Return what an assertion says that fails: it gets a picture, and waits in vain for the next."""
        with mock.patch.object(self.vm, "_await_update", side_effect=TimeoutError):
            return super().failure(assertion)

    def typed(self) -> Image:
        """Return what the terminal looks like when something was typed."""
        self.vm.type("hello")
        self.desktop.assert_text("hello")
        return self.desktop.screenshot().crop(*self.desktop.terminal_area)

    def test_part(self) -> None:
        """The assertion waits for a picture. If none comes, the error says so, and names the saved file."""
        part = self.typed()
        self.assertEqual(self.vm.assert_shows(part), self.desktop.terminal_area[:2])
        absent = Image(2, 1, bytes((255, 0, 0, 0, 255, 0)))
        text = self.failure(lambda: self.vm.assert_shows(absent, save_to=self.directory))
        self.assertIn("the picture of 640 x 480 pixels does not contain the part of", text)
        self.assertEqual(self.saved().size, (640, 480))

    def test_colour(self) -> None:
        """A colour on the screen is found. For another one, the error names the colours on the screen."""
        colour = self.desktop.screenshot().pixel(0, 0)
        self.assertGreater(self.vm.assert_shows_colour(colour).count(colour), 0)
        text = self.failure(lambda: self.vm.assert_shows_colour(_RED, pixels=9))
        self.assertIn("0 pixels are (255, 0, 0), not 9; most are: ", text)

    def test_same(self) -> None:
        """The assertion waits for an area to be as expected. If it is not, the error says what differs."""
        expected, area = self.typed(), self.desktop.terminal_area
        self.vm.assert_same_picture(expected, area=area)
        other = Image(expected.width, expected.height, bytes(3 * expected.width * expected.height))
        text = self.failure(lambda: self.vm.assert_same_picture(other, area=area))
        self.assertIn("pixels differ", text)

    def test_timeout(self) -> None:
        """If a test's own condition does not hold in time, the error describes the actual screen."""
        with (
            mock.patch.object(self.vm, "_await_update", side_effect=TimeoutError),
            self.assertRaisesRegex(PictureTimeout, "most of its 640 x 480 pixels are: [0-9]+ of "),
        ):
            self.vm.wait_until(lambda image: False)

    def test_no_picture(self) -> None:
        """A screen without any update does not count as black."""
        black = Image(640, 480, bytes(3 * 640 * 480))
        with mock.patch.object(self.vm, "screenshot", side_effect=TimeoutError):
            text = self.failure(lambda: self.vm.assert_same_picture(black))
        self.assertEqual(text, "the server sent no whole picture of its screen in time")


class APITest(WaitingAsserts):
    def test_requests(self) -> None:
        """If requests do not come, the error counts and lists those that came, with their answers."""
        with self.assertRaisesRegex(TimeoutError, "0 of 1 requests came within 0.05 s; the last ones: none"):
            self.api.wait_for_requests(1, _SOON)
        self.add_desktop("ubuntu")
        self.open_console("ubuntu")
        with self.assertRaisesRegex(TimeoutError, "1 of 2 .*\n    GET /apis/.*/ubuntu/vnc.* -> 101"):
            self.api.wait_for_requests(2, _SOON)

    def test_session(self) -> None:
        """If a session does not begin, the error names its VMI."""
        vmi = self.api.add_vmi("ubuntu", "lab-2")
        with self.assertRaisesRegex(TimeoutError, "no session with lab-2/ubuntu began within 0.05 s"):
            vmi.wait_for_session(_SOON)
