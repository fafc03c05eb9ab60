"""One virtual machine instance of the stand-in API, and the refusals that virt-api has for it."""

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
    """A VMI whose state a test may change while the API serves.

    Made by ``FakeKubeVirtAPI.add_vmi``.

    :ivar backend: serves every subresource, but the serial console if ``console_backend`` is given.
    :ivar screen: returns its screen as the bytes of a PNG file.
    :ivar phase: ``Running``, ``Scheduled``, ``Failed``, ...
    :ivar display: whether it has a graphics device.
    :ivar serial: whether it has a serial console.
    :ivar in_use: answer ``preserveSession=true`` as if somebody else held the display.
    :ivar behaviour: how requests for it are mistreated; None leaves that to the API's. When it is changed,
        requests that hung because of it are carried out, those included that their clients gave up.
    :ivar consoles: every session it ever had, in the order of their start.
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
        # The API's condition: guards consoles, _live and _waited_for.
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
        """Return the next session that no earlier call returned, even if it is over already.

        :param timeout: seconds.
        :raises TimeoutError: if none starts in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.consoles) > self._waited_for, timeout):
                where = f"{self.namespace}/{self.name}"
                before = f"{self._waited_for} before it" if self._waited_for else "nor any before"
                raise TimeoutError(f"no session with {where} began within {timeout:g} s, {before}")
            self._waited_for += 1
            return self.consoles[self._waited_for - 1]

    def drop_sessions(self) -> None:
        """End every live session as KubeVirt does when the VM stops: TCP dropped, no Close frame."""
        for console in self.sessions:
            console.kill()

    def backend_for(self, subresource: str) -> Backend:
        """Return what serves a subresource."""
        if subresource == "console" and self.console_backend is not None:
            return self.console_backend
        return self.backend

    def refusal(self, subresource: str, preserve: bool, *, vague: bool = False) -> Answer | None:
        """Return virt-api's refusal of a session, None if it has no reason for one.

        :param preserve: whether a session that is live shall stay.
        :param vague: whether it says so in words that could mean anything.
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
        """Add a session; return those of the same subresource, which it takes over."""
        with self._changed:
            taken_over = [other for other in self._live if other.subresource == console.subresource]
            self.consoles.append(console)
            self._live.append(console)
            self._changed.notify_all()
        return taken_over

    def end(self, console: FakeConsole) -> None:
        """Remove a session that is over."""
        with self._changed:
            self._live.remove(console)
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<FakeVMI {self.namespace}/{self.name} {self.phase}>"
