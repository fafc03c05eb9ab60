"""A console gateway for virtual machines on Kubernetes: JWT in, KubeVirt's WebSocket out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .lazy import lazy_names
from .version import __version__

if sys.platform == "win32":
    raise ImportError("wsproxy needs Linux or macOS; on Windows run it in WSL")

if TYPE_CHECKING:
    from .authorization import AccessRequest
    from .claims import Grant
    from .closing import Ending
    from .config import Config
    from .exceptions import ConfigError, Forbidden, WSProxyError
    from .live_sessions import SessionHandle
    from .proxy import WebsocketProxy
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AccessRequest": ".authorization",
            "Config": ".config",
            "ConfigError": ".exceptions",
            "Ending": ".closing",
            "Forbidden": ".exceptions",
            "Grant": ".claims",
            "SessionHandle": ".live_sessions",
            "WSProxyError": ".exceptions",
            "WebsocketProxy": ".proxy",
        },
    )

__all__ = [
    "AccessRequest",
    "Config",
    "ConfigError",
    "Ending",
    "Forbidden",
    "Grant",
    "SessionHandle",
    "WSProxyError",
    "WebsocketProxy",
    "__version__",
]
