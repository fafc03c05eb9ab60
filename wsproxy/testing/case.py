"""Base classes for unittest suites: nothing may be left behind, and a proxy in front of a stand-in."""

from __future__ import annotations

import ssl
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from ..config import Config
from ..exceptions import VMINotFound
from ..net.tls_context import server_context
from ..proxy import WebsocketProxy
from ..tokens.issue import make_token
from ..upstream.location import DEFAULT_API_PATH
from .application import ApplicationServer
from .kubevirt.api import FakeKubeVirtAPI
from .kubevirt.certificates import CertificateAuthority
from .leaks import LeakCheck
from .rfb.client import RFBClient, viewer_url
from .rfb.errors import ConsoleRefused
from .rfb.raw_client import RawClient, client_context
from .screen.desktop import Desktop

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["CLOSE_TIMEOUT", "SECRET", "LeakTestCase", "ProxyTestCase", "explain", "proxy_options"]

SECRET = "wsproxy-test-secret-of-32-bytes-and-more"
"""The HMAC secret that :class:`ProxyTestCase` and the fixtures for pytest use."""


CLOSE_TIMEOUT = 1.0
"""Of proxies in test cases and fixtures, in seconds: a test of an end that goes wrong shall not take long."""


def proxy_options(api: FakeKubeVirtAPI, secret: str, **options: Any) -> dict[str, Any]:
    """Return the arguments for a :class:`.WebsocketProxy` in front of a stand-in that has been started.

    :param options: further arguments, or others than those that lead to the stand-in. Those that do not may
        also stand beside them: ``WebsocketProxy(**proxy_options(api, secret), close_timeout=2)``.
    """
    given: dict[str, Any] = {
        "remote_url": api.url,
        "api_path": DEFAULT_API_PATH,
        "local_dev_mode": not api.tls,
        "secret_key": secret,
    }
    if api.tls:
        given |= {"sslopt": {"ca_certs": api.ca_file}, "token_file": api.token_file}
    return {**given, **options}


def explain(refused: ConsoleRefused, api: FakeKubeVirtAPI) -> None:
    """Have a refusal of a VMI that is not there say which VMIs the stand-in has."""
    if refused.slug == VMINotFound.slug:
        there = ", ".join(f"{vmi.namespace}/{vmi.name}" for vmi in api.vmis)
        refused.add_hint(f"the stand-in has {there or 'no VMIs'}")


class LeakTestCase(unittest.TestCase):
    """Fails a test that leaves a thread or a socket, or in which a thread died of an exception.

    What is left is looked for after all clean-ups of the test; a thread that is about to end is given
    five seconds. In Python's development mode (``-X dev``) the garbage of each test is collected at its end,
    so that what a finalizer complains about counts for the test that it belongs to.

    :cvar allowed_leaks: what the program under test keeps on purpose, see :class:`LeakCheck`: the threads of
        a pool are ``"ThreadPoolExecutor-*"``, asyncio is ``"asyncio*"``.
    :cvar check_leaks: False switches all of that off.
    """

    allowed_leaks: ClassVar[Sequence[str]] = ()
    check_leaks: ClassVar[bool] = True

    def setUp(self) -> None:
        super().setUp()
        if self.check_leaks:
            check = LeakCheck(self.allowed_leaks)
            self.addCleanup(check.stop)
            self.addCleanup(check.check, "allowed_leaks = {}")


class ProxyTestCase(LeakTestCase):
    """Starts a :class:`FakeKubeVirtAPI` for each test and, on demand, proxies in front of it.

    ::

        class ConsoleTest(ProxyTestCase):
            proxy_settings = {"allow_origin": ["https://lab.example"]}

            def test_typing(self) -> None:
                desktop = self.add_desktop("ubuntu")
                vm = self.open_console("ubuntu")
                vm.type("hello")
                desktop.assert_text("hello")

    A subclass with a ``setUp`` of its own calls this one first. What a test starts by these methods ends with
    it, in the opposite order.

    :cvar tls: whether the stand-in speaks TLS and the proxies use a service account, as in a cluster.
    :cvar client_tls: whether clients come to the proxies by TLS; a :class:`RawClient` then does so.
    :cvar namespace: where VMIs are added to, and what tokens are for, unless a test says otherwise.
    :cvar proxy_settings: arguments of :class:`.WebsocketProxy` for every proxy of the class.
    :ivar api: the stand-in; add VMIs to it.
    :ivar proxy_authority: with ``client_tls``, what issued the proxies' certificate, and is trusted.
    :ivar proxy_certificate: with ``client_tls``, files with the proxies' certificate and its key.
    :ivar client_context: with ``client_tls``, what a client needs; None without.
    """

    tls: ClassVar[bool] = True
    client_tls: ClassVar[bool] = False
    namespace: ClassVar[str] = "lab-1"
    proxy_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def setUp(self) -> None:
        super().setUp()
        self.client_context: ssl.SSLContext | None = None
        if self.client_tls:
            self.__prepare_client_tls()
        self.api = self.make_api()
        self.api.namespace = self.namespace
        self.api.start()
        self.addCleanup(self.__stop_api)

    def __prepare_client_tls(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.proxy_authority = CertificateAuthority(directory.name)
        self.proxy_certificate = self.proxy_authority.issue()
        self.client_context = client_context(self.proxy_authority.ca_file)
        patcher = mock.patch.object(RawClient, "default_tls", self.client_context)
        patcher.start()
        self.addCleanup(patcher.stop)

    def __stop_api(self) -> None:
        self.api.stop()
        self.assertEqual(self.api.errors, [], "the stand-in failed")

    def make_api(self) -> FakeKubeVirtAPI:
        """Return the stand-in, not started; a subclass may return one that is made differently."""
        return FakeKubeVirtAPI(tls=self.tls)

    def proxy_options(self, **options: Any) -> dict[str, Any]:
        """Return the arguments for a :class:`.WebsocketProxy` in front of the stand-in.

        :param options: arguments that differ from these, and from ``proxy_settings``.
        """
        given = proxy_options(self.api, SECRET, close_timeout=CLOSE_TIMEOUT)
        if self.client_tls:
            given["tls_cert"], given["tls_key"] = self.proxy_certificate
        return {**given, **self.proxy_settings, **options}

    def start_proxy(self, host: str = "127.0.0.1", **options: Any) -> WebsocketProxy:
        """Start a proxy in front of the stand-in; it is stopped at the end of the test.

        :param options: arguments of :class:`.WebsocketProxy` that differ.
        :raises ConfigError: listing every fault in them.
        """
        proxy = WebsocketProxy(**self.proxy_options(**options)).run_in_thread(host, 0, daemon=True)
        self.addCleanup(proxy.stop_thread)
        return proxy

    @cached_property
    def console_proxy(self) -> WebsocketProxy:
        """A proxy that is started when it is first asked for, with the settings of the class."""
        return self.start_proxy()

    def console_config(self, **options: Any) -> Config:
        """Return the settings for consoles within an application, in front of the stand-in.

        For :class:`wsproxy.flask.Console` and :class:`.ConsoleApp`, whose server speaks TLS if one does.

        :param options: settings that differ from those of the proxies.
        """
        given = self.proxy_options(**options)
        return Config(**{name: value for name, value in given.items() if name not in ("tls_cert", "tls_key")})

    def serve_application(self, app: WSGIApplication) -> ApplicationServer:
        """Serve a WSGI application whose views open consoles, until the end of the test.

        What it raises fails the test. With ``client_tls`` clients come to it by TLS.
        """
        server = ApplicationServer(
            app, tls=server_context(*self.proxy_certificate) if self.client_tls else None
        )
        self.addCleanup(lambda: self.assertEqual(server.errors, [], "the application failed"))
        self.addCleanup(server.stop)
        return server.start()

    def open_console_at(self, url: str, **options: Any) -> RFBClient:
        """Open the console at a URL, such as a view's; otherwise as :meth:`open_console`.

        :param options: arguments of :class:`RFBClient`: ``header=["Cookie: session=..."]``, ``origin``, ...
        """
        __tracebackhide__ = True
        options.setdefault("tls", self.client_context)
        try:
            viewer = RFBClient(url, **options)
        except ConsoleRefused as refused:
            explain(refused, self.api)
            raise refused.with_traceback(None) from None
        self.addCleanup(viewer.close)
        return viewer

    def add_desktop(self, vmi: str, namespace: str | None = None, **options: Any) -> Desktop:
        """Add a VMI to the stand-in that shows a small desktop, and return the desktop; it has the VMI.

        :param namespace: by default the test's.
        :param options: further arguments of :class:`Desktop`: ``facts``, ``size``, ...
        """
        desktop = Desktop(vmi, **options)
        self.addCleanup(desktop.close)
        self.api.add_desktop(desktop, namespace=namespace)
        return desktop

    def open_console(
        self, vmi: str, *, token: str | None = None, proxy: WebsocketProxy | None = None, **options: Any
    ) -> RFBClient:
        """Open a VMI's console and return the viewer, which is closed at the end of the test.

        :param token: by default one for this VMI.
        :param proxy: by default :attr:`console_proxy`.
        :param options: further arguments of :class:`RFBClient`, which says what else may be raised.
        :raises ConsoleRefused: with the reason, if it is not opened.
        """
        __tracebackhide__ = True
        url = self.url(proxy or self.console_proxy, vmi, token)
        try:
            return self.open_console_at(url, **options)
        except ConsoleRefused as refused:
            raise refused.with_traceback(None) from None

    def token(self, *vmis: str, secret: str = SECRET, **claims: Any) -> str:
        """Return a token for ``vmis`` in the test's namespace.

        :param claims: further arguments of :func:`~wsproxy.tokens.make_token`.
        """
        claims.setdefault("namespace", self.namespace)
        return make_token(secret, vmis=list(vmis), **claims)

    def url(self, proxy: WebsocketProxy, vmi: str, token: str | None = None) -> str:
        """Return the URL of a VMI's console at ``proxy``; by default with a token for this VMI."""
        return viewer_url(proxy, token or self.token(vmi), vmi)

    @property
    def client_tls_settings(self) -> dict[str, str]:
        """The program's settings that ``client_tls`` needs, as environment variables."""
        if not self.client_tls:
            return {}
        return dict(zip(("WSPROXY_TLS_CERT", "WSPROXY_TLS_KEY"), self.proxy_certificate, strict=True))

    @property
    def scheme(self) -> str:
        """Of a URL for clients: ``ws``, or ``wss`` with ``client_tls``."""
        return "wss" if self.client_tls else "ws"
