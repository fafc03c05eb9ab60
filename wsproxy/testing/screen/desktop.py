"""A small desktop that speaks RFB 3.8 (RFC 6143), security type None, in place of a virtual machine.

Threads: the caller of `Desktop.serve` reads one viewer; a second thread, started there and joined there,
writes to it. They and all other viewers meet at one condition, which guards everything in `Desktop` and the
request and damage of each viewer. No socket is touched while it is held, but to wake one with `shutdown`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, final

from ...protocol.rfb import (
    VERSION_3_8,
    ClientMessage,
    ClientMessageType,
    ClientParser,
    RFBError,
    refusal,
)
from ..rfb.messages import (
    RGBX,
    SECURITY_OK,
    ClientCutText,
    ExtendedKeyEvent,
    FramebufferUpdateRequest,
    KeyEvent,
    PixelFormat,
    PointerEvent,
    ServerInit,
    SetPixelFormat,
    framebuffer_update_header,
    rectangle_header,
    security_types,
    server_cut_text,
)
from .canvas import Rectangle
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
_CHUNK = 16384
_MAX_DAMAGE = 24  # more rectangles than these become one


@final
class Desktop:
    """The machine: what it shows, what was typed into it, and who looks at it.

    What is typed is echoed in a terminal. All methods may be called from any thread, and none blocks but
    :meth:`serve` and those that wait. As a context manager it closes itself.

    :param name: shown, and told to viewers as the desktop's name.
    :param facts: the first five are shown, each as "key value".
    :param size: width and height in pixels, at least 320 x 240.
    :param now: gives the time of day for the clock on the screen.
    :param max_viewers: how many connections are served at a time; one more is refused the RFB way.
    :param look: ``still``, or ``orbits`` or ``meter``, on which a figure moves while somebody looks.
    :raises ValueError: if it is too small.
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
        self._viewers: set[_Viewer] = set()
        self._text = ""
        self._clipboard = ""
        self._keys = 0
        self._pointer = (size[0] // 2, size[1] // 2)
        self._buttons = 0
        self._closed = False
        self.refresh()

    def __enter__(self) -> Desktop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for the server ---

    def serve(self, connection: socket.socket) -> None:
        """Speak RFB on a connected plain socket until the peer leaves or :meth:`close` is called; blocks.

        The socket becomes blocking and is closed at the end. A peer that vanishes, breaks the protocol or
        stops reading ends only its own viewer; nothing is raised for it. No timeout: :meth:`close` ends it.
        """
        viewer = _Viewer(self, connection)
        with connection:
            try:
                self._join(viewer)
                viewer.run()
            except (OSError, RFBError):
                pass  # a bad or vanished peer is an ordinary end
            finally:
                self._leave(viewer)

    def close(self) -> None:
        """End every viewer and refuse new ones. Idempotent; does not wait for :meth:`serve` to return."""
        with self._changed:
            self._closed = True
            for viewer in self._viewers:
                viewer.abort()
            self._changed.notify_all()

    # --- for tests ---

    @property
    def vmi(self) -> FakeVMI:
        """The VMI that :meth:`.FakeKubeVirtAPI.add_desktop` has let show it; LookupError if none does."""
        if self._vmi is None:
            raise LookupError(f"no VMI shows the desktop {self.name}: api.add_desktop(desktop) adds one")
        return self._vmi

    @property
    def text(self) -> str:
        """What was typed, less what Backspace took; Return is a newline. The last 65,536 characters."""
        with self._changed:
            return self._text

    @property
    def clipboard(self) -> str:
        """What is on the desktop's clipboard: what a viewer, or :meth:`cut`, put there last."""
        with self._changed:
            return self._clipboard

    def cut(self, text: str) -> None:
        """Put a text on the desktop's clipboard, and tell those who look at it.

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
        """Where the pointer is, in pixels."""
        with self._changed:
            return self._pointer

    @property
    def buttons(self) -> int:
        """The pointer's buttons that are down, as bits; bit 0 is the left one."""
        with self._changed:
            return self._buttons

    @property
    def viewers(self) -> int:
        """How many connections are being served."""
        with self._changed:
            return len(self._viewers)

    def wait_for_text(self, text: str, timeout: float) -> bool:
        """Block until a text is part of what was typed, at most ``timeout`` seconds; return whether it is."""
        return self.wait_for(lambda: text in self._text, timeout)

    def assert_text(
        self, text: str, timeout: float = 10.0, *, save_to: str | os.PathLike[str] | None = None
    ) -> None:
        """Assert that a text is part of what was typed, or becomes it within ``timeout`` seconds; blocks.

        :param save_to: an existing directory for ``seen.png``, the screen, if it does not.
        :raises AssertionError: quoting what was typed, and telling how many look.
        """
        __tracebackhide__ = True
        if self.wait_for_text(text, timeout):
            return
        with self._changed:
            seen, about = self._text, ", ".join(self._status())
        about += saved(save_to, seen=self.screenshot())
        raise text_missing(f"{text!r} was not typed", timeout, seen, about)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a condition holds, at most ``timeout`` seconds; return whether it does.

        It is asked under the desktop's lock after each change: be quick in it. It may read the properties.
        """
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    @property
    def terminal_area(self) -> tuple[int, int, int, int]:
        """Where the typed text stands on the screen: x, y, width, height, in pixels."""
        with self._changed:
            area = self._screen.terminal
            return area.x, area.y, area.width, area.height

    def screenshot(self) -> Image:
        """Return what the desktop shows now."""
        with self._changed:
            return self._screen.front.image()

    def set_facts(self, facts: Mapping[str, str]) -> None:
        """Show other facts of the session."""
        with self._changed:
            self._screen.set_facts(facts)
            self._publish()

    def refresh(self) -> None:
        """Bring the clock up to date, and what moves. Viewers that wait for an update do so in time."""
        now = self._now()
        with self._changed:
            self._screen.set_clock(now.strftime("%H:%M:%S"))
            self._screen.set_moment(now.timestamp())
            self._publish()

    # --- for the viewers ---

    def _join(self, viewer: _Viewer) -> None:
        with self._changed:
            if self._closed:
                raise ConnectionAbortedError("the desktop is closed")
            viewer.refused = len(self._viewers) >= self._max_viewers
            self._viewers.add(viewer)
            self._publish()

    def _leave(self, viewer: _Viewer) -> None:
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
        """Hand what the screen changed to every viewer and wake whoever waits."""
        # A Condition's default lock is re-entrant: that lets refresh() run inside of a viewer's wait.
        self._screen.set_status(*self._status())
        damage, self._screen.damage = self._screen.damage, []
        for viewer in self._viewers:
            viewer.add_damage(damage)
        self._changed.notify_all()

    def _status(self) -> tuple[str, str]:
        return status_line(self._pointer, self._buttons, len(self._viewers), self._keys)


class _Viewer:
    """One connection: its state in the protocol, and its two threads."""

    def __init__(self, desktop: Desktop, connection: socket.socket) -> None:
        self.refused = False
        self._desktop = desktop
        self._connection = connection
        self._changed = desktop._changed
        self._parser = ClientParser()
        self._result = SECURITY_OK
        self._writer = threading.Thread(
            target=self._write, name=f"desktop-{desktop.name}-writer", daemon=True
        )  # daemon: a process that forgets close() must still end
        # Under the condition:
        self._gone = False
        self.cut_text = b""  # a message that is still to be sent
        self._format: PixelFormat = RGBX
        self._request: Rectangle | None = None
        self._damage: list[Rectangle] = []

    def run(self) -> None:
        """Read until the end. Raises OSError or RFBError for a bad one; the writer is joined either way."""
        try:
            self._connection.settimeout(None)
            self._connection.sendall(VERSION_3_8)
            while data := self._connection.recv(_CHUNK):
                for message in self._parser.receive(data):
                    self._handle(message)
        finally:
            self._end()
            if self._writer.ident is not None:
                self._writer.join()

    def abort(self) -> None:
        """Wake both threads and let them end. Under the condition; does not block."""
        self._gone = True
        with suppress(OSError):  # already gone
            self._connection.shutdown(socket.SHUT_RDWR)

    def add_damage(self, changed: list[Rectangle]) -> None:
        """Note what this viewer has to see anew. Under the condition."""
        for area in changed:
            if not any(known.contains(area) for known in self._damage):
                self._damage = [known for known in self._damage if not area.contains(known)]
                self._damage.append(area)
        if len(self._damage) > _MAX_DAMAGE:
            whole = Rectangle(0, 0, 0, 0)
            for area in self._damage:
                whole = whole.union(area)
            self._damage = [whole]

    def _end(self) -> None:
        with self._changed:
            self.abort()
            self._changed.notify_all()

    # --- the reading thread ---

    def _handle(self, message: ClientMessage) -> None:
        kind, data = message.kind, message.data
        if kind is ClientMessageType.FRAMEBUFFER_UPDATE_REQUEST:
            self._take_request(FramebufferUpdateRequest.parse(data))
        elif kind is ClientMessageType.POINTER_EVENT:
            self._desktop._point(PointerEvent.parse(data))
        elif kind is ClientMessageType.KEY_EVENT:
            key = KeyEvent.parse(data)
            self._desktop._press(key.down, key.keysym)
        elif kind is ClientMessageType.QEMU:
            extended = ExtendedKeyEvent.parse(data)
            self._desktop._press(extended.down, extended.keysym)
        elif kind is ClientMessageType.CLIENT_CUT_TEXT:
            self._desktop._paste(ClientCutText.parse(data).text)
        elif kind is ClientMessageType.SET_PIXEL_FORMAT:
            self._take_format(SetPixelFormat.parse(data).pixel_format)
        else:
            self._shake_hands(kind, data)

    def _shake_hands(self, kind: ClientMessageType, data: bytes) -> None:
        """Answer a part of the handshake; other messages need no answer (Raw is always allowed)."""
        if kind is ClientMessageType.VERSION:
            if self.refused:
                self._connection.sendall(refusal("This desktop has as many viewers as it can take.")[1])
                raise RFBError("too many viewers")
            if data != VERSION_3_8:
                self._result = b""  # RFB 3.7 has no SecurityResult for None
            self._connection.sendall(security_types(1))
        elif kind is ClientMessageType.SECURITY_TYPE:
            self._connection.sendall(self._result)
        elif kind is ClientMessageType.CLIENT_INIT:
            self._connection.sendall(ServerInit(*self._desktop.size, RGBX, self._desktop.name).encode())
            self._writer.start()

    def _take_request(self, request: FramebufferUpdateRequest) -> None:
        screen = Rectangle(0, 0, *self._desktop.size)
        area = Rectangle(request.x, request.y, request.width, request.height).intersection(screen)
        if not area:
            return
        with self._changed:
            self._request = area.union(self._request) if self._request else area
            if not request.incremental:
                self.add_damage([area])
            self._changed.notify_all()

    def _take_format(self, pixel_format: PixelFormat) -> None:
        if not pixel_format.true_colour:
            raise RFBError("colour maps are not supported")
        with self._changed:
            self._format = pixel_format

    # --- the writing thread ---

    def _write(self) -> None:
        try:
            while update := self._next_update():
                self._connection.sendall(update)
        except OSError:
            self._end()  # the reading thread must not wait for a peer that does not read

    def _next_update(self) -> bytes:
        """Block until there is something to send; empty at the end. Bounded by `abort`."""
        with self._changed:
            while not self._gone:
                update = self.cut_text or self._take_update()
                self.cut_text = b""
                if update:
                    return update
                self._wait()
            return b""

    def _wait(self) -> None:
        """Wait for a change; who has asked for an update also sees each new second, and what moves."""
        if self._request is None:
            self._changed.wait()
            return
        frame = self._desktop._screen.frame_seconds
        rest = frame - self._desktop._now().microsecond / 1_000_000 % frame
        end = monotonic() + rest
        self._changed.wait(rest)
        if monotonic() >= end:
            self._desktop.refresh()

    def _take_update(self) -> bytes:
        """Return the damage within the requested area as a FramebufferUpdate, or nothing."""
        if self._request is None:
            return b""
        areas = [area for area in (known.intersection(self._request) for known in self._damage) if area]
        if not areas:
            return b""
        # What lies outside of the requested area stays damaged until it is asked for.
        self._damage = [rest for known in self._damage for rest in known.difference(self._request)]
        self._request = None
        parts = [framebuffer_update_header(len(areas))]
        for area in areas:
            parts.append(rectangle_header(area.x, area.y, area.width, area.height))
            parts.append(self._desktop._screen.front.read(area, self._format))
        return b"".join(parts)
