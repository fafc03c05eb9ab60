"""A small desktop that speaks RFB 3.8 (RFC 6143) with security type None, in place of a virtual machine.

Each caller of `Desktop.serve` serves one viewer, with :mod:`..rfb.server`. One condition guards everything in
`Desktop`. The only socket call of a thread that holds it is `shutdown`, which wakes other threads.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, final

from ...protocol.rfb import RFBError
from ..rfb.messages import PointerEvent, server_cut_text
from ..rfb.server import ServedMachine, ServedViewer
from .image import Image
from .look import LOOKS
from .picture_asserts import saved
from .screen import Screen, status_line
from .text_asserts import text_missing
from .typed_text import typed

if TYPE_CHECKING:
    from ..kubevirt.vmi import FakeVMI

__all__ = ["Desktop"]

__unittest = True  # a failed assertion ends at the line of the test
_NO_FACTS: Mapping[str, str] = MappingProxyType({})


@final
class Desktop:
    """A simulated machine with a screen, a keyboard, a pointer and a clipboard.

    The screen has a terminal that echoes what viewers type. Any thread may call the methods. Only
    :meth:`serve` and the methods that wait block. At the end of ``with`` it closes.

    :param name: the desktop's name, on the screen and in ServerInit.
    :param facts: the screen shows the first five, each as "key value".
    :param size: width and height in pixels, at least 320 x 240.
    :param now: returns the time of day for the clock on the screen.
    :param max_viewers: how many viewers it serves at once. It refuses more with RFB's failure message.
    :param look: ``still``, ``orbits`` or ``meter``. The latter two have a figure that moves while there are
        viewers.
    :raises ValueError: if the size is too small.
    :raises KeyError: if there is no such look.
    """

    def __init__(
        self,
        name: str,
        facts: Mapping[str, str] = _NO_FACTS,
        size: tuple[int, int] = (640, 480),
        *,
        now: Callable[[], datetime] = datetime.now,
        max_viewers: int = 16,
        look: str = "still",
    ) -> None:
        self.name = name
        self.size = size
        self._vmi: FakeVMI | None = None
        self._now = now
        self._max_viewers = max_viewers
        self._changed = threading.Condition()  # guards all below, and each viewer's request and damage
        self._screen = Screen(name, facts, *size, LOOKS[look])
        self._viewers: set[ServedViewer] = set()
        self._text = ""
        self._clipboard = ""
        self._keys = 0
        self._pointer = (size[0] // 2, size[1] // 2)
        self._buttons = 0
        self._closed = False
        self._served = ServedMachine(
            name, size, self._screen, self._changed, now, self.refresh, self._press, self._paste, self._point
        )
        self.refresh()

    def __enter__(self) -> Desktop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for the server ---

    def serve(self, connection: socket.socket) -> None:
        """Serve one viewer on a connected plain socket until it disconnects, or until :meth:`close`.

        Blocks without a timeout. The socket becomes blocking, and is closed at the end. If the viewer
        vanishes or violates RFB, this raises nothing, and other viewers are not affected.
        """
        viewer = ServedViewer(self._served, connection)
        with connection:
            try:
                self._join(viewer)
                viewer.run()
            except (OSError, RFBError):
                pass  # the viewer vanished or violated RFB, which is an ordinary end
            finally:
                self._leave(viewer)

    def close(self) -> None:
        """Disconnect all viewers, and refuse new ones. Idempotent. Does not wait for :meth:`serve`."""
        with self._changed:
            self._closed = True
            for viewer in self._viewers:
                viewer.abort()
            self._changed.notify_all()

    # --- for tests ---

    @property
    def vmi(self) -> FakeVMI:
        """The VMI that :meth:`.FakeKubeVirtAPI.add_desktop` made for it. LookupError if there is none."""
        if self._vmi is None:
            raise LookupError(f"no VMI shows the desktop {self.name}; api.add_desktop(desktop) adds one")
        return self._vmi

    @property
    def text(self) -> str:
        """The typed text, after the effects of Backspace. Return is a newline. The last 65,536 characters."""
        with self._changed:
            return self._text

    @property
    def clipboard(self) -> str:
        """The desktop's clipboard: the last text of a viewer, or of :meth:`cut`."""
        with self._changed:
            return self._clipboard

    def cut(self, text: str) -> None:
        """Put a text on the desktop's clipboard, and send it to all viewers.

        :raises UnicodeEncodeError: if it is not Latin-1 (RFC 6143 section 7.6.4).
        """
        message = server_cut_text(text.encode("latin-1"))
        with self._changed:
            self._clipboard = text
            for viewer in self._viewers:
                viewer.cut_text = message
            self._changed.notify_all()

    @property
    def pointer(self) -> tuple[int, int]:
        """The pointer's place, in pixels."""
        with self._changed:
            return self._pointer

    @property
    def buttons(self) -> int:
        """The pointer's buttons that are down, as bits; bit 0 is the left one."""
        with self._changed:
            return self._buttons

    @property
    def viewers(self) -> int:
        """The number of connected viewers."""
        with self._changed:
            return len(self._viewers)

    def wait_for_text(self, text: str, timeout: float) -> bool:
        """Block until the typed text contains ``text``, or the time is over; return whether it does.

        :param timeout: seconds.
        """
        return self.wait_for(lambda: text in self._text, timeout)

    def assert_text(
        self, text: str, timeout: float = 10.0, *, save_to: str | os.PathLike[str] | None = None
    ) -> None:
        """Wait until the typed text contains ``text``. Blocks for ``timeout`` seconds at most.

        :param save_to: if the assertion fails, save the screen as ``seen.png`` in this existing directory.
        :raises AssertionError: if it does not; quotes the typed text, and says how many viewers there are.
        """
        __tracebackhide__ = True
        if self.wait_for_text(text, timeout):
            return
        with self._changed:
            seen, about = self._text, ", ".join(self._status())
        about += saved(save_to, seen=self.screenshot())
        raise text_missing(f"{text!r} was not typed", timeout, seen, about)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a condition holds, ``timeout`` seconds at most; return whether it does.

        :param condition: is called after each change, with the desktop's lock held, so it must not block. It
            may read the properties.
        """
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    @property
    def terminal_area(self) -> tuple[int, int, int, int]:
        """The area of the typed text on the screen: x, y, width and height in pixels."""
        with self._changed:
            area = self._screen.terminal
            return area.x, area.y, area.width, area.height

    def screenshot(self) -> Image:
        """Return the present screen."""
        with self._changed:
            return self._screen.front.image()

    def set_facts(self, facts: Mapping[str, str]) -> None:
        """Show other facts."""
        with self._changed:
            self._screen.set_facts(facts)
            self._publish()

    def refresh(self) -> None:
        """Redraw the clock and the figure. If a viewer waits for an update, its thread does this in time."""
        now = self._now()
        with self._changed:
            self._screen.set_clock(now.strftime("%H:%M:%S"))
            self._screen.set_moment(now.timestamp())
            self._publish()

    # --- for the viewers ---

    def _join(self, viewer: ServedViewer) -> None:
        with self._changed:
            if self._closed:
                raise ConnectionAbortedError("the desktop is closed")
            viewer.refused = len(self._viewers) >= self._max_viewers
            self._viewers.add(viewer)
            self._publish()

    def _leave(self, viewer: ServedViewer) -> None:
        with self._changed:
            self._viewers.discard(viewer)
            self._publish()

    def _press(self, down: bool, keysym: int) -> None:
        if not down:
            return
        with self._changed:
            self._keys += 1
            self._text = typed(self._text, keysym)
            self._screen.set_text(self._text)
            self._publish()

    def _paste(self, text: bytes) -> None:
        with self._changed:
            self._clipboard = text.decode("latin-1")
            self._changed.notify_all()

    def _point(self, event: PointerEvent) -> None:
        x, y = min(event.x, self.size[0] - 1), min(event.y, self.size[1] - 1)
        with self._changed:
            self._pointer, self._buttons = (x, y), event.buttons
            self._screen.set_pointer(x, y, pressed=bool(event.buttons))
            self._publish()

    def _publish(self) -> None:
        """Pass the screen's damage to every viewer, and wake all waiting threads."""
        # A Condition's default lock is re-entrant, so a viewer's thread may call refresh() while it holds it.
        self._screen.set_status(*self._status())
        damage, self._screen.damage = self._screen.damage, []
        for viewer in self._viewers:
            viewer.add_damage(damage)
        self._changed.notify_all()

    def _status(self) -> tuple[str, str]:
        return status_line(self._pointer, self._buttons, len(self._viewers), self._keys)
