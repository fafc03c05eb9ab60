"""Real programs that the tests start: in a directory of their own, ended with their test, bounded in time."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TypeVar

from tests.support.proxy_process import wait_until
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.client import RFBClient

__all__ = ["ProgramTestCase", "needs"]

T = TypeVar("T", bound=Callable[..., object])

_START_TIMEOUT = 60.0
_END_TIMEOUT = 30.0


def needs(program: str, package: str) -> Callable[[T], T]:
    """Skip a test or a test case where a program is missing.

    :param package: the Debian package that has it.
    """
    missing = f"{program} is not installed (Debian package {package})"
    return unittest.skipIf(shutil.which(program) is None, missing)


class ProgramTestCase(ProxyTestCase):
    """Starts programs and consoles, and ends them.

    :ivar directory: a directory that lives as long as the test, short enough for Unix sockets.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="wsproxy-")
        self.addCleanup(self._remove_directory)

    def _remove_directory(self) -> None:
        """Remove the test's directory; what a browser has started may write to it for a moment longer."""

        def is_gone() -> bool:
            shutil.rmtree(self.directory, ignore_errors=True)
            return not os.path.exists(self.directory)

        self.assertTrue(wait_until(is_gone, _END_TIMEOUT), f"{self.directory} cannot be removed")

    def path(self, name: str) -> str:
        """Return the path of a file in the test's directory."""
        return os.path.join(self.directory, name)

    def start_program(
        self,
        *command: str,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] = os.environ,
    ) -> subprocess.Popen[bytes]:
        """Start a program, which is ended with the test; what it complains about is in the file ``log``.

        It sees no home directory but the test's.
        """
        with open(self.path("log"), "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                pass_fds=pass_fds,
                env={**env, "HOME": self.directory},
            )
        self.addCleanup(self.end_program, process)
        return process

    def end_program(self, process: subprocess.Popen[bytes]) -> None:
        """End a program, and kill it if that takes long. Idempotent."""
        process.terminate()
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_TIMEOUT)
        if process.stdout is not None:
            process.stdout.close()

    def read_line(self, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> str:
        """Return the first line that a program writes to a pipe."""
        line, deadline = b"", Deadline(_START_TIMEOUT)
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], deadline.remaining())
            received = os.read(pipe.fileno(), 1) if readable else b""
            if readable and not received:
                self.fail(f"{process.args!r} ended: {self.log()}")
            line += received
        return line.decode().strip()

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = _START_TIMEOUT) -> None:
        """Wait until a program did something, and fail if it does not come to that."""
        if not wait_until(condition, timeout):
            self.fail(f"{what} did not come: {self.log()}")

    def wait_for_file(self, path: str, content: bytes, timeout: float = _START_TIMEOUT) -> None:
        """Wait until a program has written something into a file."""
        self.wait_for(lambda: content in _content(path), f"{content!r} in {os.path.basename(path)}", timeout)

    def log(self) -> str:
        """Return what programs complained about."""
        return _content(self.path("log")).decode(errors="replace")

    def connect(self, url: str) -> RFBClient:
        """Open a console and go through the RFB handshake."""
        viewer = RFBClient(url, timeout=_START_TIMEOUT)
        self.addCleanup(viewer.close)
        return viewer

    def start_xvnc(
        self, name: str = "rfb", *options: str, geometry: tuple[int, int] = (640, 480)
    ) -> tuple[subprocess.Popen[bytes], str, str]:
        """Start a TigerVNC server; return it, its X display, and the Unix socket on which it speaks RFB.

        :param name: of that socket.
        """
        reader, writer = os.pipe()
        with open(reader, "rb") as pipe:
            try:
                xvnc = self.start_program(
                    "Xvnc",
                    *("-displayfd", str(writer), "-geometry", "{}x{}".format(*geometry), "-depth", "24"),
                    *("-ac", "-nolisten", "tcp", "-SecurityTypes", "None"),
                    *("-rfbunixpath", self.path(name), *options),
                    pass_fds=(writer,),
                )
            finally:
                os.close(writer)
            display = self.read_line(xvnc, pipe)
        self.wait_for(lambda: os.path.exists(self.path(name)), "the socket of Xvnc")
        return xvnc, f":{display}", self.path(name)

    def start_terminal(self, display: str) -> str:
        """Start a terminal in an X server, and return the file of the lines that it has read."""
        started, read = self.path("started"), self.path("read")
        self.start_program(
            "xterm",
            *("-display", display, "-geometry", "80x24+0+0", "-e", "sh", "-c"),
            'echo started >"$1"; while read -r line; do echo "$line" >>"$2"; done',
            *("sh", started, read),
        )
        self.wait_for_file(started, b"started")
        return read

    def assert_typing_arrives(self, viewer: RFBClient, display: str) -> None:
        """Start a terminal in an X server, type through the proxy, and check what is read and seen."""
        empty = viewer.screenshot()
        read = self.start_terminal(display)
        # Without a window manager keys go to the window under the pointer.
        viewer.move(200, 100)
        shown = viewer.wait_until(lambda image: image.differing_pixels(empty) > 100_000)
        text = "Hello, VM 42! a-b_c/d"
        viewer.type(text)
        viewer.wait_until(lambda image: image.differing_pixels(shown) > 10 * len(text))
        viewer.type("\n")
        self.wait_for_file(read, text.encode() + b"\n")


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
