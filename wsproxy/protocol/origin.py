"""Which pages may use the proxy: the Origin header (RFC 6454) and what is allowed. No I/O.

A browser sends cookies and client certificates along with whatever any page asks for. So where one of
those lets in, the page has to be one that is allowed (cross-site WebSocket hijacking, CWE-1385). A token
in the path, a header, a subprotocol or a ticket is something that the page itself had to know.
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
    """Scheme, host and port in one spelling.

    :ivar scheme: in lower case.
    :ivar host: in lower case; an IPv6 address in brackets.
    :ivar port: the scheme's own if none was given, None if it has none.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """Parse ``scheme://host[:port]``; None for anything else, ``null`` included."""
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
        """Host and port, without the scheme's own port (RFC 6454 section 6.1)."""
        default = self.port in (None, _DEFAULT_PORTS.get(self.scheme))
        return self.host if default else f"{self.host}:{self.port}"


class OriginPolicy:
    """The pages that are allowed. Immutable: no request can add to it.

    :param allowed: origins such as ``https://console.example``; ``*`` stands for every one but ``null``.
        None for no limit but on credentials that browsers send by themselves.
    :param required: whether clients that send no Origin, and so are no browsers, are refused.
    :raises ConfigError: if an entry is no origin.
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
        """Whether every page is allowed."""

    def knows(self, origin: str, own: Origin | None) -> bool:
        """Whether a page is in the list by its name, or came from the very host that the request went to.

        Parameters are those of :meth:`allows`.
        """
        parsed = Origin.parse(origin)
        return parsed is not None and (parsed == own or parsed in self._allowed)

    def allows(self, origin: str, own: Origin | None) -> bool:
        """Whether a page is in the list, as all are if ``*`` is, or is of the very host that was asked.

        :param origin: the Origin header.
        :param own: scheme, host and port that the request was sent to; None if they are unknown.
        """
        return self.knows(origin, own) or (self.every and Origin.parse(origin) is not None)

    def check(self, origin: str | None, own: Origin | None, *, ambient: bool) -> None:
        """Check the page that a request comes from; see :meth:`allows`.

        :param origin: the Origin header, None without one.
        :param ambient: whether the request's credential is one that browsers add by themselves.
        :raises Forbidden: if the page is not allowed, and the credential or the settings demand it.
        """
        if origin is None:
            if self._required:
                raise Forbidden("an Origin header is required here")
        elif (ambient or self._limited) and not self.allows(origin, own):
            raise Forbidden("the page's origin is not allowed here")
