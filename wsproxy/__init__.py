"""A console gateway for virtual machines on Kubernetes: JWT in, KubeVirt's WebSocket out."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("wsproxy needs Linux or macOS; on Windows run it in WSL")

from .authorization import AccessRequest
from .claims import Grant
from .closing import Ending
from .config import Config
from .exceptions import ConfigError, Forbidden, WSProxyError
from .live_sessions import SessionHandle
from .proxy import WebsocketProxy
from .version import __version__

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
