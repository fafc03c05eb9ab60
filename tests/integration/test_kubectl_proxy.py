"""A real ``kubectl proxy`` between the proxy in dev mode and the stand-in, which wants TLS and a token."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.integration.programs import ProgramTestCase, needs
from wsproxy.testing.kubevirt.backends import UnixBackend
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_UPSTREAM_CLOSED = 1011


@needs("kubectl", "kubernetes-client")
class KubectlProxyTest(ProgramTestCase):
    """The proxy has neither CA nor bearer token: those are kubectl's."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(remote_url=f"ws://{self.start_kubectl()}", local_dev_mode=True)

    def start_kubectl(self) -> str:
        """Start ``kubectl proxy`` on any port and return the address that it prints."""
        with open(self.path("kubeconfig"), "w", encoding="ascii") as file:
            json.dump(self.kubeconfig(), file)
        kubectl = self.start_program(
            *("kubectl", "--kubeconfig", self.path("kubeconfig"), "proxy", "--port=0"), stdout=subprocess.PIPE
        )
        assert kubectl.stdout is not None
        return self.read_line(kubectl, kubectl.stdout).rpartition(" ")[2]

    def kubeconfig(self) -> dict[str, Any]:
        """Return a configuration that names the stand-in; JSON is YAML."""
        cluster = {
            "server": self.api.url.replace("wss:", "https:"),
            "certificate-authority": self.api.ca_file,
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "developer", "user": {"token": self.api.token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "developer"}}],
            "current-context": "lab",
        }

    def open(self, vmi: str) -> RawClient:
        """Open a session and return its client."""
        client = RawClient.open(self.url(self.proxy, vmi))
        self.addCleanup(client.close)
        return client

    def test_echo(self) -> None:
        """Frames of every size come back, and the API sees kubectl's token and no path but the VMI's."""
        self.api.add_vmi("echo", self.namespace)
        client = self.open("echo")
        self.assertEqual(client.status, 101)
        for size in (0, 1, 125, 126, 4096, 65535):
            client.send_frame(BINARY, b"x" * size)
            received, fin = b"", False
            while not fin:
                frame = client.recv_frame()
                received, fin = received + frame.payload, frame.fin
            self.assertEqual(received, b"x" * size)
        request = self.api.requests[-1]
        self.assertEqual(request.values("authorization"), [f"Bearer {self.api.token}"])
        self.assertTrue(request.target.endswith("/namespaces/lab-1/virtualmachineinstances/echo/vnc"))

    def test_close(self) -> None:
        """The client's Close and its answer pass, and everything is gone after it."""
        vmi = self.api.add_vmi("echo", self.namespace)
        client = self.open("echo")
        console = vmi.wait_for_session()
        client.send_close(1000, "done")
        self.assertEqual(client.recv_close()[0], 1000)
        client.wait_for_end()
        self.assertTrue(self.api.wait_until_idle(), f"{console} is left")

    def test_vm_stops(self) -> None:
        """A VM that stops ends the session with Close 1011."""
        vmi = self.api.add_vmi("echo", self.namespace)
        client = self.open("echo")
        client.send_frame(BINARY, b"x")
        client.recv_frame()
        vmi.drop_sessions()
        self.assertEqual(client.recv_close()[0], _UPSTREAM_CLOSED)

    def test_refusals(self) -> None:
        """The API's refusals come through kubectl as what they are."""
        self.api.add_vmi("off", self.namespace, phase="Scheduled")
        self.api.add_vmi("headless", self.namespace, display=False)
        for vmi, status, slug in (
            ("missing", 404, "vmi-not-found"),
            ("off", 409, "vmi-not-running"),
            ("headless", 409, "vmi-no-console"),
        ):
            with self.subTest(vmi=vmi):
                client = self.open(vmi)
                self.assertEqual((client.status, json.loads(client.body())["reason"]), (status, slug))

    @needs("Xvnc", "tigervnc-standalone-server")
    @needs("xterm", "xterm")
    def test_tigervnc(self) -> None:
        """The screen of a real VNC server is seen, and what is typed is read by a program in it."""
        _, display, socket_path = self.start_xvnc()
        self.api.add_vmi("desktop", self.namespace, backend=UnixBackend(socket_path))
        self.assert_typing_arrives(self.connect(self.url(self.proxy, "desktop")), display)
