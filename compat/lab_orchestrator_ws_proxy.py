"""The program lab-orchestrator-ws-proxy 1.0.0 by its old name: ``python -m lab_orchestrator_ws_proxy``.

It is a module, because that distribution has a package of this name. If both had the same files, to
uninstall one would delete them.
"""

import sys

from wsproxy import __version__
from wsproxy.cli import main

__all__ = ["__version__", "main"]

if __name__ == "__main__":
    sys.exit(main())
