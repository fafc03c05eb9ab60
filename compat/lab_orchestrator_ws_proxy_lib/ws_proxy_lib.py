"""``WebsocketProxy`` under the name that lab-orchestrator-ws-proxy-lib 1.0.0 gave it."""

from wsproxy import WebsocketProxy

__all__ = ["WebsocketProxy"]
