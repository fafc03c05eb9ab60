"""Which pages may use the proxy: checks the Origin header (RFC 6454). No I/O.

A browser adds cookies and client certificates to the requests of every page. If a cookie or a certificate
authenticates a request, only pages with an allowed origin may send it. Otherwise any page could hijack a
WebSocket (CWE-1385). A page must know the other credentials itself: a token in the path, a header or a
subprotocol, or a ticket.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from ..exceptions import ConfigError, Forbidden
from ..kinds import shown_url

__all__ = ["Origin", "OriginPolicy"]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EVERY = "*"


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port, normalised.

    :ivar scheme: in lower case.
    :ivar host: in lower case; an IPv6 address in brackets.
    :ivar port: the scheme's default port if the text has no port; None if the scheme has no default.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """Parse ``scheme://host[:port]``; return None for any other text, such as ``null``."""
        match = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
        if match is None:
            return None
        scheme, host = match[1], match[2]
        port = int(match[3]) if match[3] else _DEFAULT_PORTS.get(scheme)
        if port is not None and port > 65535:
            return None
        if host.startswith("["):
            try:
                host = f"[{IPv6Address(host[1:-1])}]"
            except AddressValueError:
                return None
        return cls(scheme, host, port)

    @property
    def authority(self) -> str:
        """Host and port; without the port if it is the scheme's default (RFC 6454 section 6.1)."""
        default = self.port in (None, _DEFAULT_PORTS.get(self.scheme))
        return self.host if default else f"{self.host}:{self.port}"


class OriginPolicy:
    """The origins that are allowed. Immutable: no request can add to them.

    :param allowed: origins such as ``https://console.example``; ``*`` stands for every origin except
        ``null``. None limits only requests with credentials that browsers add by themselves.
    :param required: whether to refuse clients without an Origin header, which are not browsers.
    :raises ConfigError: if an entry is not an origin.
    """

    def __init__(self, allowed: Collection[str] | None, required: bool = False) -> None:
        self._limited = allowed is not None
        allowed = allowed or ()
        parsed = {text: Origin.parse(text) for text in allowed if text != _EVERY}
        if bad := [text for text, origin in parsed.items() if origin is None]:
            raise ConfigError(
                [f"allow_origin has {shown_url(bad[0])}; write SCHEME://HOST or SCHEME://HOST:PORT"]
            )
        self._allowed = frozenset(parsed.values())
        self._required = required
        self.every = _EVERY in allowed
        """Whether every origin except ``null`` is allowed."""

    def knows(self, origin: str, own: Origin | None) -> bool:
        """Whether the list names an origin, or the origin is the one that the request went to.

        The parameters are those of :meth:`allows`.
        """
        parsed = Origin.parse(origin)
        return parsed is not None and (parsed == own or parsed in self._allowed)

    def allows(self, origin: str, own: Origin | None) -> bool:
        """Whether an origin is allowed: as :meth:`knows`, or by ``*`` in the list.

        :param origin: the Origin header.
        :param own: scheme, host and port that the request went to; None if they are unknown.
        """
        return self.knows(origin, own) or (self.every and Origin.parse(origin) is not None)

    def check(self, origin: str | None, own: Origin | None, *, ambient: bool) -> None:
        """Check the origin of a request. ``own`` is as for :meth:`allows`.

        :param origin: the Origin header, None without one.
        :param ambient: whether browsers add the request's credential by themselves.
        :raises Forbidden: if the origin is missing or not allowed, and the settings or the credential require
            an allowed one.
        """
        if origin is None:
            if self._required:
                raise Forbidden("an Origin header is required here")
        elif (ambient or self._limited) and not self.allows(origin, own):
            raise Forbidden("the page's origin is not allowed here")
