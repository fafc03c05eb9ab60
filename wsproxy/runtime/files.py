"""What can be found out about a file without touching it."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["check_can_create"]


def check_can_create(path: str) -> None:
    """Raise if this process could not create a file at ``path``. Creates nothing. Blocks on the file system.

    :raises OSError: if it could not, as far as that can be known without trying.
    """
    directory = os.path.dirname(path) or "."
    if not stat.S_ISDIR(os.stat(directory).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
