"""The table of ends, with real sockets on both sides, each leg with TLS and without."""

from __future__ import annotations

import socket
import struct
import threading
import unittest
from collections.abc import Callable

from tests.conformance.fronts import ConformanceTestCase, RunningProxy
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.kubevirt.backends import Echo, Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG
from wsproxy.testing.kubevirt.vmi import FakeVMI
from wsproxy.testing.rfb.raw_client import RawClient

_WITHIN = 40.0  # seconds in which everything is gone; tests/relay and tests/protocol have the exact times
_PART_OF_A_FRAME = struct.pack("!BBH", 0x82, 126, 1000) + b"x" * 10
_PART_OF_A_MASKED_FRAME = struct.pack("!BBH4s", 0x82, 0x80 | 126, 1000, b"mask") + b"x" * 10
_OWN_ENDS = (
    (4411, "expired"),
    (4408, "idle"),
    (4412, "max-age"),
    (4410, "taken-over"),
    (4499, "kicked"),
    (1012, "restarting"),
)


def _read_to_the_end(console: FakeConsole) -> None:
    while True:
        console.recv_frame()


class EndsTestCase(ConformanceTestCase):
    """Opens sessions between a raw client and a scripted upstream."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy: RunningProxy = self.start_proxy()
        self.proxy_is_done = threading.Event()
        self.vmis: dict[RawClient, str] = {}

    def read_nothing(self, console: FakeConsole) -> None:
        """Take nothing from the proxy while the session lasts, then see that its connection has ended."""
        console.wait(self.proxy_is_done)
        _read_to_the_end(console)

    def session(
        self,
        script: Callable[[FakeConsole], None] = _read_to_the_end,
        name: str = "vm",
        receive_buffer: int | None = None,
    ) -> tuple[RawClient, FakeConsole]:
        """Open a session with ``script`` behind it and return both of its ends."""
        vmi: FakeVMI = self.api.add_vmi(name, self.namespace, backend=Script(script))
        client = RawClient.open(self.url(self.proxy, name), receive_buffer=receive_buffer)
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        self.vmis[client] = name
        return client, vmi.wait_for_session()

    def assert_all_gone(self, *clients: RawClient) -> None:
        """Assert that soon no session, thread or connection is left at the proxy."""
        deadline = Deadline(_WITHIN)
        for client in clients:
            client.wait_for_end(deadline.remaining())
        self.assert_proxy_done(deadline)
        self.assertTrue(self.api.wait_until_idle(deadline.remaining()), "the upstream connection is left")
        self.proxy_is_done.clear()

    def assert_proxy_done(self, deadline: Deadline) -> None:
        self.join_session_threads(deadline)
        self.assertEqual(self.proxy.connections, 0)
        self.proxy_is_done.set()

    def join_session_threads(self, deadline: Deadline) -> None:
        """Wait until no thread works for a session any more; a few may be idle, for later ones."""
        pause = threading.Event()
        while (self.proxy.busy_threads() or self.proxy.connections) and not deadline.passed:
            pause.wait(0.001)
        self.assertEqual(self.proxy.busy_threads(), [])

    def end_from_within(self, client: RawClient, code: int, reason: str) -> None:
        """End a client's session as the proxy itself would."""
        self.proxy.end_session(self.vmis[client], code, reason)


class Ends(EndsTestCase):
    """One test for each row, state and direction."""

    def test_client_closes_and_upstream_answers(self) -> None:
        """The client's Close reaches the upstream as it is, and the upstream's answer comes back."""

        def answer(console: FakeConsole) -> None:
            console.recv_frame()
            console.send_close(4000, "see you")
            _read_to_the_end(console)

        client, console = self.session(answer)
        sent = client.send_close(3001, "good bye")
        self.assertEqual(client.recv_close(), (4000, "see you"))
        self.assertEqual(console.close_received, (3001, "good bye"))
        self.assertNotEqual(sent, b"")
        self.assert_all_gone(client)

    def test_client_closes_without_a_code(self) -> None:
        """A Close without a code reaches the other side without a code, in both directions."""

        def answer(console: FakeConsole) -> None:
            console.recv_frame()
            console.send_close(None)
            _read_to_the_end(console)

        client, console = self.session(answer)
        client.send_close(None)
        self.assertEqual(client.recv_close(), (1005, ""))
        self.assertEqual(console.close_received, (1005, ""))
        self.assert_all_gone(client)

    def test_upstream_goes_on_sending_until_its_answer(self) -> None:
        """Data that the upstream sends between the client's Close and its own answer is delivered."""

        def answer(console: FakeConsole) -> None:
            console.recv_frame()
            console.send_frame(BINARY, b"last words")
            console.send_close(1000)
            _read_to_the_end(console)

        client, _ = self.session(answer)
        client.send_close(1000)
        self.assertEqual(client.recv_frame().payload, b"last words")
        self.assertEqual(client.recv_close(), (1000, ""))
        self.assert_all_gone(client)

    def test_client_closes_and_upstream_never_answers(self) -> None:
        """If the upstream does not answer a client's Close, the proxy answers it with the same code."""
        client, console = self.session(self.read_nothing)
        client.send_close(3002, "good bye")
        self.assertEqual(client.recv_close(), (3002, "good bye"))
        self.assert_all_gone(client)
        self.assertIsNone(console.error)

    def test_upstream_closes_and_client_answers(self) -> None:
        """The upstream's Close reaches the client as it is, and the client's answer comes back."""

        def close(console: FakeConsole) -> None:
            console.send_close(1001, "going away")
            _read_to_the_end(console)

        client, console = self.session(close)
        self.assertEqual(client.recv_close(), (1001, "going away"))
        client.send_close(1001, "me too")
        self.assert_all_gone(client)
        self.assertEqual(console.close_received, (1001, "me too"))

    def test_upstream_closes_and_client_never_answers(self) -> None:
        """If the client does not answer the upstream's Close, the proxy answers it with the same code."""

        def close(console: FakeConsole) -> None:
            console.send_close(4001, "over")
            _read_to_the_end(console)

        client, console = self.session(close)
        self.assertEqual(client.recv_close(), (4001, "over"))
        self.assert_all_gone(client)
        self.assertEqual(console.close_received, (4001, "over"))

    def test_both_close_at_once(self) -> None:
        """If both sides send a Close at once, each Close answers the other."""
        both = threading.Barrier(2)

        def close(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"ready")
            both.wait(60)
            console.send_close(4002, "upstream's")
            _read_to_the_end(console)

        client, console = self.session(close)
        client.recv_frame()
        both.wait(60)
        client.send_close(4003, "client's")
        self.assertEqual(client.recv_close(), (4002, "upstream's"))
        self.assert_all_gone(client)
        self.assertEqual(console.close_received, (4003, "client's"))

    def test_client_vanishes_with_fin(self) -> None:
        """A client that leaves without a Close makes the upstream see Close 1000 and the end."""
        client, console = self.session()
        client.close()
        self.assert_upstream_told(console)

    def test_client_vanishes_with_rst(self) -> None:
        """A client whose connection is reset makes the upstream see Close 1000 and the end."""
        client, console = self.session()
        client.reset()
        self.assert_upstream_told(console)

    def assert_upstream_told(self, console: FakeConsole) -> None:
        self.assertTrue(self.api.wait_until_idle(_WITHIN))
        self.assertEqual(console.close_received, (1000, "client-gone"))
        self.join_session_threads(Deadline(_WITHIN))

    def test_client_vanishes_inside_a_frame(self) -> None:
        """If a client leaves inside a frame, the upstream gets no Close, and its session ends."""
        client, console = self.session()
        client.send_raw(_PART_OF_A_MASKED_FRAME)
        client.close()
        self.assertTrue(self.api.wait_until_idle(_WITHIN))
        self.assertIsNone(console.close_received)

    def test_client_closes_and_leaves_at_once(self) -> None:
        """If a client sends a Close and leaves at once, the upstream still gets the Close."""
        client, console = self.session()
        client.send_close(3003, "in a hurry")
        client.close()
        self.assertTrue(self.api.wait_until_idle(_WITHIN))
        self.assertEqual(console.close_received, (3003, "in a hurry"))

    def test_upstream_drops_after_data(self) -> None:
        """If KubeVirt drops TCP without a Close, as it does normally, the client gets Close 1011."""

        def drop(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"data")

        client, _ = self.session(drop)
        self.assertEqual(client.recv_frame().payload, b"data")
        self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
        client.send_close(1011)
        self.assert_all_gone(client)

    def test_upstream_drops_and_client_never_answers(self) -> None:
        """If a client does not answer the proxy's Close, the proxy shuts it down after the close timeout."""

        def drop(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"data")

        client, _ = self.session(drop)
        self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
        self.assert_all_gone(client)

    def test_upstream_resets(self) -> None:
        """If the upstream resets the connection, the client gets Close 1011."""

        def reset(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"data")
            console.recv_frame()
            console.reset()

        client, _ = self.session(reset)
        client.recv_frame()
        client.send_frame(BINARY, b"go")
        self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
        client.send_close(1011)
        self.assert_all_gone(client)

    def test_upstream_sends_close_notify(self) -> None:
        """If the upstream ends TLS, it counts as gone, whether TCP ends or not."""

        def notify(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"data")
            console.send_close_notify()
            self.read_nothing(console)

        client, _ = self.session(notify)
        self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
        client.send_close(1011)
        self.assert_all_gone(client)

    def test_upstream_drops_before_any_byte(self) -> None:
        """If the upstream ends after its 101 and sends nothing, the client gets 4502."""
        client, _ = self.session(lambda console: None)
        self.assertEqual(client.recv_close()[0], 4502)
        client.send_close(4502)
        self.assert_all_gone(client)

    def test_upstream_drops_inside_a_frame(self) -> None:
        """If the upstream drops inside a frame, no Close can follow, and the proxy shuts the client down."""

        def drop(console: FakeConsole) -> None:
            console.send_raw(_PART_OF_A_FRAME)

        with self.proxy_logs("wsproxy.session") as logs:  # before the upstream may drop
            client, _ = self.session(drop)
            received = b""
            while part := client.recv_raw():
                received += part
            self.assert_all_gone(client)
        self.assertEqual(received, _PART_OF_A_FRAME)
        self.assertIn("close not sent to client", logs.output[-1])

    def test_upstream_drops_after_its_close(self) -> None:
        """If the upstream sends a Close and does not wait for the answer, the session ends too."""

        def close(console: FakeConsole) -> None:
            console.send_close(4004, "enough")

        client, _ = self.session(close)
        self.assertEqual(client.recv_close(), (4004, "enough"))
        client.send_close(4004)
        self.assert_all_gone(client)

    def test_upstream_drops_instead_of_answering(self) -> None:
        """If the upstream answers a client's Close by dropping TCP, the proxy answers the client."""
        client, _ = self.session(lambda console: console.recv_frame() and None)
        client.send_close(3004, "good bye")
        self.assertEqual(client.recv_close(), (3004, "good bye"))
        self.assert_all_gone(client)

    def test_client_breaks_the_protocol(self) -> None:
        """A client that breaks RFC 6455 gets 1002, and the upstream Close 1000."""
        client, console = self.session()
        client.send_raw(b"\x82\x01x")  # not masked
        code, reason = client.recv_close()
        self.assertEqual(code, 1002)
        self.assertTrue(reason.startswith("protocol-error"), reason)
        self.assert_all_gone(client)
        self.assertEqual(console.close_received, (1000, ""))

    def test_upstream_breaks_the_protocol(self) -> None:
        """An upstream that breaks RFC 6455 gets 1002, and the client 1011."""

        def break_it(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"good")
            console.send_frame(3, b"bad")
            _read_to_the_end(console)

        client, console = self.session(break_it)
        self.assertEqual(client.recv_frame().payload, b"good")
        self.assertEqual(client.recv_close(), (1011, "upstream-protocol-error"))
        client.send_close(1011)
        self.assert_all_gone(client)
        assert console.close_received is not None
        self.assertEqual(console.close_received[0], 1002)

    def test_frame_too_big(self) -> None:
        """A frame above the limit is refused with 1009 at its header, whatever its length says."""
        client, console = self.session()
        client.send_raw(struct.pack("!BBQ", 0x82, 0x80 | 127, 2**63 - 1) + b"mask")
        self.assertEqual(client.recv_close()[0], 1009)
        self.assert_all_gone(client)
        self.assertEqual(console.close_received, (1000, ""))

    def test_own_end_with_each_code(self) -> None:
        """If the proxy ends a session, the client gets its code and reason, and the upstream Close 1000."""
        for code, reason in _OWN_ENDS:
            with self.subTest(code=code):

                def answer(console: FakeConsole) -> None:
                    console.send_frame(BINARY, b"ready")
                    console.recv_frame()
                    console.send_close(1000)
                    _read_to_the_end(console)

                client, console = self.session(answer)
                client.recv_frame()
                self.end_from_within(client, code, reason)
                self.assertEqual(client.recv_close(), (code, reason))
                client.send_close(code)
                self.assert_all_gone(client)
                self.assertEqual(console.close_received, (1000, ""))

    def test_own_end_and_nobody_answers(self) -> None:
        """If the proxy ends a session and neither side answers, that takes at most the close timeout."""

        def say_nothing(console: FakeConsole) -> None:
            console.recv_frame()
            self.read_nothing(console)

        ends = [self.session(say_nothing, f"vm-{code}") for code, _ in _OWN_ENDS]
        for (client, _), (code, reason) in zip(ends, _OWN_ENDS, strict=True):
            self.end_from_within(client, code, reason)
            self.assertEqual(client.recv_close(), (code, reason))
        self.assert_all_gone(*(client for client, _ in ends))
        self.assertEqual({console.close_received for _, console in ends}, {(1000, "")})

    def test_own_end_while_the_upstream_is_inside_a_frame(self) -> None:
        """The proxy's Close waits for the end of the frame that the upstream is sending."""
        for code, reason in _OWN_ENDS:
            with self.subTest(code=code):
                ended, told = threading.Event(), threading.Event()

                def send(
                    console: FakeConsole, ended: threading.Event = ended, told: threading.Event = told
                ) -> None:
                    console.send_raw(_PART_OF_A_FRAME)
                    console.wait(ended)
                    console.send_raw(b"y" * 990)
                    console.wait(told)
                    console.send_frame(BINARY, b"too late")
                    console.recv_frame()
                    console.send_close(1000)
                    _read_to_the_end(console)

                client, _ = self.session(send)
                got = client.recv_raw()
                while len(got) < len(_PART_OF_A_FRAME):
                    got += client.recv_raw()
                self.end_from_within(client, code, reason)
                ended.set()
                client._frames.feed(got)
                self.assertEqual(len(client.recv_frame().payload), 1000)
                frame = client.recv_frame()
                self.assertEqual(frame.opcode, CLOSE)
                self.assertEqual(frame.payload, struct.pack("!H", code) + reason.encode())
                told.set()
                client.send_close(code)
                self.assert_all_gone(client)

    def test_own_end_while_stuck_inside_a_frame(self) -> None:
        """If a frame is incomplete at the close timeout, its receiver gets no Close. The log says so."""

        def send(console: FakeConsole) -> None:
            console.send_raw(_PART_OF_A_FRAME)
            self.read_nothing(console)

        clients = [self.session(send, f"vm-{code}")[0] for code, _ in _OWN_ENDS]
        with self.proxy_logs("wsproxy.session") as logs:
            for client, (code, reason) in zip(clients, _OWN_ENDS, strict=True):
                client.recv_raw()
                self.end_from_within(client, code, reason)
            self.assert_all_gone(*clients)
        self.assertEqual("".join(logs.output).count("close not sent to client"), len(_OWN_ENDS))

    def test_own_end_after_either_side_vanished(self) -> None:
        """If a peer has already begun to end a session, the proxy ends it only once, and nothing leaks."""
        for code, reason in _OWN_ENDS:
            with self.subTest(code=code):
                client, _ = self.session(lambda console: console.send_frame(BINARY, b"data"))
                self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
                self.end_from_within(client, code, reason)
                client.send_close(1011)
                self.assert_all_gone(client)

    def test_both_ends_of_ours_and_the_client_at_once(self) -> None:
        """If a client's Close crosses the proxy's Close, it counts as the answer."""
        for code, reason in _OWN_ENDS:
            with self.subTest(code=code):
                client, console = self.session()
                both = threading.Barrier(2)

                def end(b: threading.Barrier, k: RawClient, c: int, r: str) -> None:
                    b.wait(60)
                    self.end_from_within(k, c, r)

                thread = threading.Thread(target=end, args=(both, client, code, reason))
                thread.start()
                both.wait(60)
                client.send_close(3005, "crossing")
                self.assertIn(client.recv_close()[0], (code, 3005))
                thread.join()
                self.assert_all_gone(client)
                self.assertIn(console.close_received, ((1000, ""), (3005, "crossing")))


class StuckLegs(EndsTestCase):
    """A leg that takes nothing: its send buffer is full."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(ping_interval=1.0)

    def flood(self, console: FakeConsole) -> None:
        payload = bytes(32768)
        while True:
            console.send_message(payload)

    def stuck_client(self, name: str = "vm") -> tuple[RawClient, FakeConsole]:
        """Open a session whose client reads nothing while the upstream sends all it can."""
        return self.session(self.flood, name, receive_buffer=4096)

    def test_client_that_reads_nothing_is_found_dead(self) -> None:
        """A client that takes no byte for two ping intervals is dead, and the upstream's session ends."""
        _, console = self.stuck_client()
        self.assertTrue(console.ended.wait(_WITHIN))

    def test_own_end_of_a_stuck_client(self) -> None:
        """If a send buffer is full, the proxy ends the session within the close timeout too."""
        self.proxy = self.start_proxy()
        ends = [self.stuck_client(f"vm-{code}") for code, _ in _OWN_ENDS]
        for _, console in ends:
            self.wait_until_stuck(console)
        with self.proxy_logs("wsproxy.session") as logs:
            for (client, _), (code, reason) in zip(ends, _OWN_ENDS, strict=True):
                self.end_from_within(client, code, reason)
            deadline = Deadline(_WITHIN)
            self.assert_proxy_done(deadline)
            self.assertTrue(self.api.wait_until_idle(deadline.remaining()))
        self.assertEqual("".join(logs.output).count("close not sent to client"), len(_OWN_ENDS))

    def wait_until_stuck(self, console: FakeConsole) -> None:
        """Wait until the upstream could send nothing for a while."""
        sent, quiet = -1, threading.Event()
        while console.bytes_sent != sent:
            sent = console.bytes_sent
            quiet.wait(0.5)

    def test_upstream_that_reads_nothing_is_found_dead(self) -> None:
        """An upstream that takes no byte for two ping intervals is dead, and the client gets a Close."""

        def speak_once(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"x")
            self.read_nothing(console)

        self.api.add_vmi("vm", self.namespace, backend=Script(speak_once))
        client = RawClient.open(self.url(self.proxy, "vm"))
        self.addCleanup(client.close)
        client.timeout = 3
        with self.assertRaises((TimeoutError, ConnectionError)):
            while True:
                client.send_frame(BINARY, bytes(32768))
        self.assertEqual(client.recv_close(), (1011, "upstream-closed"))
        self.assert_all_gone(client)


class Liveness(EndsTestCase):
    """Pings of ours, and what they are answered with."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.start_proxy(ping_interval=1.0)

    def test_silent_client_is_found_dead(self) -> None:
        """A client that answers no ping is dead after two intervals."""
        client, console = self.session()
        self.assertEqual(client.recv_frame().opcode, PING)
        self.assertTrue(console.ended.wait(_WITHIN))

    def test_answered_pings_keep_a_session_open(self) -> None:
        """Pongs that answer the proxy's pings keep an idle session alive, and are not passed on."""
        seen: list[int] = []

        def answer(console: FakeConsole) -> None:
            console.send_frame(BINARY, b"x")
            while True:
                frame = console.recv_frame()
                seen.append(frame.opcode)
                if frame.opcode == PING:
                    console.send_frame(PONG, frame.payload)
                elif frame.opcode == CLOSE:
                    console.send_close(1000)

        client, _ = self.session(answer)
        self.assertEqual(client.recv_frame().opcode, BINARY)
        for _ in range(5):
            frame = client.recv_frame()
            self.assertEqual((frame.opcode, len(frame.payload)), (PING, 8))
            client.send_frame(PONG, frame.payload)
        client.send_close(1000)
        self.assertEqual(client.recv_close(), (1000, ""))
        self.assert_all_gone(client)
        self.assertNotIn(PONG, seen)
        self.assertGreaterEqual(seen.count(PING), 4)

    def test_foreign_pings_and_pongs_pass(self) -> None:
        """Pings and pongs of the peers pass unchanged in both directions. The proxy answers none."""

        def echo(console: FakeConsole) -> None:
            while True:
                frame = console.recv_frame()
                if not (frame.opcode == PING and len(frame.payload) == 8):
                    console.send_frame(frame.opcode, frame.payload)

        client, _ = self.session(echo)
        for opcode, payload in ((PING, b"hello?"), (PONG, b"12345678"), (PONG, b"")):
            client.send_frame(opcode, payload)
            frame = client.recv_frame()
            while frame.opcode == PING and len(frame.payload) == 8:
                client.send_frame(PONG, frame.payload)
                frame = client.recv_frame()
            self.assertEqual((frame.opcode, frame.payload), (opcode, payload))
        client.reset()


class Stop(EndsTestCase):
    """The proxy stops with sessions open."""

    def test_stop_with_fifty_sessions(self) -> None:
        """Stopping sends each of 50 live sessions Close 1012 and leaves nothing."""
        self.api.add_vmi("vm", self.namespace, backend=Echo())
        for number in range(50):
            self.api.add_vmi(f"vm-{number}", self.namespace, backend=Echo())
        clients = [RawClient.open(self.url(self.proxy, f"vm-{number}")) for number in range(50)]
        self.assertEqual({client.status for client in clients}, {101})
        deadline = Deadline(_WITHIN)
        self.proxy.stop_thread()
        self.assertFalse(deadline.passed)
        for client in clients:
            self.assertEqual(client.recv_close(), (1012, "restarting"))
            client.close()
        self.assertEqual(self.proxy.busy_threads(), [])
        self.assertTrue(self.api.wait_until_idle(_WITHIN))

    def test_stop_during_the_request(self) -> None:
        """Stopping does not wait for a client that has not finished its request."""
        with RawClient(self.proxy.address) as client:
            client.send_raw(b"GET /")
            deadline = Deadline(_WITHIN)
            self.proxy.stop_thread()
            self.assertFalse(deadline.passed)
            client.wait_for_end()

    def test_stop_during_the_dial(self) -> None:
        """If the proxy stops while it opens a console, the client learns that the proxy is stopping."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        url = f"{self.api.url.partition('://')[0]}://127.0.0.1:{listener.getsockname()[1]}"
        proxy = self.start_proxy(remote_url=url)
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(f"/{self.token('vm')}/vm"))
            accepted, _ = listener.accept()
            with accepted:
                proxy.stop_thread()
                client.read_head()
        self.assertEqual(client.status, 503)


class PlainEnds(Ends):
    """The same without TLS, as behind kubectl proxy."""

    tls = False


class PlainStuckLegs(StuckLegs):
    tls = False


class PlainLiveness(Liveness):
    tls = False


class PlainStop(Stop):
    tls = False


class BothTLSEnds(Ends):
    """The same with TLS on both legs: every end that is orderly is so for TLS as well."""

    client_tls = True


class BothTLSStuckLegs(StuckLegs):
    client_tls = True


class BothTLSLiveness(Liveness):
    client_tls = True


class BothTLSStop(Stop):
    client_tls = True


class ExpiredSession(EndsTestCase):
    """The one lifetime that a session always has: its token's."""

    def test_session_ends_with_its_token(self) -> None:
        """A session is closed with 4411 when its token expires."""
        self.api.add_vmi("vm", self.namespace, backend=Echo())
        url = self.url(self.proxy, "vm", self.token("vm", expires_in=3))
        client = RawClient.open(url)
        self.addCleanup(client.close)
        code, reason = client.recv_close(_WITHIN)
        self.assertEqual(code, 4411)
        self.assertTrue(reason.startswith("expired"))
        client.send_close(code)
        self.assert_all_gone(client)


if __name__ == "__main__":
    unittest.main()
