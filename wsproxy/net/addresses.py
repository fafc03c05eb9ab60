"""Addresses as they are written in settings: where to listen, and where a web resource is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["ListenAddress", "WebURL", "host_and_port", "is_loopback", "listen_fault"]

_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TLS = ("https", "wss")
_ZONE = re.compile(r"[A-Za-z0-9._~-]*")
_MAX_UNIX_PATH = 100  # less than sockaddr_un has room for on Linux and macOS, as it is bound by a longer name


def host_and_port(host: str, port: int | str) -> str:
    """Join both as in a URL, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen: at a host and port, or at the path of a Unix socket.

    :ivar path: of the socket, "" for none.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        :raises ValueError: if it is none of these.
        """
        kind, _, path = text.partition(":")
        if kind == "unix" and path:
            return cls(path=path)
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/\s\0-\x1f\x7f]+)):([0-9]{1,5})", text)
        if match is None or int(match[3]) > 65535 or (match[1] and not _is_ipv6(match[1])):
            raise ValueError("it must be HOST:PORT, [IPV6]:PORT or unix:PATH")
        return cls(match[1] or match[2], int(match[3]))

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else host_and_port(self.host, self.port)


def listen_fault(listen: str, reuse_port: bool) -> str | None:
    """Return what is wrong with where to listen instead of a TCP address, None for nothing.

    :param listen: what a setting says: ``unix:PATH``, or ``fd:NUMBER`` for an inherited descriptor.
    :param reuse_port: whether other processes may listen there, too.
    """
    if not re.fullmatch(r"unix:[^\0@][^\0]*|fd:[0-9]{1,6}", listen):
        return f"listen is {listen!r}; it must be unix:PATH or fd:NUMBER; a TCP address is HOST and PORT"
    # What is no UTF-8 is one byte each, as in os.environ.
    if len(listen.encode(errors="replace")) > _MAX_UNIX_PATH + len("unix:"):
        return f"listen is {listen!r}; a socket's path has at most {_MAX_UNIX_PATH} bytes"
    if listen.startswith("fd:") and reuse_port:
        return "reuse_port is on, but listen is an inherited descriptor, which is bound; leave it out"
    return None


@dataclass(frozen=True)
class WebURL:
    """Where something is on the web.

    :ivar scheme: such as "https" or "wss", in lower case.
    :ivar host: a name or an IP address, without brackets.
    :ivar target: path and query, "" for none.
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> WebURL:
        """Take a URL apart; a port that it leaves out is the scheme's.

        :raises ValueError: if it has no host, or one that can be neither a name nor an address, or port 0.
            The text quotes neither a path nor a query.
        """
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        is_host = _is_ipv6(host) if "[" in parts.netloc else _HOST_NAME.fullmatch(host)
        if not re.fullmatch(r"[!-~]+", text) or not is_host:
            raise ValueError("it has no host, or characters that no URL has")
        if port == 0:
            raise ValueError("there is no port 0")
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port or (443 if parts.scheme in _TLS else 80), target)

    @property
    def tls(self) -> bool:
        """Whether it is reached by TLS."""
        return self.scheme in _TLS

    def below(self, path: str) -> str:
        """Return the whole URL of what has this path behind that of the URL."""
        return f"{self.scheme}://{host_and_port(self.host, self.port)}{self.target}{path}"

    @property
    def authority(self) -> str:
        """What stands in a Host header (RFC 9110 section 7.2)."""
        if self.port != (443 if self.tls else 80):
            return host_and_port(self.host, self.port)
        return f"[{self.host}]" if ":" in self.host else self.host


def _is_ipv6(host: str) -> bool:
    """Whether it is an address, perhaps with a zone (RFC 4007 section 11) that is a plain name."""
    try:
        return bool(ipaddress.IPv6Address(host)) and _ZONE.fullmatch(host.partition("%")[2]) is not None
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
