"""What KubeVirt can do, by its version. No I/O of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..protocol.strict_json import parse_json
from ..runtime.deadline import Deadline

__all__ = ["kubevirt_version", "leaves_console_alone"]

_VERSION_SIZE = 64 * 1024
_VERSION_BRACKETS = 8
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.\d{1,4}(-(?:alpha|beta|rc)\b)?")
_SINCE = (1, 7)


def kubevirt_version(path: str, get: Callable[[str, int, Deadline], bytes], deadline: Deadline) -> str:
    """Return what KubeVirt says its version is; "" if it says something else.

    :param path: where the API says it; see :class:`.ApiPath`.
    :param get: as :meth:`.Dialler.get`.
    :raises Refused: if it cannot be asked.
    """
    try:
        found = parse_json(get(path, _VERSION_SIZE, deadline), _VERSION_BRACKETS)
    except ValueError:
        return ""
    version = found.get("gitVersion") if isinstance(found, dict) else None
    return version[:64] if isinstance(version, str) else ""


def leaves_console_alone(version: str) -> bool:
    """Whether a KubeVirt of this version takes pictures without the console.

    Until 1.6 it connects to the machine's VNC server for each. Before 1.6.3 that throws out whoever is there;
    from then on it takes no picture while somebody is, and is in the way of those who come meanwhile.

    :param version: such as ``v1.7.0``.
    """
    match = _VERSION.match(version)
    if match is None:
        return False
    release = int(match[1]), int(match[2])
    return release > _SINCE or (release == _SINCE and match[3] is None)
