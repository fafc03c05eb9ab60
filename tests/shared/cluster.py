"""The simulated API, which counts the sessions that reached it: the truth, whatever clients are told."""

from __future__ import annotations

from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Echo
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.vmi import FakeVMI

__all__ = ["NAMESPACE", "CountingAPI"]

NAMESPACE = "lab-1"


class _SharedVMI(FakeVMI):
    """One that takes nobody's console away, as KubeVirt's port forwarding does."""

    def begin(self, console: FakeConsole) -> list[FakeConsole]:
        super().begin(console)
        return []


class CountingAPI(FakeKubeVirtAPI):
    """A simulated cluster without TLS, whose VMIs belong to groups.

    A group is the part of a VMI's name before the last hyphen.
    """

    def __init__(self) -> None:
        super().__init__(tls=False, namespace=NAMESPACE)

    def add_group(self, group: str, count: int) -> list[str]:
        """Add VMIs, and return their names."""
        names = [f"{group}-{number}" for number in range(count)]
        for name in names:
            self.add_vmi(name)
        return names

    def add_shared_vmi(self, name: str) -> None:
        """Add a VMI that serves several clients at a time."""
        vmi = _SharedVMI(name, self.namespace, Echo(), self._changed, hanging=self._hanging)
        with self._changed:
            self._vmis[self.namespace, name] = vmi

    def reached(self, group: str) -> int:
        """Return how many sessions with VMIs of a group were opened so far, those that ended included."""
        with self._changed:
            return sum(console.name.rpartition("-")[0] == group for console in self.consoles)

    def live_in(self, group: str) -> int:
        """Return how many sessions with VMIs of a group are open."""
        with self._changed:
            return sum(console.name.rpartition("-")[0] == group for console in self._live)
