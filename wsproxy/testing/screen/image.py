"""Pictures of a screen: to read, compare, search and save."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from .png import CHANNELS, decode_png, encode_png

__all__ = ["RGB", "Area", "Image"]

RGB = tuple[int, int, int]
"""A colour: red, green and blue, 0 to 255 each."""

Area = tuple[int, int, int, int]
"""A part of a picture: x and y of its upper left corner, width and height, in pixels."""

_NOT_ZERO = bytes([0] + [1] * 255)


@dataclass(frozen=True)
class Image:
    """A picture of 8-bit RGB pixels. Immutable, and for any thread. Pictures with the same pixels are equal.

    Only :meth:`save` and :meth:`load` block.

    :ivar width: the width in pixels.
    :ivar height: the height in pixels.
    :ivar rgb: three bytes for each pixel, row by row from the top.
    :raises ValueError: if the number of bytes does not match the size.
    """

    width: int
    height: int
    rgb: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or len(self.rgb) != self.width * self.height * CHANNELS:
            raise ValueError(f"{self.width} x {self.height} pixels cannot have {len(self.rgb)} bytes")

    # --- files ---

    def to_png(self) -> bytes:
        """Return the picture as the bytes of a PNG file."""
        return encode_png(self.width, self.height, self.rgb)

    @classmethod
    def from_png(cls, data: bytes) -> Image:
        """Read the bytes of a PNG file of 8-bit RGB without interlacing, such as :meth:`to_png` writes.

        :raises PNGError: for anything else; it is a :class:`ValueError`.
        """
        return cls(*decode_png(data))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG file.

        :raises OSError: if the file cannot be written.
        """
        with open(path, "wb") as file:
            file.write(self.to_png())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Image:
        """Read a file that :meth:`save` wrote.

        :raises OSError: if it cannot be read.
        :raises PNGError: as :meth:`from_png` does.
        """
        with open(path, "rb") as file:
            return cls.from_png(file.read())

    # --- pixels ---

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def pixel(self, x: int, y: int) -> RGB:
        """Return the colour at a place.

        :raises IndexError: if the place is outside the picture.
        """
        if not (0 <= x < self.width and 0 <= y < self.height):
            raise IndexError(f"({x}, {y}) is outside {self.width} x {self.height}")
        start = (y * self.width + x) * CHANNELS
        red, green, blue = self.rgb[start : start + CHANNELS]
        return red, green, blue

    def crop(self, x: int, y: int, width: int, height: int) -> Image:
        """Return a part of the picture.

        :raises ValueError: if the part reaches outside the picture, or is empty.
        """
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f"({x}, {y}, {width}, {height}) reaches outside {self.width} x {self.height}")
        starts = ((row * self.width + x) * CHANNELS for row in range(y, y + height))
        return Image(width, height, b"".join(self.rgb[at : at + width * CHANNELS] for at in starts))

    def colours(self, most: int = 5) -> list[tuple[RGB, int]]:
        """Return the most frequent colours, each with its number of pixels."""
        counted = Counter(zip(self.rgb[0::3], self.rgb[1::3], self.rgb[2::3], strict=True))
        return counted.most_common(most)

    def count(self, colour: RGB, *, tolerance: int = 0) -> int:
        """Return how many pixels have a colour.

        :param tolerance: how much each of red, green and blue may differ.
        """
        return self._having(colour, tolerance).count(1)

    def find(self, colour: RGB, *, tolerance: int = 0) -> tuple[int, int] | None:
        """Return x and y of the first pixel with a colour, by rows from the top; None if there is none."""
        at = self._having(colour, tolerance).find(1)
        return None if at < 0 else (at % self.width, at // self.width)

    def find_image(self, part: Image) -> tuple[int, int] | None:
        """Return where this picture contains another one: x and y of its upper left corner; else None."""
        first = part.rgb[: part.width * CHANNELS]
        at = self.rgb.find(first)
        while at >= 0:
            y, x = divmod(at // CHANNELS, self.width)
            fits = x + part.width <= self.width and y + part.height <= self.height
            if at % CHANNELS == 0 and fits and self.crop(x, y, *part.size) == part:
                return x, y
            at = self.rgb.find(first, at + 1)
        return None

    # --- comparing ---

    def differing_pixels(self, other: Image, *, tolerance: int = 0) -> int:
        """Return how many pixels differ between two pictures.

        If the sizes differ, all pixels of the larger picture count.

        :param tolerance: how much each of red, green and blue may differ.
        """
        if self.size != other.size:
            return max(self.width * self.height, other.width * other.height)
        return self._differing(other, tolerance).count(1)

    def difference(self, other: Image, *, tolerance: int = 0) -> Area | None:
        """Return the smallest part with all differences; None if there are none.

        If the sizes differ, that is the whole picture.
        """
        if self.size != other.size:
            return 0, 0, self.width, self.height
        mask, width = self._differing(other, tolerance), self.width
        rows = {y: mask[y * width : (y + 1) * width] for y in range(self.height)}
        rows = {y: row for y, row in rows.items() if 1 in row}
        if not rows:
            return None
        left, right = min(row.find(1) for row in rows.values()), max(row.rfind(1) for row in rows.values())
        return left, min(rows), right + 1 - left, max(rows) + 1 - min(rows)

    def _having(self, colour: RGB, tolerance: int) -> bytes:
        """Return one byte for each pixel: 1 if it has the colour, else 0."""
        having = (1 << 8 * self.width * self.height) - 1
        for channel, wanted in enumerate(colour):
            table = bytes(abs(value - wanted) <= tolerance for value in range(256))
            having &= int.from_bytes(self.rgb[channel::CHANNELS].translate(table), "big")
        return having.to_bytes(self.width * self.height, "big")

    def _differing(self, other: Image, tolerance: int) -> bytes:
        """Return one byte for each pixel of two pictures of the same size: 1 if they differ there, else 0."""
        if tolerance:
            pairs = zip(self.rgb, other.rgb, strict=True)
            channels = bytes(abs(one - two) > tolerance for one, two in pairs)
        else:  # compare whole pictures as integers, which is fast, since a viewer does this for each update
            both = int.from_bytes(self.rgb, "big") ^ int.from_bytes(other.rgb, "big")
            channels = both.to_bytes(len(self.rgb), "big").translate(_NOT_ZERO)
        differing = 0
        for channel in range(CHANNELS):
            differing |= int.from_bytes(channels[channel::CHANNELS], "big")
        return differing.to_bytes(self.width * self.height, "big")
