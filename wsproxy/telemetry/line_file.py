"""Writes lines to a file, a pipe, a terminal or a socket, without blocking where the system allows that."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import selectors
import socket
import stat
import time
from contextlib import suppress

__all__ = ["LineFile", "descriptor_of", "open_descriptor", "open_path"]

_FLAGS = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MODE = 0o600
_MOST_AT_ONCE = 4096
"""Bytes that a writable pipe takes in one atomic write (PIPE_BUF)."""

_MOMENT = 0.005  # seconds; while another process writes, a file may grow page by page

_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_BY_NUMBER = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


def descriptor_of(path: str) -> int | None:
    """Return the descriptor of this process that a path stands for; None if the path names a file.

    Such a path must not be opened: the new descriptor has an offset of its own, and open() fails on a socket.
    """
    by_number = _BY_NUMBER.fullmatch(path)
    return int(by_number[1]) if by_number else _STANDARD.get(path)


def open_path(path: str) -> LineFile:
    """Open a file to append to, and create it for its owner alone if it does not exist.

    If it is a FIFO, this does not wait for a reader.

    :param path: path of a file, or one that :func:`descriptor_of` knows.
    :raises OSError: if the file cannot be written to.
    """
    number = descriptor_of(path)
    if number is not None:
        return open_descriptor(number)
    try:
        # For reading, too: open() then needs no reader of a FIFO, and is_torn() can read a file's last byte.
        return LineFile(os.open(path, os.O_RDWR | _FLAGS, _MODE), readable=True)
    except PermissionError:
        return LineFile(os.open(path, os.O_WRONLY | _FLAGS, _MODE))


def open_descriptor(number: int) -> LineFile:
    """Return a LineFile for the target of a descriptor of this process. The descriptor itself stays open.

    O_NONBLOCK belongs to the open file description, which other processes share, such as a shell. So this
    opens the target again by ``/proc`` if the system allows that.

    :raises OSError: if the descriptor is not open, or not open for writing.
    """
    copy = os.dup(number)
    try:
        if fcntl.fcntl(copy, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is not open for writing")
        mode = os.fstat(copy).st_mode
    except OSError:
        os.close(copy)
        raise
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):  # another user owns the target, or there is no /proc
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            own = os.open(f"/proc/self/fd/{number}", flags)
            os.close(copy)
            return LineFile(own)
    return LineFile(copy)


class LineFile:
    """A descriptor to write lines to. Only one thread at a time may use it.

    :param descriptor: an open descriptor; :meth:`close` closes it.
    :param readable: whether it is open for reading, too.
    :ivar may_block: whether :meth:`write` may block without a bound instead of raising BlockingIOError.
    """

    def __init__(self, descriptor: int, *, readable: bool = False) -> None:
        mode = os.fstat(descriptor).st_mode
        self._descriptor = descriptor
        self._is_regular = stat.S_ISREG(mode)
        self._is_readable = readable and self._is_regular
        self._socket = socket.socket(fileno=descriptor) if stat.S_ISSOCK(mode) else None
        self.may_block = self._is_regular or (self._socket is None and os.get_blocking(descriptor))
        self._size = -1  # of a regular file, unless another process has written to it
        self._torn = False

    def write(self, data: bytes) -> int:
        """Write some or all of ``data``, and return the number of bytes written. Blocks if ``may_block``.

        :raises BlockingIOError: if nothing can be written now.
        :raises OSError: if writing fails.
        """
        if self._socket:
            written = self._socket.send(data, socket.MSG_DONTWAIT)
        else:
            if self.may_block and not self._is_regular:
                if not self.wait(0):
                    raise BlockingIOError
                data = data[:_MOST_AT_ONCE]
            written = os.write(self._descriptor, data)
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        self._size += written
        return written

    def wait(self, seconds: float) -> bool:
        """Wait until something can be written, for at most ``seconds``; return whether it can."""
        if self._is_regular:
            return True
        with selectors.PollSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_WRITE)
            return bool(selector.select(seconds))

    def is_torn(self) -> bool:
        """Whether the last line is incomplete, whether this process or another one appended it.

        A line that another process is just writing is not. So this may block for a moment.
        """
        if self._is_readable:
            with suppress(OSError):
                if self._look() and self._torn:
                    time.sleep(_MOMENT)
                    self._look()
        return self._torn

    def _look(self) -> bool:
        """Look at the end of the file if another process has written to it; return whether it has."""
        size = os.fstat(self._descriptor).st_size
        if size == self._size:
            return False
        self._size = size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        return True

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if self._socket:
            self._socket.close()
        elif descriptor >= 0:
            os.close(descriptor)
