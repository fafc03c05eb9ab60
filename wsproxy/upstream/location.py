"""Where the Kubernetes API is. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..exceptions import ConfigError
from ..kinds import shown_url
from ..net.addresses import host_and_port, split_url

__all__ = ["DEFAULT_API_PATH", "SERVICE_ACCOUNT_CA", "SERVICE_ACCOUNT_TOKEN", "ApiPath", "UpstreamURL"]


DEFAULT_API_PATH = (
    "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
)
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVICE_ACCOUNT_CA = f"{_SERVICE_ACCOUNT}/ca.crt"
SERVICE_ACCOUNT_TOKEN = f"{_SERVICE_ACCOUNT}/token"


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
        fault = f"remote_url is {shown_url(url)}"
        try:
            parts, host, port = split_url(url)
        except ValueError as exc:
            raise ConfigError([f"{fault}: {exc}"]) from None
        if parts.scheme not in ("ws", "wss") or parts.query or parts.fragment:
            raise ConfigError([f"{fault}; it must look like wss://HOST:PORT or ws://HOST:PORT"])
        tls = parts.scheme == "wss"
        return cls(host, port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    def url(self, path: str) -> str:
        """Return the whole URL of an API path."""
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{host_and_port(self.host, self.port)}{self.path}{path}"


class ApiPath:
    """The API path template, with ``{namespace}`` and ``{vmi_name}`` and a subresource at its end.

    :raises ConfigError: if the template is malformed.
    """

    _PLACEHOLDERS = frozenset({"namespace", "vmi_name"})

    def __init__(self, template: str) -> None:
        found = re.findall(r"\{([^{}]*)\}", template)
        braces = re.sub(r"\{[^{}]*\}", "", template)
        if set(found) != self._PLACEHOLDERS or "{" in braces or "}" in braces:
            raise ConfigError(
                [f"api_path is {template!r}; it must hold {{namespace}} and {{vmi_name}} and no other braces"]
            )
        if not re.fullmatch(r"/[!-~]+", template) or any(mark in template for mark in "?#%;\\"):
            raise ConfigError([f"api_path is {template!r}; it must be a plain path that begins with /"])
        self._base, _, self.subresource = template.rpartition("/")
        if not re.fullmatch(r"[a-z]+", self.subresource):
            raise ConfigError([f"api_path is {template!r}; it must end in a subresource such as /vnc"])

    @property
    def resource(self) -> tuple[str, str] | None:
        """API group and resource that the path names, as Kubernetes' authorization has them; None if none."""
        form = r"/apis/([a-z0-9.-]+)/[a-z0-9]+/namespaces/\{namespace\}/([a-z]+)/\{vmi_name\}"
        found = re.fullmatch(form, self._base)
        return (found[1], found[2]) if found else None

    @property
    def version_path(self) -> str | None:
        """Where KubeVirt says its version, if the path is one of its API group; None if it is none."""
        return self._base.partition("/namespaces/")[0] + "/version" if self.resource else None

    def path(self, namespace: str, vmi: str, subresource: str | None = None) -> str:
        """Return the path of one VMI's subresource; the names must have been checked."""
        filled = self._base.replace("{namespace}", namespace).replace("{vmi_name}", vmi)
        return f"{filled}/{subresource or self.subresource}"
