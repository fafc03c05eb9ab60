"""Tests of the stand-in API: refusals, misbehaviour, rotation, and what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import unittest
from typing import Any
from unittest import mock

import websocket

from tests.testing.raw_client import KEY, RawClient, path
from wsproxy.testing.fake_kubevirt import FakeKubeVirtAPI
from wsproxy.testing.kubevirt_backends import Script, SocketBackend, Stream
from wsproxy.testing.kubevirt_console import FakeConsole
from wsproxy.testing.kubevirt_frames import BINARY, encode_frame
from wsproxy.testing.kubevirt_http import Answer, Behaviour

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class APITestCase(unittest.TestCase):
    """Starts an API, and fails a test in which the stand-in itself had an error."""

    tls = False

    def setUp(self) -> None:
        self.api = FakeKubeVirtAPI(tls=self.tls)
        self.addCleanup(lambda: self.assertEqual([], self.api.errors))
        self.addCleanup(self.api.stop)
        self.api.start()

    def client(self, **options: Any) -> RawClient:
        client = RawClient(self.api, **options)
        self.addCleanup(client.sock.close)
        return client

    def refusal(self, target: str, **headers: str | None) -> dict[str, Any]:
        """Return the Status that an upgrade request gets."""
        client = self.client()
        client.ask_upgrade(target, **headers)
        status = client.read_status()
        expected = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.assertEqual(expected, {key: status[key] for key in expected})
        self.assertEqual(status["code"], self.api.requests[-1].status)
        return status


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
        """Without a graphics device the answer is that, running or not."""
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
        """The serial console has refusals of its own."""
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
        """Anything else is Kubernetes' 404, and so is an escaped slash in a name."""
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
        """Whatever gorilla/websocket refuses is a 400 that names the version."""
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
        """Bytes that are no HTTP/1.1 request get a 400 and are not recorded."""
        for data in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            client = self.client()
            client.sock.sendall(data)
            self.assertTrue(client.read_head().startswith("HTTP/1.1 400 "), data)
        self.assertEqual([], self.api.requests)

    def test_access_review(self) -> None:
        """A SelfSubjectAccessReview says what forbid says."""
        spec = {"resourceAttributes": {"verb": "get"}}
        for self.api.forbid in (False, True):
            client = self.client()
            target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            client.ask(target, "POST", json.dumps({"spec": spec}).encode())
            review = client.read_status()
            self.assertEqual(spec, review["spec"])
            self.assertEqual(not self.api.forbid, review["status"]["allowed"])


class HandshakeTest(APITestCase):
    """The 101, and every way in which it may be wrong."""

    def setUp(self) -> None:
        super().setUp()
        self.vmi = self.api.add_vmi("vm")

    def _misbehave(self, **fields: Any) -> RawClient:
        self.vmi.behaviour = Behaviour(**fields)
        client = self.client()
        client.ask_upgrade()
        return client

    def test_the_101(self) -> None:
        """The 101 is gorilla's, without a protocol and without extensions if none fits."""
        expected = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {ACCEPT}"
        )
        offers: dict[str, str | None] = {"sec_websocket_extensions": "permessage-deflate"}
        self.assertEqual(expected, self.client().upgrade(sec_websocket_protocol="binary", **offers))

    def test_subprotocol(self) -> None:
        """plain.kubevirt.io is chosen wherever it stands in the offer."""
        head = self.client().upgrade(sec_websocket_protocol="binary, plain.kubevirt.io")
        self.assertTrue(head.endswith("Sec-WebSocket-Protocol: plain.kubevirt.io"))
        self.assertEqual("plain.kubevirt.io", self.vmi.wait_for_session().subprotocol)

    def test_record(self) -> None:
        """A request is recorded as it was sent before its answer."""
        client = self.client()
        client.upgrade(path() + "?a=b", X_Twice="1")
        (request,) = self.api.requests
        self.assertEqual(("GET", path() + "?a=b", 101), (request.method, request.target, request.status))
        self.assertEqual(client.sock.getsockname(), request.peer)
        self.assertIn(("X-Twice", "1"), request.headers)
        self.assertEqual(KEY, request.header("Sec-WebSocket-Key"))
        self.assertIsNone(request.header("Cookie"))
        self.assertEqual(1, self.api.connections)

    def test_wrong_accept(self) -> None:
        """The accept value may be wrong."""
        self.assertIn(
            "Sec-WebSocket-Accept: nonsense\r\n", self._misbehave(accept="nonsense").read_head() + "\r\n"
        )

    def test_wrong_subprotocol(self) -> None:
        """A protocol may be chosen that nobody offered."""
        head = self._misbehave(subprotocol="v4.channel.k8s.io").read_head()
        self.assertIn("Sec-WebSocket-Protocol: v4.channel.k8s.io", head)

    def test_extra_headers(self) -> None:
        """Cookies and extensions may be answered, in a 101 and in a refusal."""
        headers = (("Set-Cookie", "a=b"), ("Sec-WebSocket-Extensions", "permessage-deflate"))
        for status in (101, 400):
            head = self._misbehave(headers=headers).read_head()
            self.assertTrue(head.startswith(f"HTTP/1.1 {status} "))
            self.assertIn("Set-Cookie: a=b\r\nSec-WebSocket-Extensions: permessage-deflate", head)
            self.vmi.display = False

    def test_redirect(self) -> None:
        """A redirect points wherever the test wants, for instance at a second API that records."""
        head = self._misbehave(answer=Behaviour.redirect("http://other/x").answer).read_head()
        self.assertTrue(head.startswith("HTTP/1.1 302 Found\r\nLocation: http://other/x\r\n"))

    def test_200(self) -> None:
        """An upgrade may be answered with an ordinary page."""
        client = self._misbehave(answer=Answer(200, b"hello"))
        self.assertIn("200 OK", client.read_head())
        self.assertEqual(b"hello", client.read_rest())
        self.assertEqual(200, self.api.requests[-1].status)

    def test_hang(self) -> None:
        """Nothing is answered until the API stops."""
        client = self._misbehave(hang=True)
        self.assertIsNone(self.api.wait_for_requests(1)[0].status)
        client.sock.setblocking(False)
        with self.assertRaises(BlockingIOError):
            client.sock.recv(1)
        client.sock.settimeout(5.0)
        self.api.stop()
        self.assertEqual(b"", client.read_rest())

    def test_drip(self) -> None:
        """An answer may come byte by byte, and stops when the API does."""
        client = self._misbehave(drip=0.05)
        self.assertEqual([b"H", b"T", b"T"], [client.sock.recv(100) for _ in range(3)])
        self.api.stop()
        self.assertLess(len(client.read_rest()), 10)

    def test_drip_ends(self) -> None:
        """A fast drip becomes a session."""
        self.assertIn(ACCEPT, self._misbehave(drip=0.0001).read_head())

    def test_endless_headers(self) -> None:
        """Headers may go on for as long as they are taken."""
        client = self._misbehave(endless_headers=True)
        data = b""
        while len(data) < 1 << 20:
            data += client.sock.recv(65536)
        self.assertNotIn(b"\r\n\r\n", data)

    def test_endless_body(self) -> None:
        """A body may go on for as long as it is taken."""
        client = self._misbehave(endless_body=True, answer=Answer(500))
        self.assertIn("500 Internal Server Error", client.read_head())
        size = 0
        while size < 1 << 20:
            size += len(client.sock.recv(65536))

    def test_truncated_body(self) -> None:
        """A body may end before its Content-Length."""
        client = self._misbehave(body_framing="truncated", answer=Answer(404, b"short"))
        self.assertIn("Content-Length: 105", client.read_head())
        self.assertEqual(b"short", client.read_rest())

    def test_chunked_body(self) -> None:
        """A natural refusal may be chunked."""
        self.vmi.phase = "Failed"
        client = self._misbehave(body_framing="chunked")
        head, rest = client.read_head(), client.read_rest()
        self.assertIn("Transfer-Encoding: chunked", head)
        self.assertTrue(rest.startswith(b'10\r\n{"kind":"Status"'[:14]) and rest.endswith(b"0\r\n\r\n"))

    def test_body_until_close(self) -> None:
        """A body may be delimited by the end of the connection."""
        client = self._misbehave(body_framing="close", answer=Answer(404, b"gone"))
        self.assertNotIn("Content-Length", client.read_head())
        self.assertEqual(b"gone", client.read_rest())

    def test_raw(self) -> None:
        """Any bytes may be answered."""
        self.assertEqual(b"SSH-2.0-x\r\n", self._misbehave(raw=b"SSH-2.0-x\r\n").read_rest())

    def test_early_frames(self) -> None:
        """Frames may come in the same write as the 101."""
        banner = encode_frame(BINARY, b"RFB 003.008\n")
        data = self._misbehave(early=banner).sock.recv(65536)
        self.assertTrue(data.endswith(b"\r\n\r\n" + banner))

    def test_coalesced_banner(self) -> None:
        """The 101 may wait for the backend's first bytes."""
        self.vmi.backend = Script(lambda console: console.send_message(b"RFB 003.008\n"))
        data = self._misbehave(coalesce=True).sock.recv(65536)
        self.assertTrue(data.startswith(b"HTTP/1.1 101 ") and data.endswith(b"\r\n\r\n\x82\x0cRFB 003.008\n"))

    def test_eof_after_the_101(self) -> None:
        """The connection may end right after the 101."""
        client = self._misbehave(eof=True)
        self.assertIn(ACCEPT, client.read_head())
        self.assertEqual(b"", client.read_rest())

    def test_behaviour_of_the_api(self) -> None:
        """The API's behaviour concerns every request whose VMI has none of its own."""
        self.api.behaviour = Behaviour(raw=b"x")
        client = self.client()
        client.ask("/readyz")
        self.assertEqual(b"x", client.read_rest())
        self.vmi.behaviour = Behaviour()
        self.client().upgrade()


class TLSTest(APITestCase):
    """Bearer and certificates."""

    tls = True

    def test_bearer(self) -> None:
        """Without the right bearer everything is 401, but the health endpoints without any."""
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
        """A rotated token is swapped in its file, and the old one gets 401."""
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
        self.assertEqual(1, len(self.api.tls_failures))

    def test_websocket_client(self) -> None:
        """websocket-client opens a session as a gateway would."""
        self.api.add_vmi("vm")
        ws = websocket.create_connection(
            self.api.url + path(),
            timeout=5.0,
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
    """Start, stop, and what is left."""

    def _descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def test_nothing_is_left(self) -> None:
        """After a stop under load no thread, no descriptor and no file is left."""
        threads, descriptors = set(threading.enumerate()), self._descriptors()

        def serve(sock: socket.socket) -> None:
            while sock.recv(100):
                pass

        backends = [Stream(), Stream(), SocketBackend(serve), Script(lambda console: console.hold())]
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
        """A backend that does not end in time does not keep the stop, which names its thread."""
        release = threading.Event()

        def run(console: FakeConsole) -> None:
            release.wait(5.0)

        api = FakeKubeVirtAPI(tls=False).start()
        api.add_vmi("vm", backend=Script(run))
        with RawClient(api) as client:
            client.upgrade()
            with mock.patch("wsproxy.testing.fake_kubevirt._STOP_TIMEOUT", 0.05):
                api.stop()
            self.assertIn("did not end", str(api.errors))
            release.set()
            self.assertTrue(api.wait_until_idle())

    def test_a_backend_error_is_reported(self) -> None:
        """What a backend raises, and no peer caused, is in errors."""
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
