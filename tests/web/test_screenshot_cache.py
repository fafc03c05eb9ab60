"""Which pictures are kept, how many are taken at the same time, and what counts as a picture."""

from __future__ import annotations

import struct
import unittest
import zlib
from collections.abc import Callable
from unittest import mock

from tests.support.gate import Gate
from tests.support.transports import in_thread
from wsproxy.exceptions import LimitExceeded, UpstreamTimeout, VMINotRunning
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import LeakTestCase
from wsproxy.testing.screen.png import encode_png
from wsproxy.upstream.kubevirt import leaves_console_alone
from wsproxy.web import screenshot_cache
from wsproxy.web.screenshot_cache import MAX_SIZE, Screenshots, Taken, picture_fault

_PICTURE = encode_png(2, 1, b"\1\2\3\4\5\6")
_WAIT = 60.0
_LONG = 60.0


def with_header(width: int = 2, height: int = 1, *rest: int, kind: bytes = b"IHDR", size: int = 13) -> bytes:
    """Return a picture with another header."""
    header = struct.pack(">IIBBBBB", width, height, *(rest or (8, 2, 0, 0, 0)))
    checksum = zlib.crc32(kind + header)
    return (
        _PICTURE[:8] + struct.pack(">I", size) + kind + header + struct.pack(">I", checksum) + _PICTURE[33:]
    )


class PictureTest(unittest.TestCase):
    def test_pictures(self) -> None:
        """Every kind of PNG is accepted, whatever is between its first and last chunk."""
        good = [_PICTURE, with_header(), with_header(8192, 8192), with_header(1, 1, 1, 0, 0, 0, 1)]
        good += [with_header(3, 3, depth, colour, 0, 0, 0) for depth, colour in ((16, 6), (4, 3), (8, 4))]
        for picture in good:
            with self.subTest(picture=picture[:40]):
                self.assertIsNone(picture_fault(picture))

    def test_no_pictures(self) -> None:
        """Another format, and a PNG that cannot be a picture, are faults."""
        cases = {
            "it is not a PNG": (b"", b"GIF89a", b"<html>", b"P6\n2 1\n255\n", _PICTURE[:28], b"x" + _PICTURE),
            "its PNG header is invalid": (
                with_header(0),
                with_header(2, 0),
                with_header(1 << 13, (1 << 13) + 1),
                with_header(2, 1, 3, 2, 0, 0, 0),
                with_header(2, 1, 8, 5, 0, 0, 0),
                with_header(2, 1, 8, 2, 1, 0, 0),
                with_header(2, 1, 8, 2, 0, 0, 2),
                with_header(kind=b"IDAT"),
                with_header(size=14),
            ),
            "it is cut short": (_PICTURE[:-1], _PICTURE[:33], _PICTURE + b"<script>"),
        }
        for fault, pictures in cases.items():
            for picture in pictures:
                with self.subTest(picture=picture[:40]):
                    self.assertEqual(picture_fault(picture), fault)


class VersionTest(unittest.TestCase):
    def test_versions(self) -> None:
        """From KubeVirt 1.7 on a screenshot leaves the console alone; an unknown version is not trusted."""
        for version in (
            "v1.7.0",
            "v1.7.3",
            "v1.10.0",
            "v1.8.0-beta.0",
            "v2.0.0",
            "v1.7.0-12-gabcdef",
            "1.7.1",
        ):
            self.assertTrue(leaves_console_alone(version), version)
        old = (
            "v1.6.3",
            "v0.58.0",
            "v1.7.0-beta.0",
            "v1.7.0-rc.1",
            "",
            "devel",
            "{gitVersion}",
            "v1.7",
            "x1.7.0",
        )
        for version in old:
            self.assertFalse(leaves_console_alone(version), version)


class ScreenshotsCase(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.taken = 0
        self.screenshots = Screenshots(lambda: self.now)

    def take(self) -> bytes:
        self.taken += 1
        return b"picture %d" % self.taken

    def get(
        self,
        machine: str = "vm",
        take: Callable[[], bytes] | None = None,
        user: str = "alice",
        deadline: Deadline | None = None,
    ) -> bytes:
        taken = take or self.take
        return self.screenshots.get(
            ("lab-1", machine), user, lambda: Taken(taken()), deadline or Deadline(_LONG)
        )

    def hold(self, machine: str, user: str = "alice") -> Callable[[], object]:
        """Begin to take a picture; the returned function ends that, and returns the picture."""
        gate = Gate(self, _WAIT)

        def take() -> bytes:
            gate.stop()
            return self.take()

        join = in_thread(lambda: self.get(machine, take, user))
        gate.wait()

        def end() -> object:
            gate.open()
            return join()

        return end

    def wait_until_waiting(self, count: int) -> None:
        """Wait until that many requests are waiting."""
        deadline = Deadline(_WAIT)
        while sum(self.screenshots._asked.values()) < count:
            deadline.remaining()
            with self.screenshots._changed:
                self.screenshots._changed.wait(0.01)


class ReuseTest(ScreenshotsCase):
    def test_seconds(self) -> None:
        """A picture serves all users for five seconds; the next request takes another one."""
        self.assertEqual(self.get(), b"picture 1")
        self.now += 4.9
        self.assertEqual(self.get(user="bob"), b"picture 1")
        self.now += 0.2
        self.assertEqual(self.get(user="bob"), b"picture 2")

    def test_age(self) -> None:
        """What another process has taken serves only until it is five seconds old."""
        self.screenshots.get(("lab-1", "vm"), "alice", lambda: Taken(b"of another", 3.0), Deadline(_LONG))
        self.now += 1.9
        self.assertEqual(self.get(), b"of another")
        self.now += 0.2
        self.assertEqual(self.get(), b"picture 1")

    def test_machines(self) -> None:
        """Each machine has a picture of its own, also where only the namespaces differ."""
        self.assertEqual(self.get("vm"), b"picture 1")
        self.assertEqual(self.get("other"), b"picture 2")
        self.assertEqual(
            self.screenshots.get(("lab-2", "vm"), "alice", lambda: Taken(b"of another lab"), Deadline(_LONG)),
            b"of another lab",
        )
        self.assertEqual(self.get("vm"), b"picture 1")

    def test_refusals(self) -> None:
        """A refusal serves others for two seconds; each caller gets its own copy of the exception."""

        def refuse() -> bytes:
            self.taken += 1
            raise VMINotRunning("VMI is not running", log_detail="HTTP 500")

        caught = []
        for seconds in (0.0, 1.9, 0.2):
            self.now += seconds
            with self.assertRaises(VMINotRunning) as context:
                self.get(take=refuse)
            caught.append(context.exception)
        self.assertEqual(self.taken, 2)
        self.assertEqual(len(set(caught)), 3)
        self.assertEqual({(str(exc), exc.log_detail) for exc in caught}, {("VMI is not running", "HTTP 500")})
        self.now += 2
        self.assertEqual(self.get(), b"picture 3")

    def test_a_bug_is_not_kept(self) -> None:
        """An unexpected exception reaches only its own caller; the next caller takes a picture."""
        with self.assertRaises(ZeroDivisionError):
            self.get(take=lambda: bytes(1 // 0))
        self.assertEqual(self.get(), b"picture 1")


class OneForAllTest(ScreenshotsCase):
    def test_shared(self) -> None:
        """A caller that asks while a picture is being taken gets that picture."""
        end = self.hold("vm")
        others = [in_thread(lambda: self.get(user="bob")) for _ in range(3)]
        self.wait_until_waiting(4)
        self.assertEqual(end(), b"picture 1")
        self.assertEqual([join() for join in others], [b"picture 1"] * 3)
        self.assertEqual(self.taken, 1)

    def test_another_takes_over(self) -> None:
        """If taking a picture fails by a bug, one of the waiting callers takes it."""
        gate = Gate(self, _WAIT)

        def fail() -> bytes:
            gate.stop()
            raise ZeroDivisionError

        first = in_thread(lambda: self.get(take=fail))
        gate.wait()
        others = [in_thread(lambda: self.get(user="bob")) for _ in range(2)]
        self.wait_until_waiting(3)
        gate.open()
        with self.assertRaises(ZeroDivisionError):
            first()
        self.assertEqual([join() for join in others], [b"picture 1"] * 2)

    def test_deadline(self) -> None:
        """A caller waits until its deadline; the other thread takes the picture all the same."""
        end = self.hold("vm")
        with self.assertRaises(UpstreamTimeout):
            self.get(user="bob", deadline=Deadline(0.01))
        self.assertEqual(end(), b"picture 1")


class BoundsTest(ScreenshotsCase):
    def test_at_a_time(self) -> None:
        """At most eight screenshots are being taken at a time; a kept one needs no place."""
        self.assertEqual(self.get("known"), b"picture 1")
        ends = [self.hold(f"vm-{number}", f"user-{number}") for number in range(8)]
        with self.assertRaises(LimitExceeded) as caught:
            self.get("one-more")
        self.assertEqual(caught.exception.slug, "limit-screenshots")
        self.assertIn(("Retry-After", "2"), caught.exception.headers)
        self.assertEqual(self.get("known"), b"picture 1")
        ends.pop()()
        self.get("one-more")
        for end in ends:
            end()

    def test_of_one_user(self) -> None:
        """One user waits for four; others are not kept from theirs."""
        ends = [self.hold(f"vm-{number}") for number in range(3)]
        waiting = in_thread(lambda: self.get("vm-0"))
        self.wait_until_waiting(4)
        with self.assertRaisesRegex(LimitExceeded, "you are waiting"):
            self.get("one-more")
        self.get("one-more", user="bob")
        for end in ends:
            end()
        waiting()
        self.now += 10
        self.get("one-more")
        self.assertFalse(self.screenshots._asked)

    def test_of_two_users(self) -> None:
        """Two users have six of the eight places at most, so that a third one gets its picture."""
        ends = [self.hold(f"a-{number}", "alice") for number in range(4)]
        ends += [self.hold(f"b-{number}", "bob") for number in range(2)]
        with self.assertRaisesRegex(LimitExceeded, "too many screenshots are being taken"):
            self.get("b-2", user="bob")
        self.get("c", user="carol")
        for end in ends:
            end()
        self.assertFalse(self.screenshots._places._held)

    def test_memory(self) -> None:
        """The oldest are forgotten first, by number and by size."""
        for number in range(300):
            self.get(f"vm-{number}")
        self.assertEqual(len(self.screenshots), 256)
        self.get("vm-299")
        self.assertEqual(self.taken, 300)
        self.get("vm-0")
        self.assertEqual(self.taken, 301)
        for number in range(6):
            self.get(f"large-{number}", lambda: bytes(MAX_SIZE))
        self.assertEqual(len(self.screenshots), 4)

    def test_forgotten(self) -> None:
        """Housekeeping drops expired results."""
        self.get("vm-0")
        self.now += 3
        self.get("vm-1")
        self.assertEqual(self.screenshots.tick(self.now), self.now + 5)
        self.assertEqual(len(self.screenshots), 2)
        self.now += 2
        self.screenshots.tick(self.now)
        self.assertEqual(len(self.screenshots), 1)
        self.now += 3
        self.screenshots.tick(self.now)
        self.assertEqual(len(self.screenshots), 0)

    def test_too_many_refusals(self) -> None:
        """Refusals are kept within the same bounds."""
        with mock.patch.object(screenshot_cache, "_MOST_KEPT", 2):
            for number in range(3):
                with self.assertRaises(VMINotRunning):
                    self.get(f"vm-{number}", mock.Mock(side_effect=VMINotRunning("it does not run")))
        self.assertEqual(len(self.screenshots), 2)


if __name__ == "__main__":
    unittest.main()
