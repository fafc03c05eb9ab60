"""The address of the Kubernetes API, and its paths. No I/O."""

from __future__ import annotations

import re
from dataclasses import replace

from ..exceptions import ConfigError
from ..kinds import shown_url
from ..net.addresses import WebURL

__all__ = ["DEFAULT_API_PATH", "SERVICE_ACCOUNT_CA", "SERVICE_ACCOUNT_TOKEN", "ApiPath", "api_url"]


DEFAULT_API_PATH = (
    "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
)
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVICE_ACCOUNT_CA = f"{_SERVICE_ACCOUNT}/ca.crt"
SERVICE_ACCOUNT_TOKEN = f"{_SERVICE_ACCOUNT}/token"


def api_url(text: str) -> WebURL:
    """Parse the URL of the Kubernetes API, ``ws://`` or ``wss://``. Its path goes in front of every API path.

    :raises ConfigError: if the text is not such a URL.
    """
    if "@" in text:  # the error does not quote the URL, which holds a password
        raise ConfigError(
            ["remote_url has a user name in it; leave that out, the proxy sends the service account's token"]
        )
    fault = f"remote_url is {shown_url(text)}"
    try:
        url = WebURL.parse(text)
    except ValueError as exc:
        raise ConfigError([f"{fault}: {exc}"]) from None
    if url.scheme not in ("ws", "wss") or "?" in text or "#" in text:
        raise ConfigError([f"{fault}; it must look like wss://HOST:PORT or ws://HOST:PORT"])
    return replace(url, target=url.target.rstrip("/"))


class ApiPath:
    """The API path template, which has ``{namespace}``, ``{vmi_name}``, and a subresource at its end.

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
        """API group and resource of the path, as in RBAC rules; None if the path has another form."""
        form = r"/apis/([a-z0-9.-]+)/[a-z0-9]+/namespaces/\{namespace\}/([a-z]+)/\{vmi_name\}"
        found = re.fullmatch(form, self._base)
        return (found[1], found[2]) if found else None

    @property
    def version_path(self) -> str | None:
        """Path of KubeVirt's version; None if the template has another form than an API group's paths."""
        return self._base.partition("/namespaces/")[0] + "/version" if self.resource else None

    def path(self, namespace: str, vmi: str, subresource: str) -> str:
        """Return the path of one VMI's subresource. The caller has checked the names."""
        filled = self._base.replace("{namespace}", namespace).replace("{vmi_name}", vmi)
        return f"{filled}/{subresource}"
