"""Tests of the simulated API: refusals, rotation, and clean-up."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import unittest
from unittest import mock

import websocket

from tests.testing.rfb.raw_client import APITestCase, RawClient, path
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Backend, Script, SocketBackend, Stream
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.screen.image import Image


class RefusalTest(APITestCase):
    """virt-api's refusals of a VMI."""

    def _check(self, target: str, code: int, reason: str, message: str) -> None:
        status = self.refusal(target)
        self.assertEqual((code, reason, message), (status["code"], status["reason"], status["message"]))

    def test_unknown_vmi(self) -> None:
        """A VMI that does not exist, in either API version, is a 404 with Kubernetes' details."""
        for version in ("v1", "v1alpha3"):
            status = self.refusal(path("x", version=version))
            self.assertEqual('virtualmachineinstance.kubevirt.io "x" not found', status["message"])
            self.assertEqual(404, status["code"])
            details = {"name": "x", "group": "kubevirt.io", "kind": "virtualmachineinstance"}
            self.assertEqual(details, status["details"])

    def test_other_namespace(self) -> None:
        """A VMI is found in its namespace only."""
        self.api.add_vmi("vm", "lab-1")
        self.assertEqual(404, self.refusal(path())["code"])
        self.client().upgrade(path(namespace="lab-1"))

    def test_no_display_comes_before_the_phase(self) -> None:
        """A VMI without a graphics device is refused for that reason, whether it runs or not."""
        self.api.add_vmi("vm", display=False, phase="Scheduled")
        self._check(path(), 400, "BadRequest", "No graphics devices are present.")

    def test_not_running(self) -> None:
        """A VMI in another phase has no display, until its phase changes."""
        vmi = self.api.add_vmi("vm", phase="Scheduled")
        self._check(path(), 400, "BadRequest", "VMI is not running")
        self._check(path(subresource="console"), 400, "BadRequest", "VMI is not running")
        vmi.phase = "Running"
        self.client().upgrade()

    def test_serial_console(self) -> None:
        """The serial console has its own refusals."""
        vmi = self.api.add_vmi("vm", phase="Failed")
        resource = 'virtualmachineinstance.kubevirt.io "vm"'
        failed = f"Operation cannot be fulfilled on {resource}: VMI is in failed status"
        self._check(path(subresource="console"), 409, "Conflict", failed)
        vmi.serial = False
        self._check(path(subresource="console"), 400, "BadRequest", "No serial consoles are present.")

    def test_in_use(self) -> None:
        """preserveSession=true is refused with virt-handler's text while the display is in use."""
        vmi = self.api.add_vmi("vm")
        vmi.in_use = True
        message = (
            "Internal error occurred: dialing virt-handler: Can't connect to websocket (503): websocket: "
            "bad handshake: application info: Active VNC connection. Request denied."
        )
        self._check(path() + "?preserveSession=true", 500, "InternalError", message)
        self.client().upgrade(path() + "?preserveSession=false")
        self.api.kubevirt_version = "v1.6.2"  # which does not know it yet
        self.client().upgrade(path() + "?preserveSession=true")

    def test_screenshots(self) -> None:
        """A screenshot is a PNG. If virt-api cannot take it, the answer is a 500 with the cause as text."""
        vmi = self.api.add_vmi("vm")
        shown = self.picture(200)
        self.assertEqual(Image.from_png(shown).size, (32, 24))
        vmi.screen = lambda: b"another one"
        self.assertEqual(self.picture(200), b"another one")
        self.assertEqual(len(self.api.requests), 2)
        vmi.phase = "Succeeded"
        self.assertEqual(self.picture(500), b"VMI is not running")
        vmi.display = False
        self.assertEqual(self.picture(500), b"No graphics devices are present.")
        self.assertEqual(self.picture(500, "x"), b'virtualmachineinstance.kubevirt.io "x" not found')
        self.api.forbid = True
        self.assertIn("cannot get resource", self.refusal(path(subresource="vnc/screenshot"))["message"])

    def test_screenshots_of_old_kubevirts(self) -> None:
        """Before 1.6.3 a screenshot ends the VNC session. From 1.6.3 until 1.7 it is refused."""
        self.api.add_vmi("vm")
        versions = (
            ("v1.7.0", True),
            ("v1.10.0", True),
            ("v1.6.3", True),
            ("v1.6.2", False),
            ("v0.58.0", False),
        )
        for version, stays in versions:
            self.api.kubevirt_version = version
            display, serial = self.client(), self.client()
            display.upgrade()
            serial.upgrade(path(subresource="console"))
            self.picture(500 if version == "v1.6.3" else 200)
            for client in (display, serial) if stays else (serial,):
                client.send(b"still here")
                self.assertEqual(client.frame().payload, b"still here")
            if not stays:
                self.assertEqual(display.read_rest(), b"")
        client = self.client()
        client.ask("/apis/subresources.kubevirt.io/v1/version")
        self.assertEqual(client.read_status()["gitVersion"], "v0.58.0")

    def picture(self, status: int, name: str = "vm") -> bytes:
        """Ask for a picture, and return the body of the answer."""
        client = self.client()
        client.ask(path(name, "vnc/screenshot"))
        self.assertEqual(client.read_head().split()[1], str(status))
        return client.read_rest()

    def test_removed(self) -> None:
        """A removed VMI is gone, and so are its sessions."""
        self.api.add_vmi("vm")
        client = self.client()
        client.upgrade()
        self.api.remove_vmi("vm")
        self.assertEqual(b"", client.read_rest())
        self.assertEqual(404, self.refusal(path())["code"])

    def test_forbidden(self) -> None:
        """Without the role everything about VMIs is a 403 that names account, resource and namespace."""
        self.api.forbid = True
        status = self.refusal(path())
        self.assertEqual((403, "Forbidden"), (status["code"], status["reason"]))
        self.assertIn('cannot get resource "virtualmachineinstances/vnc"', status["message"])
        self.assertIn('in the namespace "default"', status["message"])

    def test_down(self) -> None:
        """A cluster without virt-api answers 503 as text."""
        self.api.down = True
        client = self.client()
        client.ask_upgrade()
        self.assertTrue(
            client.read_head().startswith("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text")
        )
        self.assertEqual(b"service unavailable", client.read_rest())

    def test_unknown_resource(self) -> None:
        """Every other path gets Kubernetes' 404, and so does an escaped slash in a name."""
        for target in ("/", "/apis/x", path(subresource="nope"), path("a%2Fb"), path("..%2f..")):
            message = self.refusal(target)["message"]
            self.assertEqual("the server could not find the requested resource", message, target)

    def test_health(self) -> None:
        """The health and version endpoints answer 200."""
        for target in ("/readyz", "/livez", "/version"):
            client = self.client()
            client.ask(target)
            self.assertTrue(client.read_head().startswith("HTTP/1.1 200 OK"), target)

    def test_bad_handshakes(self) -> None:
        """A handshake that gorilla/websocket refuses gets a 400 that names the version."""
        self.api.add_vmi("vm")
        bad: list[dict[str, str | None]] = [
            {"connection": None},
            {"upgrade": "h2c"},
            {"sec_websocket_version": "8"},
            {"sec_websocket_key": "c2hvcnQ="},
            {"sec_websocket_key": None},
        ]
        for headers in bad:
            client = self.client()
            client.ask_upgrade(**headers)
            head = client.read_head()
            self.assertTrue(head.startswith("HTTP/1.1 400 Bad Request"), headers)
            self.assertIn("Sec-Websocket-Version: 13", head)

    def test_method(self) -> None:
        """An upgrade must be a GET."""
        self.api.add_vmi("vm")
        client = self.client()
        client.ask(path(), "POST")
        self.assertEqual(405, client.read_status()["code"])

    def test_not_http(self) -> None:
        """Bytes that are not an HTTP/1.1 request get a 400, and are not recorded."""
        for data in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            client = self.client()
            client.sock.sendall(data)
            self.assertTrue(client.read_head().startswith("HTTP/1.1 400 "), data)
        self.assertEqual([], self.api.requests)

    def test_access_review(self) -> None:
        """The answer to a SelfSubjectAccessReview depends on forbid."""
        spec = {"resourceAttributes": {"verb": "get"}}
        for self.api.forbid in (False, True):
            client = self.client()
            target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            client.ask(target, "POST", json.dumps({"spec": spec}).encode())
            review = client.read_status()
            self.assertEqual(spec, review["spec"])
            self.assertEqual(not self.api.forbid, review["status"]["allowed"])


class TLSTest(APITestCase):
    """Bearer and certificates."""

    tls = True

    def test_bearer(self) -> None:
        """A wrong bearer token gets 401 everywhere. Without a token, the health endpoints answer."""
        self.api.add_vmi("vm")
        for bearer in (None, "Bearer no", f"Basic {self.api.token}"):
            status = self.refusal(path(), authorization=bearer)
            got = status["code"], status["reason"], status["message"]
            self.assertEqual((401, "Unauthorized", "Unauthorized"), got)
        client = self.client()
        client.ask("/readyz", authorization=None)
        self.assertIn("200 OK", client.read_head())
        self.assertEqual(401, self.refusal("/readyz", authorization="Bearer no")["code"])

    def test_token_rotation(self) -> None:
        """A rotation replaces the token in its file, and the old token gets 401."""
        self.api.add_vmi("vm")
        old = self.api.token
        new = self.api.rotate_token()
        with open(self.api.token_file) as file:
            self.assertEqual(new, file.read())
        self.assertEqual(401, self.refusal(path(), authorization=f"Bearer {old}")["code"])
        self.client().upgrade()
        self.api.rotate_token("unwritten", write_file=False)
        with open(self.api.token_file) as file:
            self.assertEqual(new, file.read())

    def test_ca_rotation(self) -> None:
        """After a rotation the old authority does not verify the server; the file's new one does."""
        old = ssl.create_default_context(cafile=self.api.ca_file)
        inode = os.stat(self.api.ca_file).st_ino
        self.api.rotate_ca()
        self.assertNotEqual(inode, os.stat(self.api.ca_file).st_ino)
        self.assertTrue(os.path.islink(self.api.ca_file))
        with (
            socket.create_connection(("127.0.0.1", self.api.port), 5.0) as sock,
            self.assertRaises(ssl.SSLCertVerificationError),
        ):
            old.wrap_socket(sock, server_hostname="127.0.0.1")
        self.client().ask("/readyz")
        self.api.wait_for_requests(1)
        self.assertTrue(self.api.wait_for(lambda: len(self.api.tls_failures) == 1))

    def test_websocket_client(self) -> None:
        """websocket-client opens a session as a gateway would."""
        self.api.add_vmi("vm")
        ws = websocket.create_connection(
            self.api.url + path(),
            timeout=60.0,
            header=[f"Authorization: Bearer {self.api.token}"],
            subprotocols=["plain.kubevirt.io"],
            sslopt={"ca_certs": self.api.ca_file},
        )
        self.addCleanup(ws.shutdown)
        self.assertEqual("plain.kubevirt.io", ws.subprotocol)
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            payload = os.urandom(size)
            ws.send_binary(payload)
            self.assertEqual((BINARY, payload), ws.recv_data())
        ws.ping(b"hello")
        opcode, frame = ws.recv_data_frame(control_frame=True)
        self.assertEqual((0xA, b"hello"), (opcode, frame.data))

    def test_silent_client(self) -> None:
        """A client that never begins its TLS handshake does not delay the stop."""
        with socket.create_connection(("127.0.0.1", self.api.port), 5.0) as sock:
            self.client().ask("/readyz")
            self.api.wait_for_requests(1)
            self.assertEqual(2, self.api.connections)
            self.api.stop()
            self.assertEqual(b"", sock.recv(1))


class LifeTest(unittest.TestCase):
    """Start, stop and clean-up."""

    def _descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def test_nothing_is_left(self) -> None:
        """A stop under load leaves no thread, descriptor or file."""
        threads, descriptors = set(threading.enumerate()), self._descriptors()

        def serve(sock: socket.socket) -> None:
            while sock.recv(100):
                pass

        backends: list[Backend] = [
            Stream(),
            Stream(),
            SocketBackend(serve),
            Script(lambda console: console.hold()),
        ]
        for tls in (True, False):
            with FakeKubeVirtAPI(tls=tls) as api:
                clients = [RawClient(api) for _ in range(6)]
                for number, backend in enumerate(backends):
                    api.add_vmi(f"vm{number}", backend=backend)
                    clients[number].upgrade(path(f"vm{number}"))
                clients[4].sock.sendall(b"GET /half")
                api.add_vmi("hang", behaviour=Behaviour(hang=True))
                clients[5].ask_upgrade(path("hang"))
                api.wait_for_requests(5)
                self.assertEqual(4, api.live)
                directory = api.service_account
            for client in clients:
                client.sock.close()
            self.assertEqual([], api.errors)
            self.assertEqual(0, api.live)
            self.assertFalse(os.path.exists(directory))
            self.assertEqual(threads, set(threading.enumerate()))
            self.assertEqual(descriptors, self._descriptors())

    def test_stop_is_idempotent(self) -> None:
        """A stop before the start, and a second one, do nothing; a second start is refused."""
        api = FakeKubeVirtAPI(tls=False)
        api.stop()
        with api:
            api.stop()
            with self.assertRaises(RuntimeError):
                api.start()
        api.stop()

    def test_ipv6(self) -> None:
        """It serves on ::1, with brackets in its URL."""
        with FakeKubeVirtAPI("::1") as api, RawClient(api, connect_to="::1") as client:
            self.assertEqual(f"wss://[::1]:{api.port}", api.url)
            client.ask("/readyz")
            self.assertIn("200 OK", client.read_head())

    def test_waits_time_out(self) -> None:
        """Every waiting method ends at its timeout."""
        with FakeKubeVirtAPI(tls=False) as api, RawClient(api) as client:
            vmi = api.add_vmi("vm")
            with self.assertRaises(TimeoutError):
                vmi.wait_for_session(0.01)
            with self.assertRaises(TimeoutError):
                api.wait_for_requests(1, 0.01)
            client.upgrade()
            self.assertFalse(api.wait_until_idle(0.01))

    def test_a_stuck_backend_is_reported(self) -> None:
        """A backend that does not end in time does not block the stop. An error names its thread."""
        release = threading.Event()

        def run(console: FakeConsole) -> None:
            release.wait(60.0)

        api = FakeKubeVirtAPI(tls=False).start()
        api.add_vmi("vm", backend=Script(run))
        with RawClient(api) as client:
            client.upgrade()
            with mock.patch("wsproxy.testing.kubevirt.api._STOP_TIMEOUT", 0.05):
                api.stop()
            self.assertIn("did not end", str(api.errors))
            release.set()
            self.assertTrue(api.wait_until_idle())

    def test_a_backend_error_is_reported(self) -> None:
        """An exception of a backend that no peer caused is in errors."""
        error = AssertionError("expected something else")

        def run(console: FakeConsole) -> None:
            raise error

        with FakeKubeVirtAPI(tls=False) as api, RawClient(api) as client:
            vmi = api.add_vmi("vm", backend=Script(run))
            client.upgrade()
            self.assertEqual(b"", client.read_rest())
            client.sock.close()
            self.assertTrue(api.wait_until_idle())
            self.assertEqual([error], api.errors)
            self.assertIs(error, vmi.consoles[0].error)


if __name__ == "__main__":
    unittest.main()
