"""The file in which a process without a shared store keeps its revocation rules.

It is replaced as a whole: a new file is written beside it, and takes its name when it is on the disk. So the
process may die at any moment, and the file has the rules from before or those from after.

A lock beside it, at ``PATH.lock``, makes sure that one process has it. Another one would not apply the rules
that the first one writes, and would write over them.
"""

from __future__ import annotations

import json
import math
import os
import stat
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress

from ...exceptions import ConfigError
from ...runtime.logs import get_logger
from ..codec import from_json
from ..revocations import Match, Rule
from .local.lock import StoreLock, check_owner
from .places import StateRules

__all__ = ["RuleFile", "open_rule_file", "rules_in"]

logger = get_logger("wsproxy.state")

_SCHEMA = 1
_MODE = 0o600
_AT_ONCE = 500  # rules
_BETWEEN = ",\n"
_CRITERIA = Match._fields


def open_rule_file(rules: StateRules) -> RuleFile | None:
    """Open the file that the settings name; None if they name none. Blocks on the file system.

    :raises ConfigError: if it cannot be used.
    """
    assert rules.file is None or not rules.is_shared, "see place_faults"
    return None if rules.file is None else RuleFile(rules.file)


def rules_in(path: str) -> tuple[Rule, ...]:
    """Return the rules that a file has; none if there is no file. Blocks on the file system.

    :raises ConfigError: if it cannot be read, or a later version of wsproxy has written it.
    """
    try:
        _check_link(path)
        # O_NONBLOCK: a stranger's FIFO of that name must not make the caller wait.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            check_owner(path, os.fstat(file.fileno()))
            return _parsed(file.read())
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise _fault(path, f"it cannot be read: {exc.strerror or exc}") from None
    except (ValueError, RecursionError) as exc:
        raise _fault(
            path, f"{exc}; restore it, or remove it to accept all revoked tokens that have not expired"
        ) from None


def _check_link(path: str) -> None:
    """Make sure that no stranger says by a link which file it is.

    :raises PermissionError: if one does.
    """
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in (os.geteuid(), 0):
            raise PermissionError(f"it is a link of user {status.st_uid}")


def _fault(path: str, text: str) -> ConfigError:
    return ConfigError([f"state_file is {path}; {text}"])


class RuleFile:
    """The file, and its lock. Safe from every thread.

    :param path: of the file; there need not be one yet. A link keeps its target.
    :ivar rules: what the file had when this object was made.
    :raises ConfigError: if the file cannot be used, or if another process has it.
    """

    def __init__(self, path: str) -> None:
        self._shown = path
        try:
            _check_link(path)
        except OSError as exc:
            raise _fault(path, f"it cannot be used: {exc.strerror or exc}") from None
        self._path = os.path.realpath(path)
        self._writing = threading.Lock()  # held while the file is replaced, so that no older rules win
        self._is_behind = False  # whether the file lacks rules; guarded by the lock above
        self._unlock = weakref.finalize(self, self._locked().close)
        try:
            self.rules = rules_in(self._path)
        except ConfigError:
            self._unlock()
            raise

    def _locked(self) -> StoreLock:
        try:
            lock = StoreLock.take(self._path)
        except OSError as exc:
            raise _fault(
                self._shown, f"its lock {self._path}.lock cannot be had: {exc.strerror or exc}"
            ) from None
        if lock is None:
            raise _fault(
                self._shown,
                "another process has it; stop that one first, give each a file of its own, or set state to "
                "local:PATH, which processes can share",
            )
        return lock

    def save(self, rules: Iterable[Rule]) -> str:
        """Replace the file. Blocks on the file system, and while another thread does the same.

        If that fails, it logs an error, and the file keeps what it had.

        :param rules: all that are to be in it.
        :returns: why it failed; "" if it did not.
        """
        with self._writing:
            return self._save(rules)

    def _save(self, rules: Iterable[Rule]) -> str:
        try:
            if not self._unlock.alive:
                raise OSError("the proxy has stopped")
            _replace(self._path, _text(rules))
        except OSError as exc:
            self._is_behind = True
            why = exc.strerror or str(exc)
            logger.error("cannot save the revocations in %s: %s; they hold until a restart", self._shown, why)
            return why
        self._is_behind = False
        return ""

    def close(self, rules: Iterable[Rule]) -> None:
        """Let another process have the file, after a last attempt if it lacks rules. Idempotent.

        Blocks on the file system.
        """
        with self._writing:
            if self._is_behind and self._unlock.alive:
                self._save(rules)
            self._unlock()


def _parsed(data: bytes) -> tuple[Rule, ...]:
    """Return the rules in a file's text.

    :raises ValueError: if it is wrong.
    """
    try:
        said = json.loads(data, parse_constant=_no_number)
    except ValueError:
        raise ValueError("it is no JSON") from None
    schema = said.get("schema") if isinstance(said, dict) else None
    if type(schema) is not int or schema < 1:
        raise ValueError("it is no file of revocations")
    if schema > _SCHEMA:
        raise ValueError(f"a later version of wsproxy has written it (schema {schema})")
    try:
        return from_json(_Rules, said["rules"])
    except (KeyError, ValueError):
        raise ValueError("one of its rules is wrong") from None


_Rules = tuple[Rule, ...]


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _text(rules: Iterable[Rule]) -> bytes:
    """Return a file's text. Other threads may run all the while, since each step is short."""
    known = list(rules)
    parts = [
        json.dumps([_row(rule) for rule in known[start : start + _AT_ONCE]], separators=(",", ":"))[1:-1]
        for start in range(0, len(known), _AT_ONCE)
    ]
    return f'{{"schema":{_SCHEMA},"rules":[\n{_BETWEEN.join(parts)}\n]}}\n'.encode("ascii")


def _row(rule: Rule) -> dict[str, object]:
    """Return the JSON form of a rule without what is empty; :func:`.to_json` needs several times as long."""
    id, kick, made_at, until, match, maker = rule
    said = (
        None
        if match is None
        else {name: value for name, value in zip(_CRITERIA, match, strict=True) if value}
    )
    end = "inf" if until == math.inf else until
    return {"id": id, "kick": kick, "made_at": made_at, "until": end, "match": said, "maker": maker}


def _replace(path: str, data: bytes) -> None:
    """Replace a file, so that a crash leaves the old one or the new one.

    :raises OSError: if that is not possible; the old file is there then, or the new one.
    """
    new = f"{path}.new"  # who holds the lock writes it alone
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)  # left behind by a crash, or a stranger's, who could still write to it
        _write(new, data)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            os.unlink(new)
        raise
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        os.fchmod(descriptor, _MODE)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
