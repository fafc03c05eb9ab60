"""A Unix socket that listens, and leaves nothing in the file system."""

from __future__ import annotations

import errno
import os
import socket
import stat

__all__ = ["UnixListener"]


class UnixListener(socket.socket):
    """Listens at a path, which is removed when the process that made the socket closes it.

    A socket that a process left at the path, and nobody listens on, is replaced.

    :param path: absolute, or from the working directory of this moment.
    :param mode: of the path, before anybody can connect.
    :param backlog: how many clients the kernel queues.
    :raises OSError: if it cannot be bound, or somebody listens there.
    """

    def __init__(self, path: str, mode: int, backlog: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = os.path.abspath(path)
        self._pid = os.getpid()
        self._inode: tuple[int, int] | None = None
        try:
            self._bind()
            self._inode = _inode(self._path)
            os.chmod(path, mode)
            self.listen(backlog)
        except BaseException:
            self.close()
            raise

    def _bind(self) -> None:
        try:
            self.bind(self._path)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not _is_stale(self._path):
                raise
            os.unlink(self._path)
            self.bind(self._path)

    def close(self) -> None:
        """Close it; the path is removed, unless it is somebody else's by now. Idempotent."""
        if self._inode is not None and self._pid == os.getpid() and _inode(self._path) == self._inode:
            os.unlink(self._path)
        self._inode = None
        super().close()


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_stale(path: str) -> bool:
    """Whether a path is a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)  # one whose backlog is full is in use
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.lstat(path).st_mode)
        except OSError:
            pass
    return False
