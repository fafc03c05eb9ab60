"""Incidents of proxies and consoles, through a whole proxy in front of a stand-in for the Kubernetes API."""

from __future__ import annotations

import re

from wsproxy.net.addresses import host_and_port
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.http import Answer, Behaviour, status_answer
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token

_TUNNELLED = b"GET /api/v1/namespaces/kube-system/secrets HTTP/1.1\r\nHost: api\r\n\r\n"


class IncidentCase(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        self.proxy = self.start_proxy()

    def ask(self, target: str, *headers: str, more: bytes = b"") -> RawClient:
        """Send an upgrade request, and ``more`` in the same write, and read the answer's head."""
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        client.send_raw(RawClient.request(target, headers) + more)
        client.read_head()
        return client


class CrossSiteWebSocketHijacking(IncidentCase):
    """CVE-2015-0259, CWE-1385, cockpit#496: a page opened a console with what the browser sends of itself."""

    def test_nothing_that_a_browser_adds_is_a_credential(self) -> None:
        """A page that does not know the token gets nothing, whatever cookies and passwords go with it."""
        token = self.token("vm")
        for headers in (
            [f"Cookie: token={token}"],
            [f"Cookie: access_token={token}; jwt={token}; wsproxy={token}"],
            [f"Authorization: Basic {token}"],
            [f"Proxy-Authorization: Bearer {token}"],
            [f"Referer: http://proxy/{token}/vm"],
        ):
            for target in ("/-/vm", f"/-/{self.namespace}/vm", "/x/vm"):
                with self.subTest(headers=headers[0][:20], target=target):
                    client = self.ask(target, "Origin: https://evil.example", *headers)
                    self.assertEqual(client.status, 101)  # only to be told why not
                    self.assertEqual(client.recv_frame().payload, b"RFB 003.008\n")
                    client.send_frame(2, b"RFB 003.008\n")
                    self.assertEqual(client.recv_close()[0], 4401)
        self.assertEqual(self.api.connections, 0)

    def test_two_origins(self) -> None:
        """Two Origin headers are refused: nobody has to choose which one counts."""
        origins = ["Origin: https://console.example", "Origin: https://evil.example"]
        self.assertEqual(self.ask(f"/{self.token('vm')}/vm", *origins).status, 400)
        self.assertEqual(self.api.connections, 0)


class TunnelAfterRefusal(IncidentCase):
    """CVE-2018-1002105, WebSocket smuggling: a refused upgrade left a connection to the API to talk on."""

    def test_answers_that_are_no_101(self) -> None:
        """After any answer but a right 101 the API gets not one byte more, and the client is refused."""
        for behaviour in (
            Behaviour(answer=Answer(200, b"ok", (("Connection", "keep-alive"),))),
            Behaviour(answer=status_answer(400, "BadRequest", "no")),
            Behaviour(answer=status_answer(403, "Forbidden", "no")),
            Behaviour(answer=status_answer(500, "InternalError", "no")),
            Behaviour(answer=Answer(302, b"", (("Location", "https://127.0.0.1/"),))),
            Behaviour(answer=Answer(101, b"", (("Upgrade", "websocket"), ("Connection", "Upgrade")))),
            Behaviour(accept="d3Jvbmc="),
            Behaviour(raw=b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            Behaviour(raw=b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"),
        ):
            with self.subTest(behaviour=behaviour):
                self.api.add_vmi("vm", self.namespace, behaviour=behaviour)
                before = len(self.api.requests)
                client = self.ask(f"/{self.token('vm')}/vm", more=_TUNNELLED)
                self.assertGreaterEqual(client.status, 400)
                self.assertNotIn(b"HTTP/1.1", client.body())
                self.assertEqual(len(self.api.wait_for_requests(before + 1)), before + 1)
        self.assertTrue(self.api.wait_until_idle())
        self.assertEqual(self.api.bytes_received, 0)

    def test_client_that_does_not_ask_rightly(self) -> None:
        """A client's own handshake is checked before anybody is dialled."""
        for old, new in (
            (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 1337"),
            (b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==", b"Sec-WebSocket-Key: x"),
        ):
            with self.subTest(new=new), RawClient(self.proxy.address) as client:
                client.send_raw(RawClient.request(f"/{self.token('vm')}/vm").replace(old, new) + _TUNNELLED)
                client.read_head()
                self.assertIn(client.status, (400, 426))
        self.assertEqual(self.api.connections, 0)

    def test_bytes_behind_the_request(self) -> None:
        """Once the API has accepted, they are frames: a request there breaks the protocol."""
        client = self.ask(f"/{self.token('vm')}/vm", more=_TUNNELLED)
        self.assertEqual(client.status, 101)
        self.assertEqual(client.recv_close()[0], 1002)
        client.drop()
        self.assertTrue(self.api.consoles[0].ended.wait(60))
        self.assertEqual(len(self.api.requests), 1)


class HeaderSpoofing(IncidentCase):
    """CVE-2025-64484, GHSA-7x63-xv5r-3p2x, traefik#3039: headers that somebody behind the proxy believes."""

    def test_no_header_of_the_client_goes_upstream(self) -> None:
        """The API's request is the same whatever headers the client sends: only subprotocols pass."""
        self.ask(f"/{self.token('vm')}/vm")
        self.ask(
            f"/{self.token('vm')}/vm?impersonate=admin",
            "Impersonate-User: system:admin",
            "Impersonate-Group: system:masters",
            "Impersonate-Uid: 0",
            "Impersonate-Extra-scopes: all",
            "Impersonate_User: system:admin",
            "X-Remote-User: system:admin",
            "X-Remote-Group: system:masters",
            "X_Remote_User: system:admin",
            "X-Remote-Extra-Scopes: all",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Host: api",
            "X-Forwarded-Uri: /healthz",
            "X-Original-URL: /healthz",
            "X-HTTP-Method-Override: DELETE",
            "Forwarded: for=127.0.0.1;host=api",
            "Authorization: Basic dTpw",
            "Proxy-Authorization: Basic dTpw",
            "Cookie: a=b",
            "Origin: https://evil.example",
            "Referer: https://evil.example/",
            "User-Agent: evil",
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Te: trailers",
            "Connection: Authorization, X-Remote-User",
        )
        plain, spoofed = self.api.requests
        self.assertEqual(_without_key(spoofed.headers), _without_key(plain.headers))
        self.assertEqual(spoofed.target, plain.target)
        self.assertEqual(spoofed.values("authorization"), [f"Bearer {self.api.token}"])

    def test_token_in_a_subprotocol(self) -> None:
        """A token among the subprotocols goes no further."""
        token = "base64url.bearer.authorization.k8s.io.c2VjcmV0"
        client = self.ask(f"/{self.token('vm')}/vm", f"Sec-WebSocket-Protocol: {token}, plain.kubevirt.io")
        if client.status == 101:
            self.assertEqual(client.header("sec-websocket-protocol"), "plain.kubevirt.io")
        for request in self.api.requests:
            self.assertEqual(request.values("sec-websocket-protocol"), ["plain.kubevirt.io"])


def _without_key(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() != "sec-websocket-key"]


class ServerSideRequestForgery(IncidentCase):
    """CVE-2022-21697, websockify's JWTTokenApi: the client said which host is connected to."""

    def test_host_and_port_in_the_token(self) -> None:
        """Where the API is comes from the settings, whatever a rightly signed token says besides."""
        with FakeKubeVirtAPI(tls=False) as elsewhere:
            data = {"host": "127.0.0.1", "port": elsewhere.port, "remote_url": elsewhere.url}
            self.assertEqual(self.ask(f"/{self.token('vm', additional_data=data)}/vm").status, 101)
            self.assertEqual((elsewhere.connections, self.api.connections), (0, 1))

    def test_host_in_the_request(self) -> None:
        """Nor does the Host header, the target or the Origin."""
        with FakeKubeVirtAPI(tls=False) as elsewhere:
            there = host_and_port("127.0.0.1", elsewhere.port)
            token = self.token("vm")
            for target, header in (
                (f"http://{there}/{token}/vm", "X: y"),
                (f"//{there}/{token}/vm", "X: y"),
                (f"/{token}/vm", f"Origin: http://{there}"),
                (f"/{token}/vm?host={there}", f"X-Forwarded-Host: {there}"),
            ):
                self.ask(target, header)
            with RawClient(self.proxy.address) as client:
                request = RawClient.request(f"/{token}/vm").replace(b"proxy", there.encode())
                client.send_raw(request)
                client.read_head()
            self.assertEqual(elsewhere.connections, 0)

    def test_names(self) -> None:
        """A name that is allowed by a rightly signed token, but none of Kubernetes', reaches nobody."""
        for name in (
            "../vm",
            "vm/../..",
            "vm%2f..",
            "vm?x=y",
            "vm#x",
            "evil.example:80",
            "a@b",
            "",
            ".",
            "v m",
        ):
            with self.subTest(name=name):
                self.assertIn(self.ask(f"/{self.token(name)}/{name}").status, (400, 403, 404))
        for namespace in (
            "../kube-system",
            "lab-1/pods",
            "",
            ".",
            "..",
            "lab_1",
            "a" * 64,
            "LAB-1",
            "lab-1\n",
        ):
            with self.subTest(namespace=namespace):
                token = make_token("x" * 32, namespace=namespace, vmis=["vm"])
                self.assertEqual(self.ask(f"/{token}/vm").status, 401)
                self.assertEqual(self.ask(f"/{self.token('vm', namespace=namespace)}/vm").status, 401)
        self.assertEqual(self.api.connections, 0)


class SessionJoining(IncidentCase):
    """CVE-2021-41767: who knew a session's id was let into the session."""

    def test_session_id_opens_nothing(self) -> None:
        """The id in the log is no credential, and has nothing to do with one."""
        token = self.token("vm")
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            for _ in range(2):
                client = self.ask(f"/{token}/vm")
                client.send_frame(2, b"x")
                self.assertEqual(client.recv_frame().payload, b"x")
        ids = re.findall(r"session (\w+) opened", "\n".join(logs.output))
        self.assertEqual(len(set(ids)), 2)
        opened = self.api.connections
        for session in ids:
            self.assertNotIn(session, token)
            for target in (f"/{session}/vm", f"/{session}", f"/-/{session}", f"/{session}/{session}"):
                self.assertGreaterEqual(self.ask(target).status, 400)
            self.assertEqual(self.ask("/-/vm", f"Authorization: Bearer {session}").status, 401)
        self.assertEqual(self.api.connections, opened)


class TokenInAReferer(IncidentCase):
    """lp#1197459, lp#1447679, CWE-532: a token in a URL reaches other servers, caches and histories."""

    def test_answers(self) -> None:
        """No answer to a path with a token may be kept, quotes it, or lets a page pass it on."""
        token = self.token("vm")
        for request in (
            f"GET /{token}/vm HTTP/1.1\r\nHost: proxy\r\n\r\n".encode(),
            f"HEAD /{token}/vm HTTP/1.1\r\nHost: proxy\r\n\r\n".encode(),
            RawClient.request(f"/{token}/other"),
            RawClient.request(f"/{token}/VM"),
        ):
            with self.subTest(request=request[:4]), RawClient(self.proxy.address) as client:
                client.send_raw(request)
                client.read_head()
                answer = client.head + client.body()
                self.assertNotIn(token.encode(), answer)
                self.assertEqual(client.header("cache-control"), "no-store")
                self.assertEqual(client.header("referrer-policy"), "no-referrer")
        self.assertEqual(self.api.connections, 0)
