"""Listening sockets: at a TCP address, at a path, or inherited from the parent process."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..exceptions import ConfigError
from ..kinds import collect, setting_value
from .addresses import ListenAddress, host_and_port

__all__ = [
    "BACKLOG",
    "FD",
    "OPERATOR_FAULT",
    "UNIX",
    "Listener",
    "address_text",
    "listen",
    "listen_for_operator",
    "naming_address",
]

UNIX, FD = "unix:", "fd:"
"""Prefixes of a host that is a path, or the number of a descriptor."""

BACKLOG = 4096
"""The most connections that the kernel queues until the proxy accepts them."""

OPERATOR_FAULT = "the operator's listener"
"""Beginning of the error text if the operator's address cannot be had."""

_FAULT = "cannot listen on"
_ANYWHERE = "::"
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # switched off in the kernel, or for all interfaces
_UNIX_MODE, _OPERATOR_MODE = 0o660, 0o600
_HAND_OVER_SECONDS = 0.2  # longer than the rest of a TCP handshake that has begun
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; not in the socket module
# Classic BPF on the TCP header (linux/filter.h): drop packets with SYN and without ACK, keep all others.
_DROP_NEWCOMERS = struct.pack(
    "=" + 5 * "HBBI",
    *(0x30, 0, 0, 13),  # A = the byte with the flags
    *(0x54, 0, 0, 0x12),  # A &= SYN | ACK
    *(0x15, 0, 1, 0x02),  # if A is SYN alone:
    *(0x06, 0, 0, 0),  # drop it
    *(0x06, 0, 0, 0xFFFF),
)


class Listener(socket.socket):
    """A listening socket that removes its path when it is closed, if no other process uses the path.

    :ivar inherited: whether the socket belongs to the parent process, such as systemd, which keeps it open.
    """

    inherited = False
    _path = ""
    _identity: tuple[int, int] | None = None  # device and inode of the path, if this object made it
    _pid = 0

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port; ``unix:PATH`` and 0 for a path."""
        if self.family == socket.AF_UNIX:
            return UNIX + (self._path or os.fsdecode(self.getsockname()).replace("\0", "@")), 0
        host, port = self.getsockname()[:2]
        return host, port

    def withdraw(self) -> float:
        """Leave new clients to other listeners as far as possible. Queued ones can still be accepted.

        If the listener has a path, this removes the path. If it shares a port (SO_REUSEPORT), the kernel
        would go on queueing clients here, and send them RST when the socket is closed. So on Linux the kernel
        drops SYNs to this socket from now on. The clients' kernels repeat the SYN a second later, when only
        the other sockets listen. Does not block.

        :returns: for how many seconds clients may still come whose TCP handshake had begun.
        """
        self.remove_path()
        return _HAND_OVER_SECONDS if self._shares_port() and _drop_newcomers(self) else 0.0

    def close(self) -> None:
        """Close the socket, and remove its path. Idempotent; does not block."""
        super().close()
        self.remove_path()

    def close_copy(self) -> None:
        """Close the socket, but keep its path, because another process has a copy and still accepts."""
        super().close()

    def remove_path(self) -> None:
        """Remove the path if this process made it, and no other has replaced it since. Idempotent."""
        identity, self._identity = self._identity, None
        if identity is None or self._pid != os.getpid():
            return
        try:
            with _only_one_in(self._path):
                if _identity_of(self._path) == identity:
                    os.unlink(self._path)
        except OSError:
            pass  # the directory is gone, or not writable any more; a stale path does no harm

    def bind_path(self, path: str, mode: int, replace: bool) -> None:
        """Listen at a path; for the parameters see :func:`listen`.

        :raises OSError: if the path is in use, or another process is binding in the same directory.
        """
        self._path, self._pid = os.path.abspath(path), os.getpid()
        with _only_one_in(self._path):
            _check_is_free(self._path, replace)
            # Under another name first, and renamed then: so clients find a listening socket at any time.
            new = self._path + "~"
            _remove_socket(new)  # left by a process that died before the rename
            self.bind(new)
            try:
                os.chmod(new, mode)  # no client can connect before listen()
                self.listen(BACKLOG)
                os.rename(new, self._path)
            except OSError:
                _remove_socket(new)
                raise
            self._identity = _identity_of(self._path)

    def _shares_port(self) -> bool:
        inet = self.family in (socket.AF_INET, socket.AF_INET6)
        return inet and bool(self.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def address_text(host: str, port: int) -> str:
    """Return the text of an address: ``HOST:PORT``, ``unix:PATH`` or ``fd:NUMBER``."""
    return host if host.startswith((UNIX, FD)) else host_and_port(host, port)


def listen(
    host: str | None, port: int, *, reuse_port: bool = False, mode: int = _UNIX_MODE, fault: str = _FAULT
) -> Listener:
    """Return a listening socket, which the caller closes. Blocks only while it resolves a name.

    :param host: a name or an address; ``unix:PATH``; or ``fd:NUMBER`` for a listening socket that this
        process inherited. "::", "" and None mean all addresses of both families, or all of IPv4 if the system
        has no IPv6.
    :param port: TCP port, 0 for any free one.
    :param reuse_port: whether other sockets with this option may listen at the same address (SO_REUSEPORT).
        At a path: whether to replace a socket that listens there.
    :param mode: permissions of the path. A stale socket there is replaced; a live one only with
        ``reuse_port``, and any other file never.
    :param fault: beginning of an error text; the address follows.
    :raises ConfigError: if a parameter is of the wrong type, or the port is out of range.
    :raises OSError: if the address cannot be bound, or the descriptor is not a listening socket. The text
        names it.
    """
    host, port = _checked(host, port, reuse_port)
    with naming_address(host, port, fault):
        if host.startswith(FD):
            return _inherited(int(host.removeprefix(FD)))
        if host.startswith(UNIX):
            return _at_path(host.removeprefix(UNIX), mode, reuse_port)
        if host == _ANYWHERE:
            return _anywhere(port, reuse_port)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return _at_address(family, address, reuse_port)


def listen_for_operator(address: ListenAddress, *, reuse_port: bool = False) -> Listener:
    """Return a listening socket for the operator, which the caller closes. Only the owner may use a path.

    Parameters and blocking are as for :func:`listen`.

    :raises OSError: if the address cannot be bound; the text names the operator's listener.
    """
    host = UNIX + address.path if address.path else address.host
    return listen(host, address.port, reuse_port=reuse_port, mode=_OPERATOR_MODE, fault=OPERATOR_FAULT)


@contextmanager
def naming_address(host: str, port: int, fault: str = _FAULT) -> Iterator[None]:
    """Context manager: an error in it names the address, which the system's error text does not.

    :raises OSError: with the original error number; a :class:`socket.gaierror` stays one.
    """
    try:
        yield
    except (OSError, ValueError) as exc:  # ValueError: the host is not a valid name
        kind = socket.gaierror if isinstance(exc, socket.gaierror) else OSError
        number = getattr(exc, "errno", None) or errno.EINVAL
        reason = getattr(exc, "strerror", None) or exc
        raise kind(number, f"{fault} {address_text(host, port)}: {reason}") from exc


def _checked(host: object, port: object, reuse_port: object) -> tuple[str, int]:
    """Return host and port; a host that means all addresses becomes :data:`_ANYWHERE`.

    :raises ConfigError: listing every fault.
    """
    faults: list[str] = []
    text = collect(faults, lambda: setting_value("AnyText | None", "host", host))
    number = collect(faults, lambda: setting_value("Port", "port", port))
    collect(faults, lambda: setting_value("bool", "reuse_port", reuse_port))
    if text and text.startswith(FD) and not text.removeprefix(FD).isdigit():
        faults.append(f"host is {text!r}; a descriptor is fd:NUMBER")
    if faults:
        raise ConfigError(faults)
    return text or _ANYWHERE, number or 0


def _at_path(path: str, mode: int, replace: bool) -> Listener:
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(listener):
        listener.bind_path(path, mode, replace)
    return listener


def _anywhere(port: int, reuse_port: bool) -> Listener:
    """Listen at all addresses, of IPv6 and IPv4 if the system has both."""
    try:
        return _at_address(socket.AF_INET6, (_ANYWHERE, port), reuse_port)
    except OSError as exc:
        if exc.errno not in _NO_IPV6:
            raise
    return _at_address(socket.AF_INET, ("0.0.0.0", port), reuse_port)


def _at_address(family: int, address: tuple[Any, ...], reuse_port: bool) -> Listener:
    listener = Listener(family, socket.SOCK_STREAM)
    with _closed_on_error(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != _ANYWHERE)
        listener.bind(address)
        listener.listen(BACKLOG)
    return listener


def _inherited(descriptor: int) -> Listener:
    """Return the listening socket with this descriptor.

    :raises OSError: if the descriptor is not a listening stream socket. It stays open then.
    """
    try:
        listener = Listener(fileno=descriptor)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise OSError(exc.errno, f"descriptor {descriptor}: {exc.strerror}") from None
    if not listens or listener.type != socket.SOCK_STREAM:
        listener.detach()
        remedy = "systemd needs Accept=no and ListenStream="
        raise OSError(errno.EINVAL, f"descriptor {descriptor} is not a listening stream socket; {remedy}")
    listener.set_inheritable(False)
    listener.inherited = True
    return listener


def _drop_newcomers(sock: socket.socket) -> bool:
    """Have the kernel drop all SYNs to a TCP listener; return False if it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    program = ctypes.create_string_buffer(_DROP_NEWCOMERS, len(_DROP_NEWCOMERS))
    try:
        # struct sock_fprog
        prog = struct.pack("@HP", len(_DROP_NEWCOMERS) // 8, ctypes.addressof(program))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, prog)
    except OSError:
        return False
    return True


@contextmanager
def _closed_on_error(listener: Listener) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listener.close()
        raise


@contextmanager
def _only_one_in(path: str) -> Iterator[None]:
    """Context manager: lock the path's directory against other proxies. Does not block.

    :raises OSError: if another process holds the lock.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(directory)


def _check_is_free(path: str, replace: bool) -> None:
    """Check that this process may bind a path.

    :raises OSError: if the path is a file, or a live socket and ``replace`` is false.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is not a socket; it was not replaced")
    if replace:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # BlockingIOError: the backlog is full, so the socket is live
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove_socket(path: str) -> None:
    if os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
        os.unlink(path)
