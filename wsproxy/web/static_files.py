"""The files that the proxy serves to browsers: an exact map from paths to contents, read at the start.

No request reaches the file system, because the proxy serves only what is in the map. So a request can list no
directory, leave the directory by no ``..``, and follow no link.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..exceptions import ConfigError
from ..protocol.representation import Redirect, Representation, media_type
from ..runtime.logs import get_logger
from .csp import page_policy, web_policy

__all__ = ["FileRules", "StaticFiles"]

logger = get_logger("wsproxy.web_files")

_Page = Representation | Redirect
_Policy = Callable[[bytes], str]  # makes a policy from the HTML; takes b"" for other files

_PAGE = Path(__file__).parent / "console_page"
_INSTALLED_NOVNC = Path("/usr/share/novnc")
_NOVNC_HAS, _XTERM_HAS = ("core/rfb.js",), ("lib/xterm.mjs", "css/xterm.css")
_NO_NOVNC = (
    "the console page has no noVNC, so it cannot show screens; install Debian's package novnc, or unpack the "
    "npm package @novnc/novnc and name its directory with --novnc DIR"
)
_INDEX = "index.html"

_MAX_ENTRIES = 4096
_MAX_FILE = 8 * 1024 * 1024
_MAX_IN_ALL = 64 * 1024 * 1024
# No dot files, and no names that need encoding in a path, because the router refuses encoded paths.
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._~@+=,-]+")


@dataclass(frozen=True)
class FileRules:
    """Which files the proxy serves, by its settings.

    :ivar ancestors: the ``frame-ancestors`` directive, see :func:`.frame_ancestors`.
    :ivar mount: the last segment of the path prefix; empty without a prefix.
    :ivar web: directory of a web client; None for none.
    :ivar console_page: whether the proxy serves the console page.
    :ivar novnc: directory with noVNC for that page; None for Debian's, if it is installed.
    :ivar xterm: directory with xterm.js for that page; None for none.
    """

    ancestors: str
    mount: tuple[str, ...] = ()
    web: str | None = None
    console_page: bool = False
    novnc: str | None = None
    xterm: str | None = None


class StaticFiles:
    """The files of one server. Safe from every thread. Making one blocks on the file system.

    :raises ConfigError: if a directory cannot be read, is too large, or lacks a file that it needs.
    """

    def __init__(self, rules: FileRules) -> None:
        self._rules = rules
        self._map = _read(rules)

    def find(self, path: str) -> _Page | None:
        """Return what the map has for a path below the prefix, such as ``/console/``; None for nothing.

        Does not block.
        """
        return self._map.get(path)

    @property
    def count(self) -> int:
        """How many paths the map has."""
        return len(self._map)

    @property
    def missing(self) -> str | None:
        """A sentence that says that the console page has no noVNC, and what to do; None if it has it."""
        lacks_novnc = f"/console/novnc/{_NOVNC_HAS[0]}" not in self._map
        return _NO_NOVNC if self._rules.console_page and lacks_novnc else None

    def reload(self) -> None:
        """Read all files again. If any directory is faulty, log an error and keep all files as they were.

        Blocks on the file system. Only one thread at a time may call this.
        """
        try:
            self._map = _read(self._rules)
        except ConfigError as exc:
            for fault in exc.faults:
                logger.error("%s; the files stay as they were", fault)


def _read(rules: FileRules) -> Mapping[str, _Page]:
    found: dict[str, _Page] = {}
    if rules.web is not None:
        web = _Directory("web", Path(rules.web))
        found |= web.pages("/", lambda html: web_policy(rules.ancestors, html), rules.mount)
    if rules.console_page:
        policy = page_policy(rules.ancestors)
        page = _Directory("console_page", _PAGE)
        found |= page.pages("/console/", lambda html: policy, ("console",))
        installed = all((_INSTALLED_NOVNC / name).is_file() for name in _NOVNC_HAS)
        novnc = rules.novnc or (str(_INSTALLED_NOVNC) if installed else None)
        for name, directory, needed, parts in (
            ("novnc", novnc, _NOVNC_HAS, ("core", "vendor")),
            ("xterm", rules.xterm, _XTERM_HAS, ("lib", "css")),
        ):
            if directory is not None:
                library = _Directory(name, Path(directory), needed, parts)
                found |= library.pages(f"/console/{name}/", lambda html: policy, (name,))
    return found


class _Directory:
    """A directory that a setting names.

    :param setting: the setting's name, for the texts of faults.
    :param needed: files that must be in it.
    :param parts: the only subdirectories to read; empty for the whole directory.
    """

    def __init__(
        self, setting: str, path: Path, needed: tuple[str, ...] = (), parts: tuple[str, ...] = ()
    ) -> None:
        self._setting = setting
        self._path = path
        self._needed = needed
        self._parts = parts
        self._entries = self._bytes = 0

    def pages(self, base: str, policy: _Policy, mounted: tuple[str, ...]) -> dict[str, _Page]:
        """Return the directory's files and redirects by path. Blocks on the file system.

        :param base: the path of the directory itself, with a slash at its end.
        :param policy: makes each file's Content-Security-Policy.
        :param mounted: the last segment of the path; empty for none.
        :raises ConfigError: if the directory is faulty.
        """
        try:
            for name in self._needed:
                if not (self._path / name).is_file():
                    self._fail(f"there is no {name} in it; name the directory that has it")
            return self._pages(base, policy, mounted)
        except OSError as exc:
            self._fail(f"cannot read {exc.filename}: {exc.strerror}; name one that the proxy can read")

    def _pages(self, base: str, policy: _Policy, mounted: tuple[str, ...]) -> dict[str, _Page]:
        found: dict[str, _Page] = {}
        for segments, path in self._files():
            page = self._page(path, segments[-1], policy)
            found[base + "/".join(segments)] = page
            if segments[-1] == _INDEX:
                directory = base + "".join(f"{segment}/" for segment in segments[:-1])
                found[directory] = page
                for last in (*mounted, *segments[:-1])[-1:]:
                    found[directory[:-1]] = Redirect(f"{last}/")
        return found

    def _files(self) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Yield the path segments of each file, and its real path, with links resolved."""
        root = Path(os.path.realpath(self._path, strict=True))
        directories = [(part,) for part in self._parts if (root / part).is_dir()] if self._parts else [()]
        while directories:
            above = directories.pop()
            for entry in sorted(os.scandir(root.joinpath(*above)), key=lambda entry: entry.name):
                self._entries += 1
                if self._entries > _MAX_ENTRIES:
                    self._fail(f"it has more than {_MAX_ENTRIES} files; is it the right directory?")
                if _NAME.fullmatch(entry.name) is None:
                    continue
                names = (*above, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    directories.append(names)
                    continue
                real = Path(os.path.realpath(entry.path))
                if real.is_relative_to(root) and real.is_file():
                    yield names, real

    def _page(self, path: Path, name: str, policy: _Policy) -> Representation:
        """Read one file. ``path`` contains no links."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            content = file.read(_MAX_FILE + 1) if stat.S_ISREG(status.st_mode) else b""
        self._bytes += len(content)
        if len(content) > _MAX_FILE:
            self._fail(f"{name} in it is larger than {_MAX_FILE} bytes")
        if self._bytes > _MAX_IN_ALL:
            self._fail(f"its files are larger than {_MAX_IN_ALL} bytes in all; is it the right directory?")
        modified = min(max(status.st_mtime, 0), time.time())  # RFC 9110 section 8.8.2.1
        kind = media_type(name)
        headers = [("Content-Security-Policy", policy(content if kind.startswith("text/html") else b""))]
        return Representation(content, kind, modified, headers)

    def _fail(self, fault: str) -> NoReturn:
        raise ConfigError([f"{self._setting} is {str(self._path)!r}; {fault}"])
