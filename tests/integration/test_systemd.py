"""The units for systemd, and activation by systemd's own tool."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.programs import ProgramTestCase, needs
from wsproxy.config import config_from_env
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_UNITS = Path(__file__).parent.parent.parent / "examples" / "systemd"
_TIMEOUT = 60.0


@needs("systemd-analyze", "systemd")
class UnitsTest(ProgramTestCase):
    """``examples/systemd``."""

    tls = False

    def test_verify(self) -> None:
        """systemd finds no fault with the pair, once its program is there."""
        for unit in _UNITS.iterdir():
            text = unit.read_text(encoding="utf-8").replace("/opt/wsproxy/bin/wsproxy", sys.executable)
            Path(self.path(unit.name)).write_text(text, encoding="utf-8")
        units = [self.path(unit.name) for unit in _UNITS.iterdir()]
        self.assertEqual(len(units), 2)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{self.directory}:"},
        )
        ours = [line for line in done.stderr.splitlines() if "wsproxy" in line]
        self.assertEqual((ours, done.returncode), ([], 0), done.stderr)

    def test_settings(self) -> None:
        """The settings in the units are settings."""
        lines = (_UNITS / "wsproxy.service").read_text(encoding="utf-8").splitlines()
        given = dict(line.split("=", 2)[1:] for line in lines if line.startswith("Environment="))
        self.assertTrue(given)
        config_from_env({"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true", **given})


@needs("systemd-socket-activate", "systemd")
class ActivationTest(ProgramTestCase):
    """``systemd-socket-activate``, which does what systemd does with a socket unit."""

    tls = False

    def test_activation(self) -> None:
        """The first client starts the program, and is served."""
        self.api.add_vmi("vm", self.namespace)
        path, settings = self.path("socket"), {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true"}
        settings |= {"WS_REMOTE_URL": self.api.url, "PATH": os.environ["PATH"]}
        passed = [f"--setenv={name}={value}" for name, value in settings.items()]
        activate = shutil.which("systemd-socket-activate")
        assert activate
        process = self.start_program(
            activate, f"--listen={path}", *passed, sys.executable, "-m", "wsproxy", "serve"
        )
        self.wait_for(lambda: os.path.exists(path), "the socket")
        client = RawClient((f"unix:{path}", 0))
        self.addCleanup(client.close)
        client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
        client.read_head(_TIMEOUT)
        self.assertEqual(client.status, 101)
        client.send_frame(BINARY, b"console")
        self.assertEqual(client.recv_frame().payload, b"console")
        process.send_signal(signal.SIGTERM)  # it is the program by now
        self.assertEqual(client.recv_close(), (1012, "restarting"))
        client.send_close(1012)
        client.close()
        self.assertEqual(process.wait(_TIMEOUT), 0)
        self.assertTrue(os.path.exists(path))  # it is not the program's
