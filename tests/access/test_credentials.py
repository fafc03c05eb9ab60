"""Where a token may stand, and that there is only one."""

from __future__ import annotations

import base64
import unittest

from wsproxy.access.credentials import CREDENTIALS, Credential, bearer_token, find_credential
from wsproxy.config import Config
from wsproxy.exceptions import BadRequest, BadToken
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.protocol.routing import RouteRules, session_route
from wsproxy.testing.rfb.raw_client import RawClient

JWT = "eyJh.eyJp._-Xy"
TICKET = "AbCdEfGhIjKlMnOpQr_-12"
DEFAULT = ("path", "header", "subprotocol")
HEADER = f"Authorization: Bearer {JWT}"
COOKIE = f"Cookie: wsproxy_token={JWT}"


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode("latin-1")).rstrip(b"=").decode()


def protocol(value: str, *more: str) -> str:
    names = ", ".join([f"base64url.bearer.authorization.k8s.io.{value}", *more])
    return f"Sec-WebSocket-Protocol: {names}"


SUBPROTOCOL = protocol(encoded(JWT), "binary")
CARRIERS = {
    "path": (f"/{JWT}/vm", ()),
    "header": ("/-/vm", (HEADER,)),
    "subprotocol": ("/-/vm", (SUBPROTOCOL,)),
    "query": (f"/-/vm?token={JWT}", ()),
    "cookie": ("/-/vm", (COOKIE,)),
}


def parsed(target: str, *headers: str) -> RequestHead:
    head = HeadReader().feed(RawClient.request(target, headers))
    assert head is not None
    return head


def find(
    target: str,
    *headers: str,
    enabled: tuple[str, ...] = CREDENTIALS,
    cookie_name: str = "wsproxy_token",
    tickets: bool = False,
) -> Credential:
    route = session_route(target, RouteRules((), "vnc", frozenset({"vnc"})))
    return find_credential(parsed(target, *headers), route, enabled, cookie_name, tickets)


class Places(unittest.TestCase):
    def test_each(self) -> None:
        """A token is found in each enabled place, and nowhere else."""
        self.assertEqual(tuple(CARRIERS), CREDENTIALS)
        for kind, (target, headers) in CARRIERS.items():
            with self.subTest(kind):
                self.assertEqual(find(target, *headers, enabled=(kind,)), Credential(kind, JWT))
                others = tuple(other for other in CREDENTIALS if other != kind)
                with self.assertRaises(BadToken) as caught:
                    find(target, *headers, enabled=others)
                self.assertNotIn(JWT, caught.exception.message)

    def test_default(self) -> None:
        """Path, header and subprotocol are on by default, query and cookie are not."""
        config = Config(remote_url="ws://a", local_dev_mode=True, secret_key="x" * 32)
        self.assertEqual(config.credentials, DEFAULT)

    def test_none(self) -> None:
        """Under /-/ without a token it is 401, with the scheme that would do."""
        for headers in ((), ("Authorization: Basic dTpw",), ("Authorization: Bearer",), ("Cookie: a=b",)):
            with self.subTest(headers), self.assertRaises(BadToken) as caught:
                find("/-/lab-1/vm", *headers)
            self.assertIn(("WWW-Authenticate", "Bearer"), caught.exception.headers)

    def test_ambient(self) -> None:
        """Browsers attach only a cookie to the requests of any page."""
        self.assertEqual(
            [kind for kind in (*CREDENTIALS, "ticket") if Credential(kind, "x").ambient], ["cookie"]
        )

    def test_token_is_not_shown(self) -> None:
        """The repr of a credential does not hold it."""
        self.assertNotIn(JWT, repr(Credential("path", JWT)))


class Ambiguity(unittest.TestCase):
    def test_any_two(self) -> None:
        """Two credentials in one request are refused, of whatever kinds, the same twice included."""
        for one, (target, headers) in CARRIERS.items():
            for other, (other_target, other_headers) in CARRIERS.items():
                path = target if one == "path" else other_target.partition("?")[0]
                queries = [JWT for kind in (one, other) if kind == "query"]
                if one == other == "path":
                    continue  # there is only one path
                query = "&".join(f"token={token}" for token in queries)
                with self.subTest(one=one, other=other), self.assertRaises(BadRequest) as caught:
                    find(f"{path}?{query}", *headers, *other_headers)
                self.assertNotIn(JWT, caught.exception.message)

    def test_same_place_twice(self) -> None:
        """Two credentials in one header are two, even if they are equal or one is empty."""
        name = f"base64url.bearer.authorization.k8s.io.{encoded(JWT)}"
        for target, header in (
            ("/-/vm", f"Sec-WebSocket-Protocol: {name}, {name}"),
            ("/-/vm", protocol(encoded(JWT), "Base64URL.bearer.authorization.k8s.io.eA")),
            ("/-/vm", protocol("", name)),
            ("/-/vm", f"{COOKIE}; wsproxy_token={JWT}"),
            ("/-/vm", f"{COOKIE}; wsproxy_token="),
            (f"/-/vm?token={JWT}&token=", "X: y"),
            (f"/-/vm?token={JWT}&%74oken={JWT}", "X: y"),
            (f"/-/vm?token&token={JWT}", "X: y"),
        ):
            with self.subTest(target=target, header=header), self.assertRaises(BadRequest):
                find(target, header)

    def test_what_is_switched_off(self) -> None:
        """Path, header and subprotocol count even if they are disabled."""
        for kind in DEFAULT:
            target, headers = CARRIERS[kind]
            for on in set(CREDENTIALS) - {kind}:
                other_target, other_headers = CARRIERS[on]
                path = target if kind == "path" else other_target.partition("?")[0]
                query = f"?token={JWT}" if on == "query" else ""
                if on == "path":
                    path = other_target
                with self.subTest(off=kind, on=on), self.assertRaises(BadRequest):
                    find(f"{path}{query}", *headers, *other_headers, enabled=(on,))

    def test_what_may_be_somebody_elses(self) -> None:
        """A query or cookie of that name is ignored unless it is enabled, even if it occurs twice."""
        noise = f"token={JWT}&token=%zz"
        found = find(f"/{JWT}/vm?{noise}", COOKIE, COOKIE, "Authorization: Basic dTpw", enabled=DEFAULT)
        self.assertEqual(found, Credential("path", JWT))

    def test_two_authorization_headers(self) -> None:
        """Two Authorization headers are one too many, whatever their schemes."""
        for other in (HEADER, "Authorization: Basic dTpw", "Authorization:"):
            with self.subTest(other), self.assertRaises(BadRequest):
                find("/-/vm", HEADER, other)


class Header(unittest.TestCase):
    def test_scheme(self) -> None:
        """The scheme may be written in either case."""
        for header in ("Authorization: bearer x", "authorization: BEARER   x"):
            self.assertEqual(find("/-/vm", header).token, "x")
            self.assertEqual(bearer_token(parsed("/ticket", header)), "x")

    def test_bearer_token(self) -> None:
        """An Authorization header that is not a single bearer token is refused."""
        for headers, error in (
            ((), BadToken),
            (("Authorization: Basic dTpw",), BadToken),
            ((COOKIE, SUBPROTOCOL), BadToken),
            ((HEADER, HEADER), BadRequest),
        ):
            with self.subTest(headers), self.assertRaises(error):
                bearer_token(parsed("/ticket", *headers))


class Subprotocol(unittest.TestCase):
    def test_canonical_form(self) -> None:
        """The token is in base64url without padding, in the one form that encoding gives."""
        self.assertEqual(find("/-/vm", protocol("_-8_")[:-4] + encoded("a??>")).token, "a??>")
        for value in (
            "A",  # no length of base64
            "QQ==",
            "QR",  # bits left over
            "QU-=",
            "QUJD+/",
            "QU.JD",
            "QUJD~",
            encoded("\xe4"),  # not ASCII
        ):
            with self.subTest(value), self.assertRaises(BadRequest) as caught:
                find("/-/vm", protocol(value.replace("=", "~")))
            self.assertNotIn("QU", caught.exception.message)

    def test_empty(self) -> None:
        """An empty one is a token that cannot be valid."""
        self.assertEqual(find("/-/vm", protocol("")), Credential("subprotocol", ""))

    def test_prefix(self) -> None:
        """The prefix counts in either case, and others that begin alike are no credentials."""
        upper = protocol(encoded(JWT)).replace("base64url.bearer", "BASE64URL.Bearer")
        self.assertEqual(find("/-/vm", upper), Credential("subprotocol", JWT))
        with self.assertRaises(BadToken):
            find("/-/vm", f"Sec-WebSocket-Protocol: base64url.bearer.example.{encoded(JWT)}")


class Query(unittest.TestCase):
    def test_percent_encoding(self) -> None:
        """A token may be percent-encoded, once, and nothing else is done to it."""
        for query, expected in (
            (f"token={JWT}", JWT),
            (f"a=1&token={JWT}&b", JWT),
            ("token=%65%2ey%2E", "e.y."),
            ("token=%2565", "%65"),
            ("token=a+b", "a+b"),
            ("token=a=b", "a=b"),
            ("token", ""),
            ("%74%6Fken=x", "x"),
        ):
            with self.subTest(query):
                self.assertEqual(find(f"/-/vm?{query}"), Credential("query", expected))

    def test_malformed(self) -> None:
        """A query value that is not percent-encoded ASCII is refused."""
        for query in ("token=%", "token=a%2", "token=%zz", "token=%e4", "token=%C3%A4", "token=%u0041"):
            with self.subTest(query), self.assertRaises(BadRequest):
                find(f"/-/vm?{query}")

    def test_other_names(self) -> None:
        """Names that only look alike are others."""
        for query in ("Token=x", "tokens=x", "xtoken=x", "token%00=x", "", "?token=x", "a=token=x"):
            with self.subTest(query), self.assertRaises(BadToken):
                find(f"/-/vm?{query}")


class QueryName(unittest.TestCase):
    def test_spellings(self) -> None:
        """Each spelling of the name is the name, and no other name is."""
        for query in ("token=x", "a=b&token=x&c", "%74%6f%6B%65%6E=x", "&&tok%65n=x", "x?token=y&token=x"):
            with self.subTest(query):
                self.assertEqual(find(f"/-/vm?{query}", enabled=("query",)).token, "x")
        for query in ("Token=x", "%54oken=x", "tokens=x", "xtoken=x", "token%20=x", "a=token=x", "a?token=x"):
            with self.subTest(query), self.assertRaises(BadToken):
                find(f"/-/vm?{query}", enabled=("query",))


class Cookie(unittest.TestCase):
    def test_among_others(self) -> None:
        """The cookie is found among others, in quotes or not, under its configured name."""
        for header, expected in (
            (f"Cookie: a=b; wsproxy_token={JWT}; c=d", JWT),
            (f"Cookie: a=b;wsproxy_token={JWT}", JWT),
            (f'Cookie: wsproxy_token="{JWT}"', JWT),
            ("Cookie: wsproxy_token=a=b", "a=b"),
            ('Cookie: wsproxy_token="', '"'),
            ("Cookie: wsproxy_token", ""),
        ):
            with self.subTest(header):
                self.assertEqual(find("/-/vm", header), Credential("cookie", expected))
        self.assertEqual(find("/-/vm", "Cookie: __Host-t=x", cookie_name="__Host-t").token, "x")

    def test_look_alikes(self) -> None:
        """A name with anything but HTTP's own space around it is another one."""
        for header in (
            f"Cookie: \xa0wsproxy_token={JWT}",
            f"Cookie: a=b;\x85wsproxy_token={JWT}",
            f"Cookie: wsproxy_token\xa0={JWT}",
            f"Cookie: a b wsproxy_token={JWT}",
        ):
            with self.subTest(header), self.assertRaises(BadToken):
                find("/-/vm", header)
        self.assertEqual(find("/-/vm", f"Cookie: a=b; \t wsproxy_token \t= {JWT} \t; c").token, JWT)

    def test_two_headers(self) -> None:
        """Several Cookie headers are one list."""
        self.assertEqual(find("/-/vm", "Cookie: a=b", COOKIE), Credential("cookie", JWT))
        with self.assertRaises(BadRequest):
            find("/-/vm", COOKIE, COOKIE)

    def test_other_names(self) -> None:
        """Names differ by case and are compared whole."""
        for header in ("Cookie: WSPROXY_TOKEN=x", "Cookie: xwsproxy_token=x", "Cookie: a=wsproxy_token=x"):
            with self.subTest(header), self.assertRaises(BadToken):
                find("/-/vm", header)


class Ticket(unittest.TestCase):
    def test_ticket(self) -> None:
        """If tickets are enabled, a path segment in a ticket's form is a ticket."""
        for enabled in (CREDENTIALS, DEFAULT, ("header",)):
            found = find(f"/{TICKET}/vm", enabled=enabled, tickets=True)
            self.assertEqual(found, Credential("ticket", TICKET))

    def test_no_ticket(self) -> None:
        """Any other segment is a token; if tickets are disabled, a ticket's form is a token, too."""
        for element, tickets in ((JWT, True), (TICKET[1:], True), (f"{TICKET}x", True), (TICKET, False)):
            with self.subTest(element):
                self.assertEqual(find(f"/{element}/vm", tickets=tickets), Credential("path", element))
        with self.assertRaises(BadToken):
            find(f"/{JWT}/vm", enabled=("header",), tickets=True)

    def test_next_to_a_token(self) -> None:
        """A ticket is a credential: next to another one it is refused."""
        for header in (HEADER, SUBPROTOCOL, COOKIE):
            with self.subTest(header), self.assertRaises(BadRequest):
                find(f"/{TICKET}/vm", header, tickets=True)


if __name__ == "__main__":
    unittest.main()
