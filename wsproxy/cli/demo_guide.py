"""What ``wsproxy demo`` tells the person in front of it: a URL for each state of a console."""

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
    """One thing to see: what it is, and what stands behind the page's ``#``."""

    words: str
    fragment: str


class Guide:
    """URLs and words.

    :param secret: the proxy's, by which the tokens are signed.
    :param machines: what the tokens are for.
    :ivar token: a token for all machines.
    """

    def __init__(self, secret: str, machines: Machines) -> None:
        self._machines = machines
        self.token = self._token(secret, _STUDENT, _HOUR, MAIN, SECOND, SLEEPER, SERIAL)
        sleeper = machines.sleeper
        self._states = (
            _State("a desktop that moves, and the choice of all VMs of the token", f"{self.token}/{MAIN}"),
            _State("another desktop", f"{self.token}/{SECOND}"),
            _State(
                f"a VM that is stopped: it starts {sleeper.starts_after:.0f} s after somebody asks for it, "
                f"runs for {sleeper.runs_for:.0f} s, and stops",
                f"{self.token}/{SLEEPER}",
            ),
            _State(
                f"a token that runs out {_SOON} s after the start of this program",
                f"{self._token(secret, _STUDENT, _SOON, EXAM)}/{EXAM}",
            ),
            _State(
                f"{_TEACHER} takes {MAIN} over: open the first one before",
                f"{self._token(secret, _TEACHER, _HOUR, MAIN)}/{MAIN}",
            ),
            _State(f"a serial console; user and password are {LOGIN}", f"{self.token}/{SERIAL}/console"),
            _State("a token that nobody has signed", f"{self.token[:-8]}AAAAAAAA/{MAIN}"),
        )

    def urls(self, address: tuple[str, int]) -> list[str]:
        """Return the page's URLs, one for each state, that of the first desktop first.

        :param address: the proxy's.
        """
        return [self._url(address, state) for state in self._states]

    def text(self, address: tuple[str, int]) -> str:
        """Return what to tell once the proxy listens.

        :param address: the proxy's.
        """
        host, port = address
        path = f"{self.token}/{MAIN}"
        states = "\n\n".join(f"  {state.words}\n    {self._url(address, state)}" for state in self._states)
        return f"""\
wsproxy demo: no cluster, no real VM, loopback only. Do not put this on a network.

Open these in a browser:

{states}

In place of the Kubernetes API is a stand-in at {self._machines.api.url}.
Other clients get to it through the proxy, too:

  any WebSocket client
    ws://{host}:{port}/{path}

  any noVNC, served from wherever
    vnc.html?host={host}&port={port}&path={path}&autoconnect=1

Ctrl-C stops it."""

    def _token(self, secret: str, user: str, seconds: int, *vmis: str) -> str:
        return make_token(
            secret, namespace=NAMESPACE, vmis=vmis, user=user, expires_in=seconds, lab_id="demo"
        )

    def _url(self, address: tuple[str, int], state: _State) -> str:
        return "http://{}:{}/console/#{}".format(*address, state.fragment)
