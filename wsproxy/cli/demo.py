"""``wsproxy demo``: the whole path on one machine, with no cluster.

A stand-in for the Kubernetes API that speaks TLS and demands the bearer token, machines behind it, and in
front of them the proxy, configured as in a cluster, with the console page. Loopback only.
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
    """What a demo consists of, while it runs."""

    machines: Machines
    guide: Guide
    proxy: WebsocketProxy


def run_demo(port: int, *, novnc: str | None, xterm: str | None, browser: bool) -> int:
    """Run the demo and return its exit status. Blocks until SIGINT or SIGTERM.

    :param port: the proxy's port, 0 for any.
    :param novnc: directory with noVNC for the console page; an installed one if None.
    :param xterm: directory with xterm.js for its serial consoles; without one it has none.
    :param browser: whether the first desktop is opened in the person's browser, too.
    :raises ConfigError: if one of the directories is not what it should be.
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
    """Run the demo, be its client, and return the exit status: connect, type, look, and leave.

    Blocks for some seconds at most.

    :param screenshot: the PNG file to save what was seen in.
    """
    _log(logging.WARNING)
    with _prepared() as demo, demo.proxy.run_in_thread(_HOST, 0):
        return _visit(demo, screenshot)


def _log(level: int) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=level, handlers=[stderr_handler(formatter)])


@contextmanager
def _prepared(**page: Any) -> Iterator[_Demo]:
    """Start everything but the proxy.

    :param page: the proxy's settings for its page.
    """
    secret = secrets.token_urlsafe(32)
    with machines() as running:

        def wake(grant: Grant, request: AccessRequest) -> None:
            if (request.vmi, request.subresource) == (SLEEPER, "vnc"):
                running.sleeper.ask()

        def welcome(session: SessionHandle) -> None:
            running.show_facts(session.vmi, str(session.grant.user), proxy.address)

        # What a pod has: the API's address, and the two files of its service account.
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
        # A browser in the terminal returns only when it is left. The thread ends with the program.
        start_thread("demo-browser", lambda: _open(demo.guide.urls(address)[0]), demo)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        print("wsproxy demo: there is no browser to open; use the URLs above", file=sys.stderr)


def _visit(demo: _Demo, screenshot: str | None) -> int:
    """Be the client: connect through the proxy, type, look. Returns the exit status."""
    desktop = demo.machines.desktops[MAIN]
    try:
        with RFBClient(demo.proxy, demo.guide.token, MAIN, timeout=_STEP_SECONDS) as client:
            width, height = client.size
            _report(f"connected through the proxy: {client.name!r}, {width}x{height}")
            before = client.screenshot()
            client.type(_TYPED)
            if not desktop.wait_for_text(_TYPED, _STEP_SECONDS):
                return _fail(f"the desktop did not get the keys; it has {desktop.text!r}")
            _report(f"typed {_TYPED!r}; the desktop got it")
            after = client.wait_until(lambda image: _shows_typing(desktop, before, image), _STEP_SECONDS)
            _report("the typed text is on the screen that came back")
    except (OSError, ValueError) as exc:
        return _fail(f"{type(exc).__name__}: {exc}")
    if screenshot:
        after.save(screenshot)
        _report(f"saved the screen as {screenshot}")
    if not demo.machines.api.wait_until_idle(_STEP_SECONDS):
        return _fail("the console was not released")
    _report("left, and the console was released")
    return 0


def _shows_typing(desktop: Desktop, before: Image, seen: Image) -> bool:
    """Whether the terminal looks as the desktop itself draws it, and not as before the typing."""
    area = desktop.terminal_area
    return seen.crop(*area) == desktop.screenshot().crop(*area) != before.crop(*area)


def _report(text: str) -> None:
    print(f"ok    {text}", flush=True)


def _fail(text: str) -> int:
    print(f"FAULT {text}", flush=True)
    return 1
