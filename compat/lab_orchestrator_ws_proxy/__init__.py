"""The program lab-orchestrator-ws-proxy 1.0.0 by its old name; the code is in :mod:`wsproxy`."""

from wsproxy import __version__

__all__ = ["__version__"]
