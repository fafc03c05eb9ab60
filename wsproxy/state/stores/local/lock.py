"""The lock beside the socket of a store's process: who holds it is the store, or starts it.

The process that starts a store takes the lock, and hands the locked descriptor to the store. The kernel frees
it when the store ends, however that happens. So nobody starts a second store, and no lock is left behind. The
file itself stays: if it were removed, two processes could have locks on two files of one name.

The file also says what the next store has to know: whether there were members when this one ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from types import TracebackType
from typing import Any

from ....runtime.forks import in_forked_child

__all__ = ["StoreLock", "check_owner", "opened_beside"]

_BYTES = 256
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class StoreLock:
    """The lock, held. One thread at a time; nothing blocks. With ``with``, this process lets go at the end.

    :param descriptor: of the locked file, which this object closes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: str, group: int | None = None) -> StoreLock | None:
        """Take the lock, if nobody has it.

        :param path: of the socket.
        :param group: id of a group whose members may take it, too.
        :raises OSError: if that is not possible, such as without the directory, or with a stranger's file.
        """
        descriptor = opened_beside(f"{path}.lock", os.O_RDWR, group)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # A child of a fork in another thread would hold the lock, too.
        return in_forked_child(cls(descriptor), StoreLock.close)

    @property
    def is_managed(self) -> bool:
        """Whether the store is one that a service manager runs, so that members start none."""
        return bool(self._read().get("managed"))

    def had_members(self, *, first: bool) -> bool:
        """Whether there may be members of an earlier store.

        :param first: whether there were none if the file is new.
        """
        said = self._read()
        if not said:
            return not first
        return bool(said.get("members", True)) and said.get("boot") == _boot()

    def note(self, *, managed: bool, members: bool) -> None:
        """Write down whether a service manager runs this store, and whether there are members."""
        text = json.dumps({"managed": managed, "members": members, "pid": os.getpid(), "boot": _boot()})
        os.pwrite(self.descriptor, text.ljust(_BYTES).encode("ascii"), 0)

    def _read(self) -> dict[str, Any]:
        """Return what the file says; nothing if it is new. A text that is cut off says nothing for sure."""
        text = os.pread(self.descriptor, _BYTES, 0)
        if not text:
            return {}
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        return said if isinstance(said, dict) and said else {"members": True, "boot": _boot()}

    def close(self) -> None:
        """Let go of the lock in this process. Idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> StoreLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def opened_beside(name: str, flags: int, group: int | None) -> int:
    """Open a file that only this user, or a group, may have; make it if need be. Does not follow links.

    :returns: its descriptor, which the caller closes.
    :raises OSError: if that is not possible; PermissionError if it is a stranger's.
    """
    # O_NONBLOCK: a stranger's FIFO of that name must not make the caller wait.
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        check_owner(name, status, group)
        if status.st_nlink > 1:
            raise PermissionError(f"{name} is also the file of another name")
        if group is not None and status.st_uid == os.geteuid():
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, 0o660)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_owner(name: str, status: os.stat_result, group: int | None = None) -> None:
    """Make sure that this user, root or a group has a file, and that it is one.

    :raises PermissionError: if not; the text names it.
    """
    if status.st_uid not in (os.geteuid(), 0) and (group is None or status.st_gid != group):
        raise PermissionError(f"{name} belongs to user {status.st_uid}")
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(f"{name} is no ordinary file")


def _boot() -> str:
    """Return what tells this boot from others; "" if the system does not say."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
