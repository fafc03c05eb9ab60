"""A virtual machine instance of the simulated cluster, and virt-api's refusals for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..screen.png import encode_png
from .backends import Backend
from .console import FakeConsole
from .hanging import Hanging
from .http import Answer, Behaviour, in_use_answer, status_answer

__all__ = ["FakeVMI", "vmi_not_found"]


def _bad_request(message: str) -> Answer:
    return status_answer(400, "BadRequest", message)


def _grey() -> bytes:
    return encode_png(32, 24, bytes([0x80]) * 32 * 24 * 3)


def _details(name: str) -> dict[str, str]:
    return {"name": name, "group": "kubevirt.io", "kind": "virtualmachineinstance"}


def vmi_not_found(name: str) -> Answer:
    """Return virt-api's answer for a VMI that does not exist."""
    message = f'virtualmachineinstance.kubevirt.io "{name}" not found'
    return status_answer(404, "NotFound", message, _details(name))


class FakeVMI:
    """A VMI. ``FakeKubeVirtAPI.add_vmi`` makes it, and a test may change its state while the API serves.

    :ivar backend: serves every subresource, except the serial console if there is a ``console_backend``.
    :ivar screen: returns its screen as a PNG file's bytes.
    :ivar phase: ``Running``, ``Scheduled``, ``Failed``, ...
    :ivar display: whether it has a graphics device.
    :ivar serial: whether it has a serial console.
    :ivar in_use: whether the API answers ``preserveSession=true`` as if another client had the display.
    :ivar behaviour: how the API misbehaves for this VMI; None for the API's own behaviour. When this changes,
        the API carries out the requests that hung, even if their clients have disconnected.
    :ivar consoles: all its sessions so far, in the order in which they started.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        backend: Backend,
        changed: threading.Condition,
        *,
        console_backend: Backend | None = None,
        screen: Callable[[], bytes] | None = None,
        phase: str = "Running",
        display: bool = True,
        serial: bool = True,
        behaviour: Behaviour | None = None,
        hanging: Hanging | None = None,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.backend = backend
        self.console_backend = console_backend
        self.screen = screen or _grey
        self.phase = phase
        self.display = display
        self.serial = serial
        self.in_use = False
        self._behaviour = behaviour
        self._hanging = hanging or Hanging(changed)
        self.consoles: list[FakeConsole] = []
        # The API's condition. It guards consoles, _live and _waited_for.
        self._changed = changed
        self._live: list[FakeConsole] = []
        self._waited_for = 0

    @property
    def behaviour(self) -> Behaviour | None:
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour | None) -> None:
        self._behaviour = behaviour
        self._hanging.recover()

    @property
    def sessions(self) -> list[FakeConsole]:
        """The live sessions."""
        with self._changed:
            return list(self._live)

    def wait_for_session(self, timeout: float = 10.0) -> FakeConsole:
        """Wait for the next session that no earlier call returned, and return it. It may be over already.

        :param timeout: seconds.
        :raises TimeoutError: if none starts in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.consoles) > self._waited_for, timeout):
                where = f"{self.namespace}/{self.name}"
                before = f"there were {self._waited_for} before" if self._waited_for else "nor any before"
                raise TimeoutError(f"no session with {where} began within {timeout:g} s, {before}")
            self._waited_for += 1
            return self.consoles[self._waited_for - 1]

    def drop_sessions(self) -> None:
        """Drop the connection of every live session without a Close frame, as when a VM stops."""
        for console in self.sessions:
            console.kill()

    def backend_for(self, subresource: str) -> Backend:
        """Return the backend that serves a subresource."""
        if subresource == "console" and self.console_backend is not None:
            return self.console_backend
        return self.backend

    def refusal(self, subresource: str, preserve: bool, *, vague: bool = False) -> Answer | None:
        """Return virt-api's refusal of a session; None if it accepts the session.

        :param preserve: whether the request must not end a live session (``preserveSession``).
        :param vague: whether the refusal omits its reason, as KubeVirt 1.6.3 does.
        """
        if subresource == "console":
            return self._console_refusal()
        if subresource == "vnc" and not self.display:
            return _bad_request("No graphics devices are present.")
        if self.phase != "Running":
            return _bad_request("VMI is not running")
        if subresource == "vnc" and preserve and self._display_in_use():
            return in_use_answer(vague)
        return None

    def _console_refusal(self) -> Answer | None:
        if not self.serial:
            return _bad_request("No serial consoles are present.")
        if self.phase == "Failed":
            resource = f'virtualmachineinstance.kubevirt.io "{self.name}"'
            message = f"Operation cannot be fulfilled on {resource}: VMI is in failed status"
            return status_answer(409, "Conflict", message, _details(self.name))
        return None if self.phase == "Running" else _bad_request("VMI is not running")

    def _display_in_use(self) -> bool:
        vnc = (console for console in self.sessions if console.subresource == "vnc")
        return self.in_use or not all(console.is_over for console in vnc)

    def begin(self, console: FakeConsole) -> list[FakeConsole]:
        """Add a session. Returns the live sessions of the same subresource, which it takes over."""
        with self._changed:
            taken_over = [other for other in self._live if other.subresource == console.subresource]
            self.consoles.append(console)
            self._live.append(console)
            self._changed.notify_all()
        return taken_over

    def end(self, console: FakeConsole) -> None:
        """Remove a session that has ended."""
        with self._changed:
            self._live.remove(console)
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<FakeVMI {self.namespace}/{self.name} {self.phase}>"
