"""``wsproxy demo`` as a program. Integration tests open its pages in a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from tests.support.processes import python
from tests.support.proxy_process import wait_until
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.rfb.client import RFBClient
from wsproxy.testing.rfb.errors import ConsoleRefused
from wsproxy.testing.screen.image import Image

_TIMEOUT = 60.0
_URL = re.compile(r"http://(\S+)/console/#(\S+)")


def demo(
    *arguments: str, log: int = subprocess.PIPE, **environment: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run ``wsproxy demo``."""
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return python("-m", "wsproxy", "demo", *arguments, env=env, stderr=log, seconds=_TIMEOUT)


def invitation(process: subprocess.Popen[str]) -> str:
    """Return its output when it listens."""
    assert process.stdout is not None
    said = ""
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended: {said}")
        said += line
    return said


def stop(process: subprocess.Popen[str]) -> str:
    """End it as Ctrl-C does, and return its log."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=_TIMEOUT)[1]


def get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Return status and body of a page."""
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Demo(LeakTestCase):
    """``wsproxy demo``."""

    def test_once(self) -> None:
        """``--once --screenshot`` shows the whole path, saves the screen, and ends with 0."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "screen.png")
            with demo("--once", "--screenshot", path) as process:
                out, err = process.communicate(timeout=_TIMEOUT)
            self.assertEqual((process.returncode, err), (0, ""), out)
            with open(path, "rb") as file:
                image = Image.from_png(file.read())
        self.assertTrue(all(line.startswith("ok ") for line in out.splitlines()), out)
        self.assertIn(f"{image.width}x{image.height}", out)
        colours = {image.rgb[start : start + 3] for start in range(0, len(image.rgb), 3)}
        self.assertGreater(len(colours), 1)

    def test_until_it_is_stopped(self) -> None:
        """Without ``--once`` it prints URLs, and runs until a signal."""
        with demo("--port", "0") as process:
            said = invitation(process)
            stop(process)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(said, r"ws://127\.0\.0\.1:\d+/\S+/ubuntu")
        self.assertIn("vnc.html?host=127.0.0.1", said)

    def test_urls(self) -> None:
        """The printed URLs lead to the page, and all of their tokens except the last are valid."""
        with demo("--port", "0") as process:
            urls = _URL.findall(invitation(process))
            granted = []
            for address, fragment in urls:
                self.assertEqual(get(address, "/console/")[0], 200)
                token = fragment.partition("/")[0]
                status, body = get(address, "/console/grant", Authorization=f"Bearer {token}")
                granted.append((status, json.loads(body)))
            stop(process)
        self.assertEqual([status for status, _ in granted], [200] * (len(urls) - 1) + [401])
        for (_, fragment), (_, grant) in list(zip(urls, granted, strict=True))[:-1]:
            self.assertIn(fragment.split("/")[1], grant["vmis"])
            self.assertIn("console", grant["subresources"])
        self.assertLess(min(grant["expires_in"] for _, grant in granted[:-1]), 100)

    def test_states(self) -> None:
        """One VM runs, one starts some time after a client asks for it, and one has no screen."""
        with tempfile.TemporaryFile("w+") as log, demo("--port", "0", log=log.fileno()) as process:
            ((address, fragment), *_) = _URL.findall(invitation(process))
            base = f"ws://{address}/{fragment.partition('/')[0]}"
            with RFBClient(f"{base}/ubuntu", timeout=_TIMEOUT) as client:
                self.assertEqual(client.name, "ubuntu")
            with self.assertRaises(ConsoleRefused) as stopped:
                RFBClient(f"{base}/debian", timeout=_TIMEOUT)
            with self.assertRaises(ConsoleRefused) as blind:
                RFBClient(f"{base}/router", timeout=_TIMEOUT)
            self.assertTrue(wait_until(lambda: _opens(f"{base}/debian"), _TIMEOUT))
            path = f"/{fragment.partition('/')[0]}/ubuntu/screenshot.png"
            self.assertEqual(Image.from_png(get(address, path)[1]).size, (800, 600))
            stop(process)
            log.seek(0)
            self.assertNotIn(fragment.partition("/")[0], log.read())
        self.assertEqual(stopped.exception.slug, "vmi-not-running")
        self.assertEqual(blind.exception.slug, "vmi-no-console")

    def test_browser(self) -> None:
        """With --open it opens the first URL. If there is no browser, it says so and continues."""
        with tempfile.TemporaryDirectory() as directory:
            program, opened = os.path.join(directory, "browser"), os.path.join(directory, "opened")
            with open(program, "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\necho "$1" >"{opened}.part" && mv "{opened}.part" "{opened}"\n')
            os.chmod(program, 0o755)
            with demo("--port", "0", BROWSER=program) as process:
                invitation(process)
                stop(process)
            self.assertFalse(os.path.exists(opened))
            with demo("--port", "0", "--open", BROWSER=program) as process:
                said = invitation(process)
                self.assertTrue(wait_until(lambda: os.path.exists(opened), _TIMEOUT))
                stop(process)
            with open(opened, encoding="utf-8") as file:
                url = file.read().strip()
            self.assertEqual(url, said.split()[said.split().index(url)])
            self.assertEqual(urlsplit(url).path, "/console/")
            with demo("--port", "0", "--open", PATH=directory) as process:
                assert process.stderr is not None
                while "no browser" not in (line := process.stderr.readline()):
                    self.assertTrue(line)
                stop(process)
            self.assertEqual(process.returncode, 0)

    def test_bad_directory(self) -> None:
        """If a directory has no noVNC, the demo says so, with exit status 2."""
        with (
            tempfile.TemporaryDirectory() as directory,
            demo("--port", "0", "--novnc", directory) as process,
        ):
            _, err = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 2)
        self.assertIn("core/rfb.js", err)
        self.assertNotIn("Traceback", err)

    def test_port_is_taken(self) -> None:
        """If the port is taken, the demo says so and names the remedy, with exit status 1."""
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            demo("--port", str(taken.getsockname()[1])) as process,
        ):
            _, err = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 1)
        self.assertIn("--port 0 takes any", err)
        self.assertNotIn("Traceback", err)


def _opens(url: str) -> bool:
    try:
        with RFBClient(url, timeout=_TIMEOUT):
            return True
    except ConsoleRefused:
        return False


if __name__ == "__main__":
    unittest.main()
