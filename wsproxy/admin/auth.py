"""Authenticates the operator: the owner of the listener's path, or a client with the token of a file."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress

from ..exceptions import BadToken, ConfigError
from ..net.addresses import ListenAddress
from ..protocol.request import OWS, RequestHead
from ..runtime.files import check_can_create
from ..runtime.logs import get_logger
from ..runtime.reloading import Reloaded

__all__ = ["Guard", "default_token_file", "operator_guard", "read_operator_token", "token_file_fault"]

logger = get_logger("wsproxy.admin")

Guard = Callable[[RequestHead], None]
"""Raises :class:`.BadToken` unless the operator sent the request. Blocks on nothing but the file system."""

_BYTES = 32
_TOKEN = re.compile(r"[!-~]{16,512}")
_BEARER = "bearer "


def operator_guard(token_file: str | None, address: ListenAddress) -> Guard:
    """Return the guard that tells whether the operator sent a request.

    Only its owner can connect to a listener at a path. So if ``address`` is a path and ``token_file`` is
    None, requests need no token. Otherwise they need it. If the file does not exist, this creates it with a
    random token, for its owner alone. Blocks on the file system.

    If ``token_file`` is None and the default file cannot be created, this logs a warning, and the guard
    refuses every request.

    :param token_file: path of the file that holds the token; None for :func:`default_token_file`. The guard
        reads the file again when it changes.
    :param address: address of the operator's listener.
    :raises ConfigError: if ``token_file`` is given, and cannot be read or created, or holds no token.
    """
    if token_file is None and address.path:
        return lambda head: None
    path = token_file
    try:
        if path is None:
            path = default_token_file()
            _make_own_directory(os.path.dirname(path))
        if not os.path.lexists(path):
            _make(path)
            logger.info("created the operator's token in %s", path)
        guard = _TokenGuard(path)
        guard.token.get()
        return guard
    except (OSError, ValueError) as exc:
        if token_file is not None:
            raise ConfigError([_fault(token_file, exc)]) from None
        logger.warning("%s; until then the proxy refuses all requests about sessions", _fault(path, exc))
    return _refuse


def token_file_fault(path: str) -> str | None:
    """Return why ``path`` cannot hold the operator's token, and what to do; None if it can.

    Creates nothing, but finds the same faults as :func:`operator_guard`. Blocks on the file system.
    """
    try:
        if os.path.lexists(path):
            read_operator_token(path)
        else:
            check_can_create(path)
        return None
    except (OSError, ValueError) as exc:
        return _fault(path, exc)


def _fault(path: str | None, exc: OSError | ValueError) -> str:
    what = "create the operator's token" if path is None else f"use the operator's token in {path!r}"
    remedy = "set admin_token_file to a file that the proxy can read or create"
    return f"cannot {what}: {getattr(exc, 'strerror', None) or exc}; {remedy}"


def default_token_file() -> str:
    """Return the path of the token if no file is named: in a directory that belongs to this user.

    :raises OSError: if there is no writable directory for temporary files.
    """
    return os.path.join(tempfile.gettempdir(), f"wsproxy-{os.getuid()}", "admin-token")


def read_operator_token(token_file: str | None = None) -> str:
    """Return the token in a file. Blocks on the file system.

    :param token_file: path of the file; None for :func:`default_token_file`.
    :raises OSError: if the file cannot be read.
    :raises ValueError: if it holds no valid token, or if others can access the default directory.
    """
    path = token_file or default_token_file()
    if token_file is None:
        _check_own_directory(os.path.dirname(path))
    with open(path, encoding="utf-8", errors="replace") as file:
        token = file.read(1024).strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("the file must hold one line of 16 to 512 visible ASCII characters")
    return token


class _TokenGuard:
    """A :data:`Guard` that checks the Authorization header."""

    def __init__(self, path: str) -> None:
        self.token = Reloaded("the operator's token", [path], lambda: _digest(read_operator_token(path)))

    def __call__(self, head: RequestHead) -> None:
        given = [
            value[len(_BEARER) :].strip(OWS)
            for value in head.values("authorization")
            if value[: len(_BEARER)].lower() == _BEARER
        ]
        # The hashes have equal lengths, so the time of the comparison reveals nothing about the token.
        if len(given) != 1 or not hmac.compare_digest(_digest(given[0]), self.token.get()):
            _refuse(head)


def _refuse(head: RequestHead) -> None:
    raise BadToken("this request needs the operator's token")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _make(path: str) -> None:
    """Create a file with a new token atomically, unless another process has just created it."""
    beside = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        os.unlink(beside)


def _make_own_directory(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    _check_own_directory(path)


def _check_own_directory(path: str) -> None:
    """Raise ValueError unless only this user can access the directory: others could have created it."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ValueError("the directory must belong to this user, without access for others")
