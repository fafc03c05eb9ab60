"""``wsproxy demo``: shows the whole path on one machine, without a cluster.

The demo runs a simulated cluster and the proxy with its console page, both on loopback only. The simulated
API speaks TLS and demands a bearer token, and the proxy is configured as in a real cluster.
"""

from __future__ import annotations

import logging
import secrets
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..access.hooks import AccessRequest
from ..access.sessions import SessionHandle
from ..proxy import WebsocketProxy
from ..runtime.threads import start_thread
from ..testing import Desktop, Image, RFBClient
from ..tokens.claims import Grant
from ..upstream.location import DEFAULT_API_PATH
from .demo_guide import Guide
from .demo_machines import MAIN, SLEEPER, Machines, machines
from .output import stderr_handler

__all__ = ["run_demo", "visit_demo"]

_HOST = "127.0.0.1"
_TYPED = "hello through wsproxy"
_STEP_SECONDS = 10.0


@dataclass(frozen=True)
class _Demo:
    """The parts of a running demo."""

    machines: Machines
    guide: Guide
    proxy: WebsocketProxy


def run_demo(port: int, *, novnc: str | None, xterm: str | None, browser: bool) -> int:
    """Run the demo and return its exit status. Blocks until SIGINT or SIGTERM.

    :param port: the proxy's port; 0 for any free one.
    :param novnc: directory with noVNC for the console page; None for an installed one.
    :param xterm: directory with xterm.js for the console page; None for a page without serial consoles.
    :param browser: whether to open the first desktop in the user's browser.
    :raises ConfigError: if noVNC or xterm.js is not in its directory.
    """
    _log(logging.INFO)
    page = {"console_page": True, "screenshots": True, "novnc": novnc, "xterm": xterm}
    try:
        with _prepared(**page) as demo:
            demo.proxy.run(_HOST, port, on_ready=lambda proxy: _invite(demo, browser=browser))
    except OSError as exc:
        print(f"wsproxy demo: {exc.strerror or exc}; --port 0 takes any free port", file=sys.stderr)
        return 1
    return 0


def visit_demo(screenshot: str | None) -> int:
    """Run the demo, open a console in it, type, check the screen, and return the exit status.

    Each step waits for ten seconds at most.

    :param screenshot: the PNG file in which to save the screen; None for none.
    """
    _log(logging.WARNING)
    with _prepared() as demo, demo.proxy.run_in_thread(_HOST, 0):
        return _visit(demo, screenshot)


def _log(level: int) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=level, handlers=[stderr_handler(formatter)])


@contextmanager
def _prepared(**page: Any) -> Iterator[_Demo]:
    """Start the simulated cluster, and make the proxy without starting it.

    :param page: the proxy's settings for the console page.
    """
    secret = secrets.token_urlsafe(32)
    with machines() as running:

        def wake(grant: Grant, request: AccessRequest) -> None:
            if (request.vmi, request.subresource) == (SLEEPER, "vnc"):
                running.sleeper.ask()

        def welcome(session: SessionHandle) -> None:
            running.show_facts(session.vmi, str(session.grant.user), proxy.address)

        # A pod has the same: the API's address, and the two files of its service account.
        proxy = WebsocketProxy(
            running.api.url,
            DEFAULT_API_PATH,
            False,
            secret,
            sslopt={"ca_certs": running.api.ca_file},
            token_file=running.api.token_file,
            subresources=["console"],
            console="takeover",
            show_user=True,
            authorize=wake,
            on_open=welcome,
            **page,
        )
        yield _Demo(running, Guide(secret, running), proxy)


def _invite(demo: _Demo, *, browser: bool) -> None:
    address = demo.proxy.address
    print(demo.guide.text(address), flush=True)
    if browser:
        # A browser that runs in the terminal returns only when the user quits it. The thread is a daemon.
        start_thread("demo-browser", lambda: _open(demo.guide.urls(address)[0]), demo)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        print("wsproxy demo: no browser can be opened; use the URLs above", file=sys.stderr)


def _visit(demo: _Demo, screenshot: str | None) -> int:
    """Open a console through the proxy, type, check the screen, and return the exit status."""
    desktop = demo.machines.desktops[MAIN]
    try:
        with RFBClient(demo.proxy, demo.guide.token, MAIN, timeout=_STEP_SECONDS) as client:
            width, height = client.size
            _report(f"connected through the proxy: {client.name!r}, {width}x{height}")
            before = client.screenshot()
            client.type(_TYPED)
            if not desktop.wait_for_text(_TYPED, _STEP_SECONDS):
                return _fail(f"the desktop did not receive the keys; its text is {desktop.text!r}")
            _report(f"typed {_TYPED!r}; the desktop received it")
            after = client.wait_until(lambda image: _shows_typing(desktop, before, image), _STEP_SECONDS)
            _report("the client's screen shows the typed text")
    except (OSError, ValueError) as exc:
        return _fail(f"{type(exc).__name__}: {exc}")
    if screenshot:
        after.save(screenshot)
        _report(f"saved the screen as {screenshot}")
    if not demo.machines.api.wait_until_idle(_STEP_SECONDS):
        return _fail("the proxy did not release the console")
    _report("disconnected, and the proxy released the console")
    return 0


def _shows_typing(desktop: Desktop, before: Image, seen: Image) -> bool:
    """Whether the client's terminal looks as the desktop draws it, and not as it did before the typing."""
    area = desktop.terminal_area
    return seen.crop(*area) == desktop.screenshot().crop(*area) != before.crop(*area)


def _report(text: str) -> None:
    print(f"ok    {text}", flush=True)


def _fail(text: str) -> int:
    print(f"FAULT {text}", flush=True)
    return 1
