"""Ports for programs that cannot choose one, or that have to get the same one again; and who listens."""

from __future__ import annotations

import random
import socket
from pathlib import Path

__all__ = ["free_port", "listeners"]

_LOWEST = 10_000  # below are the ports of services
_LISTEN = "0A"  # TCP_LISTEN, as /proc/net/tcp has it
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that the kernel gives to nobody who does not ask for it.

    A port that the kernel has chosen, and that is closed again, may go to any other program or connection
    before it is used. A client that connects to such a port may even get it itself, and so reach itself.
    """
    try:
        first = int(_RANGE.read_text(encoding="ascii").split()[0])
    except FileNotFoundError:
        first = 32768
    while True:
        port = random.randrange(_LOWEST, max(first, _LOWEST + 1000))
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def listeners(port: int) -> int:
    """Return how many IPv4 sockets listen on a port."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _LISTEN for row in rows)
