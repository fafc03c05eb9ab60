"""Base classes for unittest suites: nothing may be left behind, and a proxy in front of a stand-in."""

from __future__ import annotations

import gc
import os
import ssl
import sys
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from ..config import DEFAULT_API_PATH
from ..deadline import Deadline
from ..proxy import WebsocketProxy
from ..routing import host_and_port
from ..tokens import make_token
from .certificates import CertificateAuthority
from .fake_kubevirt import FakeKubeVirtAPI
from .raw_client import RawClient, client_context

__all__ = ["SECRET", "LeakTestCase", "ProxyTestCase"]

SECRET = "wsproxy-test-secret-of-32-bytes-and-more"
"""The HMAC secret that :class:`ProxyTestCase` uses."""

_SETTLE_SECONDS = 5.0


class LeakTestCase(unittest.TestCase):
    """Fails a test that leaves a thread or a socket, or in which a thread died of an exception.

    What is left is looked for after all clean-ups of the test; a thread that is about to end is given
    five seconds. In Python's development mode (``-X dev``) the garbage of each test is collected at its end,
    so that what a finalizer complains about counts for the test that it belongs to.
    """

    def setUp(self) -> None:
        super().setUp()
        self.__errors: list[str] = []
        self.__watch_hooks()
        threads, sockets = set(threading.enumerate()), _open_sockets()
        self.addCleanup(self.__check, threads, sockets)

    def __watch_hooks(self) -> None:
        thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

        def restore() -> None:
            threading.excepthook, sys.unraisablehook = thread_hook, unraisable_hook

        threading.excepthook = lambda args: self.__errors.append(
            f"{args.thread.name if args.thread else 'a thread'}: {args.exc_value!r}"
        )
        sys.unraisablehook = lambda args: self.__errors.append(f"{args.object!r}: {args.exc_value!r}")
        self.addCleanup(restore)

    def __check(self, threads: set[threading.Thread], sockets: frozenset[str]) -> None:
        deadline = Deadline(_SETTLE_SECONDS)
        for thread in set(threading.enumerate()) - threads:
            if not deadline.passed:
                thread.join(deadline.remaining())
        # Collecting takes longer than most tests, so it is done where it can make a difference.
        if sys.flags.dev_mode or _open_sockets() - sockets:
            gc.collect()
        left = [thread.name for thread in set(threading.enumerate()) - threads]
        self.assertEqual(left, [], "threads are left")
        self.assertEqual(sorted(_open_sockets() - sockets), [], "sockets are left")
        self.assertEqual(self.__errors, [], "exceptions in threads")


class ProxyTestCase(LeakTestCase):
    """Starts a :class:`FakeKubeVirtAPI` and, on demand, proxies in front of it.

    :cvar tls: whether the stand-in speaks TLS and the proxies use a service account, as in a cluster.
    :cvar client_tls: whether clients come to the proxies by TLS; a :class:`RawClient` then does so.
    :ivar api: the stand-in; add VMIs to it.
    :ivar proxy_certificate: with ``client_tls``, files with the proxies' certificate and its key.
    :ivar client_context: with ``client_tls``, what a client needs; None without.
    """

    tls = True
    client_tls = False
    namespace = "lab-1"

    def setUp(self) -> None:
        super().setUp()
        self.client_context: ssl.SSLContext | None = None
        if self.client_tls:
            self.__prepare_client_tls()
        self.api = FakeKubeVirtAPI(tls=self.tls)
        self.api.start()
        self.addCleanup(self.__stop_api)

    def __prepare_client_tls(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        authority = CertificateAuthority(directory.name)
        self.proxy_certificate = authority.issue()
        self.client_context = client_context(authority.ca_file)
        patcher = mock.patch.object(RawClient, "default_tls", self.client_context)
        patcher.start()
        self.addCleanup(patcher.stop)

    def __stop_api(self) -> None:
        self.api.stop()
        self.assertEqual(self.api.errors, [], "the stand-in failed")

    def proxy_options(self, **options: Any) -> dict[str, Any]:
        """Return the arguments for a :class:`.WebsocketProxy` in front of the stand-in."""
        given: dict[str, Any] = {
            "remote_url": self.api.url,
            "api_path": DEFAULT_API_PATH,
            "local_dev_mode": not self.tls,
            "secret_key": SECRET,
            "close_timeout": 1.0,
        }
        if self.tls:
            given |= {"sslopt": {"ca_certs": self.api.ca_file}, "token_file": self.api.token_file}
        if self.client_tls:
            given["tls_cert"], given["tls_key"] = self.proxy_certificate
        return given | options

    def start_proxy(self, host: str = "127.0.0.1", **options: Any) -> WebsocketProxy:
        """Start a proxy in front of the stand-in; it is stopped at the end of the test.

        :param options: arguments of :class:`.WebsocketProxy` that differ.
        """
        proxy = WebsocketProxy(**self.proxy_options(**options)).run_in_thread(host, 0)
        self.addCleanup(proxy.stop_thread)
        return proxy

    def token(self, *vmis: str, secret: str = SECRET, **claims: Any) -> str:
        """Return a token for ``vmis`` in the test's namespace; ``claims`` as for :func:`.make_token`."""
        claims.setdefault("namespace", self.namespace)
        return make_token(secret, vmis=list(vmis), **claims)

    def url(self, proxy: WebsocketProxy, vmi: str, token: str | None = None) -> str:
        """Return the URL of a VMI's console at ``proxy``."""
        return f"{self.scheme}://{host_and_port(*proxy.address)}/{token or self.token(vmi)}/{vmi}"

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


def _open_sockets() -> frozenset[str]:
    """Return the sockets of this process, by inode; nothing where there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    return frozenset(link for name in names if (link := _link(name)).startswith("socket:"))


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
