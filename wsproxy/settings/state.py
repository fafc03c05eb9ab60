"""The settings of the state that processes share. No I/O."""

from __future__ import annotations

import re

from ..kinds import shown_url
from ..state.stores.places import StatePlace
from .setting import MASK, Group, Setting, within

__all__ = ["STATE"]

_MIN_LEASE, _MAX_LEASE = 0.3, 600
_MAX_NAME = 100


def _place_fault(text: str) -> str | None:
    try:
        StatePlace.parse(text)
    except ValueError as exc:
        return f"is {shown_url(text)}; {exc}"
    return None


def _masked(text: str) -> str:
    """Return a place as people may see it."""
    found = re.fullmatch(r"(?s)([^/]*://)([^@/?#]*)@(.*)", text)
    if found is None:
        return text
    user, colon, password = found[2].partition(":")
    return f"{found[1]}{user}{colon}{MASK if password else ''}@{found[3]}"


def _prefix_fault(text: str) -> str | None:
    if re.fullmatch(rf"[A-Za-z0-9._:/-]{{1,{_MAX_NAME}}}", text):
        return None
    return f"is {_shown(text)}; use 1 to {_MAX_NAME} letters, digits, or any of -_/:."


def _name_fault(text: str) -> str | None:
    if len(text) <= _MAX_NAME and text.isprintable():
        return None
    return f"is {_shown(text)}; use at most {_MAX_NAME} printable characters"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}...")


STATE = Group(
    "State that processes share",
    (
        Setting(
            "state",
            "str",
            "memory",
            "Where limits, tickets, consoles and revocations are kept. `memory` is in each process. "
            "`local:PATH` is a store for the processes of one host, at a Unix socket. `redis://`, "
            "`rediss://`, `redis+unix://`, `redis+sentinel://` and `redis+cluster://` URLs are a Redis or "
            "Valkey for all replicas.",
            value="memory|local:PATH|URL",
            check=_place_fault,
            mask=_masked,
        ),
        Setting(
            "state_unavailable",
            "str",
            "refuse",
            "What happens to new sessions while the store does not answer. With `refuse`, clients get 503. "
            "With `local`, each process counts for itself, and applies the revocations that it knows. So "
            "there may be more sessions than the limits allow, and no tickets.",
            choices=("refuse", "local"),
        ),
        Setting(
            "state_lease",
            "float",
            15.0,
            "Time after which the store forgets a process that is silent, with its sessions. 0.3 to 600.",
            unit="seconds",
            check=within(_MIN_LEASE, _MAX_LEASE, "it must be {} to {} seconds"),
        ),
        Setting(
            "state_group",
            "str",
            None,
            "Group whose members may use the store of `local:PATH`, too: a name or a number.",
            shown_default="the user of the first process alone",
            value="GROUP",
        ),
        Setting(
            "state_file",
            "str",
            None,
            "File in which a process with `memory` keeps revocations, so that they outlive a restart.",
            value="FILE",
        ),
        Setting(
            "state_prefix",
            "str",
            "wsproxy",
            "Beginning of the names of all keys in a Redis, so that several deployments can share it.",
            value="NAME",
            check=_prefix_fault,
        ),
        Setting(
            "state_ca_file",
            "str",
            None,
            "File with the certificate authorities (PEM) for a `rediss://` URL.",
            shown_default="the system's",
            value="FILE",
            reread=True,
        ),
        Setting(
            "state_password_file",
            "str",
            None,
            "File with the password of a Redis. The user's name is in the URL, such as `redis://USER@HOST`.",
            value="FILE",
            reread=True,
        ),
        Setting(
            "replica_name",
            "str",
            None,
            "Name of this replica in lists of sessions.",
            shown_default="the host's name",
            value="NAME",
            check=_name_fault,
        ),
    ),
)
