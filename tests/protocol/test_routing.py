"""From request targets to routes, and the API path template."""

from __future__ import annotations

import unittest

from wsproxy.exceptions import BadRequest, ConfigError, NotFound, Refused
from wsproxy.net.addresses import host_and_port
from wsproxy.protocol.names import is_dns_label, is_dns_subdomain
from wsproxy.protocol.routing import (
    Endpoint,
    Route,
    RouteRules,
    endpoint_of,
    file_path,
    granted_route,
    prefix_segments,
    session_route,
    subresource_of,
)
from wsproxy.upstream.location import DEFAULT_API_PATH, ApiPath

SUBRESOURCES = frozenset({"vnc", "console"})
RULES = RouteRules((), "vnc", SUBRESOURCES)
TOKEN = "aaa.bbb.ccc"


def route(target: str, prefix: str | None = None) -> Route:
    """Return the session route of a target."""
    return session_route(target, RouteRules(prefix_segments(prefix), "vnc", SUBRESOURCES))


class NamesTest(unittest.TestCase):
    def test_labels(self) -> None:
        """A namespace is a DNS-1123 label: lower-case letters, digits and inner hyphens, at most 63."""
        for name in ("a", "0", "lab-1", "a" * 63, "1-2-3"):
            self.assertTrue(is_dns_label(name), name)
        for name in (
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "a" * 64,
            "ä",
            "a\n",
            "a/b",
            "a b",
            "\N{ARABIC-INDIC DIGIT ONE}",
        ):
            self.assertFalse(is_dns_label(name), name)

    def test_subdomains(self) -> None:
        """A VMI is a DNS-1123 subdomain: labels with dots between, at most 253 characters."""
        for name in ("a", "ubuntu", "a.b", "1.2.3", ".".join(["a" * 62] * 4), "a" * 253):
            self.assertTrue(is_dns_subdomain(name), name)
        for name in (
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A",
            "a_b",
            ".".join(["a" * 63] * 4),
            "a\n",
            "a/b",
            "..",
            "%2e",
        ):
            self.assertFalse(is_dns_subdomain(name), name)


class HostAndPortTest(unittest.TestCase):
    def test_kinds_of_hosts(self) -> None:
        """Names and IPv4 addresses stay as they are, IPv6 addresses get brackets."""
        for host, joined in (("api.local", "api.local:1"), ("10.0.0.1", "10.0.0.1:1"), ("::1", "[::1]:1")):
            self.assertEqual(host_and_port(host, 1), joined)


class PrefixTest(unittest.TestCase):
    def test_spellings(self) -> None:
        """Every spelling of a prefix means the same, and none of them means none."""
        for prefix in ("ws_proxy", "/ws_proxy", "ws_proxy/", "/ws_proxy/", "//ws_proxy//"):
            self.assertEqual(prefix_segments(prefix), ("ws_proxy",))
        for none in (None, "", "/", "//"):
            self.assertEqual(prefix_segments(none), ())
        self.assertEqual(prefix_segments("a/b"), ("a", "b"))
        self.assertEqual(prefix_segments("a//b/"), ("a", "b"))
        self.assertEqual(prefix_segments("-._~aZ9"), ("-._~aZ9",))

    def test_faults(self) -> None:
        """A prefix that no request path could match is a fault that names the setting."""
        for prefix in ("a b", "a?b", "ä", "a%20b", "{x}", "a#b", ".", "..", "a/../b", "a/."):
            with self.subTest(prefix=prefix), self.assertRaises(ConfigError) as caught:
                prefix_segments(prefix)
            self.assertIn("HOST_PATH_PREFIX", caught.exception.faults[0])

    def test_prefix_is_removed(self) -> None:
        """The prefix is removed first, whatever its spelling and that of the request."""
        for prefix in ("ws_proxy", "/ws_proxy/", "a/b"):
            for target in (f"/{prefix}/{TOKEN}/vm", f"//{prefix}///{TOKEN}//vm/"):
                with self.subTest(prefix=prefix, target=target):
                    self.assertEqual(route(target, prefix), Route(TOKEN, None, "vm", "vnc"))

    def test_wrong_prefix(self) -> None:
        """A path without the prefix, or with another one, is not found."""
        for target in (
            f"/{TOKEN}/vm",
            f"/other/{TOKEN}/vm",
            f"/ws_prox/{TOKEN}/vm",
            "/",
            "/ws_proxy",
            "/ws_proxy/",
        ):
            with self.subTest(target=target):
                self.assertRaises(NotFound, route, target, "ws_proxy")

    def test_prefix_is_compared_exactly(self) -> None:
        """A prefix is compared by segments and by case."""
        self.assertRaises(NotFound, route, f"/WS_PROXY/{TOKEN}/vm", "ws_proxy")
        self.assertRaises(NotFound, route, f"/ws_proxyx/{TOKEN}/vm", "ws_proxy")


class SessionRouteTest(unittest.TestCase):
    def test_token_and_vmi(self) -> None:
        """/TOKEN/VMI opens the default subresource."""
        self.assertEqual(route(f"/{TOKEN}/ubuntu"), Route(TOKEN, None, "ubuntu", "vnc"))

    def test_subresource(self) -> None:
        """/TOKEN/VMI/SUBRESOURCE opens an enabled subresource, and no other."""
        self.assertEqual(route(f"/{TOKEN}/ubuntu/console"), Route(TOKEN, None, "ubuntu", "console"))
        for name in ("usbredir", "VNC", "vnc.", "portforward"):
            with self.subTest(name=name):
                self.assertRaises(NotFound, route, f"/{TOKEN}/ubuntu/{name}")

    def test_without_token(self) -> None:
        """/-/VMI and /-/NAMESPACE/VMI leave the token to other means."""
        self.assertEqual(route("/-/ubuntu"), Route(None, None, "ubuntu", "vnc"))
        self.assertEqual(route("/-/lab-1/ubuntu"), Route(None, "lab-1", "ubuntu", "vnc"))

    def test_without_token_is_not_a_subresource(self) -> None:
        """Under /-/ the second of two names is the VMI, also if a subresource has its name."""
        self.assertEqual(route("/-/lab-1/vnc"), Route(None, "lab-1", "vnc", "vnc"))

    def test_without_token_and_with_a_subresource(self) -> None:
        """/-/NAMESPACE/VMI/SUBRESOURCE opens an enabled subresource, and no other."""
        for name in ("console", "vnc"):
            self.assertEqual(route(f"/-/lab-1/ubuntu/{name}"), Route(None, "lab-1", "ubuntu", name))
        self.assertEqual(route("/p//-/lab-1/vnc/console/", "p"), Route(None, "lab-1", "vnc", "console"))
        for name in ("usbredir", "VNC", "ubuntu", "-"):
            with self.subTest(name=name):
                self.assertRaises(NotFound, route, f"/-/lab-1/ubuntu/{name}")

    def test_slashes(self) -> None:
        """Repeated and trailing slashes are one."""
        self.assertEqual(route(f"//{TOKEN}////ubuntu///"), Route(TOKEN, None, "ubuntu", "vnc"))

    def test_query(self) -> None:
        """A query is dropped."""
        for query in ("?", "?x=1", "?a=%2f&b=/../c?d"):
            with self.subTest(query=query):
                self.assertEqual(route(f"/{TOKEN}/ubuntu{query}"), Route(TOKEN, None, "ubuntu", "vnc"))

    def test_not_found(self) -> None:
        """A path of another length is not found."""
        for target in ("/", "//", f"/{TOKEN}", f"/{TOKEN}/a/vnc/x", "/-", "/-/", "/-/a/b/vnc/x", "/?x=/a/b"):
            with self.subTest(target=target):
                self.assertRaises(NotFound, route, target)

    def test_malformed_targets(self) -> None:
        """A target that is not a plain path is a bad request."""
        for target in (
            "",
            "*",
            f"{TOKEN}/vm",
            f"http://host/{TOKEN}/vm",
            "host:443",
            f"/{TOKEN}/vm#x",
            f"/{TOKEN}/vm?#x",
            f"/{TOKEN}/v m",
            f"/{TOKEN}/v\tm",
            f"/{TOKEN}/vm\n",
            f"/{TOKEN}/vm\0",
            f"/{TOKEN}/vmä",
            f"/{TOKEN}/%76m",
            f"/{TOKEN}/a%2f..%2fb",
            f"/{TOKEN}/..",
            f"/{TOKEN}/./vm",
            f"/x/../{TOKEN}/vm",
            f"/{TOKEN}%00/vm",
        ):
            with self.subTest(target=target):
                self.assertRaises(BadRequest, route, target)

    def test_names_that_are_not_kubernetes_names(self) -> None:
        """A VMI or a namespace that is no Kubernetes name never becomes a part of an API path."""
        for target in (
            f"/{TOKEN}/VM",
            f"/{TOKEN}/a_b",
            f"/{TOKEN}/a..b",
            f"/{TOKEN}/-a",
            f"/{TOKEN}/{'a' * 254}",
        ):
            with self.subTest(target=target):
                self.assertRaises(BadRequest, route, target)
        for target in (
            "/-/a.b/vm",
            "/-/Lab/vm",
            "/-/-/vm",
            f"/-/{'a' * 64}/vm",
            "/-/Lab/vm/console",
            "/-/lab-1/VM/console",
        ):
            with self.subTest(target=target):
                self.assertRaises(BadRequest, route, target)

    def test_no_text_quotes_the_path(self) -> None:
        """No refusal quotes any part of the target, since it holds a token."""
        for target in (
            f"/{TOKEN}/VM",
            f"/{TOKEN}",
            f"/{TOKEN}/vm/xyz",
            f"/{TOKEN}/vm/a/b",
            f"/{TOKEN}/%41",
            f"/{TOKEN}/..",
            f"/{TOKEN}/a b",
            f"http://host/{TOKEN}/vm",
            f"/{TOKEN}/-a",
        ):
            with self.subTest(target=target), self.assertRaises(Refused) as caught:
                route(target)
            self.assertNotIn(
                TOKEN, f"{caught.exception!r}{caught.exception.log_detail}{caught.exception.__cause__!r}"
            )

    def test_repr_hides_the_token(self) -> None:
        """The repr of a route does not show its token."""
        self.assertNotIn(TOKEN, repr(route(f"/{TOKEN}/vm")))


class NamedSubresourceTest(unittest.TestCase):
    def test_named(self) -> None:
        """It is what the path names, also where that is not enabled, or another name is wrong."""
        for target, name in (
            (f"/p/{TOKEN}/vm", "vnc"),
            (f"/p/{TOKEN}/vm/console", "console"),
            (f"/p/{TOKEN}/VM/console", "console"),
            (f"/p/{TOKEN}/vm/usbredir?x=/vnc", "usbredir"),
            ("/p/-/vm", "vnc"),
            ("/p/-/lab-1/console", "vnc"),
            ("/p/-/Lab/vm/vnc/", "vnc"),
        ):
            with self.subTest(target=target):
                self.assertEqual(subresource_of(target, RouteRules(("p",), "vnc", SUBRESOURCES)), name)

    def test_no_route(self) -> None:
        """What is no session route means the default."""
        for target in ("/", f"/{TOKEN}/vm/console", f"/p/{TOKEN}/vm/console/x", "/p/a/%76m/console", "*"):
            with self.subTest(target=target):
                rules = RouteRules(("p",), "console", SUBRESOURCES)
                self.assertEqual(subresource_of(target, rules), "console")


class GrantedRouteTest(unittest.TestCase):
    def test_names(self) -> None:
        """What an embedding program names is checked as what a path names."""
        self.assertEqual(granted_route("ubuntu", None, RULES), Route(None, None, "ubuntu", "vnc"))
        self.assertEqual(granted_route("u", "vnc", RULES), Route(None, None, "u", "vnc"))
        self.assertRaises(BadRequest, granted_route, "../ubuntu", None, RULES)
        self.assertRaises(NotFound, granted_route, "ubuntu", "portforward", RULES)


class EndpointTest(unittest.TestCase):
    NAMES = ("healthz", "readyz")

    def test_with_and_without_prefix(self) -> None:
        """An endpoint answers behind the prefix and without it, for probes know no prefix."""
        prefix = prefix_segments("a/b")
        for target in ("/healthz", "/a/b/healthz", "//healthz/", "/healthz?verbose"):
            with self.subTest(target=target):
                self.assertEqual(endpoint_of(target, prefix, self.NAMES), Endpoint("healthz"))

    def test_name_of_two_segments(self) -> None:
        """An endpoint may lie below a path of its own."""
        for target in ("/console/grant", "/a/b/console/grant", "//console//grant"):
            with self.subTest(target=target):
                self.assertEqual(
                    endpoint_of(target, ("a", "b"), ("console/grant",)), Endpoint("console/grant")
                )
        for target in ("/console", "/grant", "/console/grant/x", "/console%2fgrant"[:8]):
            self.assertIsNone(endpoint_of(target, ("a", "b"), ("console/grant",)))

    def test_prefix_of_the_same_name(self) -> None:
        """A prefix that is called as an endpoint does not hide it."""
        for target in ("/healthz", "/healthz/healthz"):
            self.assertEqual(endpoint_of(target, ("healthz",), self.NAMES), Endpoint("healthz"))

    def test_not_found(self) -> None:
        """Anything else is none, a session's path too."""
        for target in ("/", "/x", "/a/healthz", "/healthz/x", f"/{TOKEN}/vm", "/HEALTHZ", f"/a/b/{TOKEN}/vm"):
            with self.subTest(target=target):
                self.assertIsNone(endpoint_of(target, ("a", "b"), self.NAMES))

    def test_malformed(self) -> None:
        """A malformed target is a bad request."""
        for target in ("*", "healthz", "/%68ealthz", "/x/../healthz", "http://host/healthz"):
            with self.subTest(target=target):
                self.assertRaises(BadRequest, endpoint_of, target, (), self.NAMES)


class FilePathTest(unittest.TestCase):
    def test_below_the_prefix(self) -> None:
        """A file's path is what follows the prefix, slash by slash; a query is none of it."""
        for target, prefix, path in (
            ("/", (), "/"),
            ("/app/ui.js?x=/y", (), "/app/ui.js"),
            ("//app//ui.js/", (), "//app//ui.js/"),
            ("/a/b", ("a", "b"), ""),
            ("/a/b/", ("a", "b"), "/"),
            ("/a/b//x", ("a", "b"), "//x"),
        ):
            with self.subTest(target=target):
                self.assertEqual(file_path(target, prefix), path)

    def test_elsewhere(self) -> None:
        """What only begins like the prefix, or spells it in another way, lies elsewhere."""
        for target in ("/", "/a", "/a/bc", "/a/b-/x", "//a/b/x", "/a//b/x", "/x/a/b/", "/A/B/x"):
            with self.subTest(target=target):
                self.assertIsNone(file_path(target, ("a", "b")))

    def test_malformed(self) -> None:
        """A malformed target is a bad request."""
        for target in ("*", "x", "/%78", "/a/../x", "/./x", "http://host/x", "/x#y", "/x y"):
            with self.subTest(target=target):
                self.assertRaises(BadRequest, file_path, target, ())


class ApiPathTest(unittest.TestCase):
    def test_default(self) -> None:
        """The default template gives KubeVirt's path, of its own or of another subresource."""
        template = ApiPath(DEFAULT_API_PATH)
        base = "/apis/subresources.kubevirt.io/v1/namespaces/lab-1/virtualmachineinstances/ubuntu"
        self.assertEqual(template.subresource, "vnc")
        self.assertEqual(template.path("lab-1", "ubuntu", "vnc"), f"{base}/vnc")
        self.assertEqual(template.path("lab-1", "ubuntu", "console"), f"{base}/console")

    def test_placeholders_more_than_once(self) -> None:
        """A placeholder may stand in more than one place, in any order."""
        self.assertEqual(
            ApiPath("/{vmi_name}/{namespace}/{vmi_name}/vnc").path("n", "v", "vnc"), "/v/n/v/vnc"
        )

    def test_faults(self) -> None:
        """A template that is not a plain path with both placeholders and a subresource is a fault."""
        for template in (
            "",
            "/vnc",
            "/{namespace}/vnc",
            "/{vmi_name}/vnc",
            "/{namespace}/{vmi_name}/{x}/vnc",
            "/{namespace}/{vmi_name}/{}/vnc",
            "/{namespace}/{vmi_name}/{{}}/vnc",
            "/{namespace}/{vmi_name}}/vnc",
            "/{namespace!r}/{vmi_name}/vnc",
            "{namespace}/{vmi_name}/vnc",
            "/{namespace}/{vmi_name}",
            "/{namespace}/{vmi_name}/",
            "/{namespace}/{vmi_name}/VNC",
            "/{namespace}/{vmi_name}/vnc?preserveSession=true",
            "/{namespace}/{vmi_name}/vnc#x",
            "/{namespace}/{vmi_name}/%76nc/vnc",
            "/{namespace}/{vmi_name}/a b/vnc",
            "/{namespace}/{vmi_name}/ä/vnc",
            "/{namespace}/{vmi_name}/\r\nX: y/vnc",
        ):
            with self.subTest(template=template), self.assertRaises(ConfigError) as caught:
                ApiPath(template)
            self.assertIn("api_path", caught.exception.faults[0])
