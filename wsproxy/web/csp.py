"""The Content-Security-Policy (CSP Level 3) of the pages that the proxy serves. No I/O.

If an attacker injects text into a page, that text can run no script, and connect to no server but this one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser

from ..exceptions import ConfigError
from ..kinds import shown_url

__all__ = ["frame_ancestors", "page_policy", "web_policy"]

_LABEL = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_HOST_SOURCE = re.compile(rf"https?://(?:\*\.)?{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")
_SELF, _NONE, _INLINE = "'self'", "'none'", "'unsafe-inline'"
_IMAGES = "img-src 'self' data: blob:"  # noVNC's cursors are data: URLs


def frame_ancestors(sources: Sequence[str]) -> str:
    """Return the directive that says which pages may embed the proxy's pages in a frame.

    :param sources: ``self``, and origins such as ``https://lab.example`` or ``https://*.lab.example``;
        empty for no page at all.
    :raises ConfigError: if a source is neither.
    """
    found = [_SELF if source in ("self", _SELF) else source.lower() for source in sources]
    if bad := [source for source in found if source != _SELF and not _HOST_SOURCE.fullmatch(source)]:
        raise ConfigError(
            [f"frame_ancestors has {shown_url(bad[0])}; write self, or origins such as https://lab.example"]
        )
    return _directive("frame-ancestors", *(found or [_NONE]))


def page_policy(ancestors: str) -> str:
    """Return the policy of the console page.

    :param ancestors: from :func:`frame_ancestors`.
    """
    return _policy([_SELF], [_SELF], [_IMAGES], ancestors)


def web_policy(ancestors: str, html: bytes) -> str:
    """Return the policy of a page that is not part of wsproxy, such as noVNC's own vnc.html.

    Of inline scripts only those in the page as served may run.

    :param ancestors: from :func:`frame_ancestors`.
    :param html: the page; b"" for a file that is not HTML.
    """
    scripts = [_SELF, *_hashes(html)]
    more = [_IMAGES, "font-src 'self'", "media-src 'self'", "frame-src 'self'"]
    return _policy(scripts, [_SELF, _INLINE], more, ancestors)


def _policy(scripts: Iterable[str], styles: Iterable[str], more: Iterable[str], ancestors: str) -> str:
    return "; ".join(
        (
            _directive("default-src", _NONE),
            _directive("script-src", *scripts),
            _directive("style-src", *styles),
            *more,
            _directive("connect-src", _SELF),  # includes WebSockets to this host
            _directive("base-uri", _NONE),
            _directive("form-action", _NONE),
            ancestors,
        )
    )


def _directive(name: str, *values: str) -> str:
    return " ".join((name, *values))


def _hashes(html: bytes) -> list[str]:
    """Return a hash source for each inline script of a page (CSP Level 3, section 2.3.1)."""
    parser = _InlineScripts()
    # Decode and normalise newlines as a browser does: HTML standard, section 13.2.3.5.
    parser.feed(html.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n"))
    parser.close()
    digests = [hashlib.sha256(script.encode()).digest() for script in parser.found]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


class _InlineScripts(HTMLParser):
    """Collects the inline scripts of a page.

    :ivar found: their texts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._parts: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and "src" not in dict(attrs):
            self._parts = []

    def handle_data(self, data: str) -> None:
        if self._parts is not None:
            self._parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._parts is not None:
            self.found.append("".join(self._parts))
            self._parts = None
