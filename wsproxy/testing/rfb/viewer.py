"""A viewer for tests: RFB 3.8 (RFC 6143) over any byte stream.

Errors of a viewer, besides those of :mod:`.errors`::

    TimeoutError
    └── PictureTimeout    the expected picture did not come in time
    RFBError              the server violated RFB
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from ...runtime.deadline import Deadline
from ..screen.canvas import Rectangle
from ..screen.image import RGB, Area, Image
from ..screen.picture_asserts import assert_same_picture, assert_shows, assert_shows_colour, colours_of
from .connection import ByteStream, RFBConnection
from .errors import ConsoleClosed
from .keysyms import chord, strokes
from .messages import (
    RGBX,
    Encoding,
    FramebufferUpdateRequest,
    PointerEvent,
    SetEncodings,
    SetPixelFormat,
)
from .updates import (
    Bell,
    CopyRectangle,
    CutText,
    Framebuffer,
    NewSize,
    RawRectangle,
    ServerMessage,
    ServerParser,
    UpdateEnd,
)

__all__ = ["ByteStream", "PictureTimeout", "RFBViewer"]

__unittest = True  # a failed assertion ends at the line of the test

Directory = str | os.PathLike[str] | None

_Self = TypeVar("_Self", bound="RFBViewer")


class PictureTimeout(TimeoutError):
    """The expected picture did not come in time.

    :ivar image: the last picture that came. To look at it, call ``image.save("seen.png")``.
    """

    def __init__(self, seconds: float, image: Image) -> None:
        text = f"the screen did not show the expected picture within {seconds:g} s"
        size = f"{image.width} x {image.height}"
        super().__init__(f"{text}; most of its {size} pixels are: {colours_of(image)}")
        self.image = image


class RFBViewer:
    """A viewer without a window. It owns the stream: :meth:`close`, or the end of ``with``, closes it.

    Every method may raise :class:`.ConsoleClosed`, RFBError, or TimeoutError. Afterwards only :meth:`close`
    works. But after a TimeoutError from :meth:`screenshot` or a ``wait`` method, the viewer remains usable.
    Only one thread at a time may use it.

    :param stream: a connected stream, from which nothing has been read; see :class:`.ByteStream`.
    :param timeout: seconds for each operation without its own timeout, if the stream's ``recv`` permits that.
    :ivar name: the name of the server's desktop; "" before the handshake.
    :ivar bells: how many bells the viewer has read.
    :ivar cut_text: the server's clipboard, in Latin-1; ``b""`` before the server sets it.
    """

    def __init__(self, stream: ByteStream, timeout: float = 10.0) -> None:
        self.stream = stream
        self.name = ""
        self.bells = 0
        self.cut_text = b""
        self._timeout = timeout
        self._connection = RFBConnection(stream, timeout)
        self._parser = ServerParser()
        self._ready: Iterator[ServerMessage] = iter(())
        self._framebuffer = Framebuffer(1, 1)
        self._requested = False

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> tuple[int, int]:
        """The screen's width and height in pixels; (1, 1) before the handshake."""
        return self._framebuffer.size

    def handshake(self, timeout: float | None = None) -> None:
        """Do the RFB handshake with security type None (RFC 6143 section 7.1). Blocks.

        :param timeout: seconds; None for the viewer's.
        :raises RFBRefused: if the server refuses; contains the server's reason.
        """
        init, rest = self._connection.handshake(self._deadline(timeout))
        self.name = init.name
        self._framebuffer = Framebuffer(init.width, init.height)
        encodings = SetEncodings((Encoding.COPY_RECT, Encoding.RAW, Encoding.DESKTOP_SIZE))
        self._connection.send(SetPixelFormat(RGBX).encode() + encodings.encode())
        self._ready = self._parser.receive(rest)

    # --- looking ---

    def screenshot(self, timeout: float | None = None) -> Image:
        """Request the whole screen, and return it when every pixel has come. Blocks."""
        deadline = self._deadline(timeout)
        missing = self._ask_for_all()
        # One update is not enough, since the next one may answer an earlier request.
        while missing:
            message = self._next_message(deadline)
            if isinstance(message, NewSize):
                missing = self._ask_for_all()
            elif isinstance(message, RawRectangle | CopyRectangle):
                missing = [rest for area in missing for rest in area.difference(message.area)]
        return self._framebuffer.image()

    def wait_until(self, predicate: Callable[[Image], bool], timeout: float | None = None) -> Image:
        """Wait until a picture of the screen satisfies a condition, and return that picture. Blocks.

        The server reports changes, so the viewer does not poll.

        :param predicate: gets each picture, beginning with the present one.
        :raises PictureTimeout: if there is no such picture in time; contains the last one.
        :raises TimeoutError: if no whole picture comes in time.
        """
        seconds = self._timeout if timeout is None else timeout
        deadline = Deadline(seconds)
        image = self.screenshot(deadline.remaining())
        while not predicate(image):
            try:
                self._await_update(deadline)
            except TimeoutError as exc:
                raise PictureTimeout(seconds, image) from exc
            image = self._framebuffer.image()
        return image

    def wait_for_change(
        self, before: Image, *, area: Area | None = None, timeout: float | None = None
    ) -> Image:
        """Wait until the screen differs from an earlier picture, and return it. Like :meth:`wait_until`.

        :param area: compare only this part: x, y, width and height in pixels. Use it to ignore clocks and
            cursors, which also change.
        """
        if area is None:
            return self.wait_until(lambda image: image != before, timeout)
        part = before.crop(*area)
        return self.wait_until(lambda image: image.size != before.size or image.crop(*area) != part, timeout)

    def assert_shows(
        self, part: Image, *, timeout: float | None = None, save_to: Directory = None
    ) -> tuple[int, int]:
        """Wait until the screen contains a picture, and return the picture's place: x and y. Blocks.

        :param timeout: seconds; None for the viewer's.
        :param save_to: as for :func:`.assert_shows`.
        :raises AssertionError: if the screen does not contain it in time.
        """
        __tracebackhide__ = True
        seen = self._seen(lambda image: image.find_image(part) is not None, timeout)
        return assert_shows(seen, part, save_to=save_to)

    def assert_shows_colour(
        self,
        colour: RGB,
        *,
        pixels: int = 1,
        tolerance: int = 0,
        timeout: float | None = None,
        save_to: Directory = None,
    ) -> Image:
        """Wait until the screen shows a colour, and return the picture. Blocks.

        ``pixels``, ``tolerance`` and ``save_to`` are as for :func:`.assert_shows_colour`.

        :param timeout: seconds; None for the viewer's.
        :raises AssertionError: if the colour does not come in time; names the screen's colours.
        """
        __tracebackhide__ = True
        seen = self._seen(lambda image: image.count(colour, tolerance=tolerance) >= pixels, timeout)
        assert_shows_colour(seen, colour, pixels=pixels, tolerance=tolerance, save_to=save_to)
        return seen

    def assert_same_picture(
        self,
        expected: Image,
        *,
        area: Area | None = None,
        tolerance: int = 0,
        allowed: int = 0,
        timeout: float | None = None,
        save_to: Directory = None,
    ) -> None:
        """Wait until the screen, or an area of it, is as expected. Blocks.

        ``tolerance``, ``allowed`` and ``save_to`` are as for :func:`.assert_same_picture`.

        :param area: compare only this area: x, y, width and height in pixels. ``expected`` has this size.
        :param timeout: seconds; None for the viewer's.
        :raises AssertionError: if pixels still differ then; says how many, and where.
        """
        __tracebackhide__ = True

        def part(image: Image) -> Image:
            return image if area is None else image.crop(*area)

        def same(image: Image) -> bool:
            seen = part(image)
            close = seen.size == expected.size
            return close and seen.differing_pixels(expected, tolerance=tolerance) <= allowed

        seen = part(self._seen(same, timeout))
        assert_same_picture(seen, expected, tolerance=tolerance, allowed=allowed, save_to=save_to)

    def _seen(self, predicate: Callable[[Image], bool], timeout: float | None) -> Image:
        """Return the first picture that satisfies a condition. If none comes in time, return the last one."""
        try:
            return self.wait_until(predicate, timeout)
        except PictureTimeout as late:
            return late.image
        except TimeoutError:
            # The incomplete framebuffer is of no use: missing pixels are black, and a test may expect black.
            raise AssertionError("the server sent no whole picture of its screen in time") from None

    def wait_closed(self, timeout: float | None = None) -> ConsoleClosed:
        """Drop further bytes until the connection ends, and return how it ended. Blocks."""
        return self._connection.wait_closed(self._deadline(timeout))

    # --- doing ---

    def type(self, text: str) -> None:
        """Press and release the key of each character, with Shift where a US keyboard needs it.

        A newline is Return, a backspace BackSpace. Blocks only if the server does not read. The machine may
        not have processed the keys when this returns.

        :raises ValueError: if a character has no key.
        """
        self._connection.send(strokes(text))

    def key(self, *keys: int | str) -> None:
        """Press keys in order, and release them in reverse order: ``key("Control_L", "c")``.

        :param keys: X names such as "Return" (see :data:`.KEYSYMS`), characters, or keysyms.
        :raises ValueError: if there is no such key.
        """
        self._connection.send(chord(keys))

    def move(self, x: int, y: int) -> None:
        """Move the pointer to a place in pixels, without a button down.

        :raises ValueError: if the place is outside the screen.
        """
        self._connection.send(self._pointer(0, x, y))

    def click(self, x: int, y: int, button: int = 1) -> None:
        """Press and release a button of the pointer at a place in pixels.

        :param button: 1 is the left button, 2 the middle, 3 the right. 4 and 5 turn the wheel up and down.
        :raises ValueError: if the place is outside the screen, or there is no such button.
        """
        self._connection.send(self._pointer(_bit(button), x, y) + self._pointer(0, x, y))

    def drag(self, start: tuple[int, int], end: tuple[int, int], button: int = 1) -> None:
        """Press a button at one place, move the pointer to another, and release it there.

        :param start: x and y in pixels.
        :param end: x and y in pixels.
        :param button: as for :meth:`click`.
        :raises ValueError: as :meth:`click` does.
        """
        down = _bit(button)
        events = ((0, start), (down, start), (down, end), (0, end))
        self._connection.send(b"".join(self._pointer(buttons, *place) for buttons, place in events))

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.stream.close()

    def _pointer(self, buttons: int, x: int, y: int) -> bytes:
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"({x}, {y}) is outside the screen, which has {width} x {height} pixels")
        return PointerEvent(buttons, x, y).encode()

    # --- updates ---

    def _ask_for_all(self) -> list[Rectangle]:
        """Request the whole screen. Returns the areas that are missing: all of it."""
        self._request(incremental=False)
        return [Rectangle(0, 0, *self.size)]

    def _await_update(self, deadline: Deadline) -> None:
        if not self._requested:
            self._request(incremental=True)
        while not isinstance(self._next_message(deadline), UpdateEnd):
            pass

    def _request(self, *, incremental: bool) -> None:
        self._connection.send(FramebufferUpdateRequest(incremental, 0, 0, *self.size).encode())
        self._requested = True

    def _next_message(self, deadline: Deadline) -> ServerMessage:
        """Apply the next message to the framebuffer, and return it."""
        while (message := next(self._ready, None)) is None:
            self._ready = self._parser.receive(self._connection.receive(deadline))
        self._framebuffer.apply(message)
        if isinstance(message, UpdateEnd):
            self._requested = False
        elif isinstance(message, Bell):
            self.bells += 1
        elif isinstance(message, CutText):
            self.cut_text = message.text
        return message

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


def _bit(button: int) -> int:
    """Return a button's bit in a PointerEvent (RFC 6143 section 7.5.5)."""
    if not 1 <= button <= 8:
        raise ValueError(f"there is no button {button}; buttons are 1 to 8")
    return 1 << button - 1
