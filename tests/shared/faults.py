"""Faults of a store, of the network to it, and of the replicas that have it in common."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from types import MappingProxyType
from typing import NamedTuple

from tests.shared.crowd import ADMITTED, AWAY, Crowd
from tests.shared.replicas import Replicas
from tests.shared.stores import LocalStore, RedisBehindLinks, RedisInNamespace, RedisWithSentinels, Store
from tests.shared.visitors import GONE, Visitors, Wanted

__all__ = ["FAULTS", "LIMIT", "REPLICAS", "Fault", "Scene", "Times"]

REPLICAS = 3
LIMIT = 200
_OLD = "old.rdb"
_DATA = "dump.rdb"
_MEGABYTE = 1 << 20
_OUT_OF_STEP = 1.0  # seconds without the store, after which a replica admits nobody


class Times(NamedTuple):
    """How long faults last, and how much they do.

    :ivar lease: ``WSPROXY_STATE_LEASE``, seconds.
    :ivar short: seconds, shorter than a lease.
    :ivar long: seconds, longer than a lease.
    :ivar addresses: how many addresses fail in a flood.
    """

    lease: float
    short: float
    long: float
    addresses: int


class Scene:
    """What a fault happens to.

    :ivar store: the store. Each fault knows of which kind its own is.
    :ivar begun: when the fault began, by ``time.monotonic``; what it prepares is before.
    :ivar note: what else the fault wants to say in the table.
    :ivar is_good: whether the note says what is allowed.
    """

    def __init__(self, store: Store, replicas: Replicas, crowd: Crowd, times: Times) -> None:
        self.store, self.replicas, self.crowd, self.times = store, replicas, crowd, times
        self.begun = time.monotonic()
        self.note, self.is_good = "", True
        self._never = threading.Event()

    @property
    def redis(self) -> RedisBehindLinks:
        assert isinstance(self.store, RedisBehindLinks)
        return self.store

    def last(self, seconds: float) -> None:
        """Let the fault last."""
        self._never.wait(seconds)


class Fault(NamedTuple):
    """A fault. ``begin`` returns when it has begun and everybody has noticed, ``end`` when it is over.

    :ivar admits: whether newcomers may come in meanwhile, as sessions have ended or are not counted any more.
    :ivar exceeds: whether there may then be more sessions than the limit: those of a cut longer than a lease.
    :ivar settings: further settings of the replicas.
    """

    key: str
    title: str
    store: Callable[[], Store]
    begin: Callable[[Scene], None]
    end: Callable[[Scene], None]
    admits: bool = False
    exceeds: bool = False
    settings: Mapping[str, str] = MappingProxyType({})


# Faults of Redis


def _redis() -> RedisBehindLinks:
    return RedisBehindLinks(REPLICAS)


def _nothing(scene: Scene) -> None:
    pass


def _kill_with_data(scene: Scene) -> None:
    scene.redis.save()
    _kill(scene)


def _kill(scene: Scene) -> None:
    scene.begun = time.monotonic()
    scene.redis.server.stop()
    scene.crowd.wait_until_told(AWAY)


def _kill_with_old_data(scene: Scene) -> None:
    """Have the snapshot that is from before half of the sessions began."""
    scene.redis.save(_OLD)
    scene.crowd.wait_for_newcomers(LIMIT // 4)
    _kill(scene)


def _restart_with(snapshot: str | None) -> Callable[[Scene], None]:
    return lambda scene: scene.redis.restart(snapshot)


def _cut_all(scene: Scene) -> None:
    for link in scene.redis.links:
        link.cut()


def _cut_for_short(scene: Scene) -> None:
    _cut_all(scene)
    scene.last(scene.times.short)


def _cut_for_long(scene: Scene) -> None:
    _cut_all(scene)
    scene.last(scene.times.long)


def _cut_one_for_long(scene: Scene) -> None:
    scene.redis.links[0].cut()
    begin = time.monotonic()
    scene.last(scene.times.long)
    late = scene.crowd.told(begin + _OUT_OF_STEP, replica=0)[ADMITTED]
    scene.note, scene.is_good = f"{late} admitted by the replica that is cut off", late == 0


def _cut_namespace(scene: Scene) -> None:
    assert isinstance(scene.store, RedisInNamespace)
    scene.store.cut()
    scene.last(scene.times.long)


def _mend_namespace(scene: Scene) -> None:
    assert isinstance(scene.store, RedisInNamespace)
    scene.store.mend()


def _delay(scene: Scene) -> None:
    for link in scene.redis.links:
        link.delay(5.0)
    scene.last(scene.times.long)


def _mend(scene: Scene) -> None:
    for link in scene.redis.links:
        link.mend()


def _fill_memory(scene: Scene) -> None:
    scene.redis.client.config_set("maxmemory", _MEGABYTE)  # which it has already
    scene.last(scene.times.short)


def _free_memory(scene: Scene) -> None:
    scene.redis.client.config_set("maxmemory", 0)


def _evict(scene: Scene) -> None:
    """Choose a policy with which Redis forgets sessions, and see whether a replica starts."""
    scene.redis.client.config_set("maxmemory-policy", "allkeys-lru")
    scene.crowd.forget_replica(0)
    replica = scene.replicas.all[0]
    replica.kill()
    try:
        replica.restart()
    except RuntimeError as exc:
        scene.note = "a replica does not start: " + str(exc).strip().rpartition("\n")[2].strip(" -")
    else:
        scene.note, scene.is_good = "a replica starts", False


def _flood(scene: Scene) -> None:
    """Have many addresses fail, once each, which is past half of the limit."""
    before = scene.redis.client.info("memory")["used_memory"]
    each = scene.times.addresses // len(scene.replicas.all)
    jobs = [(replica.address, number * each, each) for number, replica in enumerate(scene.replicas.all)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: _fail_often(*job), jobs))
    grown = scene.redis.client.info("memory")["used_memory"] - before
    scene.note = f"{each * len(jobs)} addresses, {grown / _MEGABYTE:.1f} MiB more in Redis"


def _fail_often(address: tuple[str, int], first: int, count: int) -> None:
    for number in range(first, first + count):
        high, low = divmod(number, 65536)
        client = f"10.{high}.{low >> 8}.{low & 255}"
        connection = HTTPConnection(*address, timeout=30)
        try:
            # A ticket request without a valid token is a failed attempt, and costs less than a WebSocket.
            headers = {"Authorization": "Bearer e30.e30.", "Content-Type": "application/json"}
            connection.request("POST", "/ticket", b'{"vmi": "vm"}', headers | {"X-Forwarded-For": client})
            connection.getresponse().read()
        except GONE:
            pass
        finally:
            connection.close()


# Faults of replicas


def _kill_replica(scene: Scene) -> None:
    scene.crowd.forget_replica(0)
    scene.replicas.all[0].kill()
    scene.last(scene.times.long)


def _pause_replica(scene: Scene) -> None:
    scene.replicas.all[0].pause()
    scene.last(scene.times.long)


def _resume_replica(scene: Scene) -> None:
    scene.replicas.all[0].resume()


# Faults of other stores


def _kill_local(scene: Scene) -> None:
    _signal_local(scene, signal.SIGKILL)


def _pause_local(scene: Scene) -> None:
    _signal_local(scene, signal.SIGSTOP)
    scene.last(scene.times.long)


def _resume_local(scene: Scene) -> None:
    _signal_local(scene, signal.SIGCONT)


def _signal_local(scene: Scene, number: signal.Signals) -> None:
    assert isinstance(scene.store, LocalStore)
    scene.store.signal(number)


def _fail_over(scene: Scene) -> None:
    """Kick a user who is away, and kill the primary as soon as the kick has returned."""
    assert isinstance(scene.store, RedisWithSentinels)
    scene.replicas.all[0].kick(user="kicked-0")
    scene.store.kill_primary()


def _look_for_kicked(scene: Scene) -> None:
    """Wait for the new primary, and see what the kicked user is told."""
    scene.crowd.wait_until_in_step(time.monotonic())
    scene.replicas.api.add_vmi("kicked-0")
    with Visitors(scene.replicas) as visitors:
        kicked = visitors.wanted("kicked-0", "kicked-0")
        statuses = [visitors.ask(_anew(kicked, visitors)).client.status for _ in scene.replicas.all]
    scene.note, scene.is_good = f"the kicked token: {statuses}", {*statuses} == {401}


def _anew(wanted: Wanted, visitors: Visitors) -> Wanted:
    return wanted._replace(forwarded=visitors.new_address())


FAULTS: tuple[Fault, ...] = (
    Fault("none", "none", _redis, lambda scene: scene.last(2.0), _nothing),
    Fault("data", "Redis killed, back with its data", _redis, _kill_with_data, _restart_with(_DATA)),
    Fault("empty", "Redis killed, back without data", _redis, _kill, _restart_with(None)),
    Fault("old", "Redis killed, back with old data", _redis, _kill_with_old_data, _restart_with(_OLD)),
    Fault("cut", "cut off from Redis for less than a lease", _redis, _cut_for_short, _mend),
    Fault("long-cut", "cut off from Redis for more than a lease", _redis, _cut_for_long, _mend, exceeds=True),
    Fault(
        "one-cut",
        "one replica cut off for more than a lease",
        _redis,
        _cut_one_for_long,
        _mend,
        admits=True,
        exceeds=True,
    ),
    Fault(
        "cut-local",
        "cut off, `WSPROXY_STATE_UNAVAILABLE=local`",
        _redis,
        _cut_for_short,
        _mend,
        admits=True,
        exceeds=True,
        settings={"WSPROXY_STATE_UNAVAILABLE": "local"},
    ),
    Fault("latency", "5 s of latency, more than a lease", _redis, _delay, _mend, exceeds=True),
    Fault("memory", "Redis has no memory left", _redis, _fill_memory, _free_memory),
    Fault("evicting", "Redis may evict keys", _redis, _evict, _nothing, admits=True),
    Fault("flood", "failed attempts from many addresses", _redis, _flood, _nothing),
    Fault("killed", "a replica killed", _redis, _kill_replica, _nothing, admits=True),
    Fault(
        "paused",
        "a replica stopped for more than a lease",
        _redis,
        _pause_replica,
        _resume_replica,
        admits=True,
        exceeds=True,
    ),
    Fault("local-killed", "the store of `local` killed", LocalStore, _kill_local, _nothing),
    Fault("local-paused", "the store of `local` stopped", LocalStore, _pause_local, _resume_local),
    Fault(
        "namespace",
        "Redis' network namespace without a link for more than a lease",
        RedisInNamespace,
        _cut_namespace,
        _mend_namespace,
        exceeds=True,
    ),
    Fault("failover", "failover right after a kick", RedisWithSentinels, _fail_over, _look_for_kicked),
)
