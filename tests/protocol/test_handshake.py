"""The opening handshake on the server's side: heads in any pieces, each refusal, and the answer."""

from __future__ import annotations

import json
import random
import time
import unittest
from itertools import pairwise

from wsproto.utilities import generate_accept_token

from wsproxy.exceptions import (
    BadRequest,
    BadToken,
    Busy,
    ContentTooLarge,
    HeadTooLarge,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
    Refused,
    UpgradeRequired,
)
from wsproxy.protocol.handshake import Upgrade, answered_subprotocol, offered_upstream
from wsproxy.protocol.request import MAX_HEAD_SIZE, HeadReader, RequestHead
from wsproxy.protocol.response import http_response, refusal_response

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
SECRET_PATH = b"/eyJhbGciOi.c2VjcmV0.signature/ubuntu"
HEADERS = {
    b"Host": b"proxy.example:5001",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
}
CLIENT_HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(range(256))


def request(
    *more: tuple[bytes, bytes],
    without: bytes = b"",
    first: bytes = b"GET " + SECRET_PATH + b" HTTP/1.1",
    **changed: bytes,
) -> bytes:
    """Return an upgrade request; ``changed`` names headers with ``_`` for ``-``."""
    fields = {name: value for name, value in HEADERS.items() if name != without}
    for name, value in changed.items():
        fields[name.replace("_", "-").encode()] = value
    lines = [first, *(name + b": " + value for name, value in [*fields.items(), *more])]
    return b"\r\n".join([*lines, b"", b""])


def head_of(data: bytes) -> RequestHead:
    """Return the parsed head of a whole request."""
    head = HeadReader().feed(data)
    assert head is not None
    return head


def upgrade_of(data: bytes) -> Upgrade:
    return Upgrade(head_of(data))


def random_cuts(data: bytes, dice: random.Random) -> list[bytes]:
    """Return the data in pieces of random lengths, none of them empty."""
    places = sorted({0, len(data), *dice.choices(range(len(data) + 1), k=dice.randrange(1, 20))})
    return [data[start:stop] for start, stop in pairwise(places)]


def outcome(chunks: list[bytes]) -> object:
    """Return the result for a request that arrives in these pieces: its content, or the refusal."""
    reader = HeadReader()
    for place, chunk in enumerate(chunks):
        try:
            head = reader.feed(chunk)
            if head:
                rest = reader.rest + b"".join(chunks[place + 1 :])
                found: list[object] = [head.method, head.target, head.http_version, head.headers, rest]
                if head.asks_for_websocket:
                    found += [Upgrade(head).subprotocols, Upgrade(head).origin]
                return found
        except Refused as refused:
            return type(refused), str(refused), refused.headers
    return None


class UpgradeCase(unittest.TestCase):
    def refuse(self, data: bytes, kind: type[Refused]) -> Refused:
        """Check that a request is refused in the same way for all cuts, and is not quoted."""
        with self.assertRaises(Refused) as caught:
            upgrade_of(data)
        refused = caught.exception
        self.assertIs(type(refused), kind, str(refused))
        self.same_in_pieces(data)
        shown = f"{refused!r} {refused.log_detail} {refused.headers} {refusal_response(refused)!r}"
        self.assertTrue(refused.__cause__ is None)
        self.assertTrue(refused.__suppress_context__ or refused.__context__ is None)
        for part in (b"eyJhbGciOi", b"c2VjcmV0", b"ubuntu", KEY, b"evil"):
            self.assertNotIn(part.decode(), shown)
        return refused

    def same_in_pieces(self, data: bytes) -> None:
        """Check that a request gives the same result whole, byte by byte and at random cuts."""
        whole = outcome([data])
        self.assertEqual(outcome([data[i : i + 1] for i in range(len(data))]), whole)
        dice = random.Random(len(data))
        for _ in range(10):
            self.assertEqual(outcome(random_cuts(data, dice)), whole)


class HeadReaderTest(UpgradeCase):
    def test_parts(self) -> None:
        """The method, the target, the version and the headers are as they were sent."""
        head = head_of(request((b"X-Twice", b"1"), (b"x-twice", b"2")))
        self.assertEqual((head.method, head.target, head.http_version), ("GET", SECRET_PATH.decode(), "1.1"))
        self.assertEqual(head.values("x-twice"), ["1", "2"])
        self.assertEqual(head.values("x-other"), [])
        self.assertTrue(head.asks_for_websocket)

    def test_tokens(self) -> None:
        """The elements of a list header are found over several lines, and empty ones are skipped."""
        head = head_of(request((b"A", b"x, y"), (b"A", b",, z ,")))
        self.assertEqual(head.tokens("a"), ["x", "y", "z"])

    def test_cuts(self) -> None:
        """Whole, byte by byte and at random cuts, a request gives the same."""
        for data in (
            request(),
            request() + b"\x81\x85frame",
            request() + b"GET / HTTP/1.1\r\n\r\n",
            request(first=b"GET /healthz HTTP/1.1", without=b"Upgrade"),
            request(first=b"HEAD / HTTP/1.0"),
            request(Sec_WebSocket_Protocol=b"binary, base64", Origin=b"https://a.example"),
            request(first=b"GET / HTTP/1.1\r\nX: a\r\n b"),  # obs-fold
            request()[:-1],
            b"",
        ):
            with self.subTest(data=data):
                self.same_in_pieces(data)

    def test_random_heads(self) -> None:
        """The same holds for requests with random damage."""
        dice = random.Random(7)
        alphabet = b"\r\n\0 :,;/%\t\x80\xffAz0-"
        for _ in range(300):
            data = bytearray(request((b"Origin", b"https://a.example")) + dice.randbytes(dice.randrange(5)))
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.choice(alphabet)
            self.same_in_pieces(bytes(data))

    def test_absolute_form(self) -> None:
        """A target that names the host of the Host header means its path (RFC 9112 section 3.2.2)."""
        for target, host, expected in (
            (b"http://proxy/a/b?c", b"proxy", "/a/b?c"),
            (b"HTTPS://Proxy:443/a", b"proxy", "/a"),
            (b"http://proxy:5001/a", b"PROXY:5001", "/a"),
            (b"http://[::1]:5001/a", b"[0::1]:5001", "/a"),
            (b"http://proxy", b"proxy", "/"),
            (b"http://proxy?a=b", b"proxy", "/?a=b"),
            (b"http://proxy//a", b"proxy", "//a"),
        ):
            with self.subTest(target=target):
                head = head_of(request(first=b"GET " + target + b" HTTP/1.1", Host=host))
                self.assertEqual(head.target, expected)
        for target in (
            b"http://other/a",
            b"http://proxy:5001/a",
            b"http://proxy.evil.example/a",
            b"http://user@proxy/a",
            b"http://proxy@evil.example/a",
            b"http://proxy\\@evil.example/a",
            b"ftp://proxy/a",
            b"ws://proxy/a",
            b"http:///a",
            b"http:/proxy/a",
            b"http://proxy/a#b",
            b"proxy:80",
            b"*",
        ):
            with self.subTest(target=target):
                head = head_of(request(first=b"GET " + target + b" HTTP/1.1", Host=b"proxy"))
                self.assertEqual(head.target, target.decode())

    def test_incomplete(self) -> None:
        """An incomplete head is waited for."""
        reader = HeadReader()
        for byte in request()[:-1]:
            self.assertIsNone(reader.feed(bytes([byte])))
        self.assertIsNotNone(reader.feed(b"\n"))
        self.assertEqual(reader.rest, b"")

    def test_rest(self) -> None:
        """The bytes behind the head are kept, whatever they are."""
        for rest in (b"", b"\x81\x80abcd", b"\n\n\n", b"x" * 100_000):
            reader = HeadReader()
            reader.feed(request() + rest)
            self.assertEqual(reader.rest, rest)

    def test_size(self) -> None:
        """A head of exactly 16 KiB passes; one byte more is 431, at once, whole or in pieces."""
        size = MAX_HEAD_SIZE - len(request((b"X", b"")))
        good = request((b"X", b"x" * size))
        self.assertEqual(len(good), MAX_HEAD_SIZE)
        self.assertIsNotNone(HeadReader().feed(good))
        self.assertIsNotNone(HeadReader().feed(good + b"x" * MAX_HEAD_SIZE))
        large = request((b"X", b"x" * (size + 1)))
        for chunks in (
            [large],
            [large[:-1], large[-1:]],
            [large[:-5], large[-5:]],
            [large[i : i + 100] for i in range(0, len(large), 100)],
        ):
            found = outcome(chunks)
            assert isinstance(found, tuple)
            self.assertIs(found[0], HeadTooLarge)
        self.assertEqual(HeadTooLarge("x").status, 431)

    def test_lines(self) -> None:
        """A head of a hundred header lines passes; one more is 431."""
        lines = request().count(b"\r\n") - 2
        self.assertIsNotNone(HeadReader().feed(request(*[(b"X", b"")] * (100 - lines))))
        found = outcome([request(*[(b"X", b"")] * (101 - lines))])
        assert isinstance(found, tuple)
        self.assertIs(found[0], HeadTooLarge)

    def test_cost_of_single_bytes(self) -> None:
        """If a head comes byte by byte, each byte costs the same time."""

        def seconds(size: int) -> float:
            reader, started = HeadReader(), time.thread_time()
            reader.feed(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(size):
                reader.feed(b"x")
            return time.thread_time() - started

        short = min(seconds(1500) for _ in range(3))
        self.assertLess(min(seconds(15000) for _ in range(3)), 4 * 10 * short)

    def test_endless_head(self) -> None:
        """A head that never ends is refused at the first byte above the limit."""
        reader = HeadReader()
        self.assertIsNone(reader.feed(request()[:-2] + b"X: "))
        missing = MAX_HEAD_SIZE - len(request()[:-2] + b"X: ")
        self.assertIsNone(reader.feed(b"x" * missing))
        self.assertRaises(HeadTooLarge, reader.feed, b"x")

    def test_tls_on_a_plain_port(self) -> None:
        """A TLS ClientHello is answered at its first byte, with a hint at https and wss."""
        for data in (CLIENT_HELLO, CLIENT_HELLO[:1]):
            with self.assertRaises(BadRequest) as caught:
                HeadReader().feed(data)
            self.assertIn("https or wss", str(caught.exception))
        self.refuse(CLIENT_HELLO, BadRequest)

    def test_not_http(self) -> None:
        """Bytes that cannot begin a method are refused at once."""
        for data in (b"\0", b"\r\n" + request(), b" " + request(), b"\n", b"\x80\x2e\x01", b"{}", b"5"):
            with self.subTest(data=data[:9]):
                self.assertRaises(BadRequest, HeadReader().feed, data)

    def test_bare_lf(self) -> None:
        """A line that ends with LF without CR is refused, wherever it is."""
        data = request((b"X", b"evil"))
        for place in [i for i in range(len(data)) if data[i : i + 2] == b"\r\n"]:
            with self.subTest(place=place):
                damaged = data[:place] + data[place + 1 :]
                self.same_in_pieces(damaged)
                found = outcome([damaged])
                assert isinstance(found, tuple) or found is None
                self.assertTrue(found is None or found[0] is BadRequest)
        self.refuse(data.replace(b"\r\n", b"\n", 1), BadRequest)
        self.assertRaises(BadRequest, HeadReader().feed, b"GET / HTTP/1.1\nHost: a\n\n")

    def test_folded_lines(self) -> None:
        """Any header that continues on the next line is refused (RFC 9112 section 5.2)."""
        for space in (b" ", b"\t"):
            for value in (b"a\r\n" + space + b"b", b"a\r\n" + space, b"\r\n" + space + b"Upgrade: h2c"):
                self.refuse(request((b"X", value)), BadRequest)

    def test_malformed(self) -> None:
        """Bytes that are not HTTP/1.1 are refused, and h11's text, which quotes them, is not shown."""
        for data in (
            request(first=b"GET " + SECRET_PATH),
            request(first=b"GET  " + SECRET_PATH + b" HTTP/1.1"),
            request(first=b"GET " + SECRET_PATH + b" x HTTP/1.1"),
            request(first=b"GET " + SECRET_PATH + b" HTTP/11"),
            request(first=b"GET " + SECRET_PATH + b" HTTP/1.1 "),
            request(first=b"GET\t" + SECRET_PATH + b"\tHTTP/1.1"),
            request(first=b"G(ET " + SECRET_PATH + b" HTTP/1.1"),
            request(first=b"GET " + SECRET_PATH + b"\xc3\xa4 HTTP/1.1"),
            request(first=b"GET " + SECRET_PATH + b"\0 HTTP/1.1"),
            request((b"X evil", b"x")),
            request((b"X-evil ", b"x")),
            request((b"", b"evil")),
            request((b"X", b"evil\0")),
            request((b"X", b"evil\rx")),
            request(without=b"Host"),
            request((b"Host", b"evil")),
            request(Content_Length=b"evil"),
            request((b"Content-Length", b"1"), (b"Content-Length", b"2")),
            request(Transfer_Encoding=b"evil"),
            b"evil\r\n\r\n",
        ):
            with self.subTest(data=data[-60:]):
                self.refuse(data, BadRequest)


class RefusalTest(UpgradeCase):
    def test_method(self) -> None:
        """An upgrade is a GET; other methods are 405."""
        for method in (b"POST", b"HEAD", b"PUT", b"OPTIONS", b"get"):
            with self.subTest(method=method):
                refused = self.refuse(
                    request(first=method + b" " + SECRET_PATH + b" HTTP/1.1"), MethodNotAllowed
                )
                self.assertEqual(refused.headers, (("Allow", "GET"),))

    def test_http_version(self) -> None:
        """An upgrade by HTTP/1.0 or HTTP/2 is refused."""
        for version in (b"1.0", b"2.0", b"0.9"):
            with self.subTest(version=version):
                self.refuse(request(first=b"GET " + SECRET_PATH + b" HTTP/" + version), BadRequest)

    def test_websocket_version(self) -> None:
        """Another version, or none, is 426, and the answer names the supported version."""
        for data in (
            request(Sec_WebSocket_Version=b"8"),
            request(Sec_WebSocket_Version=b"14"),
            request(Sec_WebSocket_Version=b"evil"),
            request(Sec_WebSocket_Version=b""),
            request(Sec_WebSocket_Version=b"13, 8"),
            request(Sec_WebSocket_Version=b"013"),
            request(without=b"Sec-WebSocket-Version"),
        ):
            with self.subTest(data=data[-60:]):
                refused = self.refuse(data, UpgradeRequired)
                response = refusal_response(refused)
                self.assertTrue(response.startswith(b"HTTP/1.1 426 Upgrade Required\r\n"))
                self.assertIn(b"\r\nSec-WebSocket-Version: 13\r\n", response)
        self.refuse(request((b"Sec-WebSocket-Version", b"13")), BadRequest)

    def test_key(self) -> None:
        """The key is one header, the base64 form of 16 bytes."""
        for key in (
            b"",
            b"evil",
            KEY[:-1],
            KEY + b"=",
            KEY[:-4],
            b"!" + KEY[1:],
            KEY + KEY,
            b"AAAA" + KEY,
            KEY[:8] + b" " + KEY[8:],
        ):
            with self.subTest(key=key):
                self.refuse(request(Sec_WebSocket_Key=key), BadRequest)
        self.refuse(request(without=b"Sec-WebSocket-Key"), BadRequest)
        self.refuse(request((b"Sec-WebSocket-Key", KEY)), BadRequest)
        self.refuse(request((b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA==")), BadRequest)

    def test_upgrade_header(self) -> None:
        """Upgrade has to contain websocket only."""
        for value in (b"websocket, h2c", b"h2c, websocket", b"websocket,", b"websocket, websocket"):
            with self.subTest(value=value):
                self.refuse(request(Upgrade=value), BadRequest)
        self.refuse(request((b"Upgrade", b"h2c")), BadRequest)
        self.refuse(request((b"Upgrade", b"websocket")), BadRequest)

    def test_connection_header(self) -> None:
        """Connection has to contain Upgrade."""
        for value in (b"", b"keep-alive", b"Upgrad", b"close", b"Upgrade-x"):
            with self.subTest(value=value):
                self.refuse(request(Connection=value), BadRequest)
        self.refuse(request(without=b"Connection"), BadRequest)

    def test_body(self) -> None:
        """An upgrade request with a body is refused, so that the body cannot pass for a second request."""
        for name, value in (
            (b"Content-Length", b"5"),
            (b"Content-Length", b"00"),
            (b"Transfer-Encoding", b"chunked"),
        ):
            with self.subTest(name=name, value=value):
                self.refuse(request((name, value)), BadRequest)
        upgrade_of(request((b"Content-Length", b"0")))

    def test_empty_lists(self) -> None:
        """A header without a value means the same as no header."""
        for name in ("Sec_WebSocket_Protocol", "Sec_WebSocket_Extensions"):
            for value in (b"", b" ", b","):
                with self.subTest(name=name, value=value):
                    self.assertEqual(upgrade_of(request(**{name: value})).subprotocols, ())

    def test_origin(self) -> None:
        """Two Origins are ambiguous."""
        self.refuse(
            request((b"Origin", b"https://a.example"), (b"Origin", b"https://evil.example")), BadRequest
        )

    def test_non_ascii(self) -> None:
        """A header of the handshake that is not ASCII is refused: wsproto would fail on some of them."""
        for name in ("Host", "Connection", "Sec_WebSocket_Protocol", "Origin", "Upgrade"):
            for value in (b"evil\xff", "ä".encode()):
                with self.subTest(name=name, value=value):
                    data = request(**{name: value})
                    if name == "Upgrade":
                        self.assertFalse(head_of(data).asks_for_websocket)
                    else:
                        self.refuse(data, BadRequest)

    def test_non_ascii_that_nobody_reads(self) -> None:
        """Values of all other headers are opaque bytes, such as user names, cities and foreign cookies."""
        for name in ("X", "X_Remote_User", "X_City", "Sec_WebSocket_Extensions", "Cookie", "User_Agent"):
            for value in (b"J\xfcrgen", "Jürgen".encode(), bytes(range(0x80, 0x100))):
                with self.subTest(name=name, value=value):
                    upgrade_of(request(**{name: value})).accept(None)

    def test_host_that_is_no_name(self) -> None:
        """A Host that wsproto cannot decode is refused."""
        for host in (b"a" * 64 + b".example", b"xn--a", b"a..b"):
            with self.subTest(host=host[:10]):
                try:
                    upgrade_of(request(Host=host))
                except Refused as refused:
                    self.assertIs(type(refused), BadRequest)

    def test_subprotocol_header(self) -> None:
        """A subprotocol that is not a token is refused, so that it cannot add a header."""
        for value in (b"a b", b'"evil"', b"a/b", b"evil;x", b"a, b c", b"evil@x"):
            with self.subTest(value=value):
                self.refuse(request(Sec_WebSocket_Protocol=value), BadRequest)

    def test_body_of_other_requests(self) -> None:
        """A request without an upgrade can be refused for its body, too."""
        head = head_of(
            request((b"Content-Length", b"3"), first=b"POST /healthz HTTP/1.1", without=b"Upgrade")
        )
        self.assertFalse(head.asks_for_websocket)
        self.assertRaises(BadRequest, head.refuse_body)
        head_of(request((b"Content-Length", b"0"))).refuse_body()
        head_of(request()).refuse_body()

    def test_body_size(self) -> None:
        """A body's length is said once, in digits, and within the limit."""
        for length, size in ((b"1", 1), (b"4096", 4096), (b"000000000000000012", 12)):
            with self.subTest(length=length):
                self.assertEqual(head_of(request((b"Content-Length", length))).body_size(4096), size)
        for lengths, error in (
            ([], LengthRequired),
            ([b"0"], BadRequest),
            ([b"4097"], ContentTooLarge),
            ([b"9" * 18], ContentTooLarge),
        ):
            with self.subTest(lengths=lengths), self.assertRaises(error):
                head_of(request(*((b"Content-Length", length) for length in lengths))).body_size(4096)
        chunked = (b"Transfer-Encoding", b"chunked")
        self.assertRaises(LengthRequired, head_of(request(chunked)).body_size, 9)
        self.assertRaises(BadRequest, head_of(request(chunked, (b"Content-Length", b"1"))).body_size, 9)

    def test_other_upgrades_are_ignored(self) -> None:
        """An Upgrade to another protocol than websocket is ignored (RFC 9110 section 7.8)."""
        for value in (b"h2c", b"TLS/1.0", b"", b"websockets"):
            with self.subTest(value=value):
                self.assertFalse(head_of(request(Upgrade=value)).asks_for_websocket)


class AcceptTest(UpgradeCase):
    def test_response(self) -> None:
        """The 101 carries the right accept value, and no subprotocol or extension that was not agreed."""
        for data in (
            request(),
            request(Upgrade=b"WebSocket", Connection=b"keep-alive, UPGRADE"),
            request(Sec_WebSocket_Extensions=b"permessage-deflate; client_max_window_bits"),
            request(Sec_WebSocket_Protocol=b"binary"),
            request(Host=b"[::1]:5001"),
        ):
            with self.subTest(data=data):
                response = upgrade_of(data).accept(None)
                head, end, rest = response.partition(b"\r\n\r\n")
                self.assertEqual((end, rest), (b"\r\n\r\n", b""))
                status, *lines = head.lower().split(b"\r\n")
                self.assertTrue(status.startswith(b"http/1.1 101 "))
                accept = b"sec-websocket-accept: " + generate_accept_token(KEY).lower()
                self.assertEqual(set(lines), {b"upgrade: websocket", b"connection: upgrade", accept})

    def test_rfc_example(self) -> None:
        """The accept value of RFC 6455 section 1.3 comes out."""
        self.assertIn(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", upgrade_of(request()).accept(None))

    def test_connection_over_several_lines(self) -> None:
        """Connection may be several lines, as any list header (RFC 9110 section 5.3), in either order."""
        for first, second in ((b"keep-alive", b"Upgrade"), (b"Upgrade", b"keep-alive")):
            with self.subTest(first=first):
                response = upgrade_of(request((b"Connection", second), Connection=first)).accept(None)
                self.assertTrue(response.startswith(b"HTTP/1.1 101 "))

    def test_subprotocol(self) -> None:
        """Each offered subprotocol can be answered, in whatever line it was offered."""
        data = request((b"Sec-WebSocket-Protocol", b"one, Two"), (b"Sec-WebSocket-Protocol", b",three"))
        self.assertEqual(upgrade_of(data).subprotocols, ("one", "Two", "three"))
        for name in ("one", "Two", "three"):
            response = upgrade_of(data).accept(name)
            self.assertIn(f"\r\nsec-websocket-protocol: {name.lower()}\r\n".encode(), response.lower())
            self.assertIn(name.encode(), response)

    def test_origin(self) -> None:
        """The Origin is that of the header, None without one."""
        self.assertIsNone(upgrade_of(request()).origin)
        self.assertEqual(upgrade_of(request(Origin=b"https://a.example")).origin, "https://a.example")
        self.assertEqual(upgrade_of(request(Origin=b"null")).origin, "null")
        self.assertEqual(upgrade_of(request(Origin=b"")).origin, "")


class SubprotocolTest(unittest.TestCase):
    def test_offered_upstream(self) -> None:
        """Upstream is offered what the client offers, and KubeVirt's own, once."""
        for client, offered in (
            ((), ("plain.kubevirt.io",)),
            (("binary",), ("binary", "plain.kubevirt.io")),
            (("b", "a"), ("b", "a", "plain.kubevirt.io")),
            (("plain.kubevirt.io", "a"), ("plain.kubevirt.io", "a")),
            (("a", "a"), ("a", "plain.kubevirt.io")),
        ):
            with self.subTest(client=client):
                self.assertEqual(offered_upstream(client), offered)

    def test_tokens_are_not_offered(self) -> None:
        """A subprotocol that carries a token, Kubernetes' way, never goes upstream."""
        bearer = "base64url.bearer.authorization.k8s.io.c2VjcmV0"
        self.assertEqual(offered_upstream((bearer, "binary")), ("binary", "plain.kubevirt.io"))
        self.assertEqual(offered_upstream(("base64url.bearer.x",)), ("plain.kubevirt.io",))

    def test_answered(self) -> None:
        """The client is answered the upstream's choice in its own spelling, else binary, else none."""
        for client, upstream, answer in (
            ((), None, None),
            ((), "plain.kubevirt.io", None),
            (("binary",), None, "binary"),
            (("Binary", "base64"), None, "Binary"),
            (("base64",), None, None),
            (("base64", "binary"), "plain.kubevirt.io", "binary"),
            (("binary", "plain.kubevirt.io"), "plain.kubevirt.io", "plain.kubevirt.io"),
            (("binary", "Plain.KubeVirt.io"), "plain.kubevirt.io", "Plain.KubeVirt.io"),
            (("a", "b"), "B", "b"),
            (("a",), "b", None),
        ):
            with self.subTest(client=client, upstream=upstream):
                self.assertEqual(answered_subprotocol(client, upstream), answer)


class ResponseTest(unittest.TestCase):
    def parsed(self, response: bytes) -> tuple[bytes, dict[str, str], bytes]:
        head, _, body = response.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        fields = dict(line.decode().split(": ", 1) for line in lines)
        self.assertEqual(len(fields), len(lines))
        return status, fields, body

    def test_http_response(self) -> None:
        """A response is whole, closes the connection, and is never cached or sniffed."""
        status, fields, body = self.parsed(http_response(200, b"ok\n", headers=[("X", "y")]))
        self.assertEqual((status, body), (b"HTTP/1.1 200 OK", b"ok\n"))
        self.assertEqual(
            fields,
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": "3",
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Connection": "close",
                "X": "y",
            },
        )

    def test_head_only(self) -> None:
        """The answer to HEAD has the length of the body and not the body."""
        _, fields, body = self.parsed(http_response(200, b"ok\n", head_only=True))
        self.assertEqual((fields["Content-Length"], body), ("3", b""))

    def test_refusals(self) -> None:
        """A refusal says its status, close code, slug and message as JSON, and its headers."""
        for refused, code in (
            (BadToken("no token"), 4401),
            (Busy("full", retry_after=3), 4503),
            (NotFound("ä"), 4404),
        ):
            with self.subTest(refused=refused):
                status, fields, body = self.parsed(refusal_response(refused))
                self.assertTrue(status.startswith(b"HTTP/1.1 %d " % refused.status))
                self.assertEqual(fields["Content-Type"], "application/json")
                self.assertEqual(fields["Content-Length"], str(len(body)))
                self.assertLessEqual(dict(refused.headers).items(), fields.items())
                self.assertEqual(
                    json.loads(body),
                    {
                        "status": refused.status,
                        "code": code,
                        "reason": refused.slug,
                        "message": refused.message,
                    },
                )

    def test_http_only_refusals(self) -> None:
        """A refusal that exists only in HTTP has no close code."""
        _, _, body = self.parsed(refusal_response(UpgradeRequired()))
        self.assertIsNone(json.loads(body)["code"])
