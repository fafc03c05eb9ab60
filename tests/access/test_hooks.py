"""What the embedding program is told of sessions, and what it may do then."""

from __future__ import annotations

import queue
import threading
import unittest
from dataclasses import replace
from typing import Any

from wsproxy import AccessRequest, Config, Ending, Forbidden, Grant, SessionHandle, WebsocketProxy
from wsproxy.access.hooks import Hooks
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0

_VMIS = ("vm", "vm-2", "vm-3")

Event = tuple[str, SessionHandle, Any]


class HooksCase(ProxyTestCase):
    """Keeps what the hooks were told."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        for vmi in _VMIS:
            self.api.add_vmi(vmi, self.namespace)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.proxy: WebsocketProxy

    def start(self, **options: Any) -> None:
        hooks: dict[str, Any] = {"on_open": self.on_open, "on_close": self.on_close, "close_timeout": 0.2}
        self.proxy = self.start_proxy(**(hooks | options))

    def on_open(self, session: SessionHandle) -> None:
        self.events.put(("open", session, threading.current_thread().name))

    def on_close(self, session: SessionHandle, ending: Ending) -> None:
        self.events.put(("close", session, ending))

    def client(self, vmi: str = "vm") -> RawClient:
        """Open a session; a second one of the same VMI would take its console over."""
        client = RawClient.open(self.url(self.proxy, vmi, self.token(vmi, user="eve")))
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        return client

    def next(self, kind: str) -> tuple[SessionHandle, Any]:
        """Wait for the next event, which must be of this kind."""
        found, session, what = self.events.get(timeout=_TIMEOUT)
        self.assertEqual(found, kind)
        return session, what


class Told(HooksCase):
    """When the hooks are called, and with what."""

    def test_open_and_close(self) -> None:
        """The hooks are told of a session when it opens and when it is over, in the session's thread."""
        self.start()
        client = self.client()
        session, thread = self.next("open")
        self.assertEqual(thread, f"wsproxy-{session.id}")
        self.assertEqual(
            (session.user, session.namespace, session.vmi, session.subresource, session.client),
            ("eve", self.namespace, "vm", "vnc", "127.0.0.1"),
        )
        self.assertEqual(self.proxy.sessions(), [session])
        sent = client.send_frame(BINARY, b"hello")
        answered = client.recv_frame().raw
        self.assertEqual((session.bytes_up, session.bytes_down), (len(sent), len(answered)))
        client.send_close(3001, "good bye")
        client.recv_close()
        closed, ending = self.next("close")
        self.assertIs(closed, session)
        self.assertEqual(ending, Ending("client", 3001, "good bye"))
        self.assertEqual(session.ending, ending)
        self.assertGreater(session.bytes_up, len(sent))
        self.assertEqual(self.proxy.sessions(), [])

    def test_refused(self) -> None:
        """If the hook or the API refuses a client, ``on_open`` and ``on_close`` are not called."""

        def authorize(grant: object, request: object) -> None:
            raise Forbidden("not today")

        self.start(authorize=authorize)
        for vmi in ("vm", "missing"):
            client = RawClient.open(self.url(self.proxy, vmi))
            self.addCleanup(client.close)
            self.assertEqual(client.status, 403)
        self.start()
        client = RawClient.open(self.url(self.proxy, "missing"))
        self.addCleanup(client.close)
        self.assertEqual(client.status, 404)
        client.wait_for_end()
        self.proxy.stop_thread()
        self.assertTrue(self.events.empty())

    def test_stop(self) -> None:
        """Stopping the proxy closes its sessions, and returns when the hooks have been told of each."""
        self.start()
        clients = [self.client(vmi) for vmi in _VMIS]
        opened = {self.next("open")[0] for _ in clients}
        self.assertEqual(set(self.proxy.sessions()), opened)
        self.proxy.stop_thread()
        self.assertEqual(self.proxy.sessions(), [])
        for client in clients:
            self.assertEqual(client.recv_close(), (1012, "restarting"))
        told = [self.next("close") for _ in clients]
        self.assertEqual({session for session, _ in told}, opened)
        self.assertEqual({ending for _, ending in told}, {Ending("proxy", 1012, "restarting")})

    def test_from_config(self) -> None:
        """A proxy made of ready settings has the hooks, too."""
        config = Config(**self.proxy_options())
        proxy = WebsocketProxy.from_config(config, on_open=self.on_open, on_close=self.on_close)
        self.proxy = proxy.run_in_thread("127.0.0.1", 0)
        self.addCleanup(proxy.stop_thread)
        self.client().close()
        self.assertIs(self.next("open")[0], self.next("close")[0])


class Acting(HooksCase):
    """What a hook does to the session that it is told of."""

    def test_close_by_a_handle(self) -> None:
        """Another thread closes a session by its handle, once, with the code and reason that it likes."""
        self.start()
        client = self.client()
        session, _ = self.next("open")
        with self.assertRaises(ValueError):
            session.close(1006, "kicked")
        self.assertIsNone(session.ending)
        session.close(4499, "kicked: go home")
        session.close(4000, "again")
        self.assertEqual(client.recv_close(), (4499, "kicked: go home"))
        client.send_close(4499)
        self.assertEqual(self.next("close"), (session, Ending("proxy", 4499, "kicked: go home")))
        session.close()

    def test_close_while_it_opens(self) -> None:
        """A hook that closes the session in ``on_open`` has it end before anything is relayed."""
        self.start(on_open=lambda session: session.close(4403, "no"))
        client = self.client()
        self.assertEqual(client.recv_close(), (4403, "no"))
        self.assertEqual(self.next("close")[1], Ending("proxy", 4403, "no"))

    def test_silent_client_of_a_closed_session(self) -> None:
        """A session that is closed ends within the close timeout, whatever its client does."""
        self.start()
        client = self.client()
        session, _ = self.next("open")
        session.close()
        self.assertEqual(self.next("close"), (session, Ending("proxy", 4499, "kicked")))
        self.assertEqual(client.recv_close(), (4499, "kicked"))

    def test_stop_by_a_hook(self) -> None:
        """A hook cannot stop the proxy that calls it; its other parts it may use."""
        seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def on_open(session: SessionHandle) -> None:
            try:
                self.proxy.stop_thread()
            except RuntimeError as exc:
                seen.put((str(exc), self.proxy.sessions() == [session], self.proxy.address))

        self.start(on_open=on_open)
        client = self.client()
        reason, listed, address = seen.get(timeout=_TIMEOUT)
        self.assertIn("a session cannot stop the proxy", reason)
        self.assertEqual((listed, address), (True, self.proxy.address))
        client.send_frame(BINARY, b"x")
        client.recv_frame()

    def test_slow_hook(self) -> None:
        """Nothing is relayed while ``on_open`` runs, other sessions go on, and then nothing is missing."""
        entered, leave = threading.Event(), threading.Event()
        self.addCleanup(leave.set)

        def on_open(session: SessionHandle) -> None:
            if not entered.is_set():
                entered.set()
                leave.wait(_TIMEOUT)

        self.start(on_open=on_open)
        slow = self.client()
        self.assertTrue(entered.wait(_TIMEOUT))
        sent = slow.send_frame(BINARY, b"early")
        quick = self.client("vm-2")
        quick.send_frame(BINARY, b"x")
        quick.recv_frame()
        self.assertEqual(self.proxy.sessions()[0].bytes_up, 0)
        leave.set()
        self.assertEqual(slow.recv_frame().payload, b"early")
        self.assertEqual(self.proxy.sessions()[0].bytes_up, len(sent))

    def test_token_that_expires_in_the_hook(self) -> None:
        """A token whose time is over when ``on_open`` returns ends the session."""
        pause = threading.Event()

        def authorize(grant: Grant, request: AccessRequest) -> Grant:
            return replace(grant, expires_at=grant.expires_at - grant.seconds_left() + 0.2)

        def on_open(session: SessionHandle) -> None:
            while session.grant.seconds_left() > 0:
                pause.wait(0.01)

        self.start(authorize=authorize, on_open=on_open)
        self.assertEqual(self.client().recv_close()[0], 4411)


class Failing(HooksCase):
    """Hooks that raise."""

    def test_logged(self) -> None:
        """What a hook raises is logged with its traceback, and the session goes on as if it had not."""
        for exception in (ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException):
            with self.subTest(exception), self.assertLogs("wsproxy.hooks", "ERROR") as logs:

                def fail(*told: object, exception: type[BaseException] = exception) -> None:
                    self.events.put(("close" if len(told) == 2 else "open", told[0], None))  # type: ignore[arg-type]
                    raise exception

                self.start(on_open=fail, on_close=fail)
                client = self.client()
                session, _ = self.next("open")
                client.send_frame(BINARY, b"x")
                self.assertEqual(client.recv_frame().payload, b"x")
                client.send_close(1000)
                client.recv_close()
                self.next("close")
                client.wait_for_end()
                server = self.proxy._server
                assert server is not None
                failures = server._gateway.counters
                self.proxy.stop_thread()
                self.assertEqual(failures.numbers(0).failures, 2)
                for line, name in zip(logs.output, ("on_open", "on_close"), strict=True):
                    self.assertIn(f"the {name} hook failed for session {session.id}", line)
                    self.assertIn("Traceback", line)
                    self.assertIn(exception.__name__, line)

    def test_no_hooks(self) -> None:
        """Without hooks nothing happens."""
        hooks = Hooks()
        self.assertIsNone(hooks.opened(None))  # type: ignore[arg-type, func-returns-value]
        self.assertIsNone(hooks.closed(None, None))  # type: ignore[arg-type, func-returns-value]


if __name__ == "__main__":
    unittest.main()
