"""The ``authorize`` hook: it refuses or narrows a grant, and a wrong answer refuses."""

from __future__ import annotations

import math
import unittest
from dataclasses import replace
from typing import Any, cast

from wsproxy.access.hooks import AccessRequest, Authorize, authorized
from wsproxy.exceptions import Forbidden, LimitExceeded
from wsproxy.tokens.claims import Grant, TokenKey

GRANT = Grant(5, "lab-1", ("vm", "other"), 1e12, "id-5")
REQUEST = AccessRequest("lab-1", "vm", "vnc", "192.0.2.1", None, "path", None)


def returning(value: object) -> Authorize:
    return lambda grant, request: cast(Any, value)


class AuthorizedTest(unittest.TestCase):
    def assert_fails(self, hook: Authorize) -> str:
        """Assert that a faulty hook refuses the client and logs one error; return that error."""
        with (
            self.assertLogs("wsproxy.authorization", "ERROR") as logs,
            self.assertRaises(Forbidden) as caught,
        ):
            authorized(hook, GRANT, REQUEST)
        self.assertEqual(caught.exception.message, "the authorize hook failed")
        (line,) = logs.output
        return line

    def test_called_with(self) -> None:
        """The hook is given the grant and the request, and None from it changes nothing."""
        seen: list[object] = []

        def hook(grant: Grant, request: AccessRequest) -> None:
            seen.extend([grant, request])

        self.assertIs(authorized(hook, GRANT, REQUEST), GRANT)
        self.assertEqual(seen, [GRANT, REQUEST])

    def test_narrowed(self) -> None:
        """A grant of fewer VMIs or less time takes the place of the token's."""
        for narrowed in (
            GRANT,
            replace(GRANT),
            replace(GRANT, vmis=("vm",)),
            replace(GRANT, vmis=()),
            replace(GRANT, expires_at=1e11),
            replace(GRANT, may_take_over=False),
            replace(GRANT, expires_at=0.0, vmis=("other",)),
        ):
            with self.subTest(narrowed):
                self.assertEqual(authorized(returning(narrowed), GRANT, REQUEST), narrowed)

    def test_token_key(self) -> None:
        """A grant from the hook is revoked together with the token."""
        key = TokenKey(b"digest", GRANT.expires_at)
        grant = replace(GRANT, token_key=key)
        for answer in (
            None,
            grant,
            GRANT,
            replace(GRANT, expires_at=0.0, token_key=TokenKey(b"another", 0.0)),
        ):
            self.assertEqual(authorized(returning(answer), grant, REQUEST).token_key, key)

    def test_widened(self) -> None:
        """A grant of anything more, or of anything else, refuses."""
        for widened in (
            replace(GRANT, vmis=("vm", "third")),
            replace(GRANT, expires_at=1e13),
            replace(GRANT, expires_at=math.inf),
            replace(GRANT, expires_at=math.nan),
            replace(GRANT, expires_at=10**400),  # as no float is
            replace(GRANT, namespace="lab-2"),
            replace(GRANT, user=6),
            replace(GRANT, token_id="another"),
            replace(GRANT, vmis=cast(Any, ["vm"])),
            replace(GRANT, vmis=cast(Any, "vm")),
        ):
            with self.subTest(widened):
                self.assertIn("more than the token grants", self.assert_fails(returning(widened)))

    def test_takeover_given_back(self) -> None:
        """The hook cannot allow to take over what the token does not."""
        meek = replace(GRANT, may_take_over=False)
        hook = returning(replace(meek, may_take_over=True))
        with self.assertLogs("wsproxy.authorization", "ERROR"), self.assertRaises(Forbidden):
            authorized(hook, meek, REQUEST)

    def test_other_answers(self) -> None:
        """Any answer but None or a grant refuses, such as True, False or a coroutine."""

        async def coroutine() -> None:
            raise AssertionError("it is awaited")

        for answer in (True, False, 0, "", "yes", {}, {"vmis": ["vm"]}):
            with self.subTest(answer):
                self.assertIn(type(answer).__name__, self.assert_fails(returning(answer)))
        pending = coroutine()
        self.addCleanup(pending.close)
        self.assertIn("coroutine", self.assert_fails(returning(pending)))

    def test_refuses(self) -> None:
        """A refusal that the hook raises reaches the client unchanged, and counts as no failure."""
        for refused in (Forbidden("not after midnight"), LimitExceeded("consoles", "one at a time")):

            def hook(grant: Grant, request: AccessRequest, refused: Exception = refused) -> None:
                raise refused

            with (
                self.subTest(refused),
                self.assertNoLogs("wsproxy", "DEBUG"),
                self.assertRaises(type(refused)) as caught,
            ):
                authorized(hook, GRANT, REQUEST)
            self.assertIs(caught.exception, refused)

    def test_fails(self) -> None:
        """Whatever else a hook raises refuses, and its traceback goes to the log only."""

        def hook(grant: Grant, request: AccessRequest) -> None:
            raise KeyError("a bug of the embedder")

        line = self.assert_fails(hook)
        self.assertIn("Traceback", line)
        self.assertIn("a bug of the embedder", line)


if __name__ == "__main__":
    unittest.main()
