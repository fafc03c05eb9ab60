"""What a browser may do with what we serve: Content-Security-Policy (CSP Level 3). No I/O.

What has been let into a page may run nothing but our scripts, and may speak to nobody but us.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .exceptions import ConfigError

__all__ = ["frame_ancestors", "page_policy", "web_policy"]

_LABEL = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_HOST_SOURCE = re.compile(rf"https?://(?:\*\.)?{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")
_SELF, _NONE = "'self'", "'none'"


def frame_ancestors(sources: Sequence[str]) -> str:
    """Return the directive that says which pages may show ours in a frame.

    :param sources: ``self``, and origins such as ``https://lab.example`` or ``https://*.lab.example``;
        empty for no page at all.
    :raises ConfigError: if one is neither.
    """
    found = [_SELF if source in ("self", _SELF) else source.lower() for source in sources]
    if bad := [source for source in found if source != _SELF and not _HOST_SOURCE.fullmatch(source)]:
        raise ConfigError(
            [f"frame_ancestors has {bad[0]!r}; write self, or origins such as https://lab.example"]
        )
    return f"frame-ancestors {' '.join(found) or _NONE}"


def page_policy(ancestors: str, *, inline_styles: bool) -> str:
    """Return the policy of the console page.

    :param ancestors: from :func:`frame_ancestors`.
    :param inline_styles: whether it has xterm.js, which writes its styles into the page.
    """
    return _policy(ancestors, inline_styles, "img-src 'self' data: blob:")  # data: is a cursor of noVNC's


def web_policy(ancestors: str) -> str:
    """Return the policy of a web client of somebody else's, such as noVNC with its own vnc.html."""
    return _policy(ancestors, True, "img-src 'self' data: blob:", "font-src 'self'", "media-src 'self'")


def _policy(ancestors: str, inline_styles: bool, *others: str) -> str:
    styles = "style-src 'self' 'unsafe-inline'" if inline_styles else "style-src 'self'"
    fixed = ("connect-src 'self'", "base-uri 'none'", "form-action 'none'", ancestors)
    return "; ".join((f"default-src {_NONE}", "script-src 'self'", styles, *others, *fixed))
