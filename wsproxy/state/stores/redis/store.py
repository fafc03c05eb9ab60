"""The store in a Redis or Valkey."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from ....exceptions import ConfigError, StoreUnavailable
from ....net.certificates import check_authorities
from ....net.tls_context import ClientTLS
from ....protocol.strict_json import is_deeper_than
from ....runtime.reloading import Reloaded, file_fault
from ..findings import FAULT, StoreFinding
from ..places import StateRules
from ..remote import RemoteCalls, no_answer
from .arguments import script_arguments
from .check import check_redis, policy_finding
from .finders import LINK_ERRORS, ServerNotFound
from .link import RedisLink
from .listener import RedisListener
from .scripts import Script, load_all_scripts

__all__ = ["RedisStore", "redis_findings", "redis_store"]

_MOVES = 3  # from schema to schema, in one call
_PAUSE = 0.5  # seconds before a listener without a connection lets its member beat, and tries again
_MOST_PASSWORD = 4096  # characters
_MOST_DEPTH = 32  # brackets around brackets in an answer; that of rules has five


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def redis_store(rules: StateRules) -> RedisStore:
    """Return the store that rules describe. Reads the files that they name, and connects to nothing.

    :raises ConfigError: if a file cannot be read.
    """
    return RedisStore(_link(rules))


def redis_findings(rules: StateRules) -> Iterator[StoreFinding]:
    """Check the Redis that rules describe. Blocks for two seconds for each finding.

    :raises ConfigError: if a file cannot be read.
    """
    link = _link(rules)
    try:
        yield from check_redis(link)
    finally:
        link.close()


def _link(rules: StateRules) -> RedisLink:
    tls = _tls(rules.ca_file) if rules.place.tls else None
    password = None
    if (path := rules.password_file) is not None:
        _password(path)
        reloaded = Reloaded("the password of the Redis", [path], lambda: _password(path))
        reloaded.get()  # so that it stays in use if the file goes
        password = reloaded.get
    return RedisLink(rules.place, rules.prefix, tls, password)


def _decoded(operation: str, answer: Any) -> Any:
    """Return the values of an answer.

    :raises StoreUnavailable: if it has none, because another client of the Redis has written to the keys.
    """
    try:
        if not is_deeper_than(_MOST_DEPTH, answer):
            return _DECODER.decode(answer.decode())
    except (ValueError, AttributeError, TypeError):  # the latter two: it is no text
        pass
    raise no_answer(operation)


def _tls(ca_file: str | None) -> ClientTLS:
    """Return what makes the contexts. It reads the file again when that changes.

    :raises ConfigError: if it cannot be read, or has no certificate.
    """
    tls = ClientTLS({"ca_certs": ca_file}, "the authorities of the Redis")
    if ca_file is not None:
        _read("state_ca_file", ca_file)
        try:
            check_authorities(ca_file)
        except ValueError as exc:
            raise ConfigError([f"state_ca_file: {exc}; name a file with certificates (PEM)"]) from None
    tls.context()
    return tls


def _password(path: str) -> str:
    """Return the password in a file.

    :raises ConfigError: if there is none.
    """
    text = _read("state_password_file", path).rstrip(b"\r\n").decode(errors="replace")
    if not text or len(text) > _MOST_PASSWORD or not text.isprintable():
        fault = "has more than one line of text" if text else "is empty"
        raise ConfigError(
            [f"state_password_file names {path}, which {fault}; write nothing but the password into it"]
        )
    return text


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigError([file_fault(setting, path, exc)]) from None


class RedisStore(RemoteCalls):
    """A :class:`.Store` in a Redis 6.2 or later, or a Valkey. Each operation is one script.

    Safe from every thread. It opens no connection before the first operation. A forked child makes its own.

    :param link: the connections. The store closes them.
    :param scripts: those of a test, by schema and operation.
    """

    def __init__(self, link: RedisLink, scripts: dict[int, dict[str, Script]] | None = None) -> None:
        super().__init__(self._ask_redis)
        self._link = link
        self._scripts = scripts or load_all_scripts()
        self._schema = max(self._scripts)  # in use, as far as this process knows; any thread assigns it
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards the listeners
        self._listeners: dict[str, RedisListener] = {}  # by member: one in a process, but for tests

    def _ask_redis(self, operation: str, arguments: list[Any]) -> Any:
        # A kick must not be lost by a failover.
        call = self._link.call_and_wait if operation in ("revoke", "lift") else self._link.call
        given = script_arguments(operation, arguments)
        for _ in range(_MOVES):
            answer = call(self._scripts[self._schema][operation], given)
            if not isinstance(answer, int):
                return _decoded(operation, answer)
            self._go_on_with(answer)
            if operation == "publish" and arguments[0]["part"]:
                break  # the parts before are in the schema that is over
        raise StoreUnavailable(f"the processes that use the Redis at {self._link.place} change its schema")

    def _go_on_with(self, schema: int) -> None:
        """Speak another schema from now on.

        :raises StoreUnavailable: if this version does not know it.
        """
        if schema not in self._scripts:
            raise StoreUnavailable(
                f"the Redis at {self._link.place} is used by an old version of wsproxy, with schema "
                f"{schema}; first update to a version in between; or, if no old one runs, delete the key "
                f"{self._link.common}schema"
            )
        self._schema = schema

    def faults(self) -> tuple[str, ...]:
        """Return what makes the server unfit, for the operator: nothing, or texts. Blocks for a second.

        :raises StoreUnavailable: if it does not answer.
        """
        info = self._link.use(lambda connection, deadline: connection.ask(deadline, "INFO", "memory"))
        found = policy_finding(dict(line.partition(":")[::2] for line in info.decode().splitlines()))
        return (f"the Redis at {self._link.place}: {found.text}",) if found.level == FAULT else ()

    def leave(self, member: str) -> None:
        """See :meth:`.Store.leave`."""
        super().leave(member)
        with self._lock:
            listener = self._listeners.pop(member, None)
        if listener:
            listener.close()

    def listen(self, member: str, seconds: float) -> bool:
        """See :meth:`.Store.listen`.

        Without a connection it waits for half a second, and says that there may be news. Then the member
        beats as often as it has to anyway.
        """
        with self._lock:
            listener = self._listeners.setdefault(member, RedisListener(self._link, member))
        try:
            if not listener.is_subscribed:
                listener.subscribe()
                # What came before, nobody has been notified of.
                if self._ask("news", [member]):
                    return True
            return listener.wait(seconds)
        except (StoreUnavailable, ServerNotFound, *LINK_ERRORS):
            self._closed.wait(min(seconds, _PAUSE))
            return True

    def close(self) -> None:
        """See :meth:`.Store.close`."""
        self._closed.set()
        with self._lock:
            listeners = list(self._listeners.values())
            self._listeners.clear()
        for listener in listeners:
            listener.close()
        self._link.close()
