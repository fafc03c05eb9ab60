"""From a WSGI environ to a request head."""

from __future__ import annotations

import unittest
from typing import Any

from wsproxy.exceptions import BadRequest, Refused
from wsproxy.protocol.handshake import Upgrade
from wsproxy.protocol.routing import RouteRules, session_route
from wsproxy.wsgi.environ import head_of, path_of, path_segments, peer_of

_RULES = RouteRules((), "vnc", frozenset({"vnc"}))


def environ(**changes: Any) -> dict[str, Any]:
    """Return the environ of an upgrade request, changed; None takes a key away."""
    made: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/token/ubuntu",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4321",
        "HTTP_HOST": "proxy",
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "AAECAwQFBgcICQoLDA0ODw==",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "binary, other",
    }
    made |= changes
    return {key: value for key, value in made.items() if value is not None}


class HeadTest(unittest.TestCase):
    def test_upgrade(self) -> None:
        """The head is that of the request that the server got."""
        head = head_of(environ(QUERY_STRING="a=b", CONTENT_TYPE="text/plain", CONTENT_LENGTH=""))
        self.assertEqual((head.method, head.target, head.http_version), ("GET", "/token/ubuntu?a=b", "1.1"))
        self.assertEqual(head.values("content-type"), ["text/plain"])
        self.assertEqual(head.values("content-length"), [])
        self.assertTrue(head.asks_for_websocket)
        self.assertEqual(Upgrade(head).subprotocols, ("binary", "other"))

    def test_below_a_mount(self) -> None:
        """The part of the path above the application is not part of the target."""
        made = environ(SCRIPT_NAME="/app", RAW_URI="/app/token/ubuntu")
        self.assertEqual(head_of(made).target, "/token/ubuntu")
        self.assertEqual(head_of(environ(PATH_INFO="")).target, "/")

    def test_target_as_sent(self) -> None:
        """If the server shows the raw target, faults that its decoded path hides are found."""
        for name in ("RAW_URI", "REQUEST_URI"):
            for raw in ("/tok%65n/ubuntu", "/token/ubuntu#x", "/token/ubuntu?a#x", "http://other/x/y", "*"):
                with self.subTest(name=name, raw=raw), self.assertRaises(BadRequest):
                    session_route(head_of(environ(**{name: raw})).target, _RULES)
        own = environ(RAW_URI="http://proxy/token/ubuntu", PATH_INFO="/token/ubuntu")
        self.assertEqual(head_of(own).target, "/token/ubuntu")
        with self.assertRaises(BadRequest):
            session_route(head_of(own | {"RAW_URI": "http://proxy/tok%65n/ubuntu"}).target, _RULES)
        target = head_of(environ(RAW_URI="/token/ubuntu?a=%20", QUERY_STRING="a=%20")).target
        self.assertEqual(target, "/token/ubuntu?a=%20")
        session_route(target, _RULES)

    def test_decoded_delimiters(self) -> None:
        """A question mark or a number sign that the server has decoded does not end the path."""
        for path in ("/token?x/ubuntu", "/token/ubuntu#x"):
            with self.subTest(path), self.assertRaises(BadRequest):
                session_route(head_of(environ(PATH_INFO=path)).target, _RULES)

    def test_joined_headers(self) -> None:
        """If a header may have one line only, lines that the server has joined are split again."""
        for name, value in (
            ("HTTP_HOST", "proxy,other"),
            ("HTTP_ORIGIN", "http://a,http://b"),
            ("HTTP_SEC_WEBSOCKET_KEY", "AAECAwQFBgcICQoLDA0ODw==,AAECAwQFBgcICQoLDA0ODw=="),
            ("HTTP_SEC_WEBSOCKET_VERSION", "13,13"),
            ("HTTP_UPGRADE", "websocket,websocket"),
        ):
            with self.subTest(name), self.assertRaises(BadRequest):
                Upgrade(head_of(environ(**{name: value})))

    def test_joined_credentials(self) -> None:
        """Two joined bearer tokens count as two; credentials of other schemes may contain commas."""
        for value, lines in (
            ("Bearer a,Bearer b", ["Bearer a", "Bearer b"]),
            ("Basic a, bearer b", ["Basic a", " bearer b"]),
            ('Digest a="b", c="d"', ['Digest a="b", c="d"']),
        ):
            self.assertEqual(head_of(environ(HTTP_AUTHORIZATION=value)).values("authorization"), lines)

    def test_joined_cookies(self) -> None:
        """Cookie lines are split again, even if a value contains a comma."""
        for value, lines in (
            ("a=b,wsproxy_token=x.y.z", ["a=b", "wsproxy_token=x.y.z"]),
            ("wsproxy_token=x.y.z,a=b; c=d", ["wsproxy_token=x.y.z", "a=b; c=d"]),
            ("a=1,2; b=3, 4,c=5", ["a=1,2; b=3, 4", "c=5"]),
            ("a=b; wsproxy_token=x.y.z", ["a=b; wsproxy_token=x.y.z"]),
            ("__Host-t=x,a=b", ["__Host-t=x", "a=b"]),
        ):
            with self.subTest(value=value):
                self.assertEqual(head_of(environ(HTTP_COOKIE=value)).values("cookie"), lines)

    def test_guarded_cookies(self) -> None:
        """No cookie value that a neighbouring host can set becomes a cookie that browsers guard."""
        for name in ("__Host-t", "__Secure-t", "__host-t", "__SECURE-t"):
            for value in (f"a=b,{name}=evil", f"a=b, {name}=evil", f"a=b,\t{name}=evil,c=d"):
                with self.subTest(value=value):
                    head = head_of(environ(HTTP_COOKIE=value))
                    self.assertFalse(any(line.startswith(name) for line in head.values("cookie")))

    def test_faults_of_an_upgrade(self) -> None:
        """An upgrade request is malformed for the same reasons as on the proxy's own port."""
        for changes, status in (
            ({"REQUEST_METHOD": "POST"}, 405),
            ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400),
            ({"SERVER_PROTOCOL": "HTTP/2.0"}, 400),
            ({"HTTP_HOST": None}, 400),
            ({"HTTP_CONNECTION": "keep-alive"}, 400),
            ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426),
            ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400),
            ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, 400),
            ({"HTTP_ORIGIN": "\xe4"}, 400),
            ({"CONTENT_LENGTH": "3"}, 400),
            ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400),
        ):
            with self.subTest(changes), self.assertRaises(Refused) as caught:
                Upgrade(head_of(environ(**changes)))
            self.assertEqual(caught.exception.status, status)

    def test_no_latin_1(self) -> None:
        """If a middleware has set a header that PEP 3333 does not allow, no client is refused for it."""
        head = head_of(environ(HTTP_X="\u20ac", HTTP_Y=5, HTTP_Ä="z"))
        self.assertEqual(Upgrade(head).subprotocols, ("binary", "other"))
        self.assertFalse(head.values("x")[0].isascii())
        self.assertEqual(head.values("y"), [])

    def test_segments(self) -> None:
        """Repeated slashes count as one."""
        self.assertEqual(path_segments({"PATH_INFO": "//a///b/"}), ("a", "b"))
        self.assertEqual(path_segments({}), ())

    def test_path(self) -> None:
        """``path_of`` returns the path unchanged, and "/" for an empty one."""
        self.assertEqual(path_of({"PATH_INFO": "//a///b/"}), "//a///b/")
        self.assertEqual((path_of({}), path_of({"PATH_INFO": ""})), ("/", "/"))

    def test_peer(self) -> None:
        """The client is the one that the server names, with IPv6 in brackets; "unknown" on a Unix socket."""
        self.assertEqual(str(peer_of(environ())), "192.0.2.1:4321")
        self.assertEqual(str(peer_of(environ(REMOTE_ADDR="2001:db8::1"))), "[2001:db8::1]:4321")
        self.assertEqual(str(peer_of(environ(REMOTE_PORT=None))), "192.0.2.1:0")
        self.assertEqual(str(peer_of(environ(REMOTE_ADDR=""))), "unknown")
