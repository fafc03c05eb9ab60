"""One program takes over from another under load: what becomes of sessions, and of who comes meanwhile."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

from tests.support.ports import free_port
from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy.exceptions import TransportClosed
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE
from wsproxy.testing.rfb.raw_client import RawClient

_SESSIONS = 100
_LEAVING = 10  # of these: how many end by themselves while the first program drains
_CONNECTORS = 4
_ENOUGH = 40  # sessions that the second program has to open
_TIMEOUT = 120.0
_PAUSE = 0.1  # seconds between two messages of a session
_NOTHING_SHARED = re.compile(rb"WARNING wsproxy\.\w+: reuse_port is on and state is memory")
_RESTARTING = (1012, "restarting")
_SETTINGS = {"WSPROXY_DRAIN_TIMEOUT": "4", "WSPROXY_CLOSE_TIMEOUT": "30", "WSPROXY_DIAL_TIMEOUT": "60"}


class RollingRestart(ProxyTestCase):
    """100 live sessions, and clients that come and go all the time.

    :ivar ends: how sessions ended: by which Close, or "cut" without one.
    :ivar outcomes: what became of those who came: "opened" and served, "told" to come again, "refused" a
        connection or reset without an answer; "cut" without a Close.
    """

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.lock = threading.Lock()
        self.ends: Counter[tuple[int, str] | str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.numbers = itertools.count()
        self.over = threading.Event()
        self.leave = threading.Event()

    def program(self, stdin: int = subprocess.DEVNULL, /, **settings: str) -> ProxyProcess:
        proxy = ProxyProcess(self.api, ("-m", "wsproxy"), stdin, **(_SETTINGS | settings))
        self.addCleanup(proxy.close)
        return proxy

    def ask(self, address: tuple[str, int]) -> RawClient:
        """Ask for a session with a VM of its own."""
        vmi = f"vm{next(self.numbers)}"
        self.api.add_vmi(vmi, self.namespace)
        return RawClient.open(f"ws://{address[0]}:{address[1]}/{self.token(vmi)}/{vmi}")

    # A session

    def stay(self, client: RawClient, leaves: bool) -> None:
        """Send messages and compare what comes back, until there is a Close; note that."""
        with client:
            try:
                end: tuple[int, str] | str = self.talk(client, leaves)
            except (OSError, TransportClosed, TimeoutError) as exc:
                end = f"cut: {exc!r}"
        with self.lock:
            self.ends[end] += 1

    def talk(self, client: RawClient, leaves: bool) -> tuple[int, str]:
        for number in itertools.count():
            client.send_frame(BINARY, b"%d" % number)
            frame = client.recv_frame(_TIMEOUT)
            if frame.opcode == CLOSE:
                client.send_close(1012)
                return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()
            self.assertEqual(frame.payload, b"%d" % number)
            if leaves and self.leave.wait(_PAUSE):
                client.send_close(1000)
                return client.recv_close(_TIMEOUT)
            self.over.wait(_PAUSE)
        raise AssertionError

    def start_sessions(self, address: tuple[str, int]) -> list[threading.Thread]:
        clients = [self.ask(address) for _ in range(_SESSIONS)]
        self.assertEqual({client.status for client in clients}, {101})
        threads = [
            threading.Thread(target=self.stay, args=(client, number < _LEAVING))
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        return threads

    # Those who come

    def come_and_go(self, address: tuple[str, int]) -> None:
        """Open sessions, one after the other."""
        while not self.over.is_set():
            outcome = self.come(address)
            with self.lock:
                self.outcomes[outcome] += 1
            if outcome != "opened":
                self.over.wait(_PAUSE)

    def come(self, address: tuple[str, int]) -> str:
        try:
            client = self.ask(address)
        except ConnectionError:
            return "refused"
        with client:
            if client.status == 503 and client.header("Retry-After"):
                return "told"
            self.assertEqual(client.status, 101)
            try:
                client.send_frame(BINARY, b"hello")
                frame = client.recv_frame(_TIMEOUT)
                if frame.opcode != CLOSE:
                    self.assertEqual(frame.payload, b"hello")
                    client.send_close(1000)
                    client.recv_close(_TIMEOUT)
            except (OSError, TransportClosed, TimeoutError) as exc:
                return f"cut: {exc!r}"
        return "opened"

    def wait_for_opened(self, more: int) -> None:
        """Wait until so many more sessions were opened, whoever served them."""
        before = self.outcomes["opened"]
        self.assertTrue(wait_until(lambda: self.outcomes["opened"] - before >= more, _TIMEOUT), self.outcomes)

    # The restarts

    def restart(
        self,
        what: str,
        first: ProxyProcess,
        successor: Callable[[], ProxyProcess],
        *,
        before: bool,
        free: bool = True,
    ) -> None:
        """Let a second program take over; check what became of all sessions, and show what of newcomers.

        :param successor: starts the second program.
        :param before: whether it can start while the first one still listens.
        :param free: whether the first one's port is free when it has stopped listening.
        """
        address = first.address
        sessions = self.start_sessions(address)
        connectors = [threading.Thread(target=self.come_and_go, args=(address,)) for _ in range(_CONNECTORS)]
        for thread in connectors:
            thread.start()
        self.wait_for_opened(_CONNECTORS)
        second = successor() if before else None
        first.process.send_signal(signal.SIGTERM)
        self.leave.set()
        if second is None:
            if free:
                self.wait_until_free(address)
            else:
                self.assertEqual(first.process.wait(_TIMEOUT), 0)
            second = successor()
        for thread in sessions:
            thread.join(_TIMEOUT)
        self.assertEqual(first.process.wait(_TIMEOUT), 0)
        self.wait_for_opened(_ENOUGH)
        self.over.set()
        for thread in connectors:
            thread.join(_TIMEOUT)
        first.stop()
        self.assertEqual(second.stop(), 0)
        print(f"{what}: sessions {dict(self.ends)}, newcomers {dict(self.outcomes)}", file=sys.stderr)
        self.assertEqual(self.ends, {_RESTARTING: _SESSIONS - _LEAVING, (1000, ""): _LEAVING})
        self.assertLessEqual(set(self.outcomes), {"opened", "told", "refused"})
        # A Close has no place in an upstream to which a frame of the client's is just being sent.
        output = _NOTHING_SHARED.sub(b"", first.output, count=1)
        self.assertNotRegex(output, rb"ERROR|WARNING|close not sent to client")

    def wait_until_free(self, address: tuple[str, int]) -> None:
        """Wait until the first program has given up its port."""

        def refused() -> bool:
            try:
                socket.create_connection(address).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                pass  # reset, in the moment when the queue is closed
            return False

        self.assertTrue(wait_until(refused, _TIMEOUT))

    def test_one_after_the_other(self) -> None:
        """The second program starts once the port is free: clients are refused until it listens."""
        port = str(free_port())
        first = self.program(PORT=port)
        self.restart("one after the other", first, lambda: self.program(PORT=port), before=False)

    def test_reuse_port(self) -> None:
        """With --reuse-port the second one listens first: nobody is refused."""
        self.reuse_port(workers="1")

    def test_reuse_port_with_workers(self) -> None:
        """So it is with several workers."""
        self.reuse_port(workers="2")

    def reuse_port(self, workers: str) -> None:
        settings = {"WSPROXY_REUSE_PORT": "true", "WSPROXY_WORKERS": workers}
        first = self.program(**settings)
        port = str(first.address[1])

        def successor() -> ProxyProcess:
            return self.program(PORT=port, **settings)

        self.restart(f"reuse port, workers: {workers}", first, successor, before=True)
        self.assertEqual(self.outcomes["refused"], 0)

    def test_inherited_descriptor(self) -> None:
        """With a socket that both inherit nobody is refused, though they are never there at the same time."""
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:

            def start() -> ProxyProcess:
                return self.program(sock.fileno(), WSPROXY_LISTEN="fd:0")

            self.restart("inherited descriptor", start(), start, before=False, free=False)
        self.assertEqual(self.outcomes["refused"], 0)
