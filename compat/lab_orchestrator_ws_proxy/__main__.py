"""``python -m lab_orchestrator_ws_proxy``: the same as ``wsproxy serve``."""

import sys

from wsproxy.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
