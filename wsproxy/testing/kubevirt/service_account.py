"""The service-account directory of a pod, rewritten as kubelet rewrites it."""

from __future__ import annotations

import os
import shutil

__all__ = ["ServiceAccountDirectory"]


class ServiceAccountDirectory:
    """A projected volume: every file is a symbolic link through ``..data``, which is swapped whole.

    A reader sees the old files or the new ones, never a mixture, and no file is ever written in place.
    Used by one thread at a time.

    :param path: an existing, empty directory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, bytes] = {}
        self._generation = 0

    def path(self, name: str) -> str:
        """Return the path under which a file is read, whichever generation is current."""
        return os.path.join(self._path, name)

    def write(self, **files: bytes) -> None:
        """Replace the given files, by name with ``_`` for ``.``; the others keep their content.

        :raises OSError: if that fails; the old files stay then.
        """
        self._files |= {name.replace("_", "."): data for name, data in files.items()}
        self._generation += 1
        new = f"..generation-{self._generation}"
        os.mkdir(self.path(new), 0o700)
        for name, data in self._files.items():
            self._write(os.path.join(new, name), data)
        self._swap(new)
        for name in self._files:
            if not os.path.islink(self.path(name)):
                os.symlink(os.path.join("..data", name), self.path(name))

    def _write(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def _swap(self, new: str) -> None:
        link, temporary = self.path("..data"), self.path("..data_tmp")
        old = os.readlink(link) if os.path.islink(link) else None
        os.symlink(new, temporary)
        os.replace(temporary, link)
        if old is not None:
            shutil.rmtree(self.path(old))
