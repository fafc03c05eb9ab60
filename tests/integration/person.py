"""What a person in front of a browser does and sees: keys, the mouse, the pixels of a screen."""

from __future__ import annotations

import base64
import json

from tests.integration.chromium import Browser
from wsproxy.testing.screen.image import Image

__all__ = ["click", "screen_of", "type_text"]

_SHIFT = 8  # of the DevTools protocol's modifiers
_KEYS = {" ": "Space", "\n": "Enter", "-": "Minus", ",": "Comma", "/": "Slash", ".": "Period"}
_SHIFTED = {"!": "Digit1", "_": "Minus", "?": "Slash"}
# The pixels without the alpha of each, as base64.
_PIXELS = """(() => {
    const canvas = document.querySelector(%s);
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    let pixels = "";
    for (let row = 0; row < height; row++) {
        const line = new Uint8Array(width * 3);
        for (let x = 0; x < width; x++) {
            line.set(data.subarray((row * width + x) * 4, (row * width + x) * 4 + 3), x * 3);
        }
        pixels += String.fromCharCode(...line);
    }
    return [width, height, btoa(pixels)];
})()"""
_PLACE = """(() => {
    const {x, y, width, height} = document.querySelector(%s).getBoundingClientRect();
    return [x, y, width, height];
})()"""


def screen_of(browser: Browser, canvas: str) -> Image:
    """Return what a canvas shows, in its own pixels.

    :param canvas: its CSS selector.
    """
    width, height, pixels = browser.evaluate(_PIXELS % json.dumps(canvas))
    return Image(width, height, base64.b64decode(pixels))


def click(browser: Browser, element: str, across: float = 0.5, down: float = 0.5) -> None:
    """Move the mouse to a place of an element, and click.

    :param element: its CSS selector.
    :param across: from its left, 0, to its right, 1; ``down`` alike.
    """
    x, y, width, height = browser.evaluate(_PLACE % json.dumps(element))
    at = {"x": x + width * across, "y": y + height * down}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)


def type_text(browser: Browser, text: str) -> None:
    """Press the keys of a US keyboard that make a text, Shift included."""
    for character in text:
        shifted = character.isupper() or character in _SHIFTED
        if shifted:
            _press(browser, "keyDown", "Shift", "ShiftLeft", _SHIFT)
        for kind in ("keyDown", "keyUp"):
            key = "Enter" if character == "\n" else character
            _press(browser, kind, key, _code(character), _SHIFT if shifted else 0)
        if shifted:
            _press(browser, "keyUp", "Shift", "ShiftLeft", 0)


def _press(browser: Browser, kind: str, key: str, code: str, modifiers: int) -> None:
    browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=modifiers)


def _code(character: str) -> str:
    """Return the name of a key's place (UI Events KeyboardEvent code Values)."""
    if character.isalpha():
        return f"Key{character.upper()}"
    if character.isdigit():
        return f"Digit{character}"
    return _KEYS.get(character) or _SHIFTED[character]
