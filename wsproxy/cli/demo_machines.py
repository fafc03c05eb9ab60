"""The machines of ``wsproxy demo``: a stand-in for the Kubernetes API, and what its VMs show."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from ..runtime.threads import start_thread
from ..testing import Desktop, FakeKubeVirtAPI, FakeVMI, LoginShell, SocketBackend

__all__ = [
    "EXAM",
    "LOGIN",
    "MAIN",
    "NAMESPACE",
    "SECOND",
    "SERIAL",
    "SLEEPER",
    "Machines",
    "Sleeper",
    "machines",
]

NAMESPACE = "demo"
MAIN, SECOND, SLEEPER, EXAM, SERIAL = "ubuntu", "fedora", "debian", "exam", "router"
LOGIN = "student"
"""User and password of the machine with a serial console."""

_SIZE = (800, 600)
_LOOKS = {MAIN: "orbits", SECOND: "meter", SLEEPER: "orbits", EXAM: "still"}


class Sleeper:
    """Makes a VM start some seconds after somebody asked for it, and stop a while later, again and again.

    It is stopped at first. All methods may be called from any thread.

    :param vmi: the VM.
    :ivar starts_after: seconds from the first request to the start.
    :ivar runs_for: seconds from there to the stop, which drops its sessions.
    """

    def __init__(self, vmi: FakeVMI, *, starts_after: float = 10.0, runs_for: float = 60.0) -> None:
        self.starts_after, self.runs_for = starts_after, runs_for
        self._vmi = vmi
        self._asked, self._closing = threading.Event(), threading.Event()
        vmi.phase = "Succeeded"
        self._thread = start_thread("demo-sleeper", self._run, self)

    def ask(self) -> None:
        """Note that somebody wants the VM. Does not block."""
        self._asked.set()

    def close(self) -> None:
        """Leave the VM as it is, and end the thread. Idempotent; blocks for a moment."""
        self._closing.set()
        self._asked.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._asked.wait()
            if self._closing.wait(self.starts_after):
                return
            self._vmi.phase = "Running"
            if self._closing.wait(self.runs_for):
                return
            self._vmi.phase = "Succeeded"
            self._asked.clear()  # perhaps what close() has just set; hence the look at the other event
            self._vmi.drop_sessions()


@dataclass(frozen=True)
class Machines:
    """What there is while a demo runs.

    :ivar desktops: by the names of their VMs; all VMs but the one with a serial console have one.
    """

    api: FakeKubeVirtAPI
    desktops: Mapping[str, Desktop]
    sleeper: Sleeper

    def show_facts(self, vmi: str, user: str, proxy: tuple[str, int]) -> None:
        """Have a VM's desktop, if it has one, show who got to it, and how.

        :param proxy: its address and port.
        """
        if desktop := self.desktops.get(vmi):
            desktop.set_facts(
                {
                    "VMI": f"{NAMESPACE}/{vmi}",
                    "user": user,
                    "proxy": "{}:{}, token checked".format(*proxy),
                    "API": f"{self.api.url.partition('//')[2]}, TLS and bearer token",
                }
            )


def _png(desktop: Desktop) -> bytes:
    """Return what a desktop shows, also if nobody looks and so nothing has moved."""
    desktop.refresh()
    return desktop.screenshot().to_png()


@contextmanager
def machines() -> Iterator[Machines]:
    """Start the API and all VMs; afterwards everything is closed."""
    with ExitStack() as stack:
        desktops = {
            name: stack.enter_context(Desktop(name, size=_SIZE, look=look)) for name, look in _LOOKS.items()
        }
        shell = stack.enter_context(LoginShell(SERIAL, LOGIN, LOGIN))
        api = stack.enter_context(FakeKubeVirtAPI())
        vmis = {
            name: api.add_vmi(
                name,
                NAMESPACE,
                backend=SocketBackend(desktop.serve),
                serial=False,
                screen=partial(_png, desktop),
            )
            for name, desktop in desktops.items()
        }
        api.add_vmi(SERIAL, NAMESPACE, console_backend=SocketBackend(shell.serve), display=False)
        sleeper = Sleeper(vmis[SLEEPER])
        stack.callback(sleeper.close)
        yield Machines(api, desktops, sleeper)
