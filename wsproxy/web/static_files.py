"""The files that are served to browsers: an exact map from paths to contents, read when the proxy starts.

No request reaches the file system. What is in the map is served and nothing else, so there is no directory to
list, no path to walk up, and no link to be followed later.
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
_Policy = Callable[[bytes], str]  # of the HTML, b"" for other files

_PAGE = Path(__file__).parent / "console_page"
_INSTALLED_NOVNC = Path("/usr/share/novnc")
_NOVNC_HAS, _XTERM_HAS = ("core/rfb.js",), ("lib/xterm.mjs", "css/xterm.css")
_NO_NOVNC = (
    "the console page has no noVNC, so it shows no screens; install Debian's novnc, or unpack the npm "
    "package @novnc/novnc and name its directory: --novnc DIR"
)
_INDEX = "index.html"

_MAX_ENTRIES = 4096
_MAX_FILE = 8 * 1024 * 1024
_MAX_IN_ALL = 64 * 1024 * 1024
# No dot files; nothing that would have to be encoded in a path, as the router takes no encoded paths.
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._~@+=,-]+")


@dataclass(frozen=True)
class FileRules:
    """Which files are served, as the settings say.

    :ivar ancestors: the directive of a Content-Security-Policy that says who may show pages in a frame.
    :ivar mount: the last segment of the path that everything is below, or none.
    :ivar web: directory of a web client, None for none.
    :ivar console_page: whether the console page is served.
    :ivar novnc: directory with noVNC for that page; None for an installed one, if there is one.
    :ivar xterm: directory with xterm.js for it, None for none.
    """

    ancestors: str
    mount: tuple[str, ...] = ()
    web: str | None = None
    console_page: bool = False
    novnc: str | None = None
    xterm: str | None = None


class StaticFiles:
    """The files of one server. Safe from every thread.

    :raises ConfigError: if a directory is not what the settings say it is.
    """

    def __init__(self, rules: FileRules) -> None:
        self._rules = rules
        self._map = _read(rules)

    def find(self, path: str) -> _Page | None:
        """Return what there is at a path below the prefix, such as ``/console/``; None for nothing.

        Does not block.
        """
        return self._map.get(path)

    @property
    def count(self) -> int:
        """How many paths there are."""
        return len(self._map)

    @property
    def missing(self) -> str | None:
        """What the console page lacks, and what to do about it; None if it has all that it needs."""
        lacks_novnc = f"/console/novnc/{_NOVNC_HAS[0]}" not in self._map
        return _NO_NOVNC if self._rules.console_page and lacks_novnc else None

    def reload(self) -> None:
        """Read all files again; what cannot be used stays as it was, with an error in the log.

        Blocks on the file system. One thread at a time.
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

    :param setting: its name, for faults.
    :param needed: files that have to be there.
    :param parts: the only subdirectories that are of interest; empty for all that there is.
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
        """Return what there is at which path.

        :param base: the directory's own path, with a slash at its end.
        :param mounted: the last segment of that path; empty for none.
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
        """Yield the names that lead to each file, and where it is once links are resolved."""
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
        """Read one file; ``path`` has no links in it."""
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
