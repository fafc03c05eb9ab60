"""The server's end of an RFB 3.8 connection (RFC 6143) with security type None, for one viewer of a machine.

Threads: the caller of `ServedViewer.run` reads from the viewer. `run` starts and joins a second thread, which
writes to the viewer.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from ...protocol.rfb import (
    VERSION_3_8,
    ClientMessage,
    ClientMessageType,
    ClientParser,
    RFBError,
    refusal,
)
from ..screen.canvas import Rectangle
from ..screen.screen import Screen
from .messages import (
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
)

__all__ = ["ServedMachine", "ServedViewer"]

_CHUNK = 16384
_MAX_DAMAGE = 24  # if there are more rectangles, they become one


@dataclass
class ServedMachine:
    """The machine that viewers see, and the functions that get their input.

    :ivar changed: guards the screen, and each viewer's request and damage. Notified when one changes.
    :ivar now: returns the time of day.
    :ivar refresh: updates the parts of the screen that change with time. The caller may hold the condition.
    :ivar press: gets whether a key is down, and its keysym.
    :ivar paste: gets the viewer's clipboard, in Latin-1.
    :ivar point: gets each pointer event.
    """

    name: str
    size: tuple[int, int]
    screen: Screen
    changed: threading.Condition
    now: Callable[[], datetime]
    refresh: Callable[[], None]
    press: Callable[[bool, int], None]
    paste: Callable[[bytes], None]
    point: Callable[[PointerEvent], None]


class ServedViewer:
    """One connection: its protocol state, and its two threads.

    :param machine: the machine that the viewer sees.
    :param connection: a connected plain socket, which the caller closes.
    :ivar refused: whether there are too many viewers already. Set it before :meth:`run`.
    :ivar cut_text: a message with the clipboard that has not been sent. The condition guards it.
    """

    def __init__(self, machine: ServedMachine, connection: socket.socket) -> None:
        self.refused = False
        self._machine = machine
        self._connection = connection
        self._changed = machine.changed
        self._parser = ClientParser()
        self._result = SECURITY_OK
        self._writer = threading.Thread(
            target=self._write, name=f"desktop-{machine.name}-writer", daemon=True
        )  # a daemon, so that a process ends even if it forgets close()
        # The condition guards the following:
        self._gone = False
        self.cut_text = b""
        self._format: PixelFormat = RGBX
        self._request: Rectangle | None = None
        self._damage: list[Rectangle] = []

    def run(self) -> None:
        """Read until the connection ends, and join the writer. Raises OSError or RFBError for a bad end."""
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
        """Wake both threads so that they end. The caller holds the condition. Does not block."""
        self._gone = True
        with suppress(OSError):  # the connection has ended already
            self._connection.shutdown(socket.SHUT_RDWR)

    def add_damage(self, changed: list[Rectangle]) -> None:
        """Note areas that this viewer must get again. The caller holds the condition."""
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
            self._machine.point(PointerEvent.parse(data))
        elif kind is ClientMessageType.KEY_EVENT:
            key = KeyEvent.parse(data)
            self._machine.press(key.down, key.keysym)
        elif kind is ClientMessageType.QEMU:
            extended = ExtendedKeyEvent.parse(data)
            self._machine.press(extended.down, extended.keysym)
        elif kind is ClientMessageType.CLIENT_CUT_TEXT:
            self._machine.paste(ClientCutText.parse(data).text)
        elif kind is ClientMessageType.SET_PIXEL_FORMAT:
            self._take_format(SetPixelFormat.parse(data).pixel_format)
        else:
            self._shake_hands(kind, data)

    def _shake_hands(self, kind: ClientMessageType, data: bytes) -> None:
        """Answer a message of the handshake. Others, such as SetEncodings, need no answer."""
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
            self._connection.sendall(ServerInit(*self._machine.size, RGBX, self._machine.name).encode())
            self._writer.start()

    def _take_request(self, request: FramebufferUpdateRequest) -> None:
        screen = Rectangle(0, 0, *self._machine.size)
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
            self._end()  # otherwise the reading thread would wait for a viewer that does not read

    def _next_update(self) -> bytes:
        """Block until there is a message to send, and return it; empty at the end. `abort` ends the wait."""
        with self._changed:
            while not self._gone:
                update = self.cut_text or self._take_update()
                self.cut_text = b""
                if update:
                    return update
                self._wait()
            return b""

    def _wait(self) -> None:
        """Wait for a change. If the viewer has requested an update, also draw the clock and the figure."""
        if self._request is None:
            self._changed.wait()
            return
        frame = self._machine.screen.frame_seconds
        rest = frame - self._machine.now().microsecond / 1_000_000 % frame
        end = monotonic() + rest
        self._changed.wait(rest)
        if monotonic() >= end:
            self._machine.refresh()

    def _take_update(self) -> bytes:
        """Return the damage in the requested area as a FramebufferUpdate; empty if there is none."""
        if self._request is None:
            return b""
        areas = [area for area in (known.intersection(self._request) for known in self._damage) if area]
        if not areas:
            return b""
        # Damage outside the requested area stays until the viewer requests that area.
        self._damage = [rest for known in self._damage for rest in known.difference(self._request)]
        self._request = None
        parts = [framebuffer_update_header(len(areas))]
        for area in areas:
            parts.append(rectangle_header(area.x, area.y, area.width, area.height))
            parts.append(self._machine.screen.front.read(area, self._format))
        return b"".join(parts)
