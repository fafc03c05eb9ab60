"""``WebsocketProxy`` under its name of lab-orchestrator-ws-proxy-lib 1.0.0."""

from wsproxy import WebsocketProxy

__all__ = ["WebsocketProxy"]
