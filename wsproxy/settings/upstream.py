"""The settings of the Kubernetes API: its URL, the proxy's credentials, and the consoles. No I/O."""

from __future__ import annotations

import re

from ..upstream.location import DEFAULT_API_PATH, SERVICE_ACCOUNT_CA, SERVICE_ACCOUNT_TOKEN
from .setting import REQUIRED, Group, Setting

__all__ = ["CONSOLES", "KUBERNETES_HOST", "KUBERNETES_PORT", "UPSTREAM", "WS_REMOTE_URL"]


def _subresources(names: tuple[str, ...]) -> str | None:
    bad = [name for name in names if not re.fullmatch(r"[a-z]+", name)]
    return f"has {bad[0]!r}; use names such as vnc and console" if bad else None


KUBERNETES_HOST = Setting(
    "kubernetes_service_host",
    "str",
    None,
    "Host of the Kubernetes API. Kubernetes sets it in every pod.",
    value="HOST",
    variable="KUBERNETES_SERVICE_HOST",
    part_of="remote_url",
    program=True,
)

KUBERNETES_PORT = Setting(
    "kubernetes_service_port",
    "str",
    None,
    "Port of the Kubernetes API. Kubernetes sets it in every pod.",
    value="PORT",
    variable="KUBERNETES_SERVICE_PORT",
    part_of="remote_url",
    program=True,
)

WS_REMOTE_URL = Setting(
    "ws_remote_url",
    "str",
    "ws://localhost:8001",
    "URL of the Kubernetes API if `local_dev_mode` is on.",
    value="URL",
    variable="WS_REMOTE_URL",
    part_of="remote_url",
    program=True,
)

UPSTREAM = Group(
    "The Kubernetes API",
    (
        Setting(
            "local_dev_mode",
            "bool",
            False,
            "Connect to the API without TLS and without a service account, as `kubectl proxy` requires.",
            variable="LOCAL_DEV_MODE",
        ),
        Setting(
            "remote_url",
            "str",
            REQUIRED,
            "URL of the Kubernetes API: `wss://HOST:PORT`, or `ws://HOST:PORT` if `local_dev_mode` is on.",
            shown_default="made from the next three settings",
            value="URL",
            variable="",
            stand_in="wss://unset",
        ),
        KUBERNETES_HOST,
        KUBERNETES_PORT,
        WS_REMOTE_URL,
        Setting(
            "token_file",
            "str",
            SERVICE_ACCOUNT_TOKEN,
            "File with the bearer token that the proxy sends to the API.",
            shown_default="the service account's `token`",
            value="FILE",
            reread=True,
        ),
        Setting(
            "ca_file",
            "str",
            None,
            "File with the certificate authorities (PEM) for the API.",
            shown_default="the service account's `ca.crt`",
            value="FILE",
            part_of="sslopt",
            reread=True,
            program=True,
        ),
        Setting(
            "sslopt",
            "Options",
            {"ca_certs": SERVICE_ACCOUNT_CA},
            "TLS options for the API, with the names that websocket-client gives them. `ca_certs` is the "
            "same as `ca_file`.",
            shown_default="the service account's `ca.crt` as `ca_certs`",
            variable="",
            mask=dict,  # no repr shows it, but people may see it all: it only names files
        ),
        Setting(
            "dial_timeout",
            "Timeout",
            10.0,
            "Time in which the proxy must connect to the API: name resolution, TCP, TLS and opening "
            "handshake together.",
            unit="seconds",
        ),
    ),
)

CONSOLES = Group(
    "Which consoles",
    (
        Setting(
            "api_path",
            "str",
            DEFAULT_API_PATH,
            "Path of a console at the API, with `{namespace}` and `{vmi_name}`. It may name any subresource "
            "that streams over a WebSocket.",
            shown_default="KubeVirt's v1 path of `vnc`",
            value="PATH",
        ),
        Setting(
            "subresources",
            "Texts",
            (),
            "Further subresources that clients may open as `/TOKEN/VMI/SUBRESOURCE`, such as `console`.",
            value="NAME,NAME",
            check=_subresources,
        ),
        Setting(
            "console",
            "Rules",
            (),
            "What happens if several clients want a console: `passthrough`, `takeover`, `refuse`, or rules "
            "such as `exam-*/*/vnc=refuse`. Commas separate rules, and the first that matches counts. "
            "Several workers support `passthrough` only.",
            shown_default="`passthrough`",
            value="RULE,RULE",
        ),
        Setting(
            "show_user",
            "bool",
            False,
            "Tell clients which user has the console that they want, or took it over.",
        ),
        Setting(
            "screenshots",
            "bool",
            False,
            "Answer `/TOKEN/VMI/screenshot.png` with a screenshot of the VM.",
        ),
    ),
)
