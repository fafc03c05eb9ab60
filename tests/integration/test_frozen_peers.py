"""Peers that are there and do nothing any more: stopped programs, and links that are down.

Nothing tells the proxy: the kernel of a stopped program goes on acknowledging what it is sent, until its
buffers are full, and a link that is down says nothing at all.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import unittest

from tests.integration.frozen import INTERVAL, LONGEST, Peer, Told, Verdict
from tests.integration.peers import VMI
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.backends import Stream
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, encode_frame
from wsproxy.testing.rfb.raw_client import RawClient

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")
_UPSTREAM_CLOSED = (1011, "upstream-closed")


def _may_make_namespaces() -> bool:
    try:
        return subprocess.run([*_NAMESPACE, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


class StoppedPrograms(ProxyTestCase):
    """SIGSTOP, right after a ping was answered: no peer could be found later than that one."""

    tls = False

    def stop(self, peer: Peer) -> float:
        """Stop a program right after it has answered a ping; return when."""
        peer.wait_for_answer()
        peer.process.send_signal(signal.SIGSTOP)
        return time.monotonic()

    def assert_found(self, verdict: Verdict, stopped: float, text: str) -> None:
        """Assert that the peer is found dead within two intervals, and what is said of it."""
        seconds = verdict.seconds_since(stopped)
        self.assertEqual(verdict.text, text)
        self.assertLess(seconds, LONGEST)

    def start_client(self) -> tuple[Peer, FakeConsole]:
        """Start a client's program, and return it with the console that it reads."""
        peer = Peer("client", self.url(self.start_proxy(ping_interval=INTERVAL), VMI))
        self.addCleanup(peer.__exit__, None, None, None)
        return peer, self.vmi.wait_for_session()

    def start_upstream(self) -> tuple[Peer, RawClient]:
        """Start an upstream's program, and return it with a client of it."""
        peer = Peer("upstream", "127.0.0.1")
        self.addCleanup(peer.__exit__, None, None, None)
        proxy = self.start_proxy(ping_interval=INTERVAL, remote_url=peer.line())
        client = RawClient.open(self.url(proxy, VMI))
        self.addCleanup(client.close)
        return peer, client

    def test_client(self) -> None:
        """A client that is stopped in a quiet session is found; its console is let go in good order."""
        self.vmi = self.api.add_vmi(VMI, self.namespace)
        peer, console = self.start_client()
        with Verdict() as verdict:
            self.assert_found(verdict, self.stop(peer), "client leg is dead: no answer")
        self.assertTrue(console.ended.wait(10))
        self.assertEqual(console.close_received, (1000, "client-gone"))

    def test_client_in_a_transfer(self) -> None:
        """A client that is stopped while much is sent to it is found as well."""
        self.vmi = self.api.add_vmi(VMI, self.namespace, backend=Stream())
        peer, console = self.start_client()
        with Verdict() as verdict:
            self.assert_found(verdict, self.stop(peer), "client leg is dead: takes nothing")
        self.assertTrue(console.ended.wait(10))

    def test_upstream(self) -> None:
        """An upstream that is stopped in a quiet session is found; the client is told."""
        peer, client = self.start_upstream()
        told = Told(client)
        with Verdict() as verdict:
            self.assert_found(verdict, self.stop(peer), "upstream leg is dead: no answer")
        self.assertEqual(told.wait(), _UPSTREAM_CLOSED)

    def test_upstream_in_a_transfer(self) -> None:
        """An upstream that is stopped while a client sends it much is found as well; the client is told."""
        peer, client = self.start_upstream()
        client.timeout = 60

        def send() -> None:
            frame = encode_frame(BINARY, bytes(65536), mask=b"mask")
            try:
                while True:
                    client.send_raw(frame)
            except ConnectionError:
                pass  # at the end nobody takes the rest

        sender = threading.Thread(target=send)
        sender.start()
        with Verdict() as verdict:
            self.assert_found(verdict, self.stop(peer), "upstream leg is dead: takes nothing")
        self.assertEqual(client.recv_close(), _UPSTREAM_CLOSED)
        client.reset()
        sender.join()


@unittest.skipUnless(_may_make_namespaces(), "this user may not make network namespaces")
class CutLinks(unittest.TestCase):
    """A veth link goes down, in a network namespace of the test's own."""

    def cut(self, leg: str) -> dict[str, object]:
        """Run the whole session in a namespace, and return what came of it."""
        command = [*_NAMESPACE, sys.executable, "-m", "tests.integration.cut_link", leg]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120).stdout
        found: dict[str, object] = json.loads(output)
        seconds = found.pop("seconds")
        assert isinstance(seconds, float)
        self.assertLess(seconds, LONGEST)
        return found

    def test_client(self) -> None:
        """A client behind a link that is down is found; its console is let go in good order."""
        found = self.cut("client")
        self.assertEqual(found, {"found": "client leg is dead: no answer", "told": [1000, "client-gone"]})

    def test_upstream(self) -> None:
        """An upstream behind a link that is down is found; the client is told."""
        found = self.cut("upstream")
        self.assertEqual(found, {"found": "upstream leg is dead: no answer", "told": list(_UPSTREAM_CLOSED)})


if __name__ == "__main__":
    unittest.main()
