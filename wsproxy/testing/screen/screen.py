"""Draws the desktop of `wsproxy.testing`, without protocol or threads.

The desktop has a bar with the machine's name and a clock, a card with facts, a terminal, and a status line.
The terminal echoes the typed text. A moving figure may be beside it. The pointer is above everything.
Each change adds its rectangles to `damage`. Not locked: only one thread at a time may use it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .canvas import TEXT_HEIGHT, TEXT_WIDTH, Canvas, Colour, Rectangle
from .look import FRAMES_PER_SECOND, LOOKS, Look

__all__ = ["Screen", "status_line"]

_BUTTONS = ("left", "middle", "right")
_BAR, _BAR_TEXT = (20, 24, 34), (236, 239, 244)
_CARD, _CARD_KEY, _CARD_VALUE = (245, 243, 236), (122, 118, 108), (40, 44, 56)
_TITLE, _TITLE_TEXT = (58, 64, 82), (214, 219, 230)
_TERMINAL, _ECHO, _HINT = (28, 32, 43), (166, 226, 160), (120, 130, 152)
_STATUS_TEXT = (160, 168, 186)
_LIGHTS = ((255, 95, 87), (254, 188, 46), (40, 200, 64))
_POINTER_EDGE, _POINTER = (16, 18, 26), (255, 255, 255)

_BAR_HEIGHT = 32
_STATUS_HEIGHT = 28
_TITLE_HEIGHT = 28
_MARGIN = 24
_GAP = 16
_PADDING = 12
_RADIUS = 8
_SHADOW = 5
_FRAME = 4
_MAX_FACTS = 5
_TAB = 4
_FIGURE_PART = 3  # the figure takes a third of the width
_HINT_TEXT = "Type something: it is echoed here."

# The pointer: '#' is its edge, '+' its inside.
_ARROW = """\
#
##
#+#
#++#
#+++#
#++++#
#+++++#
#++++++#
#+++++++#
#++++++++#
#+++++++++#
#++++++####
#+++++#
#++#++#
#+# #++#
##  #++#
#    #++#
     #++#
      ##""".splitlines()


def status_line(pointer: tuple[int, int], buttons: int, viewers: int, keys: int) -> tuple[str, str]:
    """Return the two ends of the status line.

    :param buttons: the pointer's buttons that are down, as bits.
    :param keys: how many keys were pressed.
    """
    names = [name for bit, name in enumerate(_BUTTONS) if buttons >> bit & 1]
    left = " ".join((f"pointer {pointer[0]},{pointer[1]}", *names))
    return left, f"{_count(viewers, 'viewer')}  {_count(keys, 'key')}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class Screen:
    """The picture. `damage` contains the rectangles that changed since a caller emptied it."""

    MINIMUM = (320, 240)

    def __init__(
        self, name: str, facts: Mapping[str, str], width: int, height: int, look: Look = LOOKS["still"]
    ) -> None:
        if width < self.MINIMUM[0] or height < self.MINIMUM[1]:
            raise ValueError(f"a desktop needs at least {self.MINIMUM[0]} x {self.MINIMUM[1]} pixels")
        self.damage: list[Rectangle] = []
        self.front = Canvas(width, height)
        self._back = Canvas(width, height)  # the same picture without the pointer
        self._name = name
        self._look = look
        self._moment = 0.0  # the figure's moment, in seconds
        self._lines: list[str] = []
        self._clock = ""
        self._status = ("", "")
        self._pointer = (width // 2, height // 2)
        self._arrow = _POINTER
        self.set_facts(facts)

    def set_facts(self, facts: Mapping[str, str]) -> None:
        """Show the first five of other facts, and redraw everything."""
        shown = list(facts.items())[:_MAX_FACTS]
        self._terminal = self._lay_out(len(shown))
        self._draw_background()
        self._draw_bar()
        if shown:
            self._draw_facts(shown)
        self._draw_window(self._window, f"{self._name} - terminal", _TERMINAL)
        self._draw_text()
        if self._figure:
            self._draw_window(self._figure, self._look.title, _TITLE)
            self._draw_figure()
        self._draw_status()
        self._present(self.front.area)

    def set_clock(self, clock: str) -> None:
        """Show a time of day of eight characters."""
        if clock != self._clock:
            self._clock = clock
            self._present(self._draw_clock())

    @property
    def frame_seconds(self) -> float:
        """The seconds after which the clock or the figure changes."""
        return 1.0 if self._look.figure is None else 1.0 / FRAMES_PER_SECOND

    def set_moment(self, seconds: float) -> None:
        """Show the figure, if there is one, as it is at a UNIX time."""
        moment = seconds // self.frame_seconds * self.frame_seconds
        if self._look.figure is not None and moment != self._moment:
            self._moment = moment
            self._present(self._draw_figure())

    def set_text(self, text: str) -> None:
        """Show the end of a text in the terminal."""
        lines = self._wrap(text)
        before, self._lines = self._lines, lines
        for row in range(max(len(before), len(lines))):
            if before[row : row + 1] != lines[row : row + 1] or len(before) != len(lines):
                self._present(self._draw_line(row))

    def set_status(self, left: str, right: str) -> None:
        """Show the two ends of the status line."""
        if (left, right) != self._status:
            self._status = (left, right)
            self._present(self._draw_status())

    def set_pointer(self, x: int, y: int, *, pressed: bool) -> None:
        """Move the arrow's tip to (x, y), in pixels."""
        before = self._arrow_area()
        self._pointer, self._arrow = (x, y), self._look.accent if pressed else _POINTER
        self._present(before)
        self._present(self._arrow_area())

    @property
    def terminal(self) -> Rectangle:
        """The area of the typed text. set_facts may move it."""
        return self._terminal

    # --- layout ---

    def _lay_out(self, facts: int) -> Rectangle:
        """Place the card, the terminal's window and the figure. Returns the area of the terminal's text."""
        area = self.front.area
        top = _BAR_HEIGHT + _GAP
        self._card = Rectangle(_MARGIN, top, area.width - 2 * _MARGIN, facts * TEXT_HEIGHT + 2 * _PADDING)
        if facts:
            top += self._card.height + _GAP
        bottom = area.height - _STATUS_HEIGHT - _GAP
        width = self._card.width
        self._figure = Rectangle(0, 0, 0, 0)
        if self._look.figure is not None:
            side = width // _FIGURE_PART
            width -= side + _GAP
            height = min(_TITLE_HEIGHT + side, bottom - top)
            self._figure = Rectangle(_MARGIN + width + _GAP, top, side, height)
        self._window = Rectangle(_MARGIN, top, width, bottom - top)
        return Rectangle(
            self._window.x + _PADDING,
            top + _TITLE_HEIGHT + _PADDING // 2,
            (self._window.width - 2 * _PADDING) // TEXT_WIDTH * TEXT_WIDTH,
            max(1, (self._window.height - _TITLE_HEIGHT - _PADDING) // TEXT_HEIGHT) * TEXT_HEIGHT,
        )

    def _wrap(self, text: str) -> list[str]:
        """Return the last lines of a text, so that they and the caret fit into the terminal."""
        columns, rows = self._terminal.width // TEXT_WIDTH, self._terminal.height // TEXT_HEIGHT
        # The caret needs a cell, so it wraps like a character.
        paragraphs = f"{text} ".rsplit("\n", rows)[-rows:]
        lines: list[str] = []
        for paragraph in (paragraph.expandtabs(_TAB) for paragraph in paragraphs):
            lines += [paragraph[at : at + columns] for at in range(0, max(1, len(paragraph)), columns)]
        return [*lines[:-1], lines[-1][:-1]][-rows:]

    # --- drawing ---

    def _draw_background(self) -> None:
        area = self.front.area
        for y in range(area.height):
            self._back.fill(Rectangle(0, y, area.width, 1), self._sky(y))

    def _sky(self, y: int, *, shade: float = 1.0) -> Colour:
        part = y / self.front.area.height
        red, green, blue = (
            round(shade * (top + (bottom - top) * part)) for top, bottom in zip(*self._look.sky, strict=True)
        )
        return red, green, blue

    def _draw_shadow(self, of: Rectangle) -> None:
        """Darken the sky below and to the right of a rectangle, before the rectangle is drawn."""
        for step, shade in ((_SHADOW, 0.86), (_SHADOW // 2, 0.7)):
            for y in range(of.y + step, of.y + of.height + step):
                row = Rectangle(of.x + step // 2, y, of.width + step // 2, 1)
                self._back.fill(row, self._sky(y, shade=shade))

    def _draw_bar(self) -> None:
        width = self.front.area.width
        self._back.fill(Rectangle(0, 0, width, _BAR_HEIGHT), _BAR)
        self._back.fill(Rectangle(0, _BAR_HEIGHT - 2, width, 2), self._look.accent)
        self._back.fill_rounded(Rectangle(12, 8, 14, 14), self._look.accent, 4)
        self._back.fill_rounded(Rectangle(16, 12, 6, 6), _BAR, 2)
        room = (width - 36 - 10 * TEXT_WIDTH) // TEXT_WIDTH
        self._back.text(36, 6, _shorten(self._name, room), _BAR_TEXT, _BAR)
        self._draw_clock()

    def _draw_clock(self) -> Rectangle:
        x = self.front.area.width - 8 * TEXT_WIDTH - 12
        return self._back.text(x, 6, f"{self._clock:>8}", _BAR_TEXT, _BAR)

    def _draw_facts(self, facts: list[tuple[str, str]]) -> None:
        card = self._card
        self._draw_shadow(card)
        self._back.fill_rounded(card, _CARD, _RADIUS)
        self._back.fill(Rectangle(card.x, card.y + _RADIUS, 4, card.height - 2 * _RADIUS), self._look.accent)
        columns = (card.width - 2 * _PADDING - 4) // TEXT_WIDTH
        indent = min(max(len(key) for key, _ in facts), columns // 3) + 2
        x, y = card.x + _PADDING + 4, card.y + _PADDING
        for key, value in facts:
            self._back.text(x, y, _shorten(key, indent - 2), _CARD_KEY, _CARD)
            place = x + indent * TEXT_WIDTH
            self._back.text(place, y, _shorten(value, columns - indent), _CARD_VALUE, _CARD)
            y += TEXT_HEIGHT

    def _draw_window(self, window: Rectangle, title: str, colour: Colour) -> None:
        self._draw_shadow(window)
        self._back.fill_rounded(window, colour, _RADIUS)
        bar = Rectangle(window.x, window.y, window.width, _TITLE_HEIGHT)
        self._back.fill_rounded(bar, _TITLE, _RADIUS, bottom=False)
        middle = window.y + _TITLE_HEIGHT // 2
        for number, light in enumerate(_LIGHTS):
            self._back.disc(window.x + 18 + 20 * number, middle, 6, light)
        text = _shorten(title, (window.width - 160) // TEXT_WIDTH)
        x = window.x + (window.width - len(text) * TEXT_WIDTH) // 2
        self._back.text(x, middle - TEXT_HEIGHT // 2 + 1, text, _TITLE_TEXT, _TITLE)

    def _draw_figure(self) -> Rectangle:
        window = self._figure
        area = Rectangle(
            window.x + _FRAME,
            window.y + _TITLE_HEIGHT,
            window.width - 2 * _FRAME,
            max(0, window.height - _TITLE_HEIGHT - 2 * _FRAME),
        )
        if area and self._look.figure is not None:
            self._look.figure(self._back, area, self._moment)
        return area

    def _draw_text(self) -> None:
        for row in range(max(1, len(self._lines))):
            self._draw_line(row)

    def _draw_line(self, row: int) -> Rectangle:
        """Draw one row of the terminal. If there is no such line, the row is empty."""
        area = self._terminal
        line = Rectangle(area.x, area.y + row * TEXT_HEIGHT, area.width, TEXT_HEIGHT)
        self._back.fill(line, _TERMINAL)
        if self._lines in ([], [""]) and row == 0:
            hint = _shorten(_HINT_TEXT, area.width // TEXT_WIDTH - 2)
            self._back.text(line.x + 2 * TEXT_WIDTH, line.y, hint, _HINT, _TERMINAL)
        text = self._lines[row] if row < len(self._lines) else ""
        self._back.text(line.x, line.y, text, _ECHO, _TERMINAL)
        if row == max(0, len(self._lines) - 1):
            caret = Rectangle(line.x + len(text) * TEXT_WIDTH, line.y + 1, TEXT_WIDTH - 2, TEXT_HEIGHT - 4)
            self._back.fill(caret.intersection(line), _ECHO)
        return line

    def _draw_status(self) -> Rectangle:
        left, right = self._status
        area = self.front.area
        bar = Rectangle(0, area.height - _STATUS_HEIGHT, area.width, _STATUS_HEIGHT)
        self._back.fill(bar, _BAR)
        self._back.text(12, bar.y + 5, left, _STATUS_TEXT, _BAR)
        self._back.text(area.width - 12 - len(right) * TEXT_WIDTH, bar.y + 5, right, _STATUS_TEXT, _BAR)
        return bar

    # --- the pointer above the picture ---

    def _arrow_area(self) -> Rectangle:
        x, y = self._pointer
        return Rectangle(x, y, max(map(len, _ARROW)), len(_ARROW)).intersection(self.front.area)

    def _present(self, area: Rectangle) -> None:
        """Copy an area to the front, draw the pointer over it, and add it to the damage."""
        area = area.intersection(self.front.area)
        if not area:
            return
        self.front.copy_from(self._back, area)
        if area.intersection(self._arrow_area()):
            self._draw_arrow()
        self.damage.append(area)

    def _draw_arrow(self) -> None:
        x, y = self._pointer
        for down, row in enumerate(_ARROW):
            for right, dot in enumerate(row):
                if dot != " ":
                    colour = self._arrow if dot == "+" else _POINTER_EDGE
                    self.front.put_pixel(x + right, y + down, colour)


def _shorten(text: str, columns: int) -> str:
    """Return a text that fits into that many characters. Two dots stand for the missing end."""
    if len(text) <= columns:
        return text
    return text[: max(0, columns - 2)] + ".."[: max(0, columns)]
