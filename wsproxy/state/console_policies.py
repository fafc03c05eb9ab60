"""Finds a console's policy in the settings: what happens when a second client wants it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ..exceptions import ConfigError
from ..tokens.claims import matches

__all__ = ["ConsolePolicies", "Policy"]


class Policy(Enum):
    """What happens when a second client wants a console."""

    PASSTHROUGH = "passthrough"
    TAKEOVER = "takeover"
    REFUSE = "refuse"


class ConsolePolicies:
    """The policies of all consoles.

    :param texts: each is a policy for all consoles, or ``NAMESPACE/VMI=POLICY`` or
        ``NAMESPACE/VMI/SUBRESOURCE=POLICY``, where ``*`` stands for any characters. The first text that fits
        a console counts. If none fits, the policy is passthrough: KubeVirt decides.
    :raises ConfigError: listing every fault.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        found = [(text, _rule(text)) for text in texts]
        faults = [
            f"the console rule {text!r} is wrong; write passthrough, takeover or refuse, or a rule "
            "like NAMESPACE/VMI=refuse or NAMESPACE/VMI/vnc=refuse, where * stands for any characters"
            for text, rule in found
            if rule is None
        ]
        if faults:
            raise ConfigError(faults)
        self._rules = [rule for _, rule in found if rule is not None]

    def of(self, namespace: str, vmi: str, subresource: str) -> Policy:
        """Return the policy for one console."""
        names = (namespace, vmi, subresource)
        for patterns, policy in self._rules:
            if all(map(matches, patterns, names)):
                return policy
        return Policy.PASSTHROUGH

    @property
    def arbitrate(self) -> bool:
        """Whether any rule has another policy than passthrough."""
        return any(policy is not Policy.PASSTHROUGH for _, policy in self._rules)


def _rule(text: str) -> tuple[tuple[str, ...], Policy] | None:
    console, equals, name = text.strip().rpartition("=")
    patterns = console.split("/") if equals else ["*", "*", "*"]
    if len(patterns) == 2:
        patterns.append("*")
    if len(patterns) != 3 or not all(patterns) or name not in [policy.value for policy in Policy]:
        return None
    return tuple(patterns), Policy(name)
