"""Routes: what a path names is what it is routed to, and nothing else can be named."""

from __future__ import annotations

import string
import unittest
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from wsproxy.exceptions import Refused
from wsproxy.protocol.names import is_dns_label, is_dns_subdomain
from wsproxy.protocol.routing import Route, RouteRules, prefix_segments, session_route
from wsproxy.upstream.location import ApiPath

from .profile import few, many

_DEFAULT = "vnc"
_SUBRESOURCES = (_DEFAULT, "console")
_LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_VMIS = st.lists(_LABELS, min_size=1, max_size=3).map(".".join)
_TOKENS = st.text(string.ascii_letters + string.digits + "-_.", min_size=2, max_size=40).filter(
    lambda token: token != ".."
)
_PREFIXES = st.lists(st.text(string.ascii_letters + "-_~1", min_size=1, max_size=8), max_size=3)
_SLASHES = st.sampled_from(("/", "//", "///"))
_ROUTES = st.builds(Route, _TOKENS, st.none(), _VMIS, st.sampled_from(_SUBRESOURCES)) | st.builds(
    Route, st.none(), st.none() | _LABELS, _VMIS, st.just(_DEFAULT)
)


def target(route: Route, prefix: Sequence[str], slash: str) -> str:
    """Return a path that names a route."""
    names = [route.token or "-", route.namespace, route.vmi, route.subresource]
    return slash + slash.join([*prefix, *(name for name in names if name and name != _DEFAULT)])


def routed(path: str, prefix: Sequence[str] = ()) -> Route | None:
    """Return the route of a path, None if it is refused."""
    try:
        return session_route(path, RouteRules(tuple(prefix), _DEFAULT, frozenset(_SUBRESOURCES)))
    except Refused:
        return None


class RoundTripTest(unittest.TestCase):
    @many
    @given(_ROUTES, _PREFIXES, _SLASHES, st.text(string.printable[:94].replace("#", ""), max_size=20))
    def test_round_trip(self, route: Route, prefix: list[str], slash: str, query: str) -> None:
        """A route is found again under every prefix, with more slashes and with a query."""
        path = target(route, prefix, slash)
        for form in (path, path + slash, f"{path}?{query}"):
            self.assertEqual(routed(form, prefix), route)
        self.assertEqual(prefix_segments("/".join(prefix)), tuple(prefix))

    @many
    @given(_ROUTES, st.data())
    def test_damaged_path(self, route: Route, data: st.DataObject) -> None:
        """A path with anything that is decoded or walked elsewhere is refused, wherever that stands."""
        path = target(route, (), "/")
        place = data.draw(st.integers(1, len(path)))
        bad = data.draw(
            st.sampled_from(("%2f", "%2e", "%00", "%", "#", "/../", "/./", "\\", " ", "\0", "\x7f", "\xe4"))
        )
        found = routed(path[:place] + bad + path[place:])
        if bad == "\\" and found is not None:  # within a token, where it means nothing
            self.assertIn("\\", found.token or "")
        else:
            self.assertIsNone(found)

    @few
    @given(st.text(max_size=60))
    def test_any_text(self, path: str) -> None:
        """Whatever is routed names Kubernetes names only, and leads to a path of the API that names them."""
        route = routed("/" + path)
        if route is not None:
            self.assertTrue(is_dns_subdomain(route.vmi))
            self.assertTrue(route.namespace is None or is_dns_label(route.namespace))
            self.assertIn(route.subresource, _SUBRESOURCES)

    @few
    @given(_LABELS, _VMIS, st.sampled_from(_SUBRESOURCES))
    def test_api_path(self, namespace: str, vmi: str, subresource: str) -> None:
        """The API's path has one segment for each name, in its place."""
        path = ApiPath("/apis/x/namespaces/{namespace}/vmis/{vmi_name}/vnc").path(namespace, vmi, subresource)
        self.assertEqual(
            path.split("/"), ["", "apis", "x", "namespaces", namespace, "vmis", vmi, subresource]
        )
