"""What ``wsproxy check`` finds out about a Redis."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ....runtime.deadline import Deadline
from ....runtime.wall_clock import unix_time
from ..findings import FAULT, OK, WARNING, StoreFinding
from .arguments import Argument
from .finders import LINK_ERRORS, RESPONSE_ERRORS, ServerNotFound
from .link import RedisConnection, RedisLink, advice, quotable

__all__ = ["check_redis", "policy_finding", "probes"]

_SECONDS = 2.0  # for each question
_OLDEST = (6, 2)
_MOST_CLOCK_SECONDS = 5.0
_KEPT_MS = 60_000  # for which the keys of the check stay, if it may not remove them

_MOST_TEXT = 200
_NO_PERMISSION = ("NOPERM", "permission", "can't run this command")
_LOST = "the revocations are lost if it restarts while no process knows them"

_PROBE = """
local failed = {}
for _, command in ipairs(cjson.decode(ARGV[1])) do
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then
        failed[#failed + 1] = {command[1], answer.err}
    end
end
return cjson.encode(failed)
"""


def check_redis(link: RedisLink) -> Iterator[StoreFinding]:
    """Check a Redis by a connection of its own. Blocks for two seconds for each finding."""
    connection = link.new()
    try:
        connection.open(Deadline(_SECONDS))
        info = _info(connection)
        yield _version(info)
        yield policy_finding(info)
        yield _clock(connection)
        yield _persistence(connection, info)
        yield _replicas(info)
        yield _rights(connection, link.common)  # after this it only listens
    except (ServerNotFound, *LINK_ERRORS) as exc:
        yield StoreFinding(FAULT, advice(exc))
    finally:
        connection.close()


def _ask(connection: RedisConnection, *command: Argument) -> Any:
    return connection.ask(Deadline(_SECONDS), *command)


def _info(connection: RedisConnection) -> dict[str, str]:
    text = _ask(connection, "INFO").decode()
    return dict(line.partition(":")[::2] for line in text.splitlines())


def _version(info: Mapping[str, str]) -> StoreFinding:
    says = info.get("redis_version", "")
    valkey = info.get("valkey_version")
    shown = f"Valkey {valkey}" if valkey else f"Redis {says}"
    if tuple(map(int, re.findall("[0-9]+", says)[:2])) < _OLDEST:
        return StoreFinding(FAULT, f"it is {shown}; wsproxy needs Redis 6.2 or later, or Valkey")
    return StoreFinding(OK, f"it answers, and is {shown}")


def probes(base: str) -> list[list[Argument]]:
    """Return each command that the scripts use, with keys for the check alone.

    :param base: what the names of all keys begin with.
    """
    text, table, order = (f"{base}check:{kind}" for kind in ("text", "hash", "zset"))
    return [
        ["SET", text, "1", "PX", _KEPT_MS], ["GET", text],
        ["HSET", table, "a", "1", "b", "1"], ["HGET", table, "a"], ["HEXISTS", table, "a"],
        ["HGETALL", table], ["HKEYS", table], ["HLEN", table], ["HINCRBY", table, "a", 1],
        ["HDEL", table, "a"],
        ["ZADD", order, 0, "a", 0, "b"], ["ZCARD", order], ["ZSCORE", order, "a"], ["ZRANGE", order, 0, 0],
        ["ZRANGEBYLEX", order, "-", "+"], ["ZRANGEBYSCORE", order, 0, 1], ["ZREVRANGE", order, 0, 0],
        ["ZREM", order, "a"], ["ZREMRANGEBYRANK", order, 5, 6], ["ZREMRANGEBYSCORE", order, 5, 6],
        ["PERSIST", text],
        ["PEXPIRE", text, _KEPT_MS], ["PEXPIRE", table, _KEPT_MS], ["PEXPIRE", order, _KEPT_MS],
        ["PUBLISH", f"{base}news", ""], ["TIME"], ["DEL", text, table, order],
    ]  # fmt: skip


def _rights(connection: RedisConnection, base: str) -> StoreFinding:
    """Run each command once. To ask for the rights would need one more right, and Redis 7."""
    failed: dict[str, str] = {}

    def run(name: str, *command: Argument) -> Any:
        try:
            return _ask(connection, name, *command)
        except RESPONSE_ERRORS as exc:
            failed[name] = quotable(str(exc))

    ran = run("EVAL", _PROBE, 1, base, json.dumps(probes(base)))
    failed.update(json.loads(ran or "[]"))
    run("EVALSHA", hashlib.sha1(_PROBE.encode(), usedforsecurity=False).hexdigest(), 1, base, "[]")
    run("WAIT", 0, 1)
    run("PING")
    run("SUBSCRIBE", f"{base}news", f"{base}news:check")
    return _judged(failed, base)


def _judged(failed: Mapping[str, str], base: str) -> StoreFinding:
    if not failed:
        return StoreFinding(OK, "the user may run every command that wsproxy needs")
    names = " ".join(f"+{name.lower()}" for name in failed)
    said = next(iter(failed.values()))[:_MOST_TEXT]
    if any(word in said for word in _NO_PERMISSION):
        keys = base.partition("}")[0] + "}:*"
        return StoreFinding(FAULT, f"its ACL forbids commands; allow the user {names} ~{keys} &{keys}")
    return StoreFinding(
        FAULT, f"it refuses {next(iter(failed))}, and says: {said}; see its log, and its memory"
    )


def policy_finding(info: Mapping[str, str]) -> StoreFinding:
    """Judge the memory policy.

    :param info: what INFO says of the memory.
    """
    policy = info.get("maxmemory_policy")
    if policy is None:
        return StoreFinding(WARNING, "its maxmemory-policy cannot be read; see that it is noeviction")
    if policy != "noeviction":
        return StoreFinding(
            FAULT,
            f"it may forget what counts, because its maxmemory-policy is {policy}; set it to noeviction",
        )
    return StoreFinding(OK, "its maxmemory-policy is noeviction")


def _clock(connection: RedisConnection) -> StoreFinding:
    before = unix_time()
    seconds, microseconds = map(int, _ask(connection, "TIME"))
    difference = seconds + microseconds / 1e6 - (before + unix_time()) / 2
    if abs(difference) > _MOST_CLOCK_SECONDS:
        direction = "ahead of" if difference > 0 else "behind"
        return StoreFinding(
            WARNING,
            f"its clock is {abs(difference):.0f} s {direction} that of this host; set both by NTP",
        )
    return StoreFinding(OK, "its clock is that of this host")


def _persistence(connection: RedisConnection, info: Mapping[str, str]) -> StoreFinding:
    if info.get("aof_enabled") == "1":
        return StoreFinding(OK, "it writes what changes to its disk (AOF)")
    try:
        snapshots = _ask(connection, "CONFIG", "GET", "save")
    except RESPONSE_ERRORS:  # forbidden, or a server without that command
        return StoreFinding(WARNING, f"it has no AOF, and its snapshots cannot be read; without any, {_LOST}")
    if len(snapshots) > 1 and snapshots[1]:
        return StoreFinding(OK, "it writes snapshots to its disk (RDB), and so loses what is newer")
    return StoreFinding(WARNING, f"it writes nothing to its disk: {_LOST}; set appendonly to yes")


def _replicas(info: Mapping[str, str]) -> StoreFinding:
    if info.get("role", "master") != "master":
        return StoreFinding(FAULT, "it is a replica; name the primary, or the Sentinels")
    count = int(info.get("connected_slaves", "0"))
    if not count:
        return StoreFinding(OK, "it has no replica")
    return StoreFinding(OK, f"it has {count} replica{'s' if count > 1 else ''}, and a kick waits for one")
