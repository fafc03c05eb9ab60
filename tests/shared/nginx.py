"""nginx in front of replicas, which sends each connection to any of them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence

from tests.support.ports import free_port
from tests.support.proxy_process import wait_until

__all__ = ["Nginx"]

_TIMEOUT = 20.0
# The client's own X-Forwarded-For goes on as it is: the tests have clients of many addresses.
_CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_header {{ default upgrade; "" close; }}
    upstream replicas {{
        random;
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_next_upstream off;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_read_timeout 90s;
        }}
    }}
}}
"""


class Nginx:
    """A server of its own; end it with :meth:`close`.

    :param directory: for its files.
    :param replicas: where it sends clients.
    :ivar address: where clients connect.
    """

    def __init__(self, directory: str, replicas: Sequence[tuple[str, int]]) -> None:
        self.address = ("127.0.0.1", free_port())
        user = "user root;" if os.getuid() == 0 else ""
        servers = "\n        ".join(f"server {host}:{port} max_fails=0;" for host, port in replicas)
        path = os.path.join(directory, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                _CONFIGURATION.format(user=user, directory=directory, servers=servers, port=self.address[1])
            )
        self._process = subprocess.Popen(
            ["nginx", "-p", directory, "-c", path, "-e", os.path.join(directory, "nginx.log")],
            stdin=subprocess.DEVNULL,
        )
        if not wait_until(self._listens, _TIMEOUT):
            self.close()
            raise AssertionError("nginx did not start")

    def _listens(self) -> bool:
        try:
            socket.create_connection(self.address).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End it. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_TIMEOUT)
