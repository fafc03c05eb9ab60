"""A console gateway for virtual machines on Kubernetes: JWT in, KubeVirt's WebSocket out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .runtime.lazy_imports import lazy_names
from .version import __version__

if sys.platform == "win32":
    raise ImportError("wsproxy needs Linux or macOS; on Windows run it in WSL")

if TYPE_CHECKING:
    from .access.hooks import AccessRequest, Authorize, OnClose, OnOpen
    from .access.sessions import SessionHandle
    from .config import Config, config_from_env, config_from_mapping
    from .exceptions import ConfigError, Forbidden, WSProxyError
    from .protocol.closing import Ending
    from .proxy import WebsocketProxy
    from .tokens.claims import Grant
    from .tokens.issue import make_token
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AccessRequest": ".access.hooks",
            "Authorize": ".access.hooks",
            "Config": ".config",
            "ConfigError": ".exceptions",
            "Ending": ".protocol.closing",
            "Forbidden": ".exceptions",
            "Grant": ".tokens.claims",
            "OnClose": ".access.hooks",
            "OnOpen": ".access.hooks",
            "SessionHandle": ".access.sessions",
            "WSProxyError": ".exceptions",
            "WebsocketProxy": ".proxy",
            "config_from_env": ".config",
            "config_from_mapping": ".config",
            "make_token": ".tokens",
        },
    )

__all__ = [
    "AccessRequest",
    "Authorize",
    "Config",
    "ConfigError",
    "Ending",
    "Forbidden",
    "Grant",
    "OnClose",
    "OnOpen",
    "SessionHandle",
    "WSProxyError",
    "WebsocketProxy",
    "__version__",
    "config_from_env",
    "config_from_mapping",
    "make_token",
]
