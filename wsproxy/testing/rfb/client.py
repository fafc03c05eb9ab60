"""A viewer of a console for tests: RFB over a WebSocket, as in a browser.

:mod:`.errors` and :mod:`.viewer` define its errors.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, final
from urllib.parse import urlsplit

from ...exceptions import VMINotFound
from ...net.addresses import host_and_port
from ...proxy import WebsocketProxy
from ..kubevirt.websocket_stream import WebSocketStream, open_websocket
from .errors import ConsoleClosed, ConsoleRefused, RFBRefused, UpgradeRefused
from .raw_client import client_context
from .viewer import PictureTimeout, RFBViewer

__all__ = [
    "ConsoleClosed",
    "ConsoleRefused",
    "PictureTimeout",
    "RFBClient",
    "RFBRefused",
    "UpgradeRefused",
    "WebSocketStream",
    "open_websocket",
    "viewer_url",
]


@final
class RFBClient(RFBViewer):
    """An open console. Read the screen with :meth:`screenshot`, and act with :meth:`type` and :meth:`click`.

    ::

        with RFBClient(proxy, token, "ubuntu") as vm:
            vm.type("uname -a\\n")
            vm.wait_until(lambda image: image.find((166, 226, 160)) is not None)

    For the methods see :class:`.RFBViewer`. The constructor blocks until the RFB handshake is complete. If it
    raises, it has closed the connection.

    :param console: the console's whole URL, ``ws://`` or ``wss://``; or the proxy's host and port; or a
        running :class:`.WebsocketProxy`. The latter two require a token and a VMI.
    :param token: see :func:`~wsproxy.tokens.make_token`.
    :param vmi: the VMI's name; ``NAME/SUBRESOURCE`` for another subresource.
    :param timeout: seconds for the constructor, and for each operation without its own timeout.
    :param header: further lines ``Name: value`` of the opening handshake.
    :param origin: the page's origin, as a browser sends it. None sends no Origin, so refusals come by HTTP.
    :param subprotocols: the subprotocols to offer.
    :param ca_file: authorities (PEM) to trust for a ``wss://`` URL; None for the system's. If it is given
        with a host and port, the client uses TLS.
    :param tls: the same, as an :class:`ssl.SSLContext`.
    :raises ConsoleRefused: if the console does not open; has HTTP status or close code, slug and message.
    :raises ConsoleClosed: if the connection ends during the RFB handshake.
    :raises OSError: if the server cannot be reached, or its certificate is not trusted.
    :raises TimeoutError: if that takes too long.
    :raises RFBError: if the server does not speak RFB, or wants a password.
    :raises ValueError: if the URL is not valid, or arguments are missing or too many.
    """

    def __init__(
        self,
        console: str | tuple[str, int] | WebsocketProxy,
        token: str | None = None,
        vmi: str | None = None,
        *,
        timeout: float = 10.0,
        header: Iterable[str] = (),
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        ca_file: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        context = client_context(ca_file) if ca_file is not None else tls
        url = viewer_url(console, token, vmi, context is not None)
        __tracebackhide__ = True
        try:
            self._open(url, timeout, header=header, origin=origin, subprotocols=subprotocols, tls=context)
            self._shake_hands()
        except ConsoleRefused as refused:
            if refused.slug == VMINotFound.slug and (namespace := _namespace_of(url)):
                refused.add_hint(f"the token is for the namespace {namespace}")
            raise refused.with_traceback(None) from None  # so the traceback ends at the line of the test

    @classmethod
    def connect(
        cls,
        url: str,
        timeout: float = 10.0,
        *,
        header: Iterable[str] = (),
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> RFBClient:
        """Open a URL, and return a client without the RFB handshake, for tests of that handshake.

        Otherwise like the constructor.
        """
        client = cls.__new__(cls)
        client._open(url, timeout, header=header, origin=origin, subprotocols=subprotocols, tls=tls)
        return client

    def _open(self, url: str, timeout: float, **options: Any) -> None:
        super().__init__(WebSocketStream(open_websocket(url, timeout, **options), timeout), timeout)

    def _shake_hands(self) -> None:
        try:
            self.handshake()
        except RFBRefused as refused:
            raise self._with_close(refused) from None
        except BaseException:
            self.close()
            raise

    def close(self, code: int = 1000) -> None:
        """Send Close with a code, wait for the answer, and close the connection.

        Idempotent, never raises. Blocks for the client's timeout at most.
        """
        assert isinstance(self.stream, WebSocketStream)
        self.stream.close(code)

    def _with_close(self, refused: RFBRefused) -> RFBRefused:
        """Return a refusal, completed by the Close frame that follows, if one comes."""
        try:
            return RFBRefused(refused.reason, self.wait_closed())
        except TimeoutError:
            return refused
        finally:
            self.close()


def _namespace_of(url: str) -> str | None:
    """Return the namespace of the token in a URL; None if there is no token with the default claims."""
    for part in urlsplit(url).path.split("/"):
        try:
            payload = part.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return str(claims["lab_instance"]["namespace_name"])
        except (IndexError, ValueError, KeyError, TypeError):
            continue
    return None


def viewer_url(
    console: str | tuple[str, int] | WebsocketProxy, token: str | None, vmi: str | None, secure: bool = False
) -> str:
    """Return the URL that a :class:`RFBClient` with the same arguments opens.

    Unlike :meth:`.WebsocketProxy.console_url` it does not check them, since a test may want a refusal.

    :param secure: whether the proxy at a given address speaks TLS.
    :raises ValueError: if arguments are missing or too many.
    """
    if isinstance(console, str):
        if token is not None or vmi is not None:
            raise ValueError("a URL contains token and VMI; give them only with a proxy or its address")
        return console
    if token is None or vmi is None:
        raise ValueError("give a token and the name of a VMI, or the console's whole URL")
    prefix = ""
    if isinstance(console, WebsocketProxy):
        secure, prefix = console.config.tls_cert is not None, console.config.host_path_prefix or ""
        console = console.address
    path = "/".join(part for part in (prefix.strip("/"), token, vmi) if part)
    return f"{'wss' if secure else 'ws'}://{host_and_port(*console)}/{path}"
