"""Who listens on this machine."""

from __future__ import annotations

import socket

__all__ = ["free_port", "listeners"]

_LISTEN = "0A"  # TCP_LISTEN, as /proc/net/tcp has it


def listeners(port: int) -> int:
    """Return how many IPv4 sockets listen on a port."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _LISTEN for row in rows)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
