"""Handles of sessions, and the list of them."""

from __future__ import annotations

import gc
import unittest
import weakref
from typing import Any, cast
from unittest import mock

from wsproxy.access.sessions import LiveSessions, SessionHandle
from wsproxy.protocol.closing import Ending
from wsproxy.tokens.claims import Grant

GRANT = Grant("eve", "lab-1", ("vm", "other"), 1e12, "id-5")
GONE = Ending("client", 1000, "client-gone")


class FakeRelay:
    """Stands for a session's relay."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.bytes_up = self.bytes_down = self.data_up = 0
        self.ends: list[tuple[int, str]] = []

    def end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.ending = self.ending or Ending("proxy", code, reason)


def handle_of(relay: FakeRelay, id: str = "0a0b0c0d") -> SessionHandle:
    return SessionHandle(relay, id=id, grant=GRANT, vmi="vm", subresource="vnc", client="192.0.2.1")


class Handles(unittest.TestCase):
    def setUp(self) -> None:
        self.relay = FakeRelay()
        self.handle = handle_of(self.relay)
        self.live = LiveSessions()
        self.live.add(self.handle)

    def test_what_it_says(self) -> None:
        """A handle describes its session, and its repr contains no more than that."""
        handle = self.handle
        self.assertEqual(
            (handle.id, handle.user, handle.namespace, handle.vmi, handle.subresource, handle.client),
            ("0a0b0c0d", "eve", "lab-1", "vm", "vnc", "192.0.2.1"),
        )
        self.assertGreater(handle.opened, 1_700_000_000)
        self.relay.bytes_up, self.relay.bytes_down = 3, 4
        self.assertEqual((handle.bytes_up, handle.bytes_down, handle.ending), (3, 4, None))
        self.assertEqual(repr(handle), "<SessionHandle 0a0b0c0d open: user 'eve', lab-1/vm vnc>")

    def test_last_activity(self) -> None:
        """The last activity is the time at which new data was seen; control frames do not count."""
        self.assertEqual(self.handle.last_activity, self.handle.opened)
        with mock.patch("time.time", lambda: 2e9):
            self.relay.bytes_up = 100
            self.assertEqual(self.handle.last_activity, self.handle.opened)
            self.relay.data_up = 50
            self.handle.note_activity()
        with mock.patch("time.time", lambda: 3e9):
            self.assertEqual(self.handle.last_activity, 2e9)
            self.relay.data_up = 51
            self.live.remove(self.handle, GONE)
            self.assertEqual(self.handle.last_activity, 2e9)

    def test_close(self) -> None:
        """A close goes to the relay with its code and reason; without any it is 4499, kicked."""
        for arguments, expected in (
            ((), (4499, "kicked")),
            ((4000, ""), (4000, "")),
            ((1000, "bye"), (1000, "bye")),
            ((4999, "x" * 123), (4999, "x" * 123)),
            ((3000, "é" * 61), (3000, "é" * 61)),
        ):
            with self.subTest(arguments):
                self.handle.close(*arguments)
                self.assertEqual(self.relay.ends.pop(), expected)

    def test_close_that_cannot_be_sent(self) -> None:
        """A code that may not be sent, or a reason that does not fit, is refused and ends nothing."""
        for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, True, 4499.0, "4499", None):
            with self.subTest(code), self.assertRaisesRegex(ValueError, "close code .* may not be sent"):
                self.handle.close(cast(Any, code))
        for reason in ("x" * 124, "é" * 62):
            with self.subTest(reason), self.assertRaisesRegex(ValueError, "124 bytes of UTF-8"):
                self.handle.close(4499, reason)
        for no_text in ("\ud800", b"kicked", None, 5):
            with self.subTest(no_text), self.assertRaisesRegex(ValueError, "must be text"):
                self.handle.close(4499, cast(Any, no_text))
        self.assertEqual(self.relay.ends, [])

    def test_after_the_end(self) -> None:
        """After the end the numbers are final, a close does nothing, and the relay is let go."""
        self.relay.bytes_up, self.relay.bytes_down = 3, 4
        self.live.remove(self.handle, GONE)
        relay = weakref.ref(self.relay)
        del self.relay
        gc.collect()
        self.assertIsNone(relay())
        self.handle.close()
        handle = self.handle
        self.assertEqual((handle.bytes_up, handle.bytes_down, handle.ending), (3, 4, GONE))
        self.assertIn("ended", repr(handle))
        with self.assertRaises(ValueError):
            self.handle.close(1005)

    def test_order(self) -> None:
        """The oldest session comes first in the list, which is a copy; two may have the same id."""
        second, third = handle_of(FakeRelay()), handle_of(FakeRelay(), "ffffffff")
        self.live.add(second)
        self.live.add(third)
        listed = self.live.all()
        self.assertEqual(listed, [self.handle, second, third])
        self.live.remove(second, GONE)
        self.assertEqual(self.live.all(), [self.handle, third])
        self.assertEqual((len(self.live), len(listed)), (2, 3))


class BeingOpened(unittest.TestCase):
    """Sessions that are not open yet."""

    def setUp(self) -> None:
        self.live = LiveSessions()
        self.relays: list[FakeRelay] = []
        self.looked: list[tuple[str, str]] = []

    def begin(self, user: str = "eve", vmi: str = "vm", *, has_left: bool = False) -> SessionHandle:
        relay = FakeRelay()
        self.relays.append(relay)
        grant = Grant(user, "lab-1", ("vm", "other"), 1e12, f"id-{user}")
        handle = SessionHandle(
            relay, id="0", grant=grant, vmi=vmi, subresource="vnc", client="", is_open=False
        )

        def look() -> bool:
            self.looked.append((user, vmi))
            return has_left

        self.live.begin(handle, look)
        return handle

    def test_opened(self) -> None:
        """One handle stands for the session before and after; from then on it says what the relay does."""
        handle, relay = self.begin(), FakeRelay()
        self.assertEqual(repr(handle), "<SessionHandle 0 being opened: user 'eve', lab-1/vm vnc>")
        narrowed = Grant("eve", "lab-1", ("vm",), 1e11, "id-eve")
        began = handle.opened
        handle.note_opened(relay, narrowed)
        self.live.add(handle)
        self.assertEqual(self.live.all(), [handle])
        self.assertTrue(handle.is_open)
        self.assertEqual(handle.grant, narrowed)
        self.assertGreaterEqual(handle.opened, began)
        handle.close()
        self.assertEqual((self.relays[0].ends, relay.ends), ([], [(4499, "kicked")]))
        self.live.remove(handle, GONE)
        self.live.remove(handle, GONE)
        self.assertEqual((self.live.all(), handle.ending), ([], GONE))

    def test_departures(self) -> None:
        """All clients of the same user and of the same console are checked, and no others."""
        self.begin("eve", "vm", has_left=True)
        self.begin("bob", "vm", has_left=True)
        self.begin("eve", "other")
        self.begin("bob", "other")
        self.assertTrue(self.live.note_departures("eve", ("lab-1", "vm", "vnc")))
        self.assertEqual(self.looked, [("eve", "vm"), ("bob", "vm"), ("eve", "other")])
        self.assertFalse(self.live.note_departures("carol", ("lab-1", "vm", "console")))

    def test_end(self) -> None:
        """The sessions that match all criteria end; values are compared with their types."""
        for user, vmi in (("eve", "vm"), ("eve", "other"), ("5", "vm")):
            self.begin(user, vmi)
        self.assertEqual(self.live.end(user=5), 0)
        self.assertEqual(self.live.end(user="eve", vmi="other", code=4000, reason="bye"), 1)
        self.assertEqual(self.live.end(token_id="id-5"), 1)
        self.assertEqual([relay.ends for relay in self.relays], [[], [(4000, "bye")], [(4499, "kicked")]])
        for wrong in ({"vmi": "vm", "code": 1005}, {"vmi": "vm", "reason": "x" * 124}):
            with self.assertRaises(ValueError):
                self.live.end(**cast(Any, wrong))
        self.assertRaises(TypeError, self.live.end)
        self.assertEqual(self.relays[0].ends, [])


if __name__ == "__main__":
    unittest.main()
