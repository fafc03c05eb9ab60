"""A viewer for tests: RFB 3.8 (RFC 6143) over any byte stream.

Errors of a viewer, besides those of :mod:`.errors`::

    TimeoutError
    └── PictureTimeout    the picture that was waited for did not come
    RFBError              the server sent something that is not RFB
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
    """The picture that was waited for did not come in time.

    :ivar image: the last picture that did, to look at: ``image.save("seen.png")``.
    """

    def __init__(self, seconds: float, image: Image) -> None:
        text = f"the screen did not become what was waited for within {seconds:g} s"
        size = f"{image.width} x {image.height}"
        super().__init__(f"{text}; most of its {size} pixels are: {colours_of(image)}")
        self.image = image


class RFBViewer:
    """A viewer without a window. Owns the stream: :meth:`close`, or leaving the context, closes it.

    Every method may raise :class:`.ConsoleClosed`, RFBError, or TimeoutError; after one of them the viewer
    can only be closed, but after TimeoutError from :meth:`screenshot` or a ``wait`` method it goes on. One
    thread at a time.

    :param stream: connected, and nothing read of it; see :class:`.ByteStream`.
    :param timeout: seconds that an operation may take without its own, as far as the stream lets it.
    :ivar name: what the server calls its desktop; "" before the handshake.
    :ivar bells: how often the server rang, as far as was read.
    :ivar cut_text: the server's clipboard, Latin-1; ``b""`` before it was set.
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
        """Go through the RFB handshake with security type None (RFC 6143 section 7.1); blocks.

        :raises RFBRefused: if the server refuses; the reason is the server's.
        """
        init, rest = self._connection.handshake(self._deadline(timeout))
        self.name = init.name
        self._framebuffer = Framebuffer(init.width, init.height)
        encodings = SetEncodings((Encoding.COPY_RECT, Encoding.RAW, Encoding.DESKTOP_SIZE))
        self._connection.send(SetPixelFormat(RGBX).encode() + encodings.encode())
        self._ready = self._parser.receive(rest)

    # --- looking ---

    def screenshot(self, timeout: float | None = None) -> Image:
        """Ask for the whole screen and return it once every pixel has come; blocks."""
        deadline = self._deadline(timeout)
        missing = self._ask_for_all()
        # Not "the next update": that one may answer an earlier request.
        while missing:
            message = self._next_message(deadline)
            if isinstance(message, NewSize):
                missing = self._ask_for_all()
            elif isinstance(message, RawRectangle | CopyRectangle):
                missing = [rest for area in missing for rest in area.difference(message.area)]
        return self._framebuffer.image()

    def wait_until(self, predicate: Callable[[Image], bool], timeout: float | None = None) -> Image:
        """Watch the screen until a picture of it satisfies a condition, and return that picture; blocks.

        The server says when something changes; nothing is polled.

        :param predicate: is shown each picture, the present one first.
        :raises PictureTimeout: if there is no such picture in time; it has the last one.
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
        """Watch the screen until it differs from an earlier picture, and return it; as :meth:`wait_until`.

        :param area: look at this part only: x, y, width and height in pixels. Clocks and cursors change too.
        """
        if area is None:
            return self.wait_until(lambda image: image != before, timeout)
        part = before.crop(*area)
        return self.wait_until(lambda image: image.size != before.size or image.crop(*area) != part, timeout)

    def assert_shows(
        self, part: Image, *, timeout: float | None = None, save_to: Directory = None
    ) -> tuple[int, int]:
        """Assert that the screen has a picture in it, or gets it in time, and return its place; blocks.

        :param timeout: seconds; None for the viewer's.
        :param save_to: as for :func:`.assert_shows`.
        :raises AssertionError: if it has not.
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
        """Assert that the screen shows a colour, or does in time, and return the picture; blocks.

        :param pixels: as for :func:`.assert_shows_colour`, as are ``tolerance`` and ``save_to``.
        :param timeout: seconds; None for the viewer's.
        :raises AssertionError: naming the colours that there are.
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
        """Assert that the screen, or an area of it, is as expected, or becomes so in time; blocks.

        :param area: x, y, width and height of what is compared, in pixels; ``expected`` is of this size.
        :param tolerance: as for :func:`.assert_same_picture`, as are ``allowed`` and ``save_to``.
        :param timeout: seconds; None for the viewer's.
        :raises AssertionError: saying how many pixels differ, and where.
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
        """Return the first picture that satisfies a condition, or the last one in time."""
        try:
            return self.wait_until(predicate, timeout)
        except PictureTimeout as late:
            return late.image
        except TimeoutError:
            # Not the framebuffer as it is: pixels that never came are black, and may be what is expected.
            raise AssertionError("the server sent no whole picture of its screen in time") from None

    def wait_closed(self, timeout: float | None = None) -> ConsoleClosed:
        """Drop what still comes until the connection ends, and return how it ended; blocks."""
        return self._connection.wait_closed(self._deadline(timeout))

    # --- doing ---

    def type(self, text: str) -> None:
        """Press and release the key of each character, with Shift where a US keyboard needs it.

        A newline is Return, a backspace BackSpace. Blocks only if the server does not read; the machine need
        not have taken notice when it returns.

        :raises ValueError: if a character has no key.
        """
        self._connection.send(strokes(text))

    def key(self, *keys: int | str) -> None:
        """Press keys in this order and release them in the opposite one: ``key("Control_L", "c")``.

        :param keys: X names such as "Return" (see :data:`.KEYSYMS`), characters, or keysyms.
        :raises ValueError: if there is no such key.
        """
        self._connection.send(chord(keys))

    def move(self, x: int, y: int) -> None:
        """Move the pointer, no button down, to a place in pixels.

        :raises ValueError: if that is outside of the screen.
        """
        self._connection.send(self._pointer(0, x, y))

    def click(self, x: int, y: int, button: int = 1) -> None:
        """Press and release a button of the pointer at a place in pixels.

        :param button: 1 is the left one, 2 the middle, 3 the right; 4 and 5 turn the wheel up and down.
        :raises ValueError: if that is outside of the screen, or there is no such button.
        """
        self._connection.send(self._pointer(_bit(button), x, y) + self._pointer(0, x, y))

    def drag(self, start: tuple[int, int], end: tuple[int, int], button: int = 1) -> None:
        """Press a button at one place, move the pointer to another, and release it there.

        :param start: x and y in pixels; ``end`` alike.
        :param button: as for :meth:`click`.
        :raises ValueError: as :meth:`click` does.
        """
        down = _bit(button)
        events = ((0, start), (down, start), (down, end), (0, end))
        self._connection.send(b"".join(self._pointer(buttons, *place) for buttons, place in events))

    def close(self) -> None:
        """End the connection. Idempotent."""
        self.stream.close()

    def _pointer(self, buttons: int, x: int, y: int) -> bytes:
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"({x}, {y}) is outside of the screen, which has {width} x {height} pixels")
        return PointerEvent(buttons, x, y).encode()

    # --- updates ---

    def _ask_for_all(self) -> list[Rectangle]:
        """Ask for the whole screen and return it as what is missing."""
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
        """Return the next message, already applied."""
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
        raise ValueError(f"there is no button {button}: they are 1 to 8")
    return 1 << button - 1
