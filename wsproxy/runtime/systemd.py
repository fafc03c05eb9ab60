"""systemd's protocols for services: socket activation, and notifications of state."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from ..exceptions import ConfigError
from .logs import get_logger

__all__ = ["Notifier", "activated_descriptor"]

logger = get_logger("wsproxy.systemd")

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_SLACK = 10.0  # seconds for the steps of a stop that have no timeout


def activated_descriptor(environ: Mapping[str, str], pid: int) -> int | None:
    """Return the descriptor of the socket that systemd passed to this process; None without one.

    :param environ: the environment, with LISTEN_FDS and LISTEN_PID; see sd_listen_fds(3).
    :param pid: this process's id. If LISTEN_PID is another one, the sockets are not for this process.
    :raises ConfigError: if systemd passed several sockets.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return None
    count = environ.get("LISTEN_FDS", "")
    if count in ("", "0"):
        return None
    if count != "1":
        remedy = "wsproxy serves one socket: leave one ListenStream= in the socket unit"
        raise ConfigError([f"LISTEN_FDS is {count!r}; {remedy}"])
    return _FIRST_DESCRIPTOR


class Notifier:
    """Notifies the service manager of the program's state (sd_notify(3)). One thread only; does not block.

    A failure is logged and otherwise ignored, because the proxy can serve without notifications.

    :param path: the manager's datagram socket, ``@NAME`` for an abstract one; "" to send nothing.
    """

    def __init__(self, path: str = "") -> None:
        self._path = path

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Notifier:
        """Return a notifier for the socket that NOTIFY_SOCKET names."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    def ready(self) -> None:
        """Say that the program serves clients, or that a reload is done."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the program reads its files again; :meth:`ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """Say that the program begins to stop.

        :param seconds: how long that may take. The manager does not kill the program before.
        """
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + _SLACK) * 1_000_000)}")

    def _send(self, message: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(message.encode(), socket.MSG_DONTWAIT, os.fsencode(address))
        except OSError as exc:
            logger.warning("the service manager cannot be told %s: %s", message.partition("\n")[0], exc)
