"""Target: the operator's listener, which may be reached by who is no operator."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import re
import socket
import tempfile
from typing import Any

from tests.access.test_sessions import FakeRelay
from tests.support.frame_streams import random_cuts
from wsproxy.access.revoked_sessions import end_revoked
from wsproxy.access.sessions import LiveSessions, SessionHandle
from wsproxy.admin.auth import Guard, operator_guard, read_operator_token
from wsproxy.admin.endpoints import admin_endpoints, session_endpoints
from wsproxy.admin.kick import Kicks
from wsproxy.admin.server import AdminServer
from wsproxy.exceptions import BadRequest
from wsproxy.net.addresses import ListenAddress
from wsproxy.state.console_policies import ConsolePolicies
from wsproxy.state.limits import LimitRules, Limits
from wsproxy.state.participant.participant import Participant, ParticipantRules
from wsproxy.state.revocations import Rule
from wsproxy.telemetry.audit import AuditLog
from wsproxy.telemetry.counters import Counters, Snapshot
from wsproxy.telemetry.reports import Reports
from wsproxy.tokens.claims import Grant, TokenKey
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.keys import load_keyring
from wsproxy.tokens.verifier import TokenVerifier

from .texts import assert_own_text

__all__ = ["check"]

_SECRET = b"fuzzing-secret-of-32-bytes-and-more"
_VERIFIER = TokenVerifier(load_keyring(_SECRET, None, others=False))
_JWT = make_token(_SECRET, namespace="lab-1", vmis=["ubuntu"], expires_in=10**9)
_LINES = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]+((?:\r\n[A-Za-z-]+: [\t -~]*)+)\Z")
_MOST_PIECES = 12
_RECEIVE = 1 << 20
_BEGINNINGS = ("this proxy does not accept the token anyway: ", "the body is wrong: ")


@functools.cache
def _operator() -> tuple[Guard, bytes]:
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    file = os.path.join(directory.name, "token")
    guard = operator_guard(file, ListenAddress("127.0.0.1", 9100))
    return guard, read_operator_token(file).encode()


class _Listener(socket.socket):
    """Accepts what it is given, and is readable as long as it has something."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        super().__init__(ours.family, ours.type, fileno=ours.detach())
        self._waiting: list[socket.socket] = []

    def give(self, sock: socket.socket) -> None:
        self._waiting.append(sock)
        self._theirs.send(b"x")

    def accept(self) -> tuple[socket.socket, Any]:
        self.recv(1)
        return self._waiting.pop(), ""

    def close(self) -> None:
        self._theirs.close()
        super().close()


class _Proxy:
    """An operator's listener in front of two sessions, whose time stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.relays = {"0a0b0c0d": FakeRelay(), "1a1b1c1d": FakeRelay()}
        sessions = LiveSessions()
        for number, (id, relay) in enumerate(self.relays.items()):
            grant = Grant(
                number, "lab-1", ("ubuntu",), 2e9, f"id-{number}", token_key=TokenKey(id.encode(), 2e9)
            )
            handle = SessionHandle(
                relay, id=id, grant=grant, vmi="ubuntu", subresource="vnc", client="192.0.2.1"
            )
            sessions.add(handle)

        def end(rules: list[Rule]) -> list[Rule]:
            return end_revoked(sessions, self.participant.known, rules)

        rules = ParticipantRules(ConsolePolicies([]))
        self.participant = Participant(None, rules, Limits(LimitRules()), end)
        kicks = Kicks(sessions, self.participant, _VERIFIER, Reports(Counters(), AuditLog(None)))
        self.listener = _Listener()
        endpoints = {
            **session_endpoints(_operator()[0], kicks),
            **admin_endpoints(lambda then: then(Snapshot())),
        }
        self.server = AdminServer(self.listener, endpoints, ["admin.example"], lambda: self.now)

    def answer(self, pieces: list[bytes], leaves: bool) -> bytes:
        """Return all that is sent to who sends this, and then leaves or waits."""
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            self.listener.give(ours)
            self.server.serve()
            sent = b""
            for piece in pieces:
                sent += self._exchanged(theirs, piece)
            if leaves:
                theirs.shutdown(socket.SHUT_WR)
            for _ in range(4):
                sent += self._exchanged(theirs, b"")
                self.now += 5.1  # its time is over, for whatever it is at
        return sent

    def _exchanged(self, sock: socket.socket, piece: bytes) -> bytes:
        try:
            sock.sendall(piece)
        except OSError:
            pass  # it has been answered, and nobody reads any more
        self.server.serve()
        self.server.serve()
        try:
            return sock.recv(_RECEIVE)
        except OSError:
            return b""

    @property
    def ended(self) -> set[str]:
        return {id for id, relay in self.relays.items() if relay.ends}


def check(data: bytes) -> None:
    """Send ``data``, in pieces, to the operator's listener. Its first byte says whether the sender leaves.

    ``$TOKEN`` in it is the operator's token, and ``$JWT`` a good token of a user's.
    """
    token = _operator()[1]
    leaves, stream = data[:1] > b"\x7f", data[1:].replace(b"$TOKEN", token).replace(b"$JWT", _JWT.encode())
    cut = random_cuts(stream, random.Random(data))
    answers = []
    for pieces in ([stream], [*cut[:_MOST_PIECES], b"".join(cut[_MOST_PIECES:])]):
        proxy = _Proxy()
        try:
            answer = proxy.answer([piece for piece in pieces if piece], leaves)
            assert proxy.server.next_due() is None, "a connection is left"
        finally:
            proxy.server.close()
        status = _check_answer(answer, token, complete=not leaves)
        _check_effect(proxy, status, stream, token)
        answers.append(status)
    assert answers[0] == answers[1], "the cuts decide"


def _check_answer(answer: bytes, token: bytes, *, complete: bool) -> int | None:
    """An answer is one whole response, in our own words; return its status, None for no answer at all."""
    if not answer:
        assert not complete, "who waits is not answered"
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    found = _LINES.match(head)
    assert found, "it is no HTTP response"
    names = [line.partition(b": ")[0].lower() for line in found[2].split(b"\r\n")[1:]]
    fields = dict(line.split(b": ", 1) for line in found[2].split(b"\r\n")[1:])
    assert len(names) == len(set(names)), "a header is there twice"
    assert fields[b"Content-Length"] == str(len(body)).encode(), "another body than it says"
    assert fields[b"Connection"] == b"close" and fields[b"X-Content-Type-Options"] == b"nosniff"
    assert token not in answer and _JWT.encode() not in answer, "it quotes a token"
    status = int(found[1])
    assert status in (200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 431, 501), "a bug"
    if status >= 400 and fields[b"Content-Type"] == b"application/json":
        said = json.loads(body)
        assert said["status"] == status
        message: str = said["message"]
        for beginning in _BEGINNINGS:
            message = message.removeprefix(beginning)
        assert_own_text(BadRequest(message))
    return status


def _check_effect(proxy: _Proxy, status: int | None, stream: bytes, token: bytes) -> None:
    """Sessions are shown and ended for the operator alone, and only if the answer says so."""
    head = stream.partition(b"\r\n\r\n")[0]
    method, _, target = head.partition(b"\r\n")[0].partition(b" ")
    done = proxy.ended or list(proxy.participant.known)
    if done:
        assert status == 200, "it is done, but the answer says something else"
        assert (method, target[:5]) == (b"POST", b"/kick") or (method, target[:10]) == (
            b"DELETE",
            b"/sessions/",
        )
    if status == 200 and not target.startswith(b"/metrics"):
        assert token in head, "a stranger is an operator"
    if status == 200:
        assert method in (b"GET", b"POST", b"DELETE") and b"\norigin:" not in head.lower()
        assert len(re.findall(rb"\nhost:", head.lower())) == 1
