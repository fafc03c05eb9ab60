"""The simulated cluster of ``wsproxy demo``: its API, and the screens of its VMs."""

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
"""The user name, and also the password, of the machine with a serial console."""

_SIZE = (800, 600)
_LOOKS = {MAIN: "orbits", SECOND: "meter", SLEEPER: "orbits", EXAM: "still"}


class Sleeper:
    """Starts a VM some seconds after a client asks for it, and stops it later. This repeats.

    At first the VM is stopped. Any thread may call the methods.

    :param vmi: the VM.
    :ivar starts_after: seconds from the first request to the start.
    :ivar runs_for: seconds from the start to the stop, which drops the VM's sessions.
    """

    def __init__(self, vmi: FakeVMI, *, starts_after: float = 10.0, runs_for: float = 60.0) -> None:
        self.starts_after, self.runs_for = starts_after, runs_for
        self._vmi = vmi
        self._asked, self._closing = threading.Event(), threading.Event()
        vmi.phase = "Succeeded"
        self._thread = start_thread("demo-sleeper", self._run, self)

    def ask(self) -> None:
        """Note that a client wants the VM. Does not block."""
        self._asked.set()

    def close(self) -> None:
        """End the thread, and leave the VM as it is. Idempotent. Blocks until the thread has ended."""
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
            self._asked.clear()  # close() may just have set it, so the loop checks the other event, too
            self._vmi.drop_sessions()


@dataclass(frozen=True)
class Machines:
    """The simulated cluster of a running demo.

    :ivar desktops: the desktops by the names of their VMs. Only the VM with a serial console has none.
    """

    api: FakeKubeVirtAPI
    desktops: Mapping[str, Desktop]
    sleeper: Sleeper

    def show_facts(self, vmi: str, user: str, proxy: tuple[str, int]) -> None:
        """If a VM has a desktop, show on it which user is connected, and through which proxy and API.

        :param proxy: the proxy's address and port.
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
    """Return a desktop's screen as PNG. It redraws first, since a desktop without viewers does not move."""
    desktop.refresh()
    return desktop.screenshot().to_png()


@contextmanager
def machines() -> Iterator[Machines]:
    """Start the API and all VMs, and close them at the end of the ``with`` block."""
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
