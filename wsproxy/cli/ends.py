"""The end of a kick, as people write it. No I/O."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["end_time"]

_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_PART = re.compile("([0-9]+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_EXAMPLES = "give a time such as 2030-01-31T18:00:00Z, or a duration such as 30m, 2h or 7d"


def end_time(text: str, now: float) -> float:
    """Return the UNIX time that an RFC 3339 time, or a duration from now such as 1h30m, stands for.

    :param now: UNIX time.
    :raises ValueError: if it is neither, or not in the future. Its text says what to write.
    """
    if _DURATION.fullmatch(text):
        end = now + sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    else:
        end = _parsed(text)
    if end <= now:
        raise ValueError(f"it is over; {_EXAMPLES}")
    return end


def _parsed(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(_EXAMPLES)
    date, clock, fraction, zone = found.groups()
    if zone is None:
        raise ValueError("it has no time zone; end it with Z, or an offset such as +01:00")
    zone = "+00:00" if zone in "Zz" else zone
    try:
        seconds = datetime.fromisoformat(f"{date}T{clock}{zone}").timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"there is no such time; {_EXAMPLES}") from None
    return seconds + float(fraction or 0)
