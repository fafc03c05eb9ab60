"""Base classes for unittest: one finds leaks, one starts a simulated cluster with proxies in front of it."""

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
"""The HMAC secret of :class:`ProxyTestCase` and of the fixtures for pytest."""


CLOSE_TIMEOUT = 1.0
"""Seconds: ``close_timeout`` of proxies in test cases and fixtures. It is short to keep tests fast."""


def proxy_options(api: FakeKubeVirtAPI, secret: str, **options: Any) -> dict[str, Any]:
    """Return the arguments for a :class:`.WebsocketProxy` in front of a simulated API that has been started.

    :param options: further arguments; they override those that this function sets. Others may also stand
        beside its result: ``WebsocketProxy(**proxy_options(api, secret), close_timeout=2)``.
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
    """If the VMI of a refused console does not exist, add the existing VMIs to the refusal's text."""
    if refused.slug == VMINotFound.slug:
        there = ", ".join(f"{vmi.namespace}/{vmi.name}" for vmi in api.vmis)
        refused.add_hint(f"the simulated cluster has {there or 'no VMIs'}")


class LeakTestCase(unittest.TestCase):
    """Fails a test that leaves a thread or a socket, or in which an exception ended a thread.

    The check runs after all clean-ups of the test. It waits up to five seconds for threads that are about to
    end. In Python's development mode (``-X dev``) it collects garbage after each test, so that warnings of
    finalizers count for the right test.

    :cvar allowed_leaks: threads and sockets that the program keeps on purpose, see :class:`LeakCheck`. A
        pool's threads are ``"ThreadPoolExecutor-*"``, and asyncio's are ``"asyncio*"``.
    :cvar check_leaks: False turns the check off.
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

    A subclass with its own ``setUp`` calls this one first. Everything that a test starts by these methods
    stops at the test's end, in reverse order.

    :cvar tls: whether the simulated API speaks TLS and the proxies use a service account, as in a cluster.
    :cvar client_tls: whether clients use TLS to the proxies. Then :class:`RawClient` does so by default.
    :cvar namespace: the default namespace of VMIs and tokens.
    :cvar proxy_settings: arguments of :class:`.WebsocketProxy` for every proxy of the class.
    :ivar api: the simulated API; add VMIs to it.
    :ivar proxy_authority: with ``client_tls``, the authority that issued the proxies' certificate.
    :ivar proxy_certificate: with ``client_tls``, files with the proxies' certificate and its key.
    :ivar client_context: with ``client_tls``, a client's TLS context, which trusts that authority; else None.
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
        self.assertEqual(self.api.errors, [], "the simulated API failed")

    def make_api(self) -> FakeKubeVirtAPI:
        """Return the simulated API, not started. A subclass may override this to make it differently."""
        return FakeKubeVirtAPI(tls=self.tls)

    def proxy_options(self, **options: Any) -> dict[str, Any]:
        """Return the arguments for a :class:`.WebsocketProxy` in front of the simulated API.

        :param options: further arguments; they override ``proxy_settings`` and those that this method sets.
        """
        given = proxy_options(self.api, SECRET, close_timeout=CLOSE_TIMEOUT)
        if self.client_tls:
            given["tls_cert"], given["tls_key"] = self.proxy_certificate
        return {**given, **self.proxy_settings, **options}

    def start_proxy(self, host: str = "127.0.0.1", **options: Any) -> WebsocketProxy:
        """Start a proxy in front of the simulated API. It stops at the end of the test.

        :param options: as for :meth:`proxy_options`.
        :raises ConfigError: if the options are wrong; lists every fault.
        """
        proxy = WebsocketProxy(**self.proxy_options(**options)).run_in_thread(host, 0, daemon=True)
        self.addCleanup(proxy.stop_thread)
        return proxy

    @cached_property
    def console_proxy(self) -> WebsocketProxy:
        """A proxy with the settings of the class. It starts at the first access."""
        return self.start_proxy()

    def console_config(self, **options: Any) -> Config:
        """Return the settings for consoles inside an application, in front of the simulated API.

        They are for :class:`wsproxy.flask.Console` and :class:`.ConsoleApp`. They contain no certificate,
        since the application's server does TLS.

        :param options: as for :meth:`proxy_options`.
        """
        given = self.proxy_options(**options)
        return Config(**{name: value for name, value in given.items() if name not in ("tls_cert", "tls_key")})

    def serve_application(self, app: WSGIApplication) -> ApplicationServer:
        """Serve a WSGI application whose views open consoles, until the end of the test.

        If the application raises an exception, the test fails. With ``client_tls`` the server speaks TLS.
        """
        server = ApplicationServer(
            app, tls=server_context(*self.proxy_certificate) if self.client_tls else None
        )
        self.addCleanup(lambda: self.assertEqual(server.errors, [], "the application failed"))
        self.addCleanup(server.stop)
        return server.start()

    def open_console_at(self, url: str, **options: Any) -> RFBClient:
        """Open the console at a URL, such as a view's. Otherwise like :meth:`open_console`.

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
        """Add a VMI that shows a small desktop, and return the desktop. Its ``vmi`` is the VMI.

        :param namespace: the VMI's namespace; None for the test's.
        :param options: further arguments of :class:`Desktop`: ``facts``, ``size``, ...
        """
        desktop = Desktop(vmi, **options)
        self.addCleanup(desktop.close)
        self.api.add_desktop(desktop, namespace=namespace)
        return desktop

    def open_console(
        self, vmi: str, *, token: str | None = None, proxy: WebsocketProxy | None = None, **options: Any
    ) -> RFBClient:
        """Open a VMI's console and return the viewer. It closes at the end of the test.

        :param token: None for a token for this VMI.
        :param proxy: None for :attr:`console_proxy`.
        :param options: further arguments of :class:`RFBClient`, which lists further exceptions.
        :raises ConsoleRefused: with the reason, if the console does not open.
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
        """Return the URL of a VMI's console at ``proxy``, by default with a token for this VMI."""
        return viewer_url(proxy, token or self.token(vmi), vmi)

    @property
    def client_tls_settings(self) -> dict[str, str]:
        """The program's settings that ``client_tls`` needs, as environment variables."""
        if not self.client_tls:
            return {}
        return dict(zip(("WSPROXY_TLS_CERT", "WSPROXY_TLS_KEY"), self.proxy_certificate, strict=True))

    @property
    def scheme(self) -> str:
        """The scheme of URLs for clients: ``ws``, or ``wss`` with ``client_tls``."""
        return "wss" if self.client_tls else "ws"
