"""The settings of limits: of time, of size, and of how many. No I/O."""

from __future__ import annotations

from ..protocol.request import MAX_HEAD_SIZE
from .setting import Group, Setting, within

__all__ = ["NUMBERS", "SIZES", "TIMES"]

_MIN_FRAME_SIZE = 65536
_MAX_HEAD_SIZE = 128 * 1024  # each client that has not authenticated may cost as much
_MIN_PENDING = 8
_ANY_NUMBER = "0: any number"

TIMES = Group(
    "Time limits",
    (
        Setting(
            "request_timeout",
            "Timeout",
            10.0,
            "Time in which a client has to send its whole request, and in which a refusal has to be sent.",
            unit="seconds",
        ),
        Setting(
            "close_timeout",
            "Timeout",
            5.0,
            "Time in which a session ends, from the first cause.",
            unit="seconds",
        ),
        Setting(
            "ping_interval",
            "Timeout",
            25.0,
            "Time between pings to the client, and to the API. A side that is silent for two of them counts "
            "as dead.",
            unit="seconds",
        ),
        Setting(
            "grace",
            "float",
            0.0,
            "Time by which a session outlives its token; `inf` for ever.",
            unit="seconds",
            check=within(0, None, "it must be seconds, {} or more, or inf"),
        ),
        Setting(
            "idle_timeout",
            "Age",
            0.0,
            "Time for which a client may send no data; 0 for ever.",
            shown_default="0: for ever",
            unit="seconds",
        ),
        Setting(
            "max_age",
            "Age",
            0.0,
            "Longest time that a session may last; 0 for ever.",
            shown_default="0: for ever",
            unit="seconds",
        ),
    ),
)

SIZES = Group(
    "Sizes",
    (
        Setting(
            "max_frame_size",
            "int",
            16 * 1024 * 1024,
            "Largest payload of a WebSocket frame, 65536 or more.",
            unit="bytes",
            check=within(_MIN_FRAME_SIZE, None, "KubeVirt needs {} bytes or more"),
        ),
        Setting(
            "max_head_size",
            "int",
            MAX_HEAD_SIZE,
            "Largest head of a request, 16384 to 131072. Raise it if cookies, or a login in front, make "
            "heads larger.",
            unit="bytes",
            check=within(MAX_HEAD_SIZE, _MAX_HEAD_SIZE),
        ),
    ),
)

NUMBERS = Group(
    "How many",
    (
        Setting(
            "max_pending",
            "int",
            512,
            "Clients of one process that may be connected without having authenticated, 8 or more.",
            check=within(_MIN_PENDING, None, "it must be {} or more"),
        ),
        Setting(
            "max_sessions",
            "Count",
            0,
            "Sessions in all. This limit and the next four need one worker.",
            shown_default=_ANY_NUMBER,
        ),
        Setting(
            "max_sessions_per_user",
            "Count",
            0,
            "Sessions of one user, as the token names the user.",
            shown_default=_ANY_NUMBER,
        ),
        Setting(
            "max_sessions_per_vmi",
            "Count",
            0,
            "Sessions with one subresource of one VM.",
            shown_default=_ANY_NUMBER,
        ),
        Setting(
            "max_pending_per_address",
            "Count",
            0,
            "Clients from one address that may be connected without having authenticated.",
            shown_default=_ANY_NUMBER,
        ),
        Setting(
            "max_failures",
            "Count",
            0,
            "Attempts from one address that may fail to authenticate in a minute.",
            shown_default=_ANY_NUMBER,
        ),
    ),
)
