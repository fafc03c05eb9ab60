"""Who is at the other end of a Unix socket, and whether the state is any of their business."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

__all__ = ["PeerProcess", "is_trusted", "peer_process"]

_CREDENTIALS = struct.Struct("=iII")  # struct ucred
_PEERCRED: int | None = getattr(socket, "SO_PEERCRED", None)
_PEERGROUPS = 59  # asm-generic/socket.h; not in the socket module
_MOST_GROUP_BYTES = 1024  # the most that getsockopt takes here


class PeerProcess(NamedTuple):
    """A process, as the kernel knew it when it connected, or listened.

    :ivar pid: 0 if it is in another PID namespace.
    :ivar groups: the ids of its groups.
    """

    pid: int
    uid: int
    groups: frozenset[int]


def peer_process(sock: socket.socket) -> PeerProcess | None:
    """Return who is at the other end; None if this system does not say. Does not block.

    :raises OSError: if the connection is broken.
    """
    if _PEERCRED is None:
        return None
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEERCRED, _CREDENTIALS.size))
    groups = {gid}
    with suppress(OSError):  # an old kernel, or more than 256 groups
        data = sock.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _MOST_GROUP_BYTES)
        groups.update(struct.unpack(f"={len(data) // 4}I", data))
    return PeerProcess(pid, uid, frozenset(groups))


def is_trusted(peer: PeerProcess | None, group: int | None) -> bool:
    """Whether a peer is this user, root, or in a group.

    Without an answer of the kernel, the permissions of the socket's path alone decide.

    :param group: id of the group that shares the state; None for none.
    """
    return peer is None or peer.uid in (os.geteuid(), 0) or group in peer.groups
