"""A store in Redis beside one in memory: both are asked the same, and must say the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.state.memory import Memory
from wsproxy.state.codec import to_json
from wsproxy.state.store import Store

from .redis_server import RedisHarness

__all__ = ["TwinHarness"]


class _Twin:
    """Every operation of two stores, with a comparison. Each is told the epochs that it made itself."""

    def __init__(self, first: Store, second: Store) -> None:
        self._stores = first, second
        self._epochs: dict[str, str] = {}  # of the second, by those of the first

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._ask, name)

    def _ask(self, name: str, *arguments: Any) -> Any:
        first, second = self._stores
        answer = getattr(first, name)(*arguments)
        if name == "beat":
            member, beat = arguments
            arguments = member, beat._replace(epoch=self._epochs.get(beat.epoch, beat.epoch))
        other = getattr(second, name)(*arguments)
        if name in ("beat", "publish"):
            self._epochs[answer.epoch] = other.epoch
        if name != "listen":
            assert _plain(answer) == _plain(other), (name, arguments, answer, other)
        return answer


def _plain(answer: object) -> object:
    """Return the JSON form of an answer without what is random, and rounded."""

    def rounded(data: Any) -> Any:
        if isinstance(data, dict):
            return {name: rounded(item) for name, item in data.items() if name != "epoch"}
        if isinstance(data, list):
            return [rounded(item) for item in data]
        return round(data, 5) if isinstance(data, float) else data

    return rounded(to_json(answer))


class _Memory(Memory):
    """The same with the time of the other store. It begins as unsettled as a Redis."""

    def __init__(self, now: float) -> None:
        self.now = self.wall = now
        self.memory = self._new(settled=False)
        self.store = self.memory


class TwinHarness(RedisHarness):
    """A :class:`.Harness` for both."""

    def _new(self) -> Store:
        redis = super()._new()
        if not hasattr(self, "memory"):
            self.memory = _Memory(self.now)
        return self._pair(redis)

    def _pair(self, redis: Store) -> Store:
        twin: Any = _Twin(self.memory.store, redis)
        found: Store = twin
        return found

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.memory.now = self.memory.wall = self.now

    def restart(self, *, data: bool) -> None:
        self.memory.restart(data=data)
        super().restart(data=data)
