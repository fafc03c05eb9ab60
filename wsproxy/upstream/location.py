"""Where the Kubernetes API is. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..exceptions import ConfigError
from ..protocol.routing import host_and_port

__all__ = ["UpstreamURL"]


@dataclass(frozen=True)
class UpstreamURL:
    """Where the Kubernetes API is.

    :ivar host: a name or an IP address, without brackets.
    :ivar path: a path in front of every API path, "" for none.
    """

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> UpstreamURL:
        """Parse a ``ws://`` or ``wss://`` URL.

        :raises ConfigError: if it is none.
        """
        if "@" in url:  # not quoted: it holds a password
            raise ConfigError(["remote_url has a user name in it; the service-account token is what lets in"])
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ConfigError([f"remote_url is {url!r}: {exc}"]) from exc
        extra = parts.query or parts.fragment
        if parts.scheme not in ("ws", "wss") or not host or extra or not re.fullmatch(r"[!-~]+", url):
            raise ConfigError([f"remote_url is {url!r}; it must look like wss://HOST:PORT or ws://HOST:PORT"])
        tls = parts.scheme == "wss"
        return cls(host, port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    def url(self, path: str) -> str:
        """Return the whole URL of an API path."""
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{host_and_port(self.host, self.port)}{self.path}{path}"
