"""What stands between the tests and a proxy: how it is started, and how it is seen from outside."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol
from unittest import TestCase, mock

from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy.access.sessions import SessionHandle
from wsproxy.net.addresses import host_and_port
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = [
    "Addressed",
    "ConformanceTestCase",
    "Front",
    "Logs",
    "ProxyApart",
    "RunningProxy",
    "SocketServer",
    "busy_threads",
    "end_session",
    "impatience",
]

_STANDING = ("accept", "housekeeping", "idle", "jwks", "poller", "resolver", "serve")


class Logs(Protocol):
    """What was logged, complete at the end of a ``with``: lines that begin with level and logger."""

    @property
    def output(self) -> list[str]: ...


class Addressed(Protocol):
    """Something that listens."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""


class RunningProxy(Addressed, Protocol):
    """A proxy in front of the stand-in, started."""

    @property
    def connections(self) -> int:
        """How many clients it has, in whatever phase it can know of."""

    def stop_thread(self) -> None:
        """End all sessions and return when they have ended. Idempotent."""

    def busy_threads(self) -> list[str]:
        """Names of the threads that work for a session."""

    def end_session(self, vmi: str, code: int, reason: str) -> None:
        """End the session with a VMI as the proxy itself would."""


class ProxyApart(Addressed, Protocol):
    """A proxy in a process of its own, which can be measured."""

    @property
    def url(self) -> str:
        """The same as a URL."""

    def memory(self) -> int:
        """Bytes of its memory that are resident now."""

    def descriptors(self) -> int:
        """How many descriptors it has open."""

    def threads(self) -> int:
        """How many threads it has."""

    def close(self) -> None:
        """Stop it. Idempotent."""


class Front(ABC):
    """One way to serve consoles. There is one for each test case class, closed after its last test.

    :cvar name: what it is called.
    :cvar own_tls: whether TLS towards clients, if there is any, is the proxy's own: then every connection
        ends by a close_notify, and a client's end without one is no error.
    """

    name: ClassVar[str]
    own_tls: ClassVar[bool] = True

    @abstractmethod
    def close(self) -> None:
        """End what all tests of a class share."""

    @abstractmethod
    def prepare(self, case: ConformanceTestCase) -> None:
        """Make a test ready, after its own preparations."""

    @abstractmethod
    def start(self, options: dict[str, Any]) -> RunningProxy:
        """Start a proxy with the arguments of :class:`.WebsocketProxy`."""

    @abstractmethod
    def start_apart(self, case: ConformanceTestCase, **options: Any) -> ProxyApart:
        """Start one in a process of its own, in front of the case's stand-in.

        :param options: numbers; the settings that differ.
        """

    @abstractmethod
    def logs(self, case: TestCase, logger: str) -> contextlib.AbstractContextManager[Logs]:
        """Collect what the proxies log from INFO on, and fail if that is nothing."""

    @abstractmethod
    def patch(self, case: TestCase, target: str, value: object) -> None:
        """Replace a name where the proxies run, until the end of the test."""


class SocketServer(Front):
    """The server of :class:`.WebsocketProxy`, in the process of the tests."""

    name = "socket server"

    def close(self) -> None:
        """Nothing is shared."""

    def prepare(self, case: ConformanceTestCase) -> None:
        """Nothing is to be done."""

    def start(self, options: dict[str, Any]) -> RunningProxy:
        proxy = _SocketProxy(**options)
        proxy.run_in_thread("127.0.0.1", 0)
        return proxy

    def start_apart(self, case: ConformanceTestCase, **options: Any) -> ProxyApart:
        settings = {f"WSPROXY_{name.upper()}": str(value) for name, value in options.items()}
        return ProxyProcess(case.api, **settings, **case.client_tls_settings)

    def logs(self, case: TestCase, logger: str) -> contextlib.AbstractContextManager[Logs]:
        return case.assertLogs(logger, "INFO")

    def patch(self, case: TestCase, target: str, value: object) -> None:
        patcher = mock.patch(target, value)
        patcher.start()
        case.addCleanup(patcher.stop)


class _SocketProxy(WebsocketProxy):
    def busy_threads(self) -> list[str]:
        return busy_threads()

    def end_session(self, vmi: str, code: int, reason: str) -> None:
        end_session(self.sessions, vmi, code, reason)


def busy_threads() -> list[str]:
    """Names of this process's threads that work for a session; a few may be idle, for later ones."""
    found = [thread.name for thread in threading.enumerate() if thread.name.startswith("wsproxy-")]
    return [name for name in found if name.split("-")[1] not in _STANDING]


def end_session(sessions: Callable[[], Sequence[SessionHandle]], vmi: str, code: int, reason: str) -> None:
    """End the session with a VMI; its client may have got its 101 a moment before it is listed."""
    wait_until(lambda: any(session.vmi == vmi for session in sessions()))
    for session in sessions():
        if session.vmi == vmi:
            session.close(code, reason)


@contextlib.contextmanager
def impatience() -> Iterator[None]:
    """Let clients wait for a second only: for what is known to fail, and would otherwise take long to."""
    with (
        mock.patch.object(RawClient.read_head, "__defaults__", (1.0,)),
        mock.patch.object(RawClient.recv_raw, "__defaults__", (1.0,)),
        mock.patch.object(RawClient.wait_for_end, "__defaults__", (1.0,)),
    ):
        yield


class ConformanceTestCase(ProxyTestCase):
    """Starts its proxies behind a :class:`Front`.

    :cvar front_type: makes the front.
    :cvar front: that of the class.
    :cvar differences: tests and sub-tests that do not hold through it, see :mod:`.differences`.
    """

    front_type: ClassVar[type[Front]] = SocketServer
    front: ClassVar[Front]
    differences: ClassVar[frozenset[str]] = frozenset()
    maxDiff = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.front = cls.front_type()
        cls.addClassCleanup(cls.front.close)

    def setUp(self) -> None:
        super().setUp()
        self._differing: set[str] = set()
        self.addCleanup(self._check_differences)
        self.front.prepare(self)

    def _check_differences(self) -> None:
        """Fail a test among whose differences is a sub-test that it does not have."""
        listed = {name for name in self.differences if name.startswith(f"{self._test}[")}
        self.assertEqual(listed - self._differing, set())

    @contextlib.contextmanager
    def subTest(self, msg: object = None, **params: Any) -> Iterator[None]:
        """Mark a part of a test; one that is among the differences has to fail."""
        label = ", ".join(f"{key}={value!r}" for key, value in params.items())
        name = f"{self._test}[{label}]"
        if name not in self.differences:
            with super().subTest(msg, **params):
                yield
            return
        self._differing.add(name)
        try:
            with impatience():
                yield
        except Exception:  # noqa: BLE001 - however it fails
            return
        with super().subTest(msg, **params):
            self.fail("this holds, so it is no difference")

    @property
    def _test(self) -> str:
        """The test's name in :mod:`.differences`: that of the socket server's class."""
        own = (cls for cls in type(self).__mro__ if cls.__module__.startswith("tests.behaviour."))
        owner = next(own, type(self))
        return f"{owner.__name__}.{self._testMethodName}"

    def start_proxy(  # type: ignore[override]  # what it is depends on the front
        self, host: str = "127.0.0.1", **options: Any
    ) -> RunningProxy:
        """Start a proxy in front of the stand-in; it is stopped at the end of the test."""
        assert host == "127.0.0.1"
        proxy = self.front.start(self.proxy_options(**options))
        self.addCleanup(proxy.stop_thread)
        return proxy

    def start_apart(self, **options: Any) -> ProxyApart:
        """Start a proxy in a process of its own; it is stopped at the end of the test."""
        proxy = self.front.start_apart(self, **options)
        self.addCleanup(proxy.close)
        return proxy

    def proxy_logs(self, logger: str) -> contextlib.AbstractContextManager[Logs]:
        """Collect what the proxies log, see :meth:`Front.logs`."""
        return self.front.logs(self, logger)

    def url(self, proxy: Addressed, vmi: str, token: str | None = None) -> str:
        """Return the URL of a VMI's console at ``proxy``."""
        return f"{self.scheme}://{host_and_port(*proxy.address)}/{token or self.token(vmi)}/{vmi}"

    def body(self, client: RawClient) -> bytes:
        """Receive until the end of the connection, which is in good order where that is ours; close it."""
        received = b""
        try:
            while part := client.recv_raw():
                received += part
        except ConnectionError:
            if self.front.own_tls:
                raise
        client.close()  # gunicorn accepts nobody else until then, for 2 s
        return received
