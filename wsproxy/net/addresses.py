"""Parses addresses in settings: addresses to listen on, and URLs of web resources. No I/O."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["ListenAddress", "WebURL", "host_and_port", "is_loopback", "listen_fault"]

_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TLS = ("https", "wss")
_ZONE = re.compile(r"[A-Za-z0-9._~-]*")
_MAX_UNIX_PATH = 100  # less than sockaddr_un holds on Linux and macOS, because a longer name is bound first


def host_and_port(host: str, port: int | str) -> str:
    """Join a host and a port as in a URL, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ListenAddress:
    """An address to listen on: a host and port, or the path of a Unix socket.

    :ivar path: of the Unix socket; "" for a host and port.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        :raises ValueError: if the text has another form.
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
    """Return what is wrong with the setting ``listen``, None if it is right.

    :param listen: the setting's text: ``unix:PATH``, or ``fd:NUMBER`` for an inherited descriptor.
    :param reuse_port: whether other processes may listen there, too.
    """
    if not re.fullmatch(r"unix:[^\0@][^\0]*|fd:[0-9]{1,6}", listen):
        return f"listen is {listen!r}; it must be unix:PATH or fd:NUMBER; a TCP address is HOST and PORT"
    # A byte that is not UTF-8 is one character in os.environ, which errors="replace" counts as one byte.
    if len(listen.encode(errors="replace")) > _MAX_UNIX_PATH + len("unix:"):
        return f"listen is {listen!r}; a socket's path has at most {_MAX_UNIX_PATH} bytes"
    if listen.startswith("fd:") and reuse_port:
        return "reuse_port is on, but listen is an inherited descriptor, which is bound; leave it out"
    return None


@dataclass(frozen=True)
class WebURL:
    """The parts of a URL.

    :ivar scheme: such as "https" or "wss", in lower case.
    :ivar host: a name or an IP address, without brackets.
    :ivar target: path and query, "" if the URL has neither.
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> WebURL:
        """Split a URL. Without a port, it gets the default port of its scheme.

        :raises ValueError: if the host is missing or is neither a name nor an address, or if the port is 0.
            The text quotes neither path nor query.
        """
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        is_host = _is_ipv6(host) if "[" in parts.netloc else _HOST_NAME.fullmatch(host)
        if not re.fullmatch(r"[!-~]+", text) or not is_host:
            raise ValueError("it has no valid host, or it has characters that a URL must not have")
        if port == 0:
            raise ValueError("port 0 is not valid")
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port or (443 if parts.scheme in _TLS else 80), target)

    @property
    def tls(self) -> bool:
        """Whether the scheme means TLS."""
        return self.scheme in _TLS

    def below(self, path: str) -> str:
        """Return the whole URL with ``path`` appended to its own path."""
        return f"{self.scheme}://{host_and_port(self.host, self.port)}{self.target}{path}"

    @property
    def authority(self) -> str:
        """The value for a Host header (RFC 9110 section 7.2)."""
        if self.port != (443 if self.tls else 80):
            return host_and_port(self.host, self.port)
        return f"[{self.host}]" if ":" in self.host else self.host


def _is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, with or without a zone (RFC 4007 section 11) that is a plain name."""
    try:
        return bool(ipaddress.IPv6Address(host)) and _ZONE.fullmatch(host.partition("%")[2]) is not None
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host means this machine: a loopback address, or ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
