"""The settings that limit times, sizes and numbers. No I/O."""

from __future__ import annotations

from ..protocol.request import MAX_HEAD_SIZE
from .setting import Group, Setting, within

__all__ = ["NUMBERS", "SIZES", "TIMES"]

_MIN_FRAME_SIZE = 65536
_MAX_HEAD_SIZE = 128 * 1024  # each client that has not authenticated may occupy this much memory
_MIN_PENDING = 8
_NO_LIMIT = "0: no limit"

TIMES = Group(
    "Time limits",
    (
        Setting(
            "request_timeout",
            "Timeout",
            10.0,
            "Time in which a client must send its whole request. It also bounds the sending of a refusal.",
            unit="seconds",
        ),
        Setting(
            "close_timeout",
            "Timeout",
            5.0,
            "Time in which a session must end, from the first cause on.",
            unit="seconds",
        ),
        Setting(
            "ping_interval",
            "Timeout",
            25.0,
            "Time between pings to the client, and to the API. If either side is silent for two intervals, "
            "the proxy treats it as dead.",
            unit="seconds",
        ),
        Setting(
            "grace",
            "float",
            0.0,
            "Time for which a session may continue after its token expires. `inf` means no limit.",
            unit="seconds",
            check=within(0, None, "it must be {} seconds or more, or inf"),
        ),
        Setting(
            "idle_timeout",
            "Age",
            0.0,
            "Time after which the proxy ends a session whose client sends no data.",
            shown_default=_NO_LIMIT,
            unit="seconds",
        ),
        Setting(
            "max_age",
            "Age",
            0.0,
            "Longest duration of a session.",
            shown_default=_NO_LIMIT,
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
            "Largest payload of a WebSocket frame, at least 65536.",
            unit="bytes",
            check=within(_MIN_FRAME_SIZE, None, "KubeVirt needs {} bytes or more"),
        ),
        Setting(
            "max_head_size",
            "int",
            MAX_HEAD_SIZE,
            "Largest head of a request, 16384 to 131072. Raise it if cookies or a login proxy make heads "
            "larger.",
            unit="bytes",
            check=within(MAX_HEAD_SIZE, _MAX_HEAD_SIZE),
        ),
    ),
)

NUMBERS = Group(
    "Numbers of clients and sessions",
    (
        Setting(
            "max_pending",
            "int",
            512,
            "Maximum number of clients of one process that are connected and have not authenticated. At "
            "least 8.",
            check=within(_MIN_PENDING, None, "it must be {} or more"),
        ),
        Setting(
            "max_sessions",
            "Count",
            0,
            "Maximum number of sessions in total, in all processes that share `state`.",
            shown_default=_NO_LIMIT,
        ),
        Setting(
            "max_sessions_per_user",
            "Count",
            0,
            "Maximum number of sessions of one user. The token names the user.",
            shown_default=_NO_LIMIT,
        ),
        Setting(
            "max_sessions_per_vmi",
            "Count",
            0,
            "Maximum number of sessions with one subresource of one VM.",
            shown_default=_NO_LIMIT,
        ),
        Setting(
            "max_pending_per_address",
            "Count",
            0,
            "Maximum number of clients of one address that are connected and have not authenticated.",
            shown_default=_NO_LIMIT,
        ),
        Setting(
            "max_failures",
            "Count",
            0,
            "Maximum number of failed attempts to authenticate from one address in a minute.",
            shown_default=_NO_LIMIT,
        ),
    ),
)
