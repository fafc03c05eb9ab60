"""Who is the operator: the owner of the listener's path, or who knows what is in a file."""

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
from ..runtime.logs import get_logger
from ..runtime.reloading import Reloaded

__all__ = ["Guard", "default_token_file", "operator_guard", "read_operator_token"]

logger = get_logger("wsproxy.admin")

Guard = Callable[[RequestHead], None]
"""Raises :class:`.BadToken` unless a request is the operator's. Blocks on the file system at most."""

_BYTES = 32
_TOKEN = re.compile(r"[!-~]{16,512}")
_BEARER = "bearer "


def operator_guard(token_file: str | None, address: ListenAddress) -> Guard:
    """Return what tells whether requests are the operator's.

    A path is for its owner alone, so whoever reaches that needs no token, unless a file is named. Elsewhere
    there is one in any case. A file that does not exist is made, for its owner alone, with a random token.

    :param token_file: which file holds the token; None for :func:`default_token_file`. It is read again
        when it changes.
    :param address: where the operator's listener is.
    :raises ConfigError: if a file is named and cannot be read or made, or holds no such token. Where none is
        named and none can be made, the log has a warning, and nobody is the operator.
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
            logger.info("the operator's token was made in %s", path)
        guard = _TokenGuard(path)
        guard.token.get()
        return guard
    except (OSError, ValueError) as exc:
        where = "made" if path is None else f"had from {path!r}"
        fault = f"the operator's token cannot be {where}: {getattr(exc, 'strerror', None) or exc}"
        remedy = "name a file in admin_token_file that can be read or made"
        if token_file is not None:
            raise ConfigError([f"{fault}; {remedy}"]) from None
        logger.warning("%s; sessions are shown to nobody; %s", fault, remedy)
    return _refuse


def default_token_file() -> str:
    """Return where the token is if no file is named: in a directory of the user's own.

    :raises OSError: if there is no directory for temporary files that can be written.
    """
    return os.path.join(tempfile.gettempdir(), f"wsproxy-{os.getuid()}", "admin-token")


def read_operator_token(token_file: str | None = None) -> str:
    """Return the token in a file.

    :param token_file: None for :func:`default_token_file`.
    :raises OSError: if it cannot be read.
    :raises ValueError: if there is no such token in it.
    """
    path = token_file or default_token_file()
    if token_file is None:
        _check_own_directory(os.path.dirname(path))
    with open(path, encoding="utf-8", errors="replace") as file:
        token = file.read(1024).strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("it must hold one line of 16 to 512 visible ASCII characters")
    return token


class _TokenGuard:
    """A :data:`Guard` that looks at the Authorization header."""

    def __init__(self, path: str) -> None:
        self.token = Reloaded("the operator's token", [path], lambda: _digest(read_operator_token(path)))

    def __call__(self, head: RequestHead) -> None:
        given = [
            value[len(_BEARER) :].strip(OWS)
            for value in head.values("authorization")
            if value[: len(_BEARER)].lower() == _BEARER
        ]
        # The hashes have one length, and what a comparison takes says nothing of the token.
        if len(given) != 1 or not hmac.compare_digest(_digest(given[0]), self.token.get()):
            _refuse(head)


def _refuse(head: RequestHead) -> None:
    raise BadToken("the operator's token is needed here")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _make(path: str) -> None:
    """Make a file with a new token, unless another process is first; it is there as a whole or not at all."""
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
    """The place is where others may write, so it may be one that somebody else has made."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ValueError("the directory is not this user's alone")
