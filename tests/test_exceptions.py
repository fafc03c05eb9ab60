"""The table of refusals: what each cause says by HTTP and by WebSocket."""

from __future__ import annotations

import unittest
from http import HTTPStatus

from wsproxy import exceptions
from wsproxy.exceptions import (
    BadRequest,
    BadToken,
    Busy,
    ConfigError,
    ConsoleBusy,
    ContentTooLarge,
    Draining,
    Forbidden,
    HeadTooLarge,
    InternalError,
    LengthRequired,
    LimitExceeded,
    MethodNotAllowed,
    NotFound,
    ProtocolViolation,
    Refused,
    RequestTimeout,
    StateNotShared,
    StateUnavailable,
    TokenExpired,
    TokenNotYetValid,
    TransportClosed,
    UnsupportedMediaType,
    UnsupportedServer,
    UpgradeRequired,
    UpstreamRefused,
    UpstreamTimeout,
    VMINoConsole,
    VMINotFound,
    VMINotRunning,
    WSProxyError,
)
from wsproxy.protocol.frames import may_be_sent

TABLE: list[tuple[Refused, int, int | None, str]] = [
    (BadRequest("x"), 400, 4400, "bad-request"),
    (NotFound("x"), 404, 4404, "not-found"),
    (MethodNotAllowed("GET"), 405, None, "method-not-allowed"),
    (RequestTimeout("x"), 408, None, "request-timeout"),
    (LengthRequired("x"), 411, None, "length-required"),
    (ContentTooLarge("x"), 413, None, "content-too-large"),
    (UnsupportedMediaType("x"), 415, None, "unsupported-media-type"),
    (UpgradeRequired(), 426, None, "upgrade-required"),
    (HeadTooLarge("x"), 431, 4431, "head-too-large"),
    (InternalError(), 500, 4500, "internal-error"),
    (UnsupportedServer("x"), 501, None, "unsupported-server"),
    (StateNotShared("x"), 500, None, "state-not-shared"),
    (BadToken("x"), 401, 4401, "bad-token"),
    (TokenExpired("x"), 401, 4401, "token-expired"),
    (TokenNotYetValid("x"), 401, 4401, "token-not-yet-valid"),
    (Forbidden("x"), 403, 4403, "forbidden"),
    (VMINotFound("x"), 404, 4404, "vmi-not-found"),
    (ConsoleBusy("x"), 409, 4409, "console-busy"),
    (VMINotRunning("x"), 409, 4420, "vmi-not-running"),
    (VMINoConsole("x"), 409, 4421, "vmi-no-console"),
    (LimitExceeded("user", "x"), 429, 4429, "limit-user"),
    (Busy("x"), 503, 4503, "busy"),
    (Draining("x"), 503, 4503, "draining"),
    (StateUnavailable("x"), 503, 4503, "state-unavailable"),
    (UpstreamRefused("x"), 502, 4502, "upstream-refused"),
    (UpstreamTimeout("x"), 504, 4504, "upstream-timeout"),
]


def subclasses(kind: type[Refused]) -> set[type[Refused]]:
    """Return all classes derived from ``kind``, however far."""
    children = set(kind.__subclasses__())
    return children.union(*map(subclasses, children))


class TableTest(unittest.TestCase):
    def test_table(self) -> None:
        """Each cause has the status, the close code and the slug that the design promises."""
        for refused, status, close_code, slug in TABLE:
            with self.subTest(type(refused).__name__):
                found = (refused.status, refused.close_code, refused.slug)
                self.assertEqual(found, (status, close_code, slug))

    def test_table_is_complete(self) -> None:
        """No kind of refusal exists outside the table."""
        ours = {kind for kind in subclasses(Refused) if kind.__module__ == exceptions.__name__}
        self.assertEqual(ours, {type(row[0]) for row in TABLE})

    def test_close_codes_may_be_sent(self) -> None:
        """Every close code of the table lies in the range for private use."""
        for refused, _, close_code, _ in TABLE:
            if close_code is not None:
                with self.subTest(type(refused).__name__):
                    self.assertTrue(may_be_sent(close_code))
                    self.assertTrue(4000 <= close_code <= 4999)

    def test_statuses_are_registered(self) -> None:
        """Every status is one that HTTP knows, so that it has a reason phrase."""
        for refused, status, _, _ in TABLE:
            with self.subTest(type(refused).__name__):
                self.assertTrue(HTTPStatus(status).phrase)

    def test_slugs_fit_a_close_reason(self) -> None:
        """Every slug is lower-case ASCII without spaces, and short enough to begin a close reason."""
        for refused, _, _, slug in TABLE:
            with self.subTest(type(refused).__name__):
                self.assertRegex(slug, r"\A[a-z]+(-[a-z]+)*\Z")
                self.assertLess(len(slug), 40)

    def test_one_slug_one_cause(self) -> None:
        """No two causes share a slug."""
        slugs = [slug for _, _, _, slug in TABLE]
        self.assertEqual(len(slugs), len(set(slugs)))


class MessagesTest(unittest.TestCase):
    """What is told is one line of bounded length, whatever an embedding program gives."""

    def test_no_message(self) -> None:
        """A refusal without a text has one all the same."""
        for refused in (Forbidden(), Forbidden(""), Forbidden(" \n"), NotFound(), Busy(), LimitExceeded("x")):
            with self.subTest(type(refused).__name__):
                self.assertRegex(refused.message, r"^[a-z ]{10,}$")

    def test_one_line(self) -> None:
        """What would begin a line, or speak to a terminal, is a space; what is too long is cut off."""
        nasty = "a\nb\r\x00\x1b[2J\x85\u2028\u202e\ud800z"
        refused = LimitExceeded(nasty, nasty)
        busy = UpstreamRefused(nasty * 1000, log_detail=nasty * 1000)
        for text in (refused.message, refused.slug, busy.message, busy.log_detail):
            assert text is not None
            with self.subTest(text[:20]):
                self.assertTrue(text.isprintable())
                self.assertLessEqual(len(text), 1000)
        self.assertEqual(refused.message, "a b   [2J    z")
        self.assertEqual(Forbidden("J\xfcrgen \u4f60\u597d").message, "J\xfcrgen \u4f60\u597d")

    def test_lazy_texts(self) -> None:
        """A text may be an object that becomes one, as translations are."""

        class Lazy:
            def __str__(self) -> str:
                return "translated"

        self.assertEqual(Forbidden(Lazy()).message, "translated")  # type: ignore[arg-type]
        self.assertEqual(Forbidden(None).message, Forbidden().message)  # type: ignore[arg-type]


class HeadersTest(unittest.TestCase):
    def test_retry_after(self) -> None:
        """A limit and a full or stopping proxy say when to come back."""
        for refused, seconds in (
            (LimitExceeded("user", "x", retry_after=7), "7"),
            (Busy("x", retry_after=9), "9"),
            (Draining("x"), "5"),
        ):
            with self.subTest(type(refused).__name__):
                self.assertEqual(dict(refused.headers)["Retry-After"], seconds)

    def test_unauthorized_names_the_scheme(self) -> None:
        """A 401 names the scheme that would work (RFC 9110 section 11.6.1)."""
        for refused in (BadToken("x"), TokenExpired("x"), TokenNotYetValid("x")):
            self.assertEqual(dict(refused.headers)["WWW-Authenticate"], "Bearer")

    def test_method_not_allowed_lists_methods(self) -> None:
        """A 405 lists the methods that would be allowed (RFC 9110 section 15.5.6)."""
        refused = MethodNotAllowed("GET, HEAD")
        self.assertEqual(refused.headers, (("Allow", "GET, HEAD"),))
        self.assertIn("GET, HEAD", refused.message)

    def test_upgrade_required_names_the_version(self) -> None:
        """A 426 names the WebSocket version and the protocol to upgrade to (RFC 6455 section 4.4)."""
        headers = dict(UpgradeRequired().headers)
        self.assertEqual(headers["Sec-WebSocket-Version"], "13")
        self.assertEqual(headers["Upgrade"], "websocket")

    def test_headers_of_others(self) -> None:
        """Other refusals have the headers that they are given, and by default none."""
        self.assertEqual(NotFound("x").headers, ())
        self.assertEqual(Forbidden("x", headers=[("A", "b")]).headers, (("A", "b"),))


class TreeTest(unittest.TestCase):
    def test_one_root(self) -> None:
        """Every error of the package can be caught by one name."""
        for name in exceptions.__all__:
            with self.subTest(name):
                self.assertTrue(issubclass(getattr(exceptions, name), WSProxyError))

    def test_config_error(self) -> None:
        """A ConfigError is a ValueError that lists each fault and reads as one sentence."""
        error = ConfigError(fault for fault in ("one is wrong", "two is wrong"))
        self.assertIsInstance(error, ValueError)
        self.assertEqual(error.faults, ("one is wrong", "two is wrong"))
        self.assertEqual(str(error), "one is wrong; two is wrong")

    def test_violation_code(self) -> None:
        """A breach of RFC 6455 is a protocol error unless it says otherwise."""
        self.assertEqual(ProtocolViolation("x").code, 1002)
        self.assertEqual(ProtocolViolation("x", 1009).code, 1009)

    def test_expected_ends_are_no_refusals(self) -> None:
        """A connection that is gone is never mistaken for a refusal."""
        self.assertFalse(issubclass(TransportClosed, Refused))

    def test_draining_is_busy(self) -> None:
        """A stopping proxy is a busy one, and an expired token a bad one."""
        self.assertTrue(issubclass(Draining, Busy))
        self.assertTrue(issubclass(TokenExpired, BadToken))

    def test_log_detail_is_not_shown(self) -> None:
        """What only the operator may read is kept out of the message."""
        for refused in (UpstreamRefused("x", log_detail="inside"), BadToken("x", log_detail="inside")):
            self.assertEqual(refused.log_detail, "inside")
            self.assertEqual(refused.message, "x")
            self.assertNotIn("inside", repr(refused))
        self.assertIsNone(NotFound("x").log_detail)
