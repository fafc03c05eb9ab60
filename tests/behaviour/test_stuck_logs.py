"""Logs that block: a program whose output nobody reads serves all the same, and ends when it is told to."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from importlib.util import find_spec

from tests.support.proxy_process import environment_for, wait_until
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_KILL_SECONDS = 120.0  # after which a program that is stuck ends, and with it what waits for its output
_READY = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")
_LOST_METRIC = re.compile(rb'^wsproxy_log_lines_lost_total\{log="program"\} (\S+)', re.MULTILINE)
_ENDED = re.compile(rb" session \w+ ended: ")
_LOST = re.compile(rb"WARNING wsproxy\.log: (\d+) lines? w(?:as|ere) lost here: ")
_SESSIONS = 8
_SMALL = 4096


class StuckLogTestCase(ProxyTestCase):
    """Runs the program with a pipe as stderr; how much that takes is up to the test."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.log, self.theirs = os.pipe()
        self.addCleanup(os.close, self.log)

    def fill(self) -> int:
        """Fill the pipe, and return how many bytes are in it."""
        fcntl.fcntl(self.theirs, fcntl.F_SETPIPE_SZ, _SMALL)
        return os.write(self.theirs, b"f" * (_SMALL - 1) + b"\n")

    def start(self, *, stdout: int = subprocess.PIPE, **settings: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsproxy"],
            env=environment_for(self.api) | {"WSPROXY_CLOSE_TIMEOUT": "2"} | settings,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=self.theirs,
        )
        killer = threading.Timer(_KILL_SECONDS, process.kill)
        killer.start()
        self.addCleanup(killer.join)
        self.addCleanup(killer.cancel)
        self.addCleanup(self.end, process)
        os.close(self.theirs)
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

    def url_at(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until the program serves, and return the URL of a console."""
        assert process.stdout
        readable, _, _ = select.select([process.stdout], [], [], _TIMEOUT)
        self.assertTrue(readable, "the program does not start")
        ready = _READY.search(process.stdout.readline())
        assert ready
        return f"ws://127.0.0.1:{int(ready[1])}/{self.token('vm')}/vm"

    def visit(self, url: str) -> None:
        client = RawClient.open(url)
        try:
            self.assertEqual(client.status, 101)
            client.send_close(1000)
            client.recv_close()
        finally:
            client.close()

    def read_log(self) -> bytes:
        """Return all that is in the pipe, up to its end."""
        with open(self.log, "rb", closefd=False) as file:
            return file.read()

    def renew_pipe(self) -> None:
        """Take another pipe, for the next program."""
        ours, self.theirs = os.pipe()
        os.dup2(ours, self.log)
        os.close(ours)


class NobodyReadsTest(StuckLogTestCase):
    def test_sessions_and_the_end(self) -> None:
        """Sessions open and end, and so does the program, with one process and with several."""
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                self.fill()
                process = self.start(WSPROXY_WORKERS=workers)
                url = self.url_at(process)
                for _ in range(_SESSIONS):
                    self.visit(url)
                client = RawClient.open(url)
                self.addCleanup(client.close)
                process.send_signal(signal.SIGTERM)
                client.recv_close()
                self.assertEqual(process.wait(_TIMEOUT), 0)
                self.renew_pipe()

    def test_output_is_stuck_as_well(self) -> None:
        """With stdout and stderr in the same pipe, which is full already, the program starts and ends."""
        self.fill()
        path = os.path.join(self.directory, "socket")
        process = self.start(stdout=self.theirs, WSPROXY_LISTEN=f"unix:{path}")
        self.assertTrue(wait_until(lambda: os.path.exists(path), _TIMEOUT))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(_TIMEOUT), 0)

    def test_hang_up_and_interrupt(self) -> None:
        """A reload is not kept up, and Ctrl-C ends the program, too."""
        self.fill()
        process = self.start()
        url = self.url_at(process)
        process.send_signal(signal.SIGHUP)
        self.visit(url)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(_TIMEOUT), 0)


class ReadAgainTest(StuckLogTestCase):
    def test_nothing_is_lost(self) -> None:
        """Lines that waited for a reader come in order, up to the last one, and none is torn."""
        filled = self.fill()
        process = self.start()
        url = self.url_at(process)
        for _ in range(_SESSIONS):
            self.visit(url)
        process.send_signal(signal.SIGTERM)
        text = self.read_log()[filled:]
        self.assertEqual(process.wait(_TIMEOUT), 0)
        lines = text.splitlines()
        for line in lines:
            self.assertRegex(line, rb"^\d{4}-\d\d-\d\d \S+ [A-Z]+ wsproxy[.\w]*: ")
        self.assertEqual(lines, sorted(lines, key=lambda line: line[:23]))
        self.assertEqual(len(_ENDED.findall(text)), _SESSIONS)
        self.assertTrue(lines[-1].endswith(b": stopped"), lines[-1])

    def lost_by_metric(self, admin: str) -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(admin)
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with sock.makefile("rb") as file:
                found = _LOST_METRIC.search(file.read())
        assert found
        return int(float(found[1]))

    def test_loss_is_said(self) -> None:
        """When the queue was full, the log says how many lines are missing, and a metric does at once."""
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                self.lose_lines(workers)
                self.renew_pipe()

    def lose_lines(self, workers: str) -> None:
        filled = self.fill()
        admin = os.path.join(self.directory, "admin")
        with open(os.path.join(self.directory, "sitecustomize.py"), "w", encoding="ascii") as file:
            file.write("from wsproxy.telemetry import line_queue\nline_queue._MOST_BYTES = 1000\n")
        path = os.pathsep.join([self.directory, *sys.path])
        process = self.start(PYTHONPATH=path, WSPROXY_ADMIN=f"unix:{admin}", WSPROXY_WORKERS=workers)
        url = self.url_at(process)
        for _ in range(_SESSIONS):
            self.visit(url)
        if find_spec("prometheus_client"):
            self.assertTrue(wait_until(lambda: self.lost_by_metric(admin) > 0, _TIMEOUT))
        process.send_signal(signal.SIGTERM)
        text = self.read_log()[filled:]
        self.assertEqual(process.wait(_TIMEOUT), 0)
        lost = sum(map(int, _LOST.findall(text)))
        self.assertGreater(lost, 0, text.decode())
        self.assertLess(len(_ENDED.findall(text)), _SESSIONS)


class AuditFIFOTest(StuckLogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fifo = os.path.join(self.directory, "audit")
        os.mkfifo(self.fifo)
        self.drain = threading.Thread(target=self.read_log)
        self.drain.start()
        self.addCleanup(self.drain.join)

    def test_without_a_reader(self) -> None:
        """The program starts, serves and ends; a reader that comes meanwhile gets what happened so far."""
        process = self.start(WSPROXY_AUDIT_LOG=self.fifo, WSPROXY_WORKERS="2")
        url = self.url_at(process)
        for _ in range(_SESSIONS):
            self.visit(url)
        with open(self.fifo, "rb") as reader:
            events = [json.loads(reader.readline())["event"] for _ in range(2 * _SESSIONS)]
        self.assertEqual(sorted(events), ["end"] * _SESSIONS + ["open"] * _SESSIONS)
        self.visit(url)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(_TIMEOUT), 0)


class AuditOnOutputTest(StuckLogTestCase):
    def test_standard_output(self) -> None:
        """``-`` has the events on stdout, after the line that says where the program listens."""
        drain = threading.Thread(target=self.read_log)
        drain.start()
        self.addCleanup(drain.join)
        process = self.start(WSPROXY_AUDIT_LOG="-", WSPROXY_WORKERS="2")
        url = self.url_at(process)
        self.visit(url)
        assert process.stdout
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        self.assertEqual([event["event"] for event in events], ["open", "end"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(_TIMEOUT), 0)
