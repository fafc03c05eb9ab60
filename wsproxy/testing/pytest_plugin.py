"""Fixtures for pytest. It finds them by the entry point ``pytest11``, so tests need not import them.

Every run of pytest imports this module, whatever it tests. So each fixture imports its modules itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ..config import Config
    from ..proxy import WebsocketProxy
    from .application import ApplicationServer
    from .kubevirt.api import FakeKubeVirtAPI
    from .rfb.client import RFBClient
    from .screen.desktop import Desktop

__all__ = [
    "AddDesktop",
    "ConsoleToken",
    "OpenConsole",
    "add_desktop",
    "console_allowed_leaks",
    "console_config",
    "console_leaks",
    "console_proxy",
    "console_proxy_settings",
    "console_token",
    "fake_kubevirt_api",
    "open_console",
    "serve_application",
]

_NAMESPACE = "lab-1"


class AddDesktop(Protocol):
    """Adds a VMI that shows a small desktop. ``options`` are further arguments of :class:`.Desktop`."""

    def __call__(self, vmi: str, namespace: str = _NAMESPACE, **options: Any) -> Desktop: ...


class ConsoleToken(Protocol):
    """Makes a token for VMIs. ``claims`` are further arguments of :func:`~wsproxy.tokens.make_token`."""

    def __call__(self, *vmis: str, namespace: str = _NAMESPACE, **claims: Any) -> str: ...


class OpenConsole(Protocol):
    """Opens a VMI's console. ``options`` are further arguments of :class:`.RFBClient`.

    If no token is given, it makes one for this VMI.
    """

    def __call__(self, vmi: str, token: str | None = None, **options: Any) -> RFBClient: ...


@pytest.fixture
def console_allowed_leaks() -> Sequence[str]:
    """Leaks to allow, see LeakCheck, such as ``("ThreadPoolExecutor-*", "asyncio*")``. Redefine it."""
    return ()


@pytest.fixture
def console_leaks(console_allowed_leaks: Sequence[str]) -> Iterator[None]:
    """Fails a test with consoles that leaks threads or sockets. To turn it off, redefine it as empty."""
    from .leaks import LeakCheck

    check = LeakCheck(console_allowed_leaks)
    try:
        yield
        check.check("let the fixture console_allowed_leaks return {}")
    finally:
        check.stop()


@pytest.fixture
def fake_kubevirt_api(console_leaks: None) -> Iterator[FakeKubeVirtAPI]:
    """A running simulated Kubernetes API with TLS and a bearer token. Add VMIs to it."""
    from .kubevirt.api import FakeKubeVirtAPI

    with FakeKubeVirtAPI(namespace=_NAMESPACE) as api:
        yield api
    assert not api.errors, f"the simulated API failed: {api.errors}"


@pytest.fixture
def console_proxy_settings() -> Mapping[str, Any]:
    """Further arguments of WebsocketProxy for console_proxy. Redefine it to set some."""
    return {}


@pytest.fixture
def console_proxy(
    fake_kubevirt_api: FakeKubeVirtAPI, console_proxy_settings: Mapping[str, Any]
) -> Iterator[WebsocketProxy]:
    """A WebsocketProxy in front of fake_kubevirt_api. It serves on loopback until the test ends."""
    from ..proxy import WebsocketProxy
    from .case import CLOSE_TIMEOUT, SECRET, proxy_options

    settings = {"close_timeout": CLOSE_TIMEOUT, **console_proxy_settings}
    options = proxy_options(fake_kubevirt_api, SECRET, **settings)
    with WebsocketProxy(**options).run_in_thread("127.0.0.1", 0) as proxy:
        yield proxy


@pytest.fixture
def console_config(
    fake_kubevirt_api: FakeKubeVirtAPI, console_proxy_settings: Mapping[str, Any]
) -> Callable[..., Config]:
    """A function that makes the Config for consoles inside an application: ``console_config()``."""
    from ..config import Config
    from .case import CLOSE_TIMEOUT, SECRET, proxy_options

    given = {"close_timeout": CLOSE_TIMEOUT, **console_proxy_settings}
    return lambda **options: Config(**proxy_options(fake_kubevirt_api, SECRET, **{**given, **options}))


@pytest.fixture
def serve_application(fake_kubevirt_api: FakeKubeVirtAPI) -> Iterator[Callable[..., ApplicationServer]]:
    """A function that serves a WSGI application whose views open consoles, as an ApplicationServer."""
    from .application import ApplicationServer

    servers = []
    with ExitStack() as stack:

        def serve(app: Any) -> ApplicationServer:
            servers.append(stack.enter_context(ApplicationServer(app)))
            return servers[-1]

        yield serve
    errors = [error for server in servers for error in server.errors]
    assert not errors, f"the application failed: {errors}"


@pytest.fixture
def console_token() -> ConsoleToken:
    """A function that makes tokens for console_proxy: ``console_token("ubuntu", user=5)``."""
    from ..tokens.issue import make_token
    from .case import SECRET

    def token(*vmis: str, namespace: str = _NAMESPACE, **claims: Any) -> str:
        return make_token(claims.pop("secret", SECRET), namespace=namespace, vmis=vmis, **claims)

    return token


@pytest.fixture
def add_desktop(fake_kubevirt_api: FakeKubeVirtAPI) -> Iterator[AddDesktop]:
    """A function that adds a VMI with a Desktop to fake_kubevirt_api, and returns the Desktop."""
    from .screen.desktop import Desktop

    with ExitStack() as desktops:

        def add(vmi: str, namespace: str = _NAMESPACE, **options: Any) -> Desktop:
            desktop = desktops.enter_context(Desktop(vmi, **options))
            fake_kubevirt_api.add_desktop(desktop, namespace=namespace)
            return desktop

        yield add


@pytest.fixture
def open_console(
    fake_kubevirt_api: FakeKubeVirtAPI, console_proxy: WebsocketProxy, console_token: ConsoleToken
) -> Iterator[OpenConsole]:
    """A function that opens a VMI's console through console_proxy, and returns the RFBClient."""
    from .case import explain
    from .rfb.client import RFBClient
    from .rfb.errors import ConsoleRefused

    with ExitStack() as viewers:

        def connect(vmi: str, token: str | None = None, **options: Any) -> RFBClient:
            __tracebackhide__ = True
            try:
                viewer = RFBClient(console_proxy, token or console_token(vmi), vmi, **options)
            except ConsoleRefused as refused:
                explain(refused, fake_kubevirt_api)
                raise refused.with_traceback(None) from None
            return viewers.enter_context(viewer)

        yield connect
