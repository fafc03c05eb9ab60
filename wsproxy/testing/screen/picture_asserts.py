"""Assertions about pictures, for unittest and pytest. Their errors say what differs."""

from __future__ import annotations

import os

from .image import RGB, Image

__all__ = ["assert_same_picture", "assert_shows", "assert_shows_colour", "colours_of", "saved"]

__unittest = True  # a failed assertion ends at the line of the test


def assert_same_picture(
    seen: Image,
    expected: Image,
    *,
    tolerance: int = 0,
    allowed: int = 0,
    save_to: str | os.PathLike[str] | None = None,
) -> None:
    """Assert that two pictures are the same, or nearly.

    :param tolerance: how much red, green and blue of a pixel may differ.
    :param allowed: how many pixels may differ more than that.
    :param save_to: if the assertion fails, save ``seen.png`` and ``expected.png`` in this existing directory.
    :raises AssertionError: if they are not; says how many pixels differ, and where.
    """
    __tracebackhide__ = True
    if seen.size == expected.size:
        differing = seen.differing_pixels(expected, tolerance=tolerance)
        if differing <= allowed:
            return
        place = seen.difference(expected, tolerance=tolerance)
        text = f"{differing} of {seen.width * seen.height} pixels differ, all of them within {place}"
        text += f"; at most {allowed} may" if allowed else ""
    else:
        text = f"the picture has {_size(seen)} pixels, not {_size(expected)}"
    raise AssertionError(text + saved(save_to, seen=seen, expected=expected))


def assert_shows(
    seen: Image, part: Image, *, save_to: str | os.PathLike[str] | None = None
) -> tuple[int, int]:
    """Assert that a picture contains another one, pixel by pixel, and return its place: x and y.

    :param save_to: if the assertion fails, save ``seen.png`` and ``part.png`` in this existing directory.
    :raises AssertionError: if it does not contain it.
    """
    __tracebackhide__ = True
    place = seen.find_image(part)
    if place is None:
        text = f"the picture of {_size(seen)} pixels does not contain the part of {_size(part)}"
        raise AssertionError(text + saved(save_to, seen=seen, part=part))
    return place


def assert_shows_colour(
    seen: Image,
    colour: RGB,
    *,
    pixels: int = 1,
    tolerance: int = 0,
    save_to: str | os.PathLike[str] | None = None,
) -> None:
    """Assert that a picture shows a colour.

    :param pixels: how many pixels must have the colour, at least.
    :param tolerance: how much red, green and blue may differ.
    :param save_to: if the assertion fails, save ``seen.png`` in this existing directory.
    :raises AssertionError: if it does not; names the most frequent colours.
    """
    __tracebackhide__ = True
    found = seen.count(colour, tolerance=tolerance)
    if found < pixels:
        text = f"{found} pixels are {colour}, not {pixels}; most are: {colours_of(seen)}"
        raise AssertionError(text + saved(save_to, seen=seen))


def colours_of(image: Image) -> str:
    """Return a text with the most frequent colours of a picture."""
    return ", ".join(f"{number} of {colour}" for colour, number in image.colours())


def _size(image: Image) -> str:
    return f"{image.width} x {image.height}"


def saved(directory: str | os.PathLike[str] | None, **images: Image) -> str:
    """Save pictures as NAME.png, unless the directory is None. Returns the end of a sentence that names them.

    :raises OSError: if they cannot be written.
    """
    if directory is None:
        return ""
    paths = {os.path.join(directory, f"{name}.png"): image for name, image in images.items()}
    for path, image in paths.items():
        image.save(path)
    return f"; saved as {' and '.join(paths)}"
