"""KubeVirt's version, and what follows from it. No I/O of its own."""

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
    """Return the version that KubeVirt reports; "" if the response has none. Blocks until the deadline.

    :param path: API path of the version; see :attr:`.ApiPath.version_path`.
    :param get: as :meth:`.Dialler.get`.
    :raises Refused: if the request fails.
    """
    try:
        found = parse_json(get(path, _VERSION_SIZE, deadline), _VERSION_BRACKETS)
    except ValueError:
        return ""
    version = found.get("gitVersion") if isinstance(found, dict) else None
    return version[:64] if isinstance(version, str) else ""


def leaves_console_alone(version: str) -> bool:
    """Whether a KubeVirt of this version takes screenshots without using the VNC console.

    Up to 1.6 it connects to the VMI's VNC server for each screenshot. Before 1.6.3 this evicts the VNC client
    that is connected. From 1.6.3 on it takes no screenshot while a client is connected, and blocks clients
    that connect meanwhile.

    :param version: such as ``v1.7.0``.
    """
    match = _VERSION.match(version)
    if match is None:
        return False
    release = int(match[1]), int(match[2])
    return release > _SINCE or (release == _SINCE and match[3] is None)
