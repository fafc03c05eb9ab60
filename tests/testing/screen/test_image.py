"""Pictures: searched, compared and saved."""

from __future__ import annotations

import random
import tempfile
import unittest
from pathlib import Path

from wsproxy.testing import Image, assert_same_picture, assert_shows, assert_shows_colour
from wsproxy.testing.screen.image import Area
from wsproxy.testing.screen.png import PNGError

BLACK, RED, ALMOST_RED = (0, 0, 0), (255, 0, 0), (251, 4, 3)


def painted(width: int, height: int, **dots: tuple[int, int, int]) -> Image:
    """Return a black picture with single pixels of other colours, by name: ``x3_y1=RED``."""
    rgb = bytearray(width * height * 3)
    for name, colour in dots.items():
        x, y = (int(part[1:]) for part in name.split("_"))
        at = 3 * (y * width + x)
        rgb[at : at + 3] = bytes(colour)
    return Image(width, height, bytes(rgb))


class ImageTest(unittest.TestCase):
    picture = painted(5, 4, x3_y1=RED, x1_y2=ALMOST_RED)

    def test_colours(self) -> None:
        """Colours are counted and found, exactly or nearly."""
        self.assertEqual(self.picture.count(RED), 1)
        self.assertEqual(self.picture.count(RED, tolerance=4), 2)
        self.assertEqual(self.picture.count(RED, tolerance=3), 1)
        self.assertEqual(self.picture.find(RED), (3, 1))
        self.assertEqual(self.picture.find(ALMOST_RED), (1, 2))
        self.assertEqual(self.picture.find(BLACK), (0, 0))
        self.assertIsNone(self.picture.find((0, 255, 0)))
        self.assertEqual(self.picture.colours(), [(BLACK, 18), (RED, 1), (ALMOST_RED, 1)])
        self.assertEqual(self.picture.colours(1), [(BLACK, 18)])

    def test_difference(self) -> None:
        """Two pictures differ in so many pixels, all of them within one area."""
        black = painted(5, 4)
        cases: tuple[tuple[Image, int, int, Area | None], ...] = (
            (self.picture, 0, 0, None),
            (black, 0, 2, (1, 1, 3, 2)),
            (painted(5, 4, x3_y1=RED), 0, 1, (1, 2, 1, 1)),
            (painted(5, 4, x3_y1=ALMOST_RED, x1_y2=RED), 0, 2, (1, 1, 3, 2)),
            (painted(5, 4, x3_y1=ALMOST_RED, x1_y2=RED), 4, 0, None),
            (painted(5, 4, x3_y1=ALMOST_RED, x1_y2=BLACK), 3, 2, (1, 1, 3, 2)),
            (painted(4, 5), 0, 20, (0, 0, 5, 4)),
            (painted(6, 5), 9, 30, (0, 0, 5, 4)),
        )
        for other, tolerance, pixels, area in cases:
            with self.subTest(other=other, tolerance=tolerance):
                self.assertEqual(self.picture.differing_pixels(other, tolerance=tolerance), pixels)
                self.assertEqual(self.picture.difference(other, tolerance=tolerance), area)

    def test_difference_of_noise(self) -> None:
        """What is counted by whole pictures is what a loop over pixels counts."""
        dice = random.Random(8)
        one, two = (Image(17, 9, bytes(dice.choices(range(3), k=17 * 9 * 3))) for _ in range(2))
        places = [(x, y) for y in range(9) for x in range(17)]
        for tolerance in (0, 1):
            differing = [
                place
                for place in places
                if any(
                    abs(a - b) > tolerance for a, b in zip(one.pixel(*place), two.pixel(*place), strict=True)
                )
            ]
            self.assertEqual(one.differing_pixels(two, tolerance=tolerance), len(differing))
        self.assertEqual(one.count((1, 1, 1)), sum(one.pixel(*place) == (1, 1, 1) for place in places))

    def test_parts(self) -> None:
        """A part is found even if its first row also occurs before it. A missing part is not found."""
        whole = painted(6, 5, x0_y0=RED, x3_y1=RED, x4_y2=RED, x5_y3=RED, x5_y4=ALMOST_RED)
        self.assertEqual(whole.find_image(whole), (0, 0))
        self.assertEqual(whole.find_image(whole.crop(3, 1, 3, 3)), (3, 1))
        self.assertEqual(whole.find_image(whole.crop(5, 3, 1, 2)), (5, 3))
        self.assertIsNone(whole.find_image(painted(2, 2, x0_y0=RED, x1_y0=RED)))
        self.assertIsNone(whole.find_image(painted(7, 1)))
        self.assertIsNone(whole.find_image(painted(1, 6)))

    def test_parts_do_not_wrap(self) -> None:
        """The end of one row and the beginning of the next do not make a part."""
        self.assertIsNone(painted(3, 2, x2_y0=RED, x0_y1=RED).find_image(Image(2, 1, bytes(RED * 2))))

    def test_parts_begin_at_pixels(self) -> None:
        """Equal bytes that begin within a pixel do not make a part."""
        self.assertIsNone(Image(2, 1, bytes((1, 2, 3, 4, 5, 6))).find_image(Image(1, 1, bytes((2, 3, 4)))))

    def test_files(self) -> None:
        """A saved picture is loaded again; another file is no picture."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "seen.png")
            self.picture.save(path)
            self.assertEqual(Image.load(str(path)), self.picture)
            path.write_bytes(b"GIF89a")
            with self.assertRaises(PNGError):
                Image.load(path)


class AssertionsTest(unittest.TestCase):
    seen, expected = painted(5, 4, x3_y1=RED), painted(5, 4)

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def saved(self) -> list[str]:
        return sorted(path.name for path in Path(self.directory).iterdir())

    def test_same(self) -> None:
        """Pictures that are the same, or nearly, pass. Nothing is written then."""
        assert_same_picture(self.seen, self.seen, save_to=self.directory)
        assert_same_picture(self.seen, self.expected, allowed=1, save_to=self.directory)
        assert_same_picture(self.seen, painted(5, 4, x3_y1=ALMOST_RED), tolerance=4, save_to=self.directory)
        self.assertEqual(self.saved(), [])

    def test_different(self) -> None:
        """Different pictures fail. The error says where they differ, and names the saved files."""
        with self.assertRaises(AssertionError) as caught:
            assert_same_picture(self.seen, self.expected, save_to=self.directory)
        text = "1 of 20 pixels differ, all of them within (3, 1, 1, 1); saved as "
        self.assertTrue(str(caught.exception).startswith(text), caught.exception)
        self.assertEqual(self.saved(), ["expected.png", "seen.png"])
        self.assertEqual(Image.load(Path(self.directory, "seen.png")), self.seen)
        with self.assertRaisesRegex(AssertionError, r"^2 of 20 .*; at most 1 may$"):
            assert_same_picture(self.expected, painted(5, 4, x0_y0=RED, x1_y0=RED), allowed=1)
        with self.assertRaisesRegex(AssertionError, r"^the picture has 5 x 4 pixels, not 4 x 5$"):
            assert_same_picture(self.seen, painted(4, 5), allowed=99)

    def test_shows(self) -> None:
        """The assertion returns the place of a part. If there is none, it fails and saves the pictures."""
        self.assertEqual(assert_shows(self.seen, painted(1, 1, x0_y0=RED)), (3, 1))
        with self.assertRaisesRegex(
            AssertionError, "^the picture of 5 x 4 pixels does not contain the part of 1 x 2; "
        ):
            assert_shows(self.seen, painted(1, 2, x0_y0=RED, x0_y1=RED), save_to=self.directory)
        self.assertEqual(self.saved(), ["part.png", "seen.png"])

    def test_shows_colour(self) -> None:
        """The assertion counts the pixels of a colour. If there are too few, the error names the colours."""
        assert_shows_colour(self.seen, RED)
        assert_shows_colour(self.seen, ALMOST_RED, tolerance=4)
        with self.assertRaises(AssertionError) as caught:
            assert_shows_colour(self.seen, RED, pixels=2)
        self.assertEqual(
            str(caught.exception),
            "1 pixels are (255, 0, 0), not 2; most are: 19 of (0, 0, 0), 1 of (255, 0, 0)",
        )
