"""Target: the path router, the configured prefix and the template of API paths."""

from __future__ import annotations

import re

from wsproxy.exceptions import ConfigError, Refused
from wsproxy.protocol.routing import (
    Route,
    RouteRules,
    endpoint_of,
    file_path,
    prefix_segments,
    screenshot_route,
    session_route,
)
from wsproxy.upstream.location import ApiPath

from .texts import assert_own_text

__all__ = ["check"]

_PREFIXES: tuple[tuple[str, ...], ...] = ((), ("ws_proxy",), ("a", "b"), ("healthz",), ("-",))
_DEFAULT = "vnc"
_SUBRESOURCES = frozenset({"vnc", "console"})
_API = ApiPath(
    "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
)
_API_PATH = re.compile(
    r"/apis/subresources\.kubevirt\.io/v1/namespaces/[a-z0-9-]{1,63}/virtualmachineinstances"
    r"/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/(vnc|console)"
)


def check(data: bytes) -> None:
    """Route the target in ``data`` under one of some prefixes; its first byte says which.

    It is also tried as a prefix and as a template, which come from the operator.
    """
    target = data[1:].decode("latin-1")
    prefix = _PREFIXES[(data[0] if data else 0) % len(_PREFIXES)]
    _check_endpoint(target, prefix)
    _check_screenshot(target, prefix)
    _check_file(target, prefix)
    route = _routed(target, prefix)
    if route is not None:
        _check_route(route, target, prefix)
    _check_prefix(target)
    _check_template(target)


def _routed(target: str, prefix: tuple[str, ...]) -> Route | None:
    try:
        return session_route(target, RouteRules(prefix, _DEFAULT, _SUBRESOURCES))
    except Refused as refused:
        assert_own_text(refused)
        return None


def _check_endpoint(target: str, prefix: tuple[str, ...]) -> None:
    try:
        endpoint = endpoint_of(target, prefix, {"healthz", "readyz"})
    except Refused as refused:
        assert_own_text(refused)
        return
    if endpoint is None:
        return
    path = [part for part in target.partition("?")[0].split("/") if part]
    assert path in ([endpoint.name], [*prefix, endpoint.name])


def _check_screenshot(target: str, prefix: tuple[str, ...]) -> None:
    try:
        route = screenshot_route(target, prefix)
    except Refused as refused:
        assert_own_text(refused)
        return
    if route is None:
        return
    names = [route.token or "-", *([route.namespace] if route.namespace else []), route.vmi, "screenshot.png"]
    path = target.partition("?")[0]
    assert [part for part in path.split("/") if part] == [*prefix, *names], "a segment was lost or changed"
    upstream = _API.path(route.namespace or "lab-1", route.vmi, route.subresource)
    assert _API_PATH.fullmatch(upstream.removesuffix("/screenshot")), "a name does more than to name"


def _check_file(target: str, prefix: tuple[str, ...]) -> None:
    try:
        path = file_path(target, prefix)
    except Refused as refused:
        assert_own_text(refused)
        return
    if path is not None:
        base = "".join(f"/{name}" for name in prefix)
        assert f"{base}{path}" == target.partition("?")[0], "a file's path is not as it was sent"
        assert path.startswith("/") or (path == "" and prefix)
        assert "%" not in path and not {".", ".."} & set(path.split("/"))


def _check_route(route: Route, target: str, prefix: tuple[str, ...]) -> None:
    path = target.partition("?")[0]
    assert target.startswith("/") and all("!" <= character <= "~" for character in target)
    assert "%" not in path and "#" not in target
    names = [
        *([route.token] if route.token is not None else ["-"]),
        *([route.namespace] if route.namespace else []),
    ]
    names.append(route.vmi)
    if (segments := [part for part in path.split("/") if part]) == [*prefix, *names]:
        assert route.subresource == _DEFAULT
    else:
        names.append(route.subresource)
    assert segments == [*prefix, *names], "a segment was lost or changed"
    assert not {".", ".."} & set(names)
    for other in (
        "/" + "/".join([*prefix, *names]),
        "//" + "//".join([*prefix, *names]) + "//",
        f"{path}?x=/../%2f",
    ):
        assert _routed(other, prefix) == route, "slashes or a query make a difference"
    assert _routed(path + "/..", prefix) is None and _routed(path + "%2f..", prefix) is None
    upstream = _API.path(route.namespace or "lab-1", route.vmi, route.subresource)
    assert _API_PATH.fullmatch(upstream), "a name does more than to name"


def _check_prefix(text: str) -> None:
    try:
        segments = prefix_segments(text)
    except ConfigError:
        return
    route = _routed("/" + "/".join([*segments, "token", "vm"]), segments)
    assert route == Route("token", None, "vm", _DEFAULT), "no request can match the prefix"


def _check_template(text: str) -> None:
    try:
        template = ApiPath(text)
    except ConfigError:
        return
    path = template.path("lab-1", "vm", "console")
    assert path.startswith("/") and path.endswith("/console") and "lab-1" in path and "vm" in path
    assert not set("{}?#% \r\n") & set(path)
