"""The simulated API carries out requests that hung, as a real one does."""

from __future__ import annotations

import threading
import unittest
from unittest import mock

from tests.testing.rfb.raw_client import APITestCase, RawClient, path
from wsproxy.testing.kubevirt.cluster import Upgrade
from wsproxy.testing.kubevirt.http import Answer, Behaviour, RecordedRequest
from wsproxy.testing.kubevirt.vmi import FakeVMI

_PRESERVE = path() + "?preserveSession=true"


class HangingTest(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm")
        self.hung = 0

    def hang(self, target: str = "") -> RawClient:
        """Ask for a session, and let that hang."""
        self.vmi.behaviour = Behaviour(hang=True)
        client = self.client()
        client.ask_upgrade(target or path())
        self.hung += 1
        self.api.wait_for_requests(self.hung)
        return client

    def test_recovery(self) -> None:
        """A client that waited gets its session, by a single request."""
        client = self.hang()
        self.vmi.behaviour = None
        self.assertIn("101", client.read_head())
        self.assertEqual([request.status for request in self.api.requests], [101])

    def test_recovery_of_the_api(self) -> None:
        """The same for the behaviour of the whole API, and for a VMI that is replaced."""
        self.api.behaviour = Behaviour(hang=True)
        client = self.client()
        client.ask_upgrade()
        self.api.wait_for_requests(1)
        self.api.behaviour = None
        self.assertIn("101", client.read_head())
        self.hung += 1
        client = self.hang()
        self.api.add_vmi("vm")
        self.assertIn("101", client.read_head())

    def test_refused_in_the_end(self) -> None:
        """A request that hung gets a refusal if the VMI refuses it by then."""
        client = self.hang()
        self.vmi.phase = "Failed"
        self.vmi.behaviour = Behaviour()
        self.assertIn("400", client.read_head())

    def test_given_up(self) -> None:
        """The API carries out a request that its client gave up, and that takes the console over."""
        holder = self.client()
        holder.upgrade()
        self.hung += 1
        self.hang().sock.close()
        self.vmi.behaviour = None
        self.assertEqual(holder.read_rest(), b"")
        self.assertEqual(len(self.api.consoles), 2)
        self.assertTrue(self.api.wait_until_idle())

    def test_given_up_with_preserve_session(self) -> None:
        """With preserveSession=true it does not take the console over, if KubeVirt supports that."""
        for version, stays in (("v1.6.2", False), ("v1.6.3", True), ("v1.7.0", True)):
            with self.subTest(version=version):
                self.api.kubevirt_version = version
                holder = self.client()
                holder.upgrade()
                self.hung += 1
                self.hang(_PRESERVE).sock.close()
                self.vmi.behaviour = None
                if stays:
                    holder.send(b"still here")
                    self.assertEqual(holder.frame().payload, b"still here")
                else:
                    self.assertEqual(holder.read_rest(), b"")
                holder.sock.close()
                self.assertTrue(self.api.wait_until_idle())

    def test_decided_at_the_same_time(self) -> None:
        """Of two requests with preserveSession=true one gets the display, and keeps it."""
        both, decide = threading.Barrier(2), self.api.decide

        def decided(request: RecordedRequest, body: bytes) -> tuple[FakeVMI | None, Answer | Upgrade]:
            decision = decide(request, body)
            both.wait(60)
            return decision

        with mock.patch.object(self.api, "decide", decided):
            clients = [self.client(), self.client()]
            for client in clients:
                client.ask_upgrade(_PRESERVE)
            answers = {client.read_head().split()[1]: client for client in clients}
        self.assertEqual(sorted(answers), ["101", "500"])
        answers["101"].send(b"still here")
        self.assertEqual(answers["101"].frame().payload, b"still here")

    def test_words(self) -> None:
        """KubeVirt 1.6.3 does not say why it refuses a display that is in use."""
        self.vmi.in_use = True
        self.api.kubevirt_version = "v1.6.3"
        message = "Internal error occurred: dialing virt-handler: websocket: bad handshake"
        self.assertEqual(self.refusal(_PRESERVE)["message"], message)
        self.api.kubevirt_version = "v1.6.2"
        self.client().upgrade(_PRESERVE)

    def test_stop(self) -> None:
        """A stop ends requests that hang without carrying them out."""
        client = self.hang()
        self.api.stop()
        self.assertEqual(client.read_rest(), b"")
        self.assertEqual(self.api.consoles, [])


if __name__ == "__main__":
    unittest.main()
