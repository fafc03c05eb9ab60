"""Listing and kicking sessions at the operator's listener of a running proxy."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from unittest import mock

from tests.support.jws import signed_token, unverified_claims
from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy import Grant, WebsocketProxy
from wsproxy.cli.sessions import _row
from wsproxy.exceptions import ConfigError
from wsproxy.runtime.wall_clock import unix_time
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_KICKED = (4499, "kicked")
_TOKEN = "0123456789abcdef-the-operator's"


class OperatorCase(ProxyTestCase):
    """Has sessions, and asks the operator's listener at a path."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch(
            "wsproxy.admin.endpoints.check_metrics"
        )  # else it would warn where that is missing
        patcher.start()
        self.addCleanup(patcher.stop)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(directory.name, "admin")
        for vmi in ("vm", "vm-2", "vm-3"):
            self.api.add_vmi(vmi, self.namespace)
            self.api.add_vmi(vmi, "other")

    def start(self, **options: Any) -> WebsocketProxy:
        self.proxy = self.start_proxy(**{"admin": f"unix:{self.path}", "close_timeout": 0.2, **options})
        return self.proxy

    def client(self, vmi: str = "vm", token: str | None = None, **claims: Any) -> RawClient:
        client = self.knock(vmi, token or self.token(vmi, **claims))
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, b"hello")
        client.recv_frame()
        return client

    def knock(self, vmi: str, token: str) -> RawClient:
        client = RawClient.open(self.url(self.proxy, vmi, token))
        self.addCleanup(client.close)
        return client

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask at the path, and return status and body."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_TIMEOUT)
        connection.sock.connect(self.path)
        sent = dict(headers or {})
        if body is not None:
            sent = {"Content-Type": "application/json", **sent}
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, sent)
        response = connection.getresponse()
        found = json.loads(response.read())
        connection.close()
        return response.status, found

    def kick(self, **chosen: Any) -> dict[str, list[str]]:
        status, done = self.ask("POST", "/kick", chosen)
        self.assertEqual(status, 200, done)
        found: dict[str, list[str]] = done
        return found

    def assert_kicked(self, client: RawClient) -> None:
        self.assertEqual(client.recv_close(_TIMEOUT), _KICKED)
        client.close()

    def assert_lives(self, client: RawClient) -> None:
        client.send_frame(BINARY, b"still here")
        self.assertEqual(client.recv_frame(_TIMEOUT).payload, b"still here")

    def assert_revoked(self, vmi: str, token: str) -> None:
        """Assert that a token is refused before the proxy dials the API."""
        before = self.api.connections
        client = self.knock(vmi, token)
        body = json.loads(client.body())
        self.assertEqual((client.status, body["code"], body["reason"]), (401, 4401, "bad-token"))
        self.assertEqual(body["message"], "the token has been revoked")
        self.assertEqual(self.api.connections, before)


class Listing(OperatorCase):
    def test_nobody(self) -> None:
        self.start()
        status, found = self.ask("GET", "/sessions")
        self.assertEqual((status, found["sessions"]), (200, []))

    def test_sessions(self) -> None:
        """The list says who has which console, since when, and how it goes; the oldest stands first."""
        self.start()
        token = self.token("vm", user=5, expires_in=300)
        self.client("vm", token)
        self.client("vm-2", user="eve")
        status, found = self.ask("GET", "/sessions")
        self.assertEqual(status, 200)
        first, second = found["sessions"]
        handle, _ = self.proxy.sessions()
        self.assertEqual(
            {name: first[name] for name in ("id", "user", "namespace", "vmi", "subresource", "client")},
            {
                "id": handle.id,
                "user": 5,
                "namespace": self.namespace,
                "vmi": "vm",
                "subresource": "vnc",
                "client": "127.0.0.1",
            },
        )
        self.assertEqual(second["user"], "eve")
        self.assertEqual(first["token_id"], handle.grant.token_id)
        self.assertEqual((first["bytes_up"], first["bytes_down"]), (handle.bytes_up, handle.bytes_down))
        self.assertGreater(first["bytes_up"], 0)
        times = {
            name: datetime.fromisoformat(first[name].replace("Z", "+00:00")).timestamp()
            for name in ("since", "expires", "last_activity")
        }
        self.assertAlmostEqual(times["since"], handle.opened, 2)
        self.assertAlmostEqual(times["expires"], handle.grant.expires_at, 2)
        self.assertGreaterEqual(times["last_activity"], times["since"])
        assert handle.grant.token_key
        self.assertNotIn(token, json.dumps(found))
        self.assertNotIn(handle.grant.token_key.digest.hex(), json.dumps(found))

    def test_being_opened(self) -> None:
        """An opening that is not finished is in the list, says so, and can be kicked."""
        self.start()
        self.api.add_vmi("vm", self.namespace, behaviour=Behaviour(hang=True))
        self.client("vm-2", user="eve")
        client = RawClient(self.proxy.address)
        self.addCleanup(client.close)
        token = self.token("vm", user="bob")
        client.send_raw(RawClient.request(f"/{token}/vm"))
        self.api.wait_for_requests(2)
        found = self.ask("GET", "/sessions")[1]["sessions"]
        states = [(session["user"], session["state"]) for session in found]
        self.assertEqual(states, [("eve", "open"), ("bob", "opening")])
        self.assertEqual([_row(each, 0.0)[6] for each in found], ["0s", "opening"])
        self.assertEqual(self.kick(user="bob")["sessions"], [found[1]["id"]])
        client.read_head()
        self.assertEqual(client.status, 403)
        self.assert_revoked("vm", token)

    def test_eternal(self) -> None:
        """A token that never expires has no time of that."""
        self.start(allow_eternal_tokens=True)
        claims = unverified_claims(self.token("vm"))
        del claims["exp"]
        self.client("vm", signed_token(claims, SECRET))
        self.assertIsNone(self.ask("GET", "/sessions")[1]["sessions"][0]["expires"])


class RowsThatBreakAList(OperatorCase):
    def test_end_of_time(self) -> None:
        """The latest time that a token may have, with a leeway behind it, is in the list like any other."""
        self.start(leeway=300.0)
        claims = unverified_claims(self.token("vm"))
        self.client("vm", signed_token({**claims, "exp": 253402300799}, SECRET))
        self.client("vm-2", user="eve")
        status, found = self.ask("GET", "/sessions")
        self.assertEqual(status, 200, found)
        first, second = found["sessions"]
        self.assertTrue(first["expires"].startswith("9999-12-31T23:59:59."))
        self.assertEqual(second["user"], "eve")

    def test_session_that_cannot_be_described(self) -> None:
        """If a session cannot be described, the list and the command's table have its id."""
        self.start()
        self.client("vm")
        self.client("vm-2", user="eve")
        broken, whole = self.proxy.sessions()
        broken.opened = cast(Any, None)
        with self.assertLogs("wsproxy.admin", "ERROR"):
            status, found = self.ask("GET", "/sessions")
        self.assertEqual(status, 200, found)
        first, second = found["sessions"]
        self.assertEqual(first, {**dict.fromkeys(second), "id": broken.id})
        self.assertEqual((second["id"], second["user"]), (whole.id, "eve"))
        shown = _row(first, 0.0)
        self.assertEqual(shown, (broken.id, *"-" * 11))
        self.assertEqual(len(shown), len(_row(second, 0.0)))


class Ending(OperatorCase):
    def test_delete(self) -> None:
        """DELETE ends one session, whose client may come again with the same token."""
        self.start()
        token = self.token("vm", "vm-2")
        client, other = self.client("vm", token), self.client("vm-2", token)
        id = self.proxy.sessions()[0].id
        status, done = self.ask("DELETE", f"/sessions/{id}")
        nothing: dict[str, object] = {"tokens": [], "kick": "", "until": None, "behind": []}
        self.assertEqual((status, done), (200, {"sessions": [id], **nothing}))
        self.assert_kicked(client)
        self.assert_lives(other)
        self.client("vm", token)

    def test_no_such_session(self) -> None:
        self.start()
        self.assertEqual(self.ask("DELETE", "/sessions/00000000")[0], 404)
        self.assertEqual(self.ask("DELETE", "/sessions/")[0], 404)
        self.assertEqual(self.ask("DELETE", "/sessions/a/b")[0], 404)

    def test_kick_by_user(self) -> None:
        """Each session of a user ends, and the tokens that they were opened with are refused at once.

        A kick is a stored rule now. It also refuses the user's other tokens that were issued before, also
        without ``iat``, and those of the leeway after it.
        """
        self.start()
        tokens = [self.token("vm", user=5), self.token("vm-2", user=5), self.token("vm-3", user=55)]
        clients = [self.client(vmi, token) for vmi, token in zip(("vm", "vm-2", "vm-3"), tokens, strict=True)]
        ids = [session.id for session in self.proxy.sessions()]
        done = self.kick(user="5")
        self.assertEqual(done["sessions"], ids[:2])
        self.assertEqual(len(done["tokens"]), 2)
        self.assert_revoked("vm", tokens[0])
        self.assert_revoked("vm-2", tokens[1])
        for client in clients[:2]:
            self.assert_kicked(client)
        self.assert_lives(clients[2])
        self.assert_revoked("vm", self.token("vm", user=5))
        self.client("vm", user=55)

    def test_issued_later(self) -> None:
        """A token that is issued after the kick is good; one without ``iat`` may be from before it."""
        self.start()
        participant = self.proxy._server._gateway.participant  # type: ignore[union-attr]
        with mock.patch.object(participant, "_wall_clock", lambda: unix_time() - 6):
            kicked = self.kick(user="5")
        self.client("vm", user=5)
        claims = unverified_claims(self.token("vm", user=5))
        del claims["iat"]
        self.assert_revoked("vm", signed_token(claims, SECRET))
        self.assertTrue(participant.lift(str(kicked["kick"])))
        self.client("vm", signed_token(claims, SECRET))

    def test_kick_by_place(self) -> None:
        """A VMI is chosen together with its namespace; a namespace alone chooses all of its VMIs.

        A kick makes a rule also if nobody is there.
        """
        self.start()
        near, beside, far = self.client("vm"), self.client("vm-2"), self.client("vm", namespace="other")
        self.assertEqual(self.ask("POST", "/kick", {"vmi": "vm"})[0], 400)
        self.assertEqual(len(self.kick(namespace=self.namespace, vmi="vm")["sessions"]), 1)
        self.assert_kicked(near)
        self.assert_lives(beside)
        self.assertEqual(len(self.kick(namespace="other")["sessions"]), 1)
        self.assert_kicked(far)
        self.assert_lives(beside)
        # A client knows its end before the session is gone from the list.
        self.assertTrue(wait_until(lambda: len(self.proxy.sessions()) == 1))
        nobody = self.kick(namespace="third")
        self.assertRegex(str(nobody.pop("kick")), "[0-9a-f]{16}")
        self.assertEqual(
            nobody, {"sessions": [], "tokens": [], "until": None, "behind": [], "needs_iat": True}
        )
        self.assert_revoked("vm", self.token("vm", namespace="third"))

    def test_kick_by_session_and_token_id(self) -> None:
        """The session's and token's ids from the list and the audit log choose a session."""
        self.start()
        tokens = [self.token("vm"), self.token("vm-2", user=7)]
        one, two = self.client("vm", tokens[0]), self.client("vm-2", tokens[1])
        first, second = self.ask("GET", "/sessions")[1]["sessions"]
        self.assertEqual(self.kick(session=first["id"])["tokens"], [first["token_id"]])
        self.assert_kicked(one)
        self.assert_revoked("vm", tokens[0])
        self.assertEqual(self.kick(token_id=second["token_id"])["sessions"], [second["id"]])
        self.assert_kicked(two)
        self.assert_revoked("vm-2", tokens[1])

    def test_kick_by_token(self) -> None:
        """A whole token is refused from then on, whether it has sessions or not; they end."""
        self.start()
        token, unused = self.token("vm", "vm-2"), self.token("vm-3", user=9)
        clients = [self.client("vm", token), self.client("vm-2", token)]
        other = self.client("vm-3")
        done = self.kick(token=token)
        self.assertEqual((len(done["sessions"]), len(done["tokens"])), (2, 1))
        for client in clients:
            self.assert_kicked(client)
        self.assert_revoked("vm", token)
        self.assertEqual(len(self.kick(token=unused)["tokens"]), 1)
        self.assert_revoked("vm-3", unused)
        self.assert_lives(other)

    def test_token_by_its_jti(self) -> None:
        """A kick refuses every token with the same issuer and jti, and none of another issuer."""
        self.start()

        def token(**more: Any) -> str:
            claims = unverified_claims(self.token("vm"))
            return signed_token(claims | more, SECRET)

        self.kick(token=token(jti="one", iss="a"))
        self.assert_revoked("vm", token(jti="one", iss="a", more=1))
        self.client("vm", token(jti="one", iss="b")).close()
        self.client("vm", token(jti="two", iss="a")).close()

    def test_forged_token(self) -> None:
        """A token that the proxy does not accept kicks no session, because it could name any jti."""
        self.start()
        client = self.client("vm", user=5)
        for token in (self.token("vm", secret="x" * 32), self.token("vm", expires_in=-1), "x"):
            status, said = self.ask("POST", "/kick", {"token": token})
            self.assertEqual(status, 400)
            self.assertNotIn(token, said["message"].split())
        self.assert_lives(client)

    def test_tickets_of_a_kicked_token(self) -> None:
        """A ticket that was issued before opens nothing any more, and no further one is issued."""
        self.start(tickets=True)
        token = self.token("vm")

        def ticket() -> tuple[int, Any]:
            connection = http.client.HTTPConnection(*self.proxy.address, timeout=_TIMEOUT)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", "/ticket", json.dumps({"vmi": "vm"}), headers)
            response = connection.getresponse()
            found = json.loads(response.read())
            connection.close()
            return response.status, found

        status, found = ticket()
        self.assertEqual(status, 201)
        self.kick(token=token)
        self.assert_revoked("vm", found["path"].split("/")[1])
        status, found = ticket()
        self.assertEqual((status, found["message"]), (401, "the token has been revoked"))

    def test_opened_meanwhile(self) -> None:
        """A token that is kicked while a session is being opened with it does not get through."""
        self.start()
        token = self.token("vm")
        gateway_sessions = self.proxy._server._gateway.sessions  # type: ignore[union-attr]
        add = gateway_sessions.add

        def kick_and_add(handle: Any) -> None:
            gateway_sessions.add = add  # type: ignore[method-assign]
            self.assertEqual(len(self.kick(token=token)["tokens"]), 1)
            add(handle)

        gateway_sessions.add = kick_and_add  # type: ignore[method-assign]
        client = self.knock("vm", token)
        self.assertEqual(client.status, 101)
        self.assert_kicked(client)

    def test_hook_keeps_nobody_in(self) -> None:
        """A grant that a hook returns is revoked with its token, even if the hook makes a new grant."""

        def authorize(grant: Grant, request: object) -> Grant:
            return Grant(grant.user, grant.namespace, grant.vmis, grant.expires_at - 100, grant.token_id)

        self.start(authorize=authorize)
        token = self.token("vm")
        client = self.client("vm", token)
        (session,) = self.proxy.sessions()
        assert session.grant.token_key
        self.assertAlmostEqual(session.grant.token_key.expires_at, session.grant.expires_at + 100)
        self.assertEqual(len(self.kick(user="0")["tokens"]), 1)
        self.assert_kicked(client)
        self.assert_revoked("vm", token)

    def test_full(self) -> None:
        """If there are too many rules, the sessions end all the same, and the answer says so."""
        self.start()
        client = self.client("vm")
        with mock.patch("wsproxy.state.shared.rule_log.MAX_RULES", 0):
            self.assertEqual(self.ask("POST", "/kick", {"user": "0"})[0], 503)
        self.assert_kicked(client)

    def test_audit(self) -> None:
        """The audit log says what the operator did, and the end of each session; no token is in it."""
        path = os.path.join(self.directory, "audit")
        self.start(audit_log=path)
        token = self.token("vm", user=5)
        client = self.client("vm", token)
        (session,) = self.proxy.sessions()
        with self.assertLogs("wsproxy.admin", "INFO") as logged:
            self.kick(token=token)
        self.assertIn(f"kicked 1 sessions by token_id '{session.grant.token_id}'", logged.output[0])
        self.assert_kicked(client)
        self.proxy.stop_thread()
        with open(path, encoding="utf-8") as file:
            text = file.read()
        events = {event["event"]: event for event in map(json.loads, text.splitlines())}
        self.assertEqual(events["kicked"]["by"], {"token_id": session.grant.token_id})
        self.assertEqual(events["kicked"]["sessions"], [session.id])
        self.assertEqual(events["kicked"]["tokens"], [session.grant.token_id])
        self.assertEqual(
            (events["end"]["cause"], events["end"]["by"], events["end"]["code"]), ("kicked", "proxy", 4499)
        )
        self.assertNotIn(token.rpartition(".")[2], text)

    def test_bad_bodies(self) -> None:
        """An empty or invalid body ends no session."""
        self.start()
        client = self.client("vm")
        bodies: tuple[object, ...] = (
            {},
            [],
            "user",
            {"name": "x"},
            {"user": ""},
            {"user": True},
            {"user": 1.5},
            {"user": None},
            {"user": ["0"]},
            {"token": "x", "user": "0"},
            b"{",
            b'{"user": "0", "user": "1"}',
            b"[" * 10_000,
            b"\xff",
        )
        for body in bodies:
            with self.subTest(body):
                self.assertEqual(self.ask("POST", "/kick", body)[0], 400)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self.assertEqual(self.ask("POST", "/kick", {"user": "0"}, form)[0], 415)
        self.assertEqual(self.ask("POST", "/kick", {"user": "0"}, {"Content-Type": "text/plain"})[0], 415)
        self.assertEqual(self.ask("POST", "/kick", {"user": "0" * 20_000})[0], 413)
        self.assertEqual(self.ask("POST", "/kick", {"user": "0"}, {"Origin": "http://localhost"})[0], 403)
        self.assertEqual(self.ask("POST", "/kick", {"user": "0"}, {"Host": "evil.example"})[0], 403)
        self.assertEqual(self.ask("GET", "/kick")[0], 405)
        self.assertEqual(self.ask("POST", "/sessions", {"user": "0"})[0], 405)
        self.assert_lives(client)


class WithAToken(OperatorCase):
    """If the listener is not at a path, or a file is named, requests need a token."""

    def start(self, **options: Any) -> WebsocketProxy:
        self.token_file = os.path.join(self.directory, "token")
        return super().start(admin_token_file=self.token_file, **options)

    def test_made(self) -> None:
        """A file that is not there is made, for its owner alone, and read at the next start."""
        self.start()
        with open(self.token_file, encoding="ascii") as file:
            token = file.read().strip()
        self.assertEqual(os.stat(self.token_file).st_mode & 0o777, 0o600)
        self.assertGreaterEqual(len(token), 40)
        self.assertEqual(sorted(os.listdir(self.directory)), ["admin", "token"])
        headers = {"Authorization": f"Bearer {token}"}
        self.assertEqual(self.ask("GET", "/sessions", headers=headers)[0], 200)
        self.proxy.stop_thread()
        self.start()
        self.assertEqual(self.ask("GET", "/sessions", headers=headers)[0], 200)

    def test_nothing_else(self) -> None:
        """A client without the token gets 401 for every request, before the proxy reads more of it."""
        with open(os.path.join(self.directory, "token"), "w", encoding="ascii") as file:
            file.write(_TOKEN + "\n")
        self.start()
        client = self.client("vm")
        (session,) = self.proxy.sessions()
        seen = set()
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer"},
            {"Authorization": _TOKEN},
            {"Authorization": f"Basic {_TOKEN}"},
            {"Authorization": f"Bearer {_TOKEN[:-1]}"},
            {"Authorization": f"Bearer {_TOKEN}x"},
            {"Authorization": f"Bearer {_TOKEN}\xe9"},
            {"Authorization": f"Bearer {self.token('vm')}"},
        ):
            for method, path, body in (
                ("GET", "/sessions", None),
                ("POST", "/sessions", None),
                ("DELETE", f"/sessions/{session.id}", None),
                ("DELETE", "/sessions/none", None),
                ("POST", "/kick", {"user": "0"}),
                ("POST", "/kick", b"{"),
                ("GET", "/kick", None),
            ):
                with self.subTest(method=method, path=path, headers=headers):
                    status, said = self.ask(method, path, body, headers)
                    self.assertEqual(status, 401)
                    seen.add(json.dumps(said))
        self.assertEqual(len(seen), 1, seen)
        self.assert_lives(client)
        right = {"Authorization": f"bearer {_TOKEN}"}
        self.assertEqual(self.ask("GET", "/sessions", headers=right)[0], 200)

    def test_file_changes(self) -> None:
        """If the file's token changes, the new one counts; if the file becomes bad, the old one stays."""
        path = os.path.join(self.directory, "token")
        for token in (_TOKEN, _TOKEN[::-1]):
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.write(token)
            os.replace(f"{path}.new", path)
            if token == _TOKEN:
                self.start()
            self.assertEqual(
                self.ask("GET", "/sessions", headers={"Authorization": f"Bearer {token}"})[0], 200
            )
        self.assertEqual(self.ask("GET", "/sessions", headers={"Authorization": f"Bearer {_TOKEN}"})[0], 401)
        with self.assertLogs("wsproxy.reloaded", "WARNING"):
            os.unlink(path)
            self.assertEqual(
                self.ask("GET", "/sessions", headers={"Authorization": f"Bearer {token}"})[0], 200
            )

    def test_bad_files(self) -> None:
        """A file that cannot be used stops the start, and what it holds is not shown."""
        path = os.path.join(self.directory, "token")
        for content in ("", "short", "two words that are long enough", "x" * 600):
            with open(path, "w", encoding="ascii") as file:
                file.write(content)
            with self.subTest(content), self.assertRaisesRegex(ConfigError, "16 to 512") as caught:
                self.start()
            self.assertNotIn("words", str(caught.exception))
        with self.assertRaisesRegex(ConfigError, "admin_token_file is set but admin is not"):
            self.start(admin=None)
        with self.assertRaisesRegex(ConfigError, "cannot use the operator's token in '/nowhere/token'"):
            self.start_proxy(admin="127.0.0.1:0", admin_token_file="/nowhere/token")


class Program(ProxyTestCase):
    """``wsproxy sessions`` and a running proxy."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        for vmi in ("vm", "vm-2"):
            self.api.add_vmi(vmi, self.namespace)

    def start(self, **settings: str) -> ProxyProcess:
        # Nobody answers pings while commands run, which takes long on a busy machine.
        program = ProxyProcess(self.api, TMPDIR=self.directory, WSPROXY_PING_INTERVAL="600", **settings)
        self.addCleanup(program.close)
        self.admin = program.wait_for(rb"the operator's listener is at (\S+)")[1].decode()
        return program

    def command(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run ``wsproxy sessions``, and return its status and output."""
        done = subprocess.run(
            [sys.executable, "-m", "wsproxy", "sessions", *arguments],
            env={**os.environ, "TMPDIR": self.directory, "WSPROXY_ADMIN": self.admin, **environment},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
        return done.returncode, done.stdout, done.stderr

    def client(self, program: ProxyProcess, vmi: str, token: str) -> RawClient:
        client = RawClient.open(f"{program.url}/{token}/{vmi}")
        self.addCleanup(client.close)
        return client

    def test_lists_and_kicks(self) -> None:
        """The command lists and kicks; a kicked token is refused at once; a wrong token sees 401 alone."""
        program = self.start(WSPROXY_ADMIN="127.0.0.1:0")
        token = self.token("vm", user="eve")
        eve, adam = self.client(program, "vm", token), self.client(program, "vm-2", self.token("vm-2"))
        self.assertEqual((eve.status, adam.status), (101, 101))

        status, output, errors = self.command()
        self.assertEqual((status, errors), (0, ""))
        headings, first, second = output.splitlines()
        self.assertEqual(headings.split()[:6], ["ID", "USER", "NAMESPACE", "VMI", "CONSOLE", "CLIENT"])
        self.assertEqual(first.split()[1:6], ["eve", self.namespace, "vm", "vnc", "127.0.0.1"])
        self.assertEqual(second.split()[1:6], ["0", self.namespace, "vm-2", "vnc", "127.0.0.1"])
        status, output, _ = self.command("list", "--json")
        self.assertEqual(status, 0)
        self.assertEqual(
            [one["id"] for one in json.loads(output)["sessions"]], [first.split()[0], second.split()[0]]
        )

        wrong = os.path.join(self.directory, "wrong")
        with open(wrong, "w", encoding="ascii") as file:
            file.write("x" * 32)
        for arguments in ((), ("kick", "--user", "eve")):
            status, output, errors = self.command(*arguments, WSPROXY_ADMIN_TOKEN_FILE=wrong)
            self.assertEqual((status, output), (1, ""))
            self.assertEqual(errors, "wsproxy sessions: 401: this request needs the operator's token\n")

        status, output, errors = self.command("kick", "--user", "eve")
        self.assertEqual((status, output.splitlines()[0], errors), (0, "1 sessions ended", ""))
        again = self.client(program, "vm", token)
        self.assertEqual(
            (again.status, json.loads(again.body())["message"]), (401, "the token has been revoked")
        )
        self.assertEqual(eve.recv_close(_TIMEOUT), _KICKED)
        adam.send_frame(BINARY, b"hello")
        self.assertEqual(adam.recv_frame(_TIMEOUT).payload, b"hello")
        status, output, errors = self.command("kick", second.split()[0], "--json")
        self.assertEqual((status, json.loads(output)["sessions"]), (0, [second.split()[0]]))
        self.assertEqual(adam.recv_close(_TIMEOUT), _KICKED)
        self.assertEqual(program.stop(), 0)
        with open(
            os.path.join(self.directory, f"wsproxy-{os.getuid()}", "admin-token"), encoding="ascii"
        ) as file:
            self.assertNotIn(file.read().strip().encode(), program.output)
        self.assertNotIn(token.encode(), program.output)

    def test_several_workers(self) -> None:
        """With several workers the operator sees and ends the sessions of all."""
        path = os.path.join(self.directory, "admin")
        program = self.start(WSPROXY_ADMIN=f"unix:{path}", WSPROXY_WORKERS="2")
        vmis = [f"of-{user}" for user in range(8)]
        for vmi in vmis:
            self.api.add_vmi(vmi, self.namespace)
        tokens = [self.token(vmi, user=user) for user, vmi in enumerate(vmis)]
        clients = [self.client(program, vmi, token) for vmi, token in zip(vmis, tokens, strict=True)]
        status, output, _ = self.command("list", "--json")
        users = [one["user"] for one in json.loads(output)["sessions"]]
        self.assertEqual((status, sorted(users)), (0, list(range(8))))
        self.assertEqual(self.command("kick", "--user", "3")[0], 0)
        self.assertEqual(clients[3].recv_close(_TIMEOUT), _KICKED)
        for _ in range(4):  # whichever worker gets it
            self.assertEqual(self.client(program, vmis[3], tokens[3]).status, 401)
