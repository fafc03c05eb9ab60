"""Says which version of the revocation rules others have to apply, also while a store begins anew."""

from __future__ import annotations

from typing import NamedTuple

from .shared_link import SharedLink

__all__ = ["RulesVersion", "has_heard_all"]


class RulesVersion(NamedTuple):
    """A version of the revocation rules, and the epoch in which the process asked for it."""

    epoch: str
    number: int

    def now(self, link: SharedLink) -> RulesVersion:
        """Return the version that has what this one had, whose epoch may be over."""
        pulse = link.pulse
        return (
            self if pulse is None or pulse.epoch == self.epoch else RulesVersion(pulse.epoch, pulse.version)
        )


def has_heard_all(link: SharedLink, version: int) -> bool:
    """Ask whether the store has heard from all processes since it began; True if this one cannot tell.

    Any thread. If it has not, the process beats at once.

    :param version: one of the rules that the store has.
    :raises StoreUnavailable: if it is away.
    """
    pulse = link.pulse
    if pulse is None:  # it has never been in step
        return True
    if pulse.settled and link.store.rules(version).epoch == pulse.epoch:
        return True
    link.beat_soon()
    return False
