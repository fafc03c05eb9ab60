"""What the stand-in API and its client know each other by: a token, and with TLS a certificate."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from collections.abc import Callable

from ...net.tls_context import server_context
from .certificates import CertificateAuthority

__all__ = ["Credentials", "ServiceAccountDirectory"]


class ServiceAccountDirectory:
    """The service-account directory of a pod, a projected volume, rewritten as kubelet rewrites it.

    Every file is a symbolic link through ``..data``, which is swapped whole.
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


class Credentials:
    """The client's half, in a service-account directory, and the server's. Used by one thread at a time.

    :param names: host names and addresses for the server's certificate; None for no TLS.
    :ivar account: the directory, once it has been created.
    :ivar authority: what issued the certificate; None without TLS, and before.
    :ivar context: what shows the certificate; None alike. Any thread may read it.
    """

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._names = names
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._ca_pem = b""
        self.account = ServiceAccountDirectory("")
        self.authority: CertificateAuthority | None = None
        self.context: ssl.SSLContext | None = None

    @property
    def exist(self) -> bool:
        """Whether the files are there."""
        return self._directory is not None

    def create(self, token: str) -> None:
        """Write the files.

        :param token: the bearer token.
        :raises OSError: if that fails.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="fake-kubevirt-")
        account = os.path.join(self._directory.name, "serviceaccount")
        os.mkdir(account)
        self.account = ServiceAccountDirectory(account)
        self.account.write(token=token.encode(), namespace=b"wsproxy")
        if self._names is not None:
            self.rotate_authority()

    def remove(self) -> None:
        """Remove the files. Idempotent."""
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    def rotate_authority(self, overlap: Callable[[], None] | None = None) -> None:
        """Make a new authority and server certificate; see :meth:`.FakeKubeVirtAPI.rotate_ca`.

        :raises RuntimeError: without TLS, or without files.
        """
        if self._names is None or self._directory is None:
            raise RuntimeError("there is no authority to rotate")
        authority = CertificateAuthority(self._directory.name)
        certfile, keyfile = authority.issue(self._names)
        if overlap:
            self.account.write(ca_crt=self._ca_pem + authority.ca_pem)
            overlap()
        self.authority, self.context = authority, server_context(certfile, keyfile)
        if overlap:
            overlap()
        self._ca_pem = authority.ca_pem
        self.account.write(ca_crt=self._ca_pem)

    def show_certificate(self, certfile: str, keyfile: str) -> None:
        """Show another certificate.

        :raises OSError: if it cannot be read.
        :raises RuntimeError: if there is none to change.
        """
        if self.context is None:
            raise RuntimeError("there is no certificate to change")
        self.context = server_context(certfile, keyfile)
