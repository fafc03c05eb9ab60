"""Runs lab-orchestrator-ws-proxy-lib 1.0.0 unchanged, but redirects its fixed paths below /var/run.

Usage: SECRET_KEY=... run_original.py URL API_PATH PORT [CA_FILE TOKEN_FILE]
With the two files it runs as in a cluster.
It runs in a separate environment, so it imports nothing of this project.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import Any

from lab_orchestrator_ws_proxy_lib import ws_proxy_lib  # type: ignore[import-not-found, import-untyped, unused-ignore]

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def _redirect(ca_file: str, token_file: str) -> None:
    """Make the library open other files than those in its source."""
    load = ssl.SSLContext.load_verify_locations
    elsewhere = {f"{_SERVICE_ACCOUNT}/ca.crt": ca_file, f"{_SERVICE_ACCOUNT}/token": token_file}

    def load_verify_locations(self: ssl.SSLContext, cafile: str, *args: Any, **kwargs: Any) -> None:
        load(self, elsewhere.get(cafile, cafile), *args, **kwargs)

    def open_elsewhere(path: str, *args: Any, **kwargs: Any) -> Any:
        return open(elsewhere.get(path, path), *args, **kwargs)

    ssl.SSLContext.load_verify_locations = load_verify_locations  # type: ignore[method-assign, assignment]
    library: Any = ws_proxy_lib
    library.open = open_elsewhere


def main(url: str, api_path: str, port: str, *files: str) -> None:
    """Serve until killed."""
    if files:
        _redirect(*files)
    proxy = ws_proxy_lib.WebsocketProxy(
        remote_url=url, api_path=api_path, local_dev_mode=not files, secret_key=os.environ["SECRET_KEY"]
    )
    proxy.run("127.0.0.1", int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
