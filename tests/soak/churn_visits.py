"""What one client of ``scripts/soak --churn`` does, and what the VM's side does to it: chosen at random."""

from __future__ import annotations

import http.client
import json
import random
import re
import struct
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Backend, Echo, Script, Stream
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG, encode_frame, parse_close
from wsproxy.testing.kubevirt.http import Answer, Behaviour
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token

__all__ = ["LARGEST_FRAME", "NAMESPACE", "SETTINGS", "Visit", "add_shared_consoles"]

NAMESPACE = "lab-1"
LARGEST_FRAME = 65536
SETTINGS = {
    "WSPROXY_CONSOLE": "*/fight-*=takeover,*/keep-*=refuse,passthrough",
    "WSPROXY_SHOW_USER": "true",
    "WSPROXY_CLAIM_TAKEOVER": "/lab_instance/additional_data/may_take_over",
    "WSPROXY_TICKETS": "true",
    "WSPROXY_TRUSTED_PROXIES": "127.0.0.1",
    "WSPROXY_MAX_SESSIONS": "18",
    "WSPROXY_MAX_SESSIONS_PER_USER": "6",
    "WSPROXY_MAX_SESSIONS_PER_VMI": "5",
    "WSPROXY_MAX_PENDING_PER_ADDRESS": "20",
    "WSPROXY_MAX_FAILURES": "12",
    "WSPROXY_MAX_FRAME_SIZE": str(LARGEST_FRAME),
    "WSPROXY_IDLE_TIMEOUT": "6",
    "WSPROXY_MAX_AGE": "8",
    "WSPROXY_REQUEST_TIMEOUT": "3",
    "WSPROXY_DIAL_TIMEOUT": "3",
    "WSPROXY_CLOSE_TIMEOUT": "2",
    "WSPROXY_PING_INTERVAL": "2",
}
"""Every limit is on, and low enough to be hit now and then; every time is short."""

_WAIT = 60.0  # seconds after which a client hangs; none of the times above is longer than 8
_FIGHTS = ("fight-0", "fight-1", "keep-0", "keep-1", "share-0")
_STOPPED: dict[str, dict[str, Any]] = {
    "stopped": {"phase": "Scheduled"},
    "failed": {"phase": "Failed"},
    "headless": {"display": False},
}
_SLUG = re.compile(rb'"reason": ?"([a-z-]+)"')
_PART_OF_A_FRAME = struct.pack("!BBH", 0x82, 126, 1000) + b"x" * 10
_PART_OF_A_MASKED_FRAME = struct.pack("!BBH4s", 0x82, 0x80 | 126, 1000, b"mask") + b"x" * 10
_NEVER = threading.Event()
# What a client may be told for being one of many, or because the machine is slow.
_CROWDED = {"busy", "limit-user", "limit-vmi", "limit-address", "upstream-timeout", "request-timeout"}


class _NotOpenedError(Exception):
    """The client was refused; says how."""


def add_shared_consoles(api: FakeKubeVirtAPI) -> None:
    """Add the VMIs that several clients want at a time, and those that cannot be opened."""
    for name in _FIGHTS:
        api.add_vmi(name, NAMESPACE, backend=Echo())
    for name, options in _STOPPED.items():
        api.add_vmi(name, NAMESPACE, **options)


def _slug(body: bytes) -> str:
    found = _SLUG.search(body)
    return found[1].decode() if found else ""


# What the VM's side does


def _answer(console: FakeConsole) -> None:
    while (frame := console.recv_frame(None)).opcode != CLOSE:
        console.send_frame(PONG if frame.opcode == PING else frame.opcode, frame.payload)
    console.send_close(1000)


def _close(console: FakeConsole) -> None:
    console.send_frame(BINARY, bytes(50000))
    console.send_close(3001, "upstream")
    console.recv_frame(None)


def _say_nothing(console: FakeConsole) -> None:
    while console.recv_frame(None):
        pass


def _violate(console: FakeConsole) -> None:
    console.send_frame(BINARY, b"good")
    console.send_frame(3, b"bad")
    console.recv_frame(None)


def _send_too_much(console: FakeConsole) -> None:
    console.send_frame(BINARY, bytes(LARGEST_FRAME + 1))
    console.recv_frame(None)


def _drop(console: FakeConsole) -> None:
    console.send_frame(BINARY, b"data")


def _drop_at_once(console: FakeConsole) -> None:
    pass


def _drop_inside_a_frame(console: FakeConsole) -> None:
    console.send_raw(_PART_OF_A_FRAME)


def _reset(console: FakeConsole) -> None:
    console.reset()


_ENDING = (_close, _violate, _send_too_much, _drop, _drop_at_once, _drop_inside_a_frame, _reset)
_SILENT = Script(_answer), Script(_say_nothing)
_STAYING: tuple[Backend, ...] = (*_SILENT, Stream(4096))
_FAULTS = (
    Behaviour(accept="wrong"),
    Behaviour(subprotocol="other"),
    Behaviour(headers=(("Sec-WebSocket-Extensions", "permessage-deflate"),)),
    Behaviour(raw=b"SSH-2.0-none\r\n\r\n"),
    Behaviour(raw=b""),
    Behaviour(raw=b"HTTP/1.1 101 Sw"),
    Behaviour(endless_headers=True),
    Behaviour(endless_body=True, answer=Answer(500)),
    Behaviour(answer=Answer(503, b"x" * 1000), body_framing="truncated"),
    Behaviour.redirect("https://198.51.100.1/"),
    Behaviour.busy(),
    *(Behaviour(answer=Answer(status, b"no")) for status in (401, 403, 404, 409, 429, 500, 502)),
)
# The last one waits for what the VM's side says first.
_FINE = (Behaviour(), Behaviour(early=encode_frame(BINARY, b"early")), Behaviour(coalesce=True))


class Visit:
    """One client: what it does is chosen by ``rng``, and nothing else.

    :param api: the stand-in.
    :param proxy: address of the proxy in front of it.
    :param own: a name that no other client has at the same time, for a VMI.
    """

    def __init__(self, api: FakeKubeVirtAPI, proxy: tuple[str, int], own: str, rng: random.Random) -> None:
        self._api = api
        self._proxy = proxy
        self._own = own
        self._rng = rng
        self._clients: list[RawClient] = []

    def run(self) -> tuple[str, str]:
        """Come, do something, and go; return what it was and what came of it. Blocks for ``_WAIT`` at most.

        :raises ValueError: if something came of it that must not; TimeoutError if nothing did.
        """
        ways = list(_WAYS)
        way = self._rng.choices(ways, [_WAYS[way] for way in ways])[0]
        try:
            outcome = way(self)
        except _NotOpenedError as exc:
            outcome = str(exc)
        except (ConnectionError, EOFError):
            if way is Visit.clean:
                raise
            outcome = "connection lost"
        finally:
            for client in self._clients:
                client.close()
        return way.__name__.replace("_", " "), outcome

    # Sessions

    def session(self) -> str:
        """Open a console and end it, both sides in one of many ways."""
        way, staying = self._rng.choice(_CLIENT_WAYS), self._rng.random() < 0.6
        if way is Visit._waits or not staying:
            backend: Backend = Script(self._rng.choice(_ENDING))
        else:
            backend = self._rng.choice(_STAYING)
        early = encode_frame(BINARY, b"early", mask=b"mask") if self._rng.random() < 0.2 else b""
        buffer = 4096 if way is Visit._reads_slowly else None
        client = self._open(
            backend,
            self._rng.choice(_FINE[:2] if backend in _SILENT else _FINE),
            early=early,
            receive_buffer=buffer,
            allowed={"upstream-refused"},  # one that ends at once may destroy its own 101
        )
        return way(self, client)

    def clean(self) -> str:
        """Send something, get it back, close: nothing else may come of it."""
        client = self._open(Script(_answer))
        data = self._rng.randbytes(self._rng.choice((0, 10, 30000)))
        client.send_frame(BINARY, data)
        frame = self._data_frame(client)
        if frame != data:
            raise ValueError(f"{len(frame)} bytes came back of {len(data)}")
        client.send_close(1000)
        told = self._told(client)
        if told != "1000":
            raise ValueError(f"a clean session ended with {told}")
        return told

    def expires(self) -> str:
        """Stay until the token's time is over."""
        token = self._token(self._own, expires_in=1.2)
        return self._told(self._open(Script(_answer), token=token, allowed={"token-expired"}))

    def is_kicked(self) -> str:
        """Be ended by the embedding program's code."""
        return self._told(self._open(Script(_answer), name=f"kick-{self._own}"))

    def stays_silent(self) -> str:
        """Send no data until the proxy has had enough of it."""
        return self._told(self._open(Script(_answer)))

    def grows_old(self) -> str:
        """Be busy until the session is as old as it may be."""
        client, deadline = self._open(Script(_answer)), Deadline(_WAIT)
        while not deadline.passed:
            client.send_frame(BINARY, b"busy")
            while (frame := client.recv_frame(_WAIT)).opcode == PING:
                client.send_frame(PONG, frame.payload)
            if frame.opcode == CLOSE:
                return str(parse_close(frame.payload)[0])
            _NEVER.wait(0.5)
        raise TimeoutError("the session does not end")

    def freezes(self) -> str:
        """Read nothing more, pings neither."""
        client = self._open(self._rng.choice(_STAYING))
        _NEVER.wait(self._rng.uniform(1, 4))
        return self._told(client)

    def is_stopped(self) -> str:
        """Lose the VM."""
        client = self._open(Script(_answer))
        client.send_frame(BINARY, b"data")
        self._api.remove_vmi(self._own, NAMESPACE)
        return self._told(client)

    def fights(self) -> str:
        """Want a console that others want, too."""
        name = self._rng.choice(_FIGHTS)
        user = self._rng.randrange(8)
        data = {"may_take_over": user != 0}
        token = make_token(SECRET, namespace=NAMESPACE, vmis=[name], user=f"u{user}", additional_data=data)
        client = self._enter(f"/{token}/{name}", allowed={"console-busy"})
        client.send_frame(BINARY, b"mine")
        deadline = Deadline(self._rng.uniform(0, 0.6))
        try:
            while client.recv_frame(deadline.remaining()).opcode != CLOSE:
                pass
        except TimeoutError:
            client.send_close(1000)
        else:
            client.send_close(1000)
            return "lost the console"
        return self._told(client)

    def takes_too_many(self) -> str:
        """Open more consoles than a user may have."""
        for number in range(7):
            name = f"{self._own}-{number}"
            self._api.add_vmi(name, NAMESPACE, backend=Echo())
            self._enter(f"/{self._token(name, user='greedy')}/{name}")
        return "was let in"  # some have ended meanwhile

    def brings_a_ticket(self) -> str:
        """Exchange the token for a ticket, and use that twice: nothing is left of one that is used up."""
        self._api.add_vmi(self._own, NAMESPACE, backend=Script(_answer))
        link = http.client.HTTPConnection(*self._proxy, timeout=_WAIT)
        headers = {"Authorization": f"Bearer {self._token(self._own)}", "Content-Type": "application/json"}
        try:
            link.request("POST", "/ticket", json.dumps({"vmi": self._own}), headers)
            found = json.loads(link.getresponse().read())
        except http.client.HTTPException:
            return "connection lost"
        finally:
            link.close()
        if "path" not in found:
            return self._refused(found["status"], found["reason"], ())
        try:
            client = self._enter(found["path"])
            client.send_close(1000)
            return self._told(client)
        finally:
            self._must_fail(found["path"], {"bad-token", "limit-failures"}, [self._from_elsewhere()])

    # What each client of a session may do

    def _closes(self, client: RawClient) -> str:
        client.send_frame(BINARY, bytes(self._rng.choice((10, 30000))))
        client.send_close(self._rng.choice((1000, 1001, 3000, 4000, None)))
        return self._told(client)

    def _resets(self, client: RawClient) -> str:
        client.reset()
        return "left"

    def _drops(self, client: RawClient) -> str:
        client.drop()
        client.wait_for_end(_WAIT)
        return "left"

    def _drops_inside_a_frame(self, client: RawClient) -> str:
        client.send_raw(_PART_OF_A_MASKED_FRAME)
        return "left"

    def _leaves(self, client: RawClient) -> str:
        client.send_frame(BINARY, b"data")
        return "left"

    def _violates(self, client: RawClient) -> str:
        bad = (
            encode_frame(BINARY, b"not masked"),
            encode_frame(3, b"no such opcode", mask=b"mask"),
            encode_frame(PING, bytes(126), mask=b"mask"),
            encode_frame(BINARY, b"reserved", rsv=4, mask=b"mask"),
            encode_frame(CLOSE, b"\x03", mask=b"mask"),
        )
        client.send_raw(self._rng.choice(bad))
        return self._told(client)

    def _sends_too_much(self, client: RawClient) -> str:
        client.send_frame(BINARY, bytes(LARGEST_FRAME + 1))
        return self._told(client)

    def _reads_slowly(self, client: RawClient) -> str:
        for _ in range(self._rng.randrange(20)):
            if not client.recv_raw(_WAIT):
                return "dropped"
            _NEVER.wait(0.02)
        return self._rng.choice((self._resets, self._leaves))(client)

    def _waits(self, client: RawClient) -> str:
        return self._told(client)

    # Refusals

    def lies(self) -> str:
        """Bring a token that is none, from an address that has tried before."""
        own = self._own
        tokens = (
            self._token(own, secret="x" * 32),
            self._token(own, expires_in=-10),
            self._token(own)[:-4] + "AAAA",
            "e30.e30.e30",
            "x" * self._rng.choice((1, 300, 9000)),
        )
        headers = [self._from_elsewhere(), *self._as_browser()]
        target = f"/{self._rng.choice(tokens)}/{own}"
        expected = {"bad-token", "token-expired", "limit-failures", "bad-request", "not-found"}
        return self._must_fail(target, expected, headers)

    def asks_for_what_is_not(self) -> str:
        """Ask for what the token is not for, for what there is not, or for what cannot be opened."""
        other = self._rng.choice(("gone", f"deny-{self._own}", *_STOPPED))
        targets = (
            f"/{self._token(self._own)}/other",
            f"/{self._token(self._own)}/{self._own}/portforward",
            "/",
            f"/{self._token(other)}/{other}",
            f"/{self._token(other)}/{other}",
        )
        expected = {"forbidden", "not-found", "vmi-not-found", "vmi-not-running", "vmi-no-console"}
        target = self._rng.choice(targets)
        return self._must_fail(target, expected | {"upstream-refused"}, self._as_browser())

    def finds_a_faulty_upstream(self) -> str:
        """Ask for a console that the API does not open, each time in another way."""
        behaviour = self._rng.choice(_FAULTS)
        self._api.add_vmi(self._own, NAMESPACE, behaviour=behaviour)
        expected = {"upstream-refused", "vmi-not-found", "vmi-not-running", "console-busy", "forbidden"}
        return self._must_fail(f"/{self._token(self._own)}/{self._own}", expected, self._as_browser())

    def finds_a_silent_upstream(self) -> str:
        """Wait until the dial is given up, or leave before."""
        slow = self._rng.choice((Behaviour(hang=True), Behaviour(drip=0.2)))
        self._api.add_vmi(self._own, NAMESPACE, behaviour=slow)
        target = f"/{self._token(self._own)}/{self._own}"
        if self._rng.random() < 0.5:
            return self._must_fail(target, {"upstream-timeout"})
        client = self._connect()
        client.send_raw(RawClient.request(target))
        _NEVER.wait(self._rng.uniform(0, 0.3))
        return self._rng.choice((self._resets, self._drops, lambda client: "left"))(client)

    def says_garbage(self) -> str:
        """Send what is no request, or too much of one."""
        line = RawClient.request(f"/{self._token(self._own)}/{self._own}")
        client = self._connect()
        client.send_raw(
            self._rng.choice(
                (
                    b"\x16\x03\x01" + self._rng.randbytes(200) + b"\r\n\r\n",
                    line.replace(b"GET", b"POST", 1),
                    line.replace(b"Upgrade: websocket\r\n", b""),
                    line.replace(b": 13", b": 12"),
                    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
                    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
                    b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n\r\n",
                )
            )
        )
        return f"answered {client.body()[9:12].decode(errors='replace') or 'nothing'}"

    def never_asks(self) -> str:
        """Send nothing, or half a request, and leave; or wait for the answer to that."""
        client = self._connect()
        client.send_raw(self._rng.choice((b"", b"GET /", RawClient.request("/")[:-2])))
        if self._rng.random() < 0.1:
            return f"answered {client.body()[9:12].decode() or 'nothing'}"
        return self._rng.choice((self._resets, lambda client: "left"))(client)

    def comes_as_a_crowd(self) -> str:
        """Open many connections that ask for nothing, and leave."""
        for _ in range(15):
            self._connect()
        return "left"

    # Tools

    def _token(self, vmi: str, *, secret: str = SECRET, user: str | None = None, **claims: Any) -> str:
        user = user if user is not None else f"user-{self._rng.randrange(1000)}"
        return make_token(secret, namespace=NAMESPACE, vmis=[vmi], user=user, **claims)

    def _from_elsewhere(self) -> str:
        """Return the header of a client that may fail: the others must not pay for it."""
        return f"X-Forwarded-For: 198.51.100.{self._rng.randrange(8)}"

    def _as_browser(self) -> list[str]:
        return ["Origin: https://console.example"] if self._rng.random() < 0.3 else []

    def _connect(self, **options: Any) -> RawClient:
        client = RawClient(self._proxy, **options)
        self._clients.append(client)
        client.timeout = _WAIT
        return client

    def _ask(self, target: str, headers: Sequence[str], early: bytes = b"", **options: Any) -> RawClient:
        client = self._connect(**options)
        client.send_raw(RawClient.request(target, headers) + early)
        client.read_head(_WAIT)
        return client

    def _open(
        self,
        backend: Backend,
        behaviour: Behaviour | None = None,
        *,
        name: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> RawClient:
        """Open a console with a backend behind it; otherwise as :meth:`_enter`."""
        name = name or self._own
        self._api.add_vmi(name, NAMESPACE, backend=backend, behaviour=behaviour)
        return self._enter(f"/{token or self._token(name)}/{name}", **options)

    def _enter(
        self,
        target: str,
        *,
        allowed: Collection[str] = (),
        early: bytes = b"",
        receive_buffer: int | None = None,
    ) -> RawClient:
        """Open a console. Everybody may be refused for being one of many.

        :param allowed: the slugs that it may be refused with besides.
        """
        client = self._ask(target, [], early, receive_buffer=receive_buffer)
        if client.status == 101:
            return client
        raise _NotOpenedError(self._refused(client.status, _slug(client.body()), allowed))

    def _must_fail(self, target: str, expected: Collection[str], headers: Sequence[str] = ()) -> str:
        client = self._ask(target, headers)
        if client.status == 101:  # a browser is let in, to be told
            client.drop()
            client.wait_for_end(_WAIT)
            return "told as a browser"
        return self._refused(client.status, _slug(client.body()), expected)

    @staticmethod
    def _refused(status: int, reason: str, expected: Collection[str]) -> str:
        if reason not in expected and reason not in _CROWDED:
            raise ValueError(f"refused with {status} {reason}")
        return f"refused: {reason}"

    def _data_frame(self, client: RawClient) -> bytes:
        while (frame := client.recv_frame(_WAIT)).opcode == PING:
            client.send_frame(PONG, frame.payload)
        if frame.opcode != BINARY:
            raise ValueError(f"opcode {frame.opcode}: {frame.payload[:40]!r}")
        return frame.payload

    def _told(self, client: RawClient) -> str:
        """Receive up to the Close frame, answer it, see the connection end, and return the code."""
        deadline = Deadline(_WAIT)
        while (frame := client.recv_frame(deadline.remaining())).opcode != CLOSE:
            if frame.opcode == PING:
                client.send_frame(PONG, frame.payload)
        code = str(parse_close(frame.payload)[0])
        try:
            client.send_close(1000)
        except ConnectionError:
            pass  # it has been told, and did not wait
        client.wait_for_end(deadline.remaining())
        return code


_CLIENT_WAYS: tuple[Callable[[Visit, RawClient], str], ...] = (
    Visit._closes,
    Visit._resets,
    Visit._drops,
    Visit._drops_inside_a_frame,
    Visit._leaves,
    Visit._violates,
    Visit._sends_too_much,
    Visit._reads_slowly,
    Visit._waits,
)

_WAYS: dict[Callable[[Visit], str], float] = {
    Visit.session: 45,
    Visit.clean: 15,
    Visit.fights: 12,
    Visit.is_kicked: 3,
    Visit.is_stopped: 3,
    Visit.brings_a_ticket: 3,
    Visit.lies: 4,
    Visit.asks_for_what_is_not: 4,
    Visit.finds_a_faulty_upstream: 4,
    Visit.says_garbage: 3,
    Visit.never_asks: 3,
    Visit.finds_a_silent_upstream: 0.7,
    Visit.comes_as_a_crowd: 0.7,
    Visit.takes_too_many: 0.5,
    Visit.expires: 1,
    Visit.freezes: 0.4,
    Visit.stays_silent: 0.3,
    Visit.grows_old: 0.3,
}
"""What clients do, and how often; those that take seconds are rare."""
