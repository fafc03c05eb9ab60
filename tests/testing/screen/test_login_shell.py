"""The machine with a serial console: how its clients come, take the line over, and go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from wsproxy.testing.case import LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.backends import SocketBackend
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.testing.screen.login_shell import LoginShell

TIMEOUT = 60.0
BINARY = 2
PROMPT = b"student@ubuntu:~$ "


def read_until(connection: socket.socket, text: bytes) -> bytes:
    """Return what comes up to a text, and with it."""
    received = b""
    while not received.endswith(text):
        data = connection.recv(1)
        if not data:
            raise EOFError(received)
        received += data
    return received


class LineTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.shell = LoginShell("ubuntu")
        self.threads: list[threading.Thread] = []
        self.addCleanup(self.join_all)
        self.addCleanup(self.shell.close)

    def join_all(self) -> None:
        """Wait for every serve() to return: it has to."""
        for thread in self.threads:
            thread.join(TIMEOUT)
            self.assertFalse(thread.is_alive(), "serve() did not return")
        self.assertFalse(self.shell.connected)

    def connect(self) -> socket.socket:
        """Return one end of a connection whose other end is being served, and holds the line."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        ours.settimeout(TIMEOUT)
        before = self.shell._holder
        thread = threading.Thread(target=self.shell.serve, args=(theirs,), name="serial-serve")
        self.threads.append(thread)
        thread.start()
        self.assertTrue(
            self.shell.wait_for(lambda: self.shell._holder not in (None, before), TIMEOUT), "no line"
        )
        return ours

    def log_in(self) -> socket.socket:
        """Return a connection that is at the shell's prompt."""
        ours = self.connect()
        ours.sendall(b"\rstudent\rstudent\r")
        read_until(ours, PROMPT)
        return ours

    def test_session(self) -> None:
        """A client logs in and runs a command, and the test sees both."""
        ours = self.log_in()
        self.assertTrue(self.shell.logged_in)
        ours.sendall(b"echo hello\r")
        self.assertEqual(read_until(ours, PROMPT), b"echo hello\r\nhello\r\n" + PROMPT)
        self.assertTrue(self.shell.wait_for_command("echo hello", TIMEOUT))
        self.assertEqual(self.shell.commands, ("echo hello",))

    def test_one_after_the_other(self) -> None:
        """A client finds the machine in the state in which the previous client left it."""
        self.log_in().close()
        self.assertTrue(self.shell.wait_for(lambda: not self.shell.connected, TIMEOUT))
        ours = self.connect()
        ours.sendall(b"\r")
        self.assertEqual(read_until(ours, PROMPT), b"\r\n" + PROMPT)

    def test_taken_over(self) -> None:
        """A new client takes the line over, and the previous client's stream ends."""
        first = self.log_in()
        second = self.connect()
        self.assertEqual(first.recv(1), b"")
        second.sendall(b"whoami\r")
        self.assertEqual(read_until(second, PROMPT), b"whoami\r\nstudent\r\n" + PROMPT)

    def test_taken_over_from_one_that_does_not_read(self) -> None:
        """A client can take the line over while the machine writes to the previous one."""
        first = self.log_in()
        first.sendall(b"seq 1000000\r")
        read_until(first, b"\r\n1\r\n")
        second = self.connect()
        second.sendall(b"\r")
        self.assertEqual(read_until(second, PROMPT), b"\r\n" + PROMPT)

    def test_interrupt(self) -> None:
        """Ctrl-C is seen while a command prints."""
        ours = self.log_in()
        ours.sendall(b"seq 1000000\r")
        read_until(ours, b"\r\n1\r\n")
        ours.sendall(b"\x03")
        received = read_until(ours, b"^C\r\n" + PROMPT)
        self.assertNotIn(b"1000000\r\n", received)

    def test_closed(self) -> None:
        """A machine that is switched off ends its client, and takes no other one."""
        ours = self.log_in()
        self.shell.close()
        self.assertEqual(ours.recv(1), b"")
        ours, theirs = socket.socketpair()
        with ours:
            self.shell.serve(theirs)
            self.assertEqual(ours.recv(1), b"")


class ThroughTheProxyTest(ProxyTestCase):
    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"subresources": ["console"]})

    def setUp(self) -> None:
        super().setUp()
        self.shell = LoginShell("ubuntu")
        self.addCleanup(self.shell.close)
        self.vmi = self.api.add_vmi("ubuntu", self.namespace, console_backend=SocketBackend(self.shell.serve))

    def open(self) -> RawClient:
        """Open the serial console; it is closed with the test."""
        client = RawClient.open(f"{self.url(self.console_proxy, 'ubuntu')}/console")
        self.addCleanup(client.close)
        return client

    def read_until(self, client: RawClient, text: bytes) -> bytes:
        """Return what comes in binary messages up to a text."""
        received = b""
        while not received.endswith(text):
            frame = client.recv_frame()
            self.assertEqual(frame.opcode, BINARY)
            received += frame.payload
        return received

    def test_login(self) -> None:
        """Bytes go both ways in binary frames, also a character that is cut between two."""
        client = self.open()
        client.send_frame(BINARY, b"\rstudent\rstudent\r")
        self.read_until(client, PROMPT)
        client.send_frame(BINARY, b"echo \xe2\x82")
        client.send_frame(BINARY, b"\xac\r")
        self.assertTrue(self.read_until(client, PROMPT).endswith("\r\n€\r\n".encode() + PROMPT))
        self.assertEqual(self.vmi.sessions[0].subresource, "console")

    def test_display_beside_it(self) -> None:
        """Display and serial console are independent: neither takes over the other."""
        serial = self.open()
        with RawClient.open(self.url(self.console_proxy, "ubuntu")) as display:
            display.send_frame(BINARY, b"to the display")
            self.assertEqual(display.recv_frame().payload, b"to the display")
            serial.send_frame(BINARY, b"\r")
            self.read_until(serial, b"ubuntu login: ")
            self.assertEqual({session.subresource for session in self.vmi.sessions}, {"vnc", "console"})

    def test_taken_over(self) -> None:
        """A second client takes the serial console over, as it does in KubeVirt: the first one is dropped."""
        first = self.open()
        first.send_frame(BINARY, b"\r")
        self.read_until(first, b"ubuntu login: ")
        second = self.open()
        code, reason = first.recv_close()
        self.assertEqual((code, reason.partition(":")[0]), (1011, "upstream-closed"))
        second.send_frame(BINARY, b"\r")
        self.assertEqual(self.read_until(second, b"ubuntu login: "), b"\r\nubuntu login: ")
