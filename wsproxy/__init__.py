"""A console gateway for virtual machines on Kubernetes: JWT in, KubeVirt's WebSocket out."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("wsproxy needs Linux or macOS; on Windows run it in WSL")

from .authorization import AccessRequest, Authorize
from .claims import Grant
from .closing import Ending
from .config import Config
from .exceptions import ConfigError, Forbidden, WSProxyError
from .hooks import OnClose, OnOpen
from .live_sessions import SessionHandle
from .proxy import WebsocketProxy
from .settings import config_from_env, config_from_mapping
from .tokens import make_token
from .version import __version__

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
