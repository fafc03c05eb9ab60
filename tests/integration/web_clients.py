"""Pages that show a console in a browser, each served by the proxy itself: stock noVNC, and ours."""

from __future__ import annotations

import os
import shutil
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.integration.console_page import CANVAS, CONNECTED
from tests.integration.web_packages import web_package
from wsproxy.net.addresses import host_and_port

__all__ = ["CLIENTS", "CONSOLE_PAGE", "NOVNC_INSTALLED", "NOVNC_RELEASE", "WebClient"]

Address = tuple[str, int]
Settings = dict[str, Any]

_INSTALLED = "/usr/share/novnc"  # where Debian's package novnc puts it
_RELEASE_PAGE = os.path.join(os.path.dirname(__file__), "novnc_release")


_NOTICE = """["title", "text", "detail"]
    .map(part => document.getElementById(`notice-${part}`).textContent).join("\\n")"""


@dataclass(frozen=True)
class WebClient:
    """A page for consoles.

    :ivar name: how documents call it.
    :ivar settings: makes the arguments with which :class:`.WebsocketProxy` serves it, given a directory that
        lives as long; skips a test if that cannot be done.
    :ivar location: the page with its parameters, below the proxy's root, of host, port, token and VMI.
    :ivar connected: JavaScript: whether the console is open.
    :ivar canvas: CSS selector of its screen.
    :ivar told: JavaScript: what it says to the person in front of it.
    """

    name: str
    settings: Callable[[str], Settings]
    location: Callable[[str, int, str, str], str]
    connected: str
    canvas: str
    told: str

    def url(self, pages: Address, consoles: Address, token: str, vmi: str) -> str:
        """Return the URL that opens a VMI's console.

        :param pages: of the proxy that serves the page.
        :param consoles: of the one that has the console, usually the same.
        """
        return f"http://{host_and_port(*pages)}/{self.location(*consoles, token, vmi)}"


def _installed(directory: str) -> Settings:
    if not os.path.isfile(os.path.join(_INSTALLED, "vnc.html")):
        raise unittest.SkipTest("noVNC is not installed (Debian package novnc)")
    return {"web": _INSTALLED}


def _release(directory: str) -> Settings:
    """Put the npm package and a page into one directory: the package has none."""
    site = os.path.join(directory, "novnc-release")
    if not os.path.isdir(site):
        shutil.copytree(_RELEASE_PAGE, site)
        for part in ("core", "vendor"):
            shutil.copytree(os.path.join(web_package("novnc"), part), os.path.join(site, part))
    return {"web": site}


def _page(directory: str) -> Settings:
    return {"console_page": True, "novnc": web_package("novnc")}


def _stock(page: str) -> Callable[[str, int, str, str], str]:
    """As LabOrchestrator makes the link: host, port and path, the token in the path."""
    return lambda host, port, token, vmi: f"{page}?host={host}&port={port}&path={token}/{vmi}&autoconnect=1"


CONSOLE_PAGE = WebClient(
    "console page",
    _page,
    lambda host, port, token, vmi: f"console/#{token}/{vmi}",
    CONNECTED,
    CANVAS,
    _NOTICE,
)
NOVNC_INSTALLED = WebClient(
    "noVNC 1.3",
    _installed,
    _stock("vnc.html"),
    "document.documentElement.classList.contains('noVNC_connected')",
    "#noVNC_container canvas",
    "document.getElementById('noVNC_status').textContent",
)
NOVNC_RELEASE = WebClient(
    "noVNC 1.7.0",
    _release,
    _stock("index.html"),
    "document.body.dataset.state === 'connected'",
    "#screen canvas",
    "document.getElementById('events').innerText",
)
CLIENTS = (CONSOLE_PAGE, NOVNC_INSTALLED, NOVNC_RELEASE)
"""All of them."""
