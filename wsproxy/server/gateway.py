"""What all sessions of one server share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Protocol

from ..access.admission import Admission
from ..access.control import AccessControl
from ..access.hooks import Hooks
from ..access.revoked_sessions import end_revoked
from ..access.sessions import LiveSessions
from ..admin.kick import Kicks
from ..config import Config
from ..net.resolver import Resolver
from ..net.shared_copy import ALONE, CopyOf
from ..net.tls_context import ServerTLS
from ..relay.poller import Poller
from ..relay.relay import RelayLimits
from ..runtime.deadline import Clock
from ..runtime.logs import get_logger
from ..runtime.timers import ClockWatch, Housekeeping
from ..runtime.wall_clock import WallClock, unix_time
from ..state.limits import Limits
from ..state.participant.copies import Copies
from ..state.participant.participant import Participant
from ..state.revocations import Rule
from ..state.stores.choice import open_store
from ..state.stores.places import LOCAL, MEMORY, StatePlace, StateRules
from ..state.stores.rule_file import open_rule_file
from ..state.tickets import Tickets
from ..telemetry.audit import AuditLog
from ..telemetry.counters import Counters, LabelledCount, lost_lines
from ..telemetry.failures import Failures
from ..telemetry.line_writer import lines_lost_of_program_log
from ..telemetry.reports import Reports
from ..tokens.key_store import KeyStore
from ..tokens.verifier import TokenVerifier
from ..upstream.dialler import Dialler
from ..upstream.given_up import GivenUpDials
from ..upstream.readiness import Readiness
from ..web import endpoints
from ..web.in_flight import InFlight
from ..web.screenshot_cache import Screenshots
from ..web.screenshots import ScreenshotSource
from ..web.static_files import StaticFiles

__all__ = ["Gateway", "check_files", "needs_copies", "needs_store"]

logger = get_logger("wsproxy.gateway")

_NO_HOOKS = Hooks()


def check_files(config: Config) -> StaticFiles:
    """Read every file that the settings name, and log which are missing. Blocks on the file system.

    :returns: the files that are served to browsers.
    :raises ConfigError: as :class:`Gateway` does, which reads the same files.
    """
    if config.server_tls:
        ServerTLS(config.server_tls)
    files, resolver = StaticFiles(config.file_rules), Resolver()
    KeyStore(config.key_rules, resolver)
    AuditLog(config.audit_log)
    Dialler(config.upstream_rules, resolver)
    if missing := files.missing:
        logger.warning("%s", missing)
    return files


class Vital(Protocol):
    """An object with a thread that all sessions need."""

    @property
    def is_healthy(self) -> bool: ...


class Gateway:
    """What all sessions of one server share.

    :param config: the settings.
    :param hooks: the callbacks of the embedding program.
    :param clock: seconds, for everything that housekeeping calls.
    :param wall_clock: UNIX time, seconds, by which tokens expire; an administrator may set it.
    :param copies: where processes find what they fetch for each other, as the setting ``state``, if not
        where they share the rest; "" for nowhere.
    :ivar tls: TLS towards clients, None if they connect without TLS.
    :ivar files: the files that are served to browsers.
    :ivar pictures: answers requests for screenshots.
    :ivar in_flight: bounds the requests without an upgrade that are being answered.
    :ivar sessions: the sessions that are open or being opened.
    :ivar failures: reports every unexpected exception.
    :ivar wall_clock: UNIX time that never goes back.
    :ivar clock_watch: makes housekeeping call the sessions when the UNIX time jumps.
    :ivar given_up: requests that the proxy has given up, but that the API may still carry out.
    :ivar admits: whether new sessions may be opened.
    :ivar vital: the objects with threads that all sessions need, the accept loop included; see
        :attr:`is_healthy`.
    :ivar on_reload: the functions that :meth:`reload` calls. They may block on the file system.
    :raises ConfigError: if the TLS options of either side are wrong, or if a file or a directory that the
        settings name cannot be used.
    """

    def __init__(
        self,
        config: Config,
        hooks: Hooks = _NO_HOOKS,
        clock: Clock = time.monotonic,
        wall_clock: Clock = unix_time,
        copies: str = "",
    ) -> None:
        self.config = config
        self.hooks = hooks
        self.admits = True
        self.wall_clock = WallClock(wall_clock)
        self.sessions = LiveSessions()
        self.tls = ServerTLS(config.server_tls) if config.server_tls else None
        self.files = StaticFiles(config.file_rules)
        self.resolver = Resolver()
        self.keys = KeyStore(config.key_rules, self.resolver)
        self.verifier = TokenVerifier(self.keys, config.claim_rules, self.wall_clock)
        self.limits = Limits(config.limit_rules, clock)
        self.participant = self._participant(clock)
        self._own_copies = _own_copies(copies)
        self.tickets = Tickets(self.participant, self.wall_clock) if config.tickets else None
        self.audit = AuditLog(config.audit_log)
        self.counters = Counters(self.limits.hits, self._lost_lines, lambda: self.participant.numbers)
        self.failures = Failures(self.counters, clock)
        self.access = self._access_control()
        self.dialler = Dialler(config.upstream_rules, self.resolver)
        self.clock = clock
        self.housekeeping = Housekeeping(clock)
        self.clock_watch = ClockWatch(self.wall_clock, self.housekeeping)
        self.poller = Poller() if Poller.available else None
        self.reports = Reports(self.counters, self.audit)
        self.given_up = GivenUpDials(self.housekeeping, clock)
        self.in_flight = InFlight()
        self._screenshots = Screenshots(clock)
        self.pictures = self._picture_source()
        self.readiness = Readiness(self.dialler)
        self.admission = Admission(config.max_pending, self.counters, self.housekeeping)
        self.relay_limits = RelayLimits(config.close_timeout, config.ping_interval, config.max_frame_size)
        self.on_reload = self._reload_steps()
        vital = (self.housekeeping, self.poller, self.participant.heartbeat)
        self.vital: list[Vital] = [one for one in vital if one is not None]

    def _participant(self, clock: Clock) -> Participant:
        config = self.config
        return Participant(
            open_store(config.state_rules) if config.is_state_shared else None,
            config.participant_rules,
            self.limits,
            self._end_revoked,
            clock,
            self.wall_clock,
            open_rule_file(config.state_rules),
            lambda seconds: self.counters.beat(seconds),
        )

    def _picture_source(self) -> ScreenshotSource:
        """Return what answers requests for screenshots. No screenshot goes to a store of several hosts."""
        is_on_host = self.config.state_rules.place.kind == LOCAL
        return ScreenshotSource(
            self.config.picture_rules,
            self.access,
            self.dialler,
            self._screenshots,
            self.counters,
            self.clock,
            _copy_of(self._own_copies or (self.participant.copies if is_on_host else None)),
        )

    def _access_control(self) -> AccessControl:
        return AccessControl(
            self.config.access_rules,
            self.verifier,
            self.tickets,
            self.hooks.authorize,
            self.limits,
            self.participant.known.is_revoked,
            self.failures.report,
            self.wall_clock,
        )

    def _end_revoked(self, rules: list[Rule]) -> list[Rule]:
        return end_revoked(self.sessions, self.participant.known, rules)

    def _reload_steps(self) -> list[Callable[[], None]]:
        steps = [self.keys.reload, self.dialler.reload, self.audit.open, self.files.reload]
        return [*steps, self.tls.reload] if self.tls else steps

    @property
    def is_healthy(self) -> bool:
        """Whether all threads work that every session needs. Any thread; does not block."""
        return all(loop.is_healthy for loop in list(self.vital))

    def answer(self, request: endpoints.HTTPRequest, pictures: endpoints.Pictures) -> bytes:
        """See :func:`.endpoints.answer`."""
        rules, healthy = self.config.endpoint_rules, self.is_healthy
        status = self.participant.status
        return endpoints.answer(
            request, rules, self.access, self.readiness, self.files, pictures, healthy, status
        )

    def kicks(self) -> Kicks:
        """Return what lists and ends sessions for the operator."""
        return Kicks(self.sessions, self.participant, self.verifier, self.reports)

    def reload(self) -> None:
        """Read keys and certificates again, and reopen log files; open sessions continue.

        If a new file cannot be used, the proxy logs one error and keeps what it had. Any thread, but never in
        a signal handler. Blocks on the file system only.
        """
        for step in self.on_reload:
            try:
                step()
            except Exception:  # noqa: BLE001 - a bug in one step must not stop the others
                self.failures.report(logger, "reloading failed")

    def start(self) -> None:
        """Start the threads that all sessions share. Call it once only.

        Blocks only if processes share a store: until this one is in step, for a few seconds at most.

        :raises ConfigError: if the store answers, and is unfit.
        """
        self.audit.open()
        self.housekeeping.start(self)
        self.housekeeping.add(self.clock_watch)
        self.participant.start(self)
        # In step, it learns what others have fetched.
        self.keys.start(self, _copy_of(self.participant.copies or self._own_copies))
        if self.poller:
            self.poller.start(self)
            self.housekeeping.add(self.poller)
        if self.config.screenshots:
            self.housekeeping.add(self._screenshots)

    def stop(self) -> None:
        """End the threads that all sessions share. Call it after the last session has ended.

        Blocks for a few timeouts of the store at most, if processes share one, and on the file system.
        """
        if self.poller:
            self.poller.stop()
        self.keys.stop()
        self.participant.stop()
        if self._own_copies:
            self._own_copies.close()
        self.given_up.stop()
        self.housekeeping.stop()
        self.audit.close()

    def _lost_lines(self) -> LabelledCount:
        return lost_lines(lines_lost_of_program_log(), self.audit.lost)

    def stop_resolving(self) -> None:
        """Fail every wait for a name, a key or a screenshot, now and later. Idempotent.

        Blocks for at most a second.
        """
        self.pictures.stop()
        self.keys.stop_waiting()
        self.resolver.stop()


def needs_store(config: Config) -> list[str]:
    """Return the settings that workers need a store in common for, and name none."""
    return [] if config.is_state_shared else config.needs_one_truth


def needs_copies(config: Config) -> bool:
    """Whether processes of one host save work by a store for nothing but what they fetch for each other."""
    place, location = config.state_rules.place, config.jwks_location
    fetches_keys = place.kind == MEMORY and location is not None and location.url is not None
    return place.kind != LOCAL and (config.screenshots or fetches_keys)


def _copy_of(copies: Copies | None) -> CopyOf:
    return copies.copy_of if copies else lambda *_: ALONE


def _own_copies(state: str) -> Copies | None:
    """Return what processes have together in a store for nothing else; None without one."""
    if not state:
        return None
    return Copies(open_store(StateRules(StatePlace.parse(state))), secrets.token_hex(8))
