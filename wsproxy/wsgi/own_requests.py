"""Decides which requests belong to wsproxy, and which to the application behind it."""

from __future__ import annotations

from ..access.credentials import looks_like_ticket
from ..config import Config
from ..web import endpoints
from ..web.static_files import StaticFiles
from .environ import Environ, path_of, path_segments

__all__ = ["OwnRequests"]


class OwnRequests:
    """The requests that :class:`.ConsoleApp` takes as a middleware.

    :param config: the settings.
    :param files: the files that are served to browsers.
    """

    def __init__(self, config: Config, files: StaticFiles) -> None:
        self._config = config
        self._files = files

    def __contains__(self, environ: Environ) -> bool:
        """Whether a request belongs to wsproxy."""
        segments, prefix = path_segments(environ), self._config.routes.prefix
        if prefix:
            return segments[: len(prefix)] == prefix
        if "websocket" in environ.get("HTTP_UPGRADE", "").lower():
            return _is_console(segments, self._config.tickets)
        names = endpoints.endpoint_names(self._config.endpoint_rules)
        return (
            "/".join(segments) in names
            or (self._config.screenshots and _is_screenshot(segments))
            or self._files.find(path_of(environ)) is not None
        )


def _is_console(segments: tuple[str, ...], tickets: bool) -> bool:
    """Whether a path without a prefix is a console's, and not that of an application's own WebSocket."""
    if len(segments) not in (2, 3):
        return False
    first = segments[0]
    return first == "-" or first.count(".") == 2 or (tickets and looks_like_ticket(first))


def _is_screenshot(segments: tuple[str, ...]) -> bool:
    """Whether a path without a prefix is a screenshot's, and not one of the application's own."""
    first = segments[0] if segments else ""
    return segments[-1:] == ("screenshot.png",) and (first == "-" or first.count(".") == 2)
