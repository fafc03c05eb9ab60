"""Runs wsproxy under the name of lab-orchestrator-ws-proxy 1.0.0: ``python -m lab_orchestrator_ws_proxy``.

This is a module, because that distribution has a package of this name. If both distributions had the same
files, uninstalling one would delete the files of the other.
"""

import sys

from wsproxy import __version__
from wsproxy.cli import main

__all__ = ["__version__", "main"]

if __name__ == "__main__":
    sys.exit(main())
