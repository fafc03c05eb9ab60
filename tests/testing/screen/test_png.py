"""PNG written and read back, each filter, and files that are not what they should be."""

from __future__ import annotations

import random
import struct
import unittest
import zlib

from wsproxy.testing.screen.image import Image
from wsproxy.testing.screen.png import PNGError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(width: int, height: int) -> Image:
    """Return a picture of random pixels, the same each time."""
    return Image(width, height, random.Random(width * height).randbytes(width * height * 3))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: bytes, scanlines: bytes) -> bytes:
    """Return a file of these parts, the pixels spread over two chunks."""
    packed = zlib.compress(scanlines)
    parts = (
        (b"IHDR", header),
        (b"tEXt", b"ignored\0"),
        (b"IDAT", packed[:5]),
        (b"IDAT", packed[5:]),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(chunk(kind, data) for kind, data in parts)


def filtered(image: Image, filters: list[int]) -> bytes:
    """Return the scanlines of a picture, row n with the n-th of these filters (PNG section 9)."""
    stride = image.width * 3
    above = bytes(stride)
    scanlines = b""
    for number, kind in enumerate(filters):
        row = image.rgb[number * stride : (number + 1) * stride]
        left, corner = bytes(3) + row[:-3], bytes(3) + above[:-3]
        guesses = [guess(kind, *around) for around in zip(left, above, corner, strict=True)]
        values = bytes((value - guessed) % 256 for value, guessed in zip(row, guesses, strict=True))
        scanlines += bytes((kind,)) + values
        above = row
    return scanlines


def guess(kind: int, left: int, above: int, corner: int) -> int:
    """Return what a filter predicts for one byte."""
    if kind == 4:
        estimate = left + above - corner
        return min((left, above, corner), key=lambda value: abs(estimate - value))
    return (0, left, above, (left + above) // 2)[kind]


class ImageTest(unittest.TestCase):
    def test_round_trip(self) -> None:
        """A picture comes back from its PNG file as it was, in any size."""
        for size in ((1, 1), (3, 2), (64, 48), (1, 100), (101, 1)):
            with self.subTest(size=size):
                image = noise(*size)
                self.assertEqual(Image.from_png(image.to_png()), image)

    def test_file_layout(self) -> None:
        """The file begins with the signature and a header of 8-bit RGB."""
        data = Image(2, 1, bytes(6)).to_png()
        self.assertEqual(data[:16], SIGNATURE + b"\0\0\0\x0dIHDR")
        self.assertEqual(data[16:29], struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0))

    def test_wrong_number_of_bytes(self) -> None:
        """A picture whose bytes do not match its size cannot be made."""
        for width, height, length in ((2, 2, 11), (2, 2, 13), (0, 0, 0), (-1, -1, 3)):
            with self.subTest(width=width, length=length), self.assertRaises(ValueError):
                Image(width, height, bytes(length))

    def test_pixel(self) -> None:
        """A pixel is read by its place; outside of the picture there is none."""
        image = Image(2, 2, bytes(range(12)))
        self.assertEqual(image.pixel(1, 1), (9, 10, 11))
        for place in ((2, 0), (0, 2), (-1, 0)):
            with self.subTest(place=place), self.assertRaises(IndexError):
                image.pixel(*place)

    def test_crop(self) -> None:
        """A part holds the pixels that stood there; it cannot reach outside."""
        image = noise(10, 8)
        part = image.crop(3, 2, 4, 5)
        self.assertEqual(part.pixel(1, 1), image.pixel(4, 3))
        with self.assertRaises(ValueError):
            image.crop(7, 0, 4, 1)


class ReadTest(unittest.TestCase):
    header = struct.pack(">IIBBBBB", 7, 6, 8, 2, 0, 0, 0)

    def test_each_filter(self) -> None:
        """Rows with any of the five filters, mixed or alone, are read."""
        image = noise(7, 6)
        for filters in ([0] * 6, [1] * 6, [2] * 6, [3] * 6, [4] * 6, [0, 1, 2, 3, 4, 1], [4, 3, 2, 1, 0, 4]):
            with self.subTest(filters=filters):
                self.assertEqual(Image.from_png(png(self.header, filtered(image, filters))), image)

    def test_unknown_filter(self) -> None:
        """A filter that does not exist is refused."""
        with self.assertRaises(PNGError):
            Image.from_png(png(self.header, b"\x05" + bytes(6 * 22 - 1)))

    def test_other_kinds(self) -> None:
        """Palettes, alpha, 16 bits and interlacing are refused, not misread."""
        for kind in ((8, 3, 0, 0, 0), (8, 6, 0, 0, 0), (16, 2, 0, 0, 0), (8, 2, 0, 0, 1)):
            with self.subTest(kind=kind), self.assertRaises(PNGError):
                Image.from_png(png(struct.pack(">IIBBBBB", 7, 6, *kind), bytes(6 * 22)))

    def test_cut_anywhere(self) -> None:
        """A file that ends too early is refused, wherever it was cut."""
        whole = noise(3, 2).to_png()
        for end in range(len(whole)):
            with self.subTest(end=end), self.assertRaises(PNGError):
                Image.from_png(whole[:end])

    def test_damage(self) -> None:
        """A changed byte is noticed."""
        whole = bytearray(noise(3, 2).to_png())
        for at in range(len(whole)):
            damaged = bytes(whole[:at]) + bytes((whole[at] ^ 1,)) + bytes(whole[at + 1 :])
            with self.subTest(at=at), self.assertRaises(PNGError):
                Image.from_png(damaged)

    def test_sizes_that_lie(self) -> None:
        """Too many or too few pixels, an impossible size, or pixels that do not unpack are refused."""
        for height, rows in ((6, 5), (6, 7), (0, 0), (1 << 30, 1)):
            with self.subTest(height=height), self.assertRaises(PNGError):
                Image.from_png(png(struct.pack(">IIBBBBB", 7, height, 8, 2, 0, 0, 0), bytes(22 * rows)))
        broken = SIGNATURE + chunk(b"IHDR", self.header) + chunk(b"IDAT", b"not zlib") + chunk(b"IEND", b"")
        with self.assertRaises(PNGError):
            Image.from_png(broken)


if __name__ == "__main__":
    unittest.main()
