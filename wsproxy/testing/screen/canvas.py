"""A framebuffer in a bytearray: rectangles, text and pixels in any RFB format.

A pixel is four bytes in the order of `RGBX`: red, green, blue and 255. The functions draw slices of whole
rows, because a loop over pixels is too slow in Python. Not locked: only one thread at a time may use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ..rfb.messages import RGBX, PixelFormat
from . import font
from .image import Image

__all__ = ["TEXT_HEIGHT", "TEXT_WIDTH", "Canvas", "Colour", "Rectangle", "encode_pixels", "rgb_bytes"]

Colour = tuple[int, int, int]

_SCALE = 2  # one dot of the font is 2 x 2 pixels: readable in a browser
TEXT_WIDTH = font.CELL_WIDTH * _SCALE
TEXT_HEIGHT = font.CELL_HEIGHT * _SCALE


@dataclass(frozen=True)
class Rectangle:
    """A part of the screen, in pixels. If width or height is 0, it is empty."""

    x: int
    y: int
    width: int
    height: int

    def __bool__(self) -> bool:
        return self.width > 0 and self.height > 0

    def intersection(self, other: Rectangle) -> Rectangle:
        """Return the part that both have in common."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.width, other.x + other.width)
        bottom = min(self.y + self.height, other.y + other.height)
        return Rectangle(left, top, max(0, right - left), max(0, bottom - top))

    def union(self, other: Rectangle) -> Rectangle:
        """Return the smallest rectangle that contains both."""
        if not self or not other:
            return self or other
        left, top = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Rectangle(left, top, right - left, bottom - top)

    def difference(self, other: Rectangle) -> list[Rectangle]:
        """Return at most four rectangles that cover this one without `other`."""
        cut = self.intersection(other)
        if not cut:
            return [self]
        parts = (
            Rectangle(self.x, self.y, self.width, cut.y - self.y),
            Rectangle(self.x, cut.y, cut.x - self.x, cut.height),
            Rectangle(cut.x + cut.width, cut.y, self.x + self.width - cut.x - cut.width, cut.height),
            Rectangle(self.x, cut.y + cut.height, self.width, self.y + self.height - cut.y - cut.height),
        )
        return [part for part in parts if part]

    def contains(self, other: Rectangle) -> bool:
        """Return whether this one contains `other`."""
        return self.intersection(other) == other


class Canvas:
    """An area of pixels to draw on. Drawing outside the area has no effect."""

    def __init__(self, width: int, height: int) -> None:
        self.area = Rectangle(0, 0, width, height)
        self.pixels = bytearray(_pixel((0, 0, 0)) * (width * height))

    def fill(self, area: Rectangle, colour: Colour) -> None:
        """Paint a rectangle in one colour."""
        self._put_rows(area, [_pixel(colour) * area.width] * area.height)

    def fill_rounded(self, area: Rectangle, colour: Colour, radius: int, *, bottom: bool = True) -> None:
        """Paint a rectangle with round upper corners; with `bottom`, the lower corners are round, too."""
        for row in range(area.height):
            depth = min(row, area.height - 1 - row) if bottom else row
            inset = _corner_inset(radius, depth)
            self.fill(Rectangle(area.x + inset, area.y + row, area.width - 2 * inset, 1), colour)

    def disc(self, x: int, y: int, radius: int, colour: Colour) -> None:
        """Paint a disc around a centre."""
        self.fill_rounded(Rectangle(x - radius, y - radius, 2 * radius, 2 * radius), colour, radius)

    def text(self, x: int, y: int, text: str, colour: Colour, background: Colour) -> Rectangle:
        """Write one line with its upper left corner at (x, y), and return the rectangle that it fills."""
        area = Rectangle(x, y, TEXT_WIDTH * len(text), TEXT_HEIGHT)
        cells = [_text_cell(character, colour, background) for character in text]
        if cells:
            self._put_rows(area, [b"".join(parts) for parts in zip(*cells, strict=True)])
        return area

    def copy_from(self, other: Canvas, area: Rectangle) -> None:
        """Copy an area from a canvas of the same size."""
        area = area.intersection(self.area)
        for start, stop in self._spans(area):
            self.pixels[start:stop] = other.pixels[start:stop]

    def put_pixel(self, x: int, y: int, colour: Colour) -> None:
        """Paint a single pixel."""
        self.fill(Rectangle(x, y, 1, 1), colour)

    def read(self, area: Rectangle, pixel_format: PixelFormat = RGBX) -> bytes:
        """Return the pixels of an area as the data of a Raw rectangle. The canvas must contain the area."""
        if area.width == self.area.width:
            row = 4 * area.width
            data = bytes(self.pixels[area.y * row : (area.y + area.height) * row])
        else:
            data = b"".join([self.pixels[start:stop] for start, stop in self._spans(area)])
        return encode_pixels(data, pixel_format)

    def image(self) -> Image:
        """Return a copy as an image."""
        return Image(self.area.width, self.area.height, rgb_bytes(self.pixels))

    def _spans(self, area: Rectangle) -> list[tuple[int, int]]:
        row = 4 * self.area.width
        first = area.y * row + 4 * area.x
        return [(start, start + 4 * area.width) for start in range(first, first + area.height * row, row)]

    def _put_rows(self, area: Rectangle, rows: list[bytes]) -> None:
        seen = area.intersection(self.area)
        if not seen:
            return
        left, right = 4 * (seen.x - area.x), 4 * (seen.x - area.x + seen.width)
        whole = left == 0 and seen.width == area.width
        for (start, stop), row in zip(self._spans(seen), rows[seen.y - area.y :], strict=False):
            self.pixels[start:stop] = row if whole else row[left:right]


def _corner_inset(radius: int, depth: int) -> int:
    """Return by how many pixels a round corner shortens the row that is `depth` rows from the edge."""
    if depth >= radius:
        return 0
    away = radius - depth - 0.5
    return round(radius - math.sqrt(radius * radius - away * away))


def _pixel(colour: Colour) -> bytes:
    return bytes((*colour, 255))


@lru_cache(maxsize=2048)
def _text_cell(character: str, colour: Colour, background: Colour) -> tuple[bytes, ...]:
    """Return the pixel rows of one character."""
    dots = {"1": _pixel(colour) * _SCALE, "0": _pixel(background) * _SCALE}
    rows = []
    for bits in font.glyph(character):
        row = b"".join(dots[bit] for bit in format(bits, f"0{font.CELL_WIDTH}b"))
        rows += [row] * _SCALE
    return tuple(rows)


# --- pixel formats ---


def rgb_bytes(pixels: bytes | bytearray) -> bytes:
    """Return RGBX pixels without the fourth byte of each."""
    rgb = bytearray(len(pixels) // 4 * 3)
    for channel in range(3):
        rgb[channel::3] = pixels[channel::4]
    return bytes(rgb)


def encode_pixels(pixels: bytes, pixel_format: PixelFormat) -> bytes:
    """Return RGBX pixels in another true-colour format.

    Each byte of a target pixel is the OR of three parts, one for each channel. So the function translates
    whole channels by tables, and combines them as big integers, instead of a loop over pixels.
    """
    if pixel_format == RGBX:
        return pixels
    size = pixel_format.bytes_per_pixel
    encoded = bytearray(len(pixels) // 4 * size)
    channels = [pixels[channel::4] for channel in range(3)]
    for at, tables in enumerate(_tables(pixel_format)):
        planes = [channels[channel].translate(table) for channel, table in tables]
        if planes:
            encoded[at::size] = _combine(planes)
    return bytes(encoded)


def _combine(planes: list[bytes]) -> bytes:
    if len(planes) == 1:
        return planes[0]
    total = 0
    for plane in planes:
        total |= int.from_bytes(plane, "little")
    return total.to_bytes(len(planes[0]), "little")


@lru_cache(maxsize=16)
def _tables(pixel_format: PixelFormat) -> tuple[tuple[tuple[int, bytes], ...], ...]:
    """Return, for each byte of a pixel, the channels that contribute to it, each with its table."""
    maxima = (pixel_format.red_max, pixel_format.green_max, pixel_format.blue_max)
    shifts = (pixel_format.red_shift, pixel_format.green_shift, pixel_format.blue_shift)
    size = pixel_format.bytes_per_pixel
    values = [
        [((v * top + 127) // 255 << shift).to_bytes(size, "big") for v in range(256)]
        for top, shift in zip(maxima, shifts, strict=True)
    ]
    positions = range(size) if pixel_format.big_endian else range(size - 1, -1, -1)
    tables = (
        tuple((channel, bytes(value[at] for value in values[channel])) for channel in range(3))
        for at in positions
    )
    return tuple(tuple(part for part in parts if any(part[1])) for parts in tables)
