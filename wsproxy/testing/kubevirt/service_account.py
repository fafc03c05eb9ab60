"""The credentials of the simulated API: a client's token, and with TLS the server's certificate."""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import tempfile
from collections.abc import Callable

from ...net.tls_context import server_context
from .certificates import CertificateAuthority

__all__ = ["Credentials", "ServiceAccountDirectory", "random_token"]


def random_token() -> str:
    """Return a new bearer token."""
    return f"sa-{secrets.token_urlsafe(32)}"


class ServiceAccountDirectory:
    """The service-account directory of a pod: a projected volume, updated as a kubelet updates it.

    Every file is a symbolic link through ``..data``, which is replaced atomically. So a reader sees all old
    files or all new ones. No file is written in place. Only one thread at a time may use it.

    :param path: an existing, empty directory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, bytes] = {}
        self._generation = 0

    def path(self, name: str) -> str:
        """Return the path of a file, which always leads to the current generation."""
        return os.path.join(self._path, name)

    def write(self, **files: bytes) -> None:
        """Replace some files, and keep the others.

        :param files: contents by name, with ``_`` for ``.``.
        :raises OSError: if that fails. The old files then stay.
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
    """The client's credentials, in a service-account directory, and the server's.

    Only one thread at a time may use it.

    :param names: host names and addresses for the server's certificate; None for no TLS.
    :ivar account: the directory, after :meth:`create`.
    :ivar authority: the authority that issued the certificate; None without TLS, and before :meth:`create`.
    :ivar context: the server's TLS context; None in the same cases. Any thread may read it.
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
        """Whether the files exist."""
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

        :raises RuntimeError: without TLS, or if the files do not exist.
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
        """Show another certificate to later connections.

        :raises OSError: if the certificate cannot be read.
        :raises RuntimeError: without TLS, or before :meth:`create`.
        """
        if self.context is None:
            raise RuntimeError("there is no certificate to change")
        self.context = server_context(certfile, keyfile)
