"""``wsproxy demo``: the whole path on one machine, with no cluster.

A stand-in for the Kubernetes API that speaks TLS and demands the bearer token, a small desktop that
speaks RFB behind it, and in front of both the proxy, configured as in a cluster. Loopback only.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .config import DEFAULT_API_PATH
from .proxy import WebsocketProxy
from .testing import Desktop, FakeKubeVirtAPI, Image, RFBClient, SocketBackend
from .tokens import make_token

__all__ = ["run_demo"]

_HOST = "127.0.0.1"
_NAMESPACE = "demo"
_VMI = "ubuntu"
_USER = "teacher"
_TOKEN_SECONDS = 3600
_TYPED = "hello through wsproxy"
_STEP_SECONDS = 10.0


@dataclass(frozen=True)
class _Demo:
    """What a demo consists of, while it runs."""

    api: FakeKubeVirtAPI
    desktop: Desktop
    proxy: WebsocketProxy
    token: str

    @property
    def url(self) -> str:
        """The console's WebSocket URL."""
        host, port = self.proxy.address
        return f"ws://{host}:{port}/{self.token}/{_VMI}"


def run_demo(port: int, once: bool, screenshot: str | None) -> int:
    """Run the demo and return its exit status.

    Blocks until SIGINT or SIGTERM, or, with ``once``, for some seconds at most.

    :param port: the proxy's port, 0 for any; with ``once`` any is used.
    :param once: be the client too: connect, type, look, and leave.
    :param screenshot: with ``once``, the PNG file to save what was seen in.
    """
    level = logging.WARNING if once else logging.INFO
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        with _prepared() as demo:
            if not once:
                demo.proxy.run(_HOST, port, on_ready=lambda proxy: _invite(demo))
                return 0
            with demo.proxy.run_in_thread(_HOST, 0):
                return _visit(demo, screenshot)
    except OSError as exc:
        print(f"wsproxy demo: {exc}; is port {port} taken? --port 0 takes any", file=sys.stderr)
        return 1


@contextmanager
def _prepared() -> Iterator[_Demo]:
    """Start everything but the proxy."""
    secret = secrets.token_urlsafe(32)
    token = make_token(
        secret, namespace=_NAMESPACE, vmis=[_VMI], user=_USER, expires_in=_TOKEN_SECONDS, lab_id="demo"
    )
    with Desktop(_VMI) as desktop, FakeKubeVirtAPI() as api:
        api.add_vmi(_VMI, _NAMESPACE, backend=SocketBackend(desktop.serve))
        # What a pod has: the API's address, and the two files of its service account.
        proxy = WebsocketProxy(
            api.url,
            DEFAULT_API_PATH,
            False,
            secret,
            sslopt={"ca_certs": api.ca_file},
            token_file=api.token_file,
        )
        yield _Demo(api, desktop, proxy, token)


def _show_facts(demo: _Demo) -> None:
    demo.desktop.set_facts(
        {
            "VMI": f"{_NAMESPACE}/{_VMI}",
            "user": _USER,
            "proxy": "{}:{}, token checked".format(*demo.proxy.address),
            "API": f"{demo.api.url.partition('//')[2]}, TLS and bearer token",
        }
    )


def _invite(demo: _Demo) -> None:
    _show_facts(demo)
    host, port = demo.proxy.address
    print(
        f"""\
wsproxy demo: no cluster, no real VM, loopback only. Do not put this on a network.

  Kubernetes API stand-in  {demo.api.url} (TLS, bearer token demanded)
  VMI                      {_NAMESPACE}/{_VMI}
  token                    {demo.token}
  console                  {demo.url}

Point any noVNC at it, served from wherever, with these parameters:

  vnc.html?host={host}&port={port}&path={demo.token}/{_VMI}&autoconnect=1

Ctrl-C stops it.""",
        flush=True,
    )


def _visit(demo: _Demo, screenshot: str | None) -> int:
    """Be the client: connect through the proxy, type, look. Returns the exit status."""
    _show_facts(demo)
    try:
        with RFBClient(demo.proxy, demo.token, _VMI, timeout=_STEP_SECONDS) as client:
            width, height = client.size
            _report(f"connected through the proxy: {client.name!r}, {width}x{height}")
            before = client.screenshot()
            client.type(_TYPED)
            if not demo.desktop.wait_for_text(_TYPED, _STEP_SECONDS):
                return _fail(f"the desktop did not get the keys; it has {demo.desktop.text!r}")
            _report(f"typed {_TYPED!r}; the desktop got it")
            after = client.wait_until(lambda image: _shows_typing(demo.desktop, before, image), _STEP_SECONDS)
            _report("the typed text is on the screen that came back")
    except (OSError, ValueError) as exc:
        return _fail(f"{type(exc).__name__}: {exc}")
    if screenshot:
        after.save(screenshot)
        _report(f"saved the screen as {screenshot}")
    if not demo.api.wait_until_idle(_STEP_SECONDS):
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
