"""The import name of lab-orchestrator-ws-proxy-lib 1.0.0; the code is in :mod:`wsproxy`."""

from wsproxy import __version__

__all__ = ["__version__"]
