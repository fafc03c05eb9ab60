"""Parses a request target into a route. No I/O.

It removes the path prefix first, counts repeated slashes as one, and drops a query. It checks names against
Kubernetes' rules before it builds anything from them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from ..exceptions import BadRequest, ConfigError, NotFound, Refused
from .names import is_dns_label, is_dns_subdomain

__all__ = [
    "Endpoint",
    "Route",
    "RouteRules",
    "endpoint_of",
    "file_path",
    "granted_route",
    "prefix_segments",
    "screenshot_route",
    "session_route",
    "subresource_of",
]

_TARGET = re.compile(r"/[!-~]*")
_NO_TOKEN = "-"
_PICTURE = "screenshot.png"
_SCREENSHOT = "vnc/screenshot"  # KubeVirt's subresource


@dataclass(frozen=True)
class Route:
    """The console that a client asks for.

    :ivar token: the token in the path; None under ``/-/``, where the token is elsewhere in the request.
    :ivar namespace: as given in the path; None if only the token says it.
    :ivar subresource: as given in the path, or else the default one.
    """

    token: str | None = field(repr=False)
    namespace: str | None
    vmi: str
    subresource: str


@dataclass(frozen=True)
class RouteRules:
    """The settings by which request targets are parsed.

    :ivar prefix: path segments in front of every route.
    :ivar default: the subresource of a path that names none.
    :ivar enabled: the subresources that a path may name, including the default one.
    """

    prefix: tuple[str, ...]
    default: str
    enabled: frozenset[str]


@dataclass(frozen=True)
class Endpoint:
    """A named HTTP endpoint.

    :ivar name: its path without the first slash, such as "healthz".
    """

    name: str


def prefix_segments(prefix: str | None) -> tuple[str, ...]:
    """Return the path segments of a configured prefix: an empty tuple for None, "" and "/".

    :raises ConfigError: if the prefix has characters that cannot match any request path.
    """
    segments = _segments(prefix or "")
    if any(re.fullmatch(r"(?!\.\.?\Z)[\w.~-]+", segment, re.ASCII) is None for segment in segments):
        raise ConfigError(
            [f"HOST_PATH_PREFIX is {prefix!r}; use letters, digits and - . _ ~ between slashes"]
        )
    return segments


def endpoint_of(target: str, prefix: tuple[str, ...], names: Collection[str]) -> Endpoint | None:
    """Find the HTTP endpoint of a request without an upgrade; None if there is no such endpoint.

    Kubelet probes do not know the prefix, so an endpoint answers with the prefix and without it.

    :raises BadRequest: if the target is malformed.
    """
    segments = _path_of(target)
    for name in names:
        if segments in (_segments(name), (*prefix, *_segments(name))):
            return Endpoint(name)
    return None


def file_path(target: str, prefix: tuple[str, ...]) -> str | None:
    """Return the path below the prefix, with its slashes as sent; None if it is not below the prefix.

    :raises BadRequest: if the target is malformed.
    """
    _path_of(target)
    path, base = target.partition("?")[0], "".join(f"/{segment}" for segment in prefix)
    return path[len(base) :] if path == base or path.startswith(f"{base}/") else None


def session_route(target: str, rules: RouteRules) -> Route:
    """Return the route of an upgrade request.

    :raises BadRequest: if the target is malformed or a name is not a Kubernetes name.
    :raises NotFound: if the path has another form, its prefix is wrong, or the subresource is not enabled.
    """
    route = _unchecked_route(target, rules)
    _check_subresource(route, rules)
    _check_names(route)
    return route


def subresource_of(target: str, rules: RouteRules) -> str:
    """Return the subresource of an upgrade request's path, enabled or not; the default one if in doubt.

    Refusals use it: the protocol that the client expects depends on it, whatever is wrong with the request.
    """
    try:
        return _unchecked_route(target, rules).subresource
    except Refused:
        return rules.default


def _unchecked_route(target: str, rules: RouteRules) -> Route:
    """Return the parts of the path, which may still be any text."""
    segments, prefix = _path_of(target), rules.prefix
    if segments[: len(prefix)] != prefix:
        raise NotFound("wrong path prefix")
    first, *rest = segments[len(prefix) :] or ("",)
    token, namespace = None if first == _NO_TOKEN else first, None
    if token is None:
        if len(rest) not in (1, 2, 3):
            raise NotFound("the path must be /-/VMI, /-/NAMESPACE/VMI or /-/NAMESPACE/VMI/SUBRESOURCE")
        namespace = rest.pop(0) if len(rest) > 1 else None
    elif len(rest) not in (1, 2):
        raise NotFound("the path must be /TOKEN/VMI or /TOKEN/VMI/SUBRESOURCE")
    vmi, *named = rest
    return Route(token, namespace, vmi, *(named or [rules.default]))


def screenshot_route(target: str, prefix: tuple[str, ...]) -> Route | None:
    """Find the VMI whose screenshot a request without an upgrade asks for; None for any other request.

    :param prefix: from :func:`prefix_segments`.
    :returns: a route with KubeVirt's subresource for screenshots.
    :raises BadRequest: if the target is malformed or a name is not a Kubernetes name.
    """
    segments = _path_of(target)
    if segments[: len(prefix)] != prefix or segments[-1:] != (_PICTURE,):
        return None
    first, *names = segments[len(prefix) : -1] or ("",)
    token = None if first == _NO_TOKEN else first
    if len(names) not in ((1,) if token else (1, 2)):
        return None
    *namespace, vmi = names
    route = Route(token, namespace[0] if namespace else None, vmi, _SCREENSHOT)
    _check_names(route)
    return route


def granted_route(vmi: str, subresource: str | None, rules: RouteRules) -> Route:
    """Return a route for a VMI that the embedding program names.

    :param subresource: None for the default one.
    :raises BadRequest: if the VMI's name is not a Kubernetes name.
    :raises NotFound: if the subresource is not enabled.
    """
    route = Route(None, None, vmi, rules.default if subresource is None else subresource)
    _check_subresource(route, rules)
    _check_vmi(vmi)
    return route


def _path_of(target: str) -> tuple[str, ...]:
    """Split an origin-form target (RFC 9112 section 3.2.1) into segments, without its query."""
    path = target.partition("?")[0]
    if _TARGET.fullmatch(target) is None or "#" in target:
        raise BadRequest("the request target must be a path of printable ASCII characters")
    if "%" in path:
        raise BadRequest("the path must not contain percent-encoded characters")
    segments = _segments(path)
    if "." in segments or ".." in segments:
        raise BadRequest("the path must not contain dot segments")
    return segments


def _segments(path: str) -> tuple[str, ...]:
    return tuple(segment for segment in path.split("/") if segment)


def _check_names(route: Route) -> None:
    if route.namespace is not None and not is_dns_label(route.namespace):
        raise BadRequest("the namespace in the path is not a Kubernetes name (DNS-1123 label)")
    _check_vmi(route.vmi)


def _check_subresource(route: Route, rules: RouteRules) -> None:
    if route.subresource not in rules.enabled:
        raise NotFound("this subresource is not enabled")


def _check_vmi(name: str) -> None:
    if not is_dns_subdomain(name):
        raise BadRequest("the VMI in the path is not a Kubernetes name (DNS-1123 subdomain)")
