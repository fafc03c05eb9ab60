"""The looks of a desktop of `wsproxy.testing`: its colours, and a figure that moves on it. Drawing only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .canvas import Canvas, Colour, Rectangle

__all__ = ["FRAMES_PER_SECOND", "LOOKS", "Look"]

FRAMES_PER_SECOND = 8
"""How often a figure is drawn while there are viewers."""

_SPACE, _STAR, _TRACK, _SUN, _SUN_RIM = (
    (16, 18, 34),
    (96, 104, 140),
    (52, 58, 88),
    (255, 214, 102),
    (244, 162, 60),
)
# For each planet: distance as a part of half the area, seconds for a turn, radius, colour.
_PLANETS: tuple[tuple[float, float, int, Colour], ...] = (
    (0.36, 4.0, 5, (214, 196, 170)),
    (0.60, 9.0, 8, (110, 190, 240)),
    (0.86, 19.0, 6, (235, 110, 90)),
)
_TRACK_DOTS = 48
_METER, _METER_OFF = (20, 26, 34), (34, 44, 56)
_METER_ON: tuple[Colour, ...] = ((96, 208, 140),) * 6 + ((240, 200, 90),) * 3 + ((240, 104, 92),) * 2
_METER_BARS = 12


@dataclass(frozen=True)
class Look:
    """The colours and the figure of a desktop.

    :ivar sky: the background's colours at the top and at the bottom.
    :ivar accent: the colour of small details.
    :ivar title: the title of the figure's window.
    :ivar figure: draws the figure of a moment, in seconds, on an area of a canvas; None for no figure.
    """

    sky: tuple[Colour, Colour] = ((52, 92, 120), (24, 34, 62))
    accent: Colour = (255, 176, 67)
    title: str = ""
    figure: Callable[[Canvas, Rectangle, float], None] | None = None


def _orbits(canvas: Canvas, area: Rectangle, seconds: float) -> None:
    """Draw planets that circle a sun."""
    canvas.fill(area, _SPACE)
    for star in range(24):
        place = Rectangle(area.x + star * 89 % area.width, area.y + star * 137 % area.height, 1, 1)
        canvas.fill(place, _STAR)
    x, y = area.x + area.width // 2, area.y + area.height // 2
    half = min(area.width, area.height) / 2
    for distance, turn, radius, colour in _PLANETS:
        for dot in range(_TRACK_DOTS):
            canvas.fill(Rectangle(*_on_circle(x, y, half * distance, dot / _TRACK_DOTS), 1, 1), _TRACK)
        canvas.disc(*_on_circle(x, y, half * distance, seconds / turn), radius, colour)
    size = max(4, round(half / 7 + math.sin(seconds * 3)))
    canvas.disc(x, y, size + 2, _SUN_RIM)
    canvas.disc(x, y, size, _SUN)


def _on_circle(x: int, y: int, radius: float, turns: float) -> tuple[int, int]:
    angle = 2 * math.pi * (turns % 1.0)
    return round(x + radius * math.cos(angle)), round(y + radius * math.sin(angle))


def _meter(canvas: Canvas, area: Rectangle, seconds: float) -> None:
    """Draw columns of lamps that rise and fall."""
    canvas.fill(area, _METER)
    steps = len(_METER_ON)
    width, height = area.width // _METER_BARS, area.height // (steps + 1)
    left = area.x + (area.width - width * _METER_BARS) // 2
    bottom = area.y + (area.height + height * steps) // 2
    for bar in range(_METER_BARS):
        lit = steps * _level(seconds % 3600.0, bar)
        for step, colour in enumerate(_METER_ON):
            lamp = Rectangle(left + bar * width + 1, bottom - (step + 1) * height + 1, width - 3, height - 3)
            canvas.fill(lamp, colour if step < lit else _METER_OFF)


def _level(seconds: float, bar: int) -> float:
    """Return the height of a column, 0 to 1: the sum of two waves."""
    return 0.5 + 0.28 * math.sin(2.3 * seconds + 0.7 * bar) + 0.22 * math.sin(3.7 * seconds - 1.1 * bar)


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "still": Look(),
        "orbits": Look(((96, 44, 92), (34, 16, 46)), (240, 110, 60), "orbits", _orbits),
        "meter": Look(((44, 120, 112), (14, 40, 54)), (92, 200, 240), "meter", _meter),
    }
)
"""All looks by name."""
