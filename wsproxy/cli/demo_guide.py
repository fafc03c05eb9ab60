"""The text that ``wsproxy demo`` prints: a URL for each state of a console."""

from __future__ import annotations

from dataclasses import dataclass

from ..tokens.issue import make_token
from .demo_machines import EXAM, LOGIN, MAIN, NAMESPACE, SECOND, SERIAL, SLEEPER, Machines

__all__ = ["Guide"]

_HOUR = 3600
_SOON = 90
_STUDENT, _TEACHER = "student", "teacher"


@dataclass(frozen=True)
class _State:
    """A state of a console: its description, and the fragment of its URL."""

    words: str
    fragment: str


class Guide:
    """The URLs of the demo, and the text around them.

    :param secret: the proxy's secret, which signs the tokens.
    :param machines: the machines that the tokens allow.
    :ivar token: a token for all machines except the exam's.
    """

    def __init__(self, secret: str, machines: Machines) -> None:
        self._machines = machines
        self.token = self._token(secret, _STUDENT, _HOUR, MAIN, SECOND, SLEEPER, SERIAL)
        sleeper = machines.sleeper
        self._states = (
            _State("a desktop that moves, and a menu with all VMs of the token", f"{self.token}/{MAIN}"),
            _State("another desktop", f"{self.token}/{SECOND}"),
            _State(
                f"a stopped VM: it starts {sleeper.starts_after:.0f} s after a client asks for it, runs for "
                f"{sleeper.runs_for:.0f} s, and stops",
                f"{self.token}/{SLEEPER}",
            ),
            _State(
                f"a token that expires {_SOON} s after the start of this program",
                f"{self._token(secret, _STUDENT, _SOON, EXAM)}/{EXAM}",
            ),
            _State(
                f"{_TEACHER} takes {MAIN} over: first open the first URL",
                f"{self._token(secret, _TEACHER, _HOUR, MAIN)}/{MAIN}",
            ),
            _State(f"a serial console; user and password are {LOGIN}", f"{self.token}/{SERIAL}/console"),
            _State("a token with a wrong signature", f"{self.token[:-8]}AAAAAAAA/{MAIN}"),
        )

    def urls(self, address: tuple[str, int]) -> list[str]:
        """Return the page's URLs, one for each state. The first one is that of the first desktop.

        :param address: the proxy's address.
        """
        return [self._url(address, state) for state in self._states]

    def text(self, address: tuple[str, int]) -> str:
        """Return the text to print when the proxy listens.

        :param address: the proxy's address.
        """
        host, port = address
        path = f"{self.token}/{MAIN}"
        states = "\n\n".join(f"  {state.words}\n    {self._url(address, state)}" for state in self._states)
        return f"""\
wsproxy demo: a simulated cluster, on loopback only. Do not expose it to a network.

Open these in a browser:

{states}

The simulated Kubernetes API listens at {self._machines.api.url}.
Other clients also reach it through the proxy:

  any WebSocket client
    ws://{host}:{port}/{path}

  any noVNC, served from any host
    vnc.html?host={host}&port={port}&path={path}&autoconnect=1

Ctrl-C stops it."""

    def _token(self, secret: str, user: str, seconds: int, *vmis: str) -> str:
        return make_token(
            secret, namespace=NAMESPACE, vmis=vmis, user=user, expires_in=seconds, lab_id="demo"
        )

    def _url(self, address: tuple[str, int], state: _State) -> str:
        return "http://{}:{}/console/#{}".format(*address, state.fragment)
