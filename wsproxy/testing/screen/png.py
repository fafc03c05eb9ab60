"""Writes and reads pixels as PNG files (W3C PNG, second edition), without dependencies.

It supports only what a screenshot needs: 8 bits per channel, RGB, not interlaced. Nothing blocks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["CHANNELS", "PNGError", "decode_png", "encode_png"]

CHANNELS = 3
"""Bytes of a pixel: red, green and blue."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_RGB_8_BIT = (8, 2, 0, 0, 0)  # depth, colour type, compression, filter method, interlace
_MAX_PIXELS = 1 << 26  # bounds what the reader unpacks, so that a hostile file cannot take all memory


class PNGError(ValueError):
    """The bytes are not a PNG file, or not one that this module can read."""


# --- writing ---


def encode_png(width: int, height: int, rgb: bytes) -> bytes:
    """Return pixels, row by row from the top, as the bytes of a PNG file."""
    stride = width * CHANNELS
    rows = (rgb[at : at + stride] for at in range(0, len(rgb), stride))
    unfiltered = b"".join(b"\0" + row for row in rows)
    header = _HEADER.pack(width, height, *_RGB_8_BIT)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- reading ---


def decode_png(data: bytes) -> tuple[int, int, bytes]:
    """Return width, height and pixels of a PNG file of 8-bit RGB without interlacing.

    :raises PNGError: for anything else.
    """
    if data[: len(_SIGNATURE)] != _SIGNATURE:
        raise PNGError("not a PNG file")
    header, pixels = b"", bytearray()
    for kind, content in _chunks(data):
        if kind == b"IHDR":
            header = content
        elif kind == b"IDAT":
            pixels += content
    width, height = _size(header)
    return width, height, _unfilter(_inflate(bytes(pixels), width, height), width, height)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each chunk up to IEND, which must exist."""
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        end = at + 12 + length
        if end > len(data):
            raise PNGError("the file is truncated")
        if zlib.crc32(kind + content) != int.from_bytes(data[end - 4 : end], "big"):
            raise PNGError(f"chunk {kind!r} is damaged")
        yield kind, content
        at = end


def _size(header: bytes) -> tuple[int, int]:
    if len(header) != _HEADER.size:
        raise PNGError("the image header is missing or has a wrong length")
    width, height, *kind = _HEADER.unpack(header)
    if tuple(kind) != _RGB_8_BIT:
        raise PNGError("not 8-bit RGB without interlacing")
    if not 0 < width * height <= _MAX_PIXELS:
        raise PNGError(f"{width} x {height} pixels are too few or too many")
    return width, height


def _inflate(packed: bytes, width: int, height: int) -> bytes:
    size = height * (1 + width * CHANNELS)
    try:
        unpacked = zlib.decompressobj().decompress(packed, size + 1)
    except zlib.error as exc:
        raise PNGError("the pixels cannot be unpacked") from exc
    if len(unpacked) != size:
        raise PNGError("the number of pixels does not match the size")
    return unpacked


def _unfilter(filtered: bytes, width: int, height: int) -> bytes:
    stride = width * CHANNELS
    above = bytearray(stride)
    rows = []
    for start in range(0, height * (stride + 1), stride + 1):
        row = bytearray(filtered[start + 1 : start + 1 + stride])
        _reconstruct(filtered[start], row, above)
        rows.append(row)
        above = row
    return b"".join(rows)


def _reconstruct(filter_type: int, row: bytearray, above: bytearray) -> None:
    """Undo one row's filter in place (PNG section 9.2)."""
    if filter_type == 0:
        return
    predict = _PREDICTORS.get(filter_type)
    if predict is None:
        raise PNGError(f"unknown filter {filter_type}")
    for at, value in enumerate(row):
        left, corner = (row[at - CHANNELS], above[at - CHANNELS]) if at >= CHANNELS else (0, 0)
        row[at] = (value + predict(left, above[at], corner)) & 0xFF


def _sub(left: int, above: int, corner: int) -> int:
    return left


def _up(left: int, above: int, corner: int) -> int:
    return above


def _average(left: int, above: int, corner: int) -> int:
    return (left + above) // 2


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    by_left, by_above, by_corner = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
    if by_left <= by_above and by_left <= by_corner:
        return left
    return above if by_above <= by_corner else corner


_PREDICTORS = {1: _sub, 2: _up, 3: _average, 4: _paeth}
