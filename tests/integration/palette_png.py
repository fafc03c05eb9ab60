"""Small PNG files of what a browser shows: at most 256 colours (W3C PNG, second edition)."""

from __future__ import annotations

import struct
import zlib

from wsproxy.testing.screen.png import decode_png

__all__ = ["palette_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_COLOURS = 256


def palette_png(png: bytes) -> bytes:
    """Return a picture with a palette; of more than 256 colours those that are alike become one.

    :param png: a PNG of 8-bit RGB, as Chromium makes it.
    """
    width, height, rgb = decode_png(png)
    pixels = _reduced(rgb)
    palette = sorted(set(pixels))
    numbers = {colour: number for number, colour in enumerate(palette)}
    indices = bytes(numbers[colour] for colour in pixels)
    rows = b"".join(b"\0" + indices[at : at + width] for at in range(0, len(indices), width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", b"".join(palette)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _reduced(rgb: bytes) -> list[bytes]:
    """Return the colour of each pixel, with as many bits of it as a palette has room for."""
    for lost in range(8):
        kept = 0xFF << lost & 0xFF
        table = bytes(min(0xFF, (value & kept) * 0xFF // kept) for value in range(256))
        values = rgb.translate(table)
        pixels = [values[at : at + 3] for at in range(0, len(values), 3)]
        if len(set(pixels)) <= _MOST_COLOURS:
            return pixels
    raise AssertionError("one bit of each channel makes eight colours")
