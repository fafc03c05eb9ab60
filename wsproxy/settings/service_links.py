"""Tells settings from the variables that Kubernetes injects into a pod's environment. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from .setting import PREFIX

__all__ = ["is_port", "without_service_links"]

T = TypeVar("T")


def without_service_links(environ: Mapping[str, T]) -> dict[str, T]:
    """Return an environment without the variables that a kubelet injects for Services ``wsproxy-...``.

    A kubelet describes each Service of the namespace by variables that begin with the Service's name. This
    function removes a variable only if both its name and its value have such a form. So it keeps misspelt
    settings, and settings whose name only looks like a Service's variable.
    """
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith(PREFIX) and _is_service_link(name, value))
    }


def _is_service_link(name: str, value: object) -> bool:
    return isinstance(value, str) and any(
        re.search(form, name) and is_one(value) for form, is_one in _SERVICE_LINKS
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_port(text: str) -> bool:
    """Whether a text has the form of a port."""
    return re.fullmatch("[0-9]{1,5}", text) is not None


def _is_like(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


_PORT_OF_SERVICE = r"_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)"
_SERVICE_LINKS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"_SERVICE_HOST\Z", _is_address),
    (r"_SERVICE_PORT(_[A-Z0-9_]+)?\Z", is_port),
    (rf"_PORT\Z|{_PORT_OF_SERVICE}\Z", _is_like(r"(tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+:[0-9]{1,5}")),
    (rf"{_PORT_OF_SERVICE}_PROTO\Z", _is_like("tcp|udp|sctp")),
    (rf"{_PORT_OF_SERVICE}_PORT\Z", is_port),
    (rf"{_PORT_OF_SERVICE}_ADDR\Z", _is_address),
)
"""The endings of the names of a kubelet's variables, and the forms of their values."""
