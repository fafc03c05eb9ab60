"""Programs that share a Redis fetch a JWK Set for each other."""

from __future__ import annotations

import unittest
from unittest import mock

from tests.behaviour.test_fetched_together import JWKSCase
from tests.integration.redis_server import REDIS_SERVER, RedisServer
from tests.support.proxy_process import ProxyProcess
from tests.web.test_screenshots import ScreenshotCase

_PROGRAMS = 3


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class RedisPicturesTest(ScreenshotCase):
    fresh = False

    def test_workers(self) -> None:
        """Workers that share a Redis take a screenshot once, and none of it is in the Redis."""
        server = RedisServer()
        self.addCleanup(server.close)
        program = ProxyProcess(
            self.api, WSPROXY_SCREENSHOTS="true", WSPROXY_WORKERS="4", WSPROXY_STATE=server.url
        )
        self.addCleanup(program.close)
        with mock.patch.object(type(self), "address", program.address):
            for _ in range(20):
                self.assert_picture("/-/vm/screenshot.png", self.bearer())
        self.assertEqual(len(self.asked), 1)
        with server.client() as client:
            self.assertFalse([key for key in client.scan_iter() if b"cop" in key])


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class RedisCopiesTest(JWKSCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = RedisServer()
        self.addCleanup(self.server.close)

    def program(self, **settings: str) -> ProxyProcess:
        return self.start(
            WSPROXY_WORKERS="1", WSPROXY_STATE=self.server.url, WSPROXY_STATE_LEASE="1", **settings
        )

    def test_set(self) -> None:
        """One program fetches the set; the others find it in the Redis."""
        programs = [self.program() for _ in range(_PROGRAMS)]
        for program in programs:
            self.assert_learnt(program, 1, 1)
        self.assertEqual(len(self.issuer.requests), 1)

    def test_server_ends(self) -> None:
        """Without the Redis each program fetches the set, in its interval."""
        programs = [self.program(WSPROXY_JWKS_INTERVAL="1") for _ in range(_PROGRAMS)]
        for program in programs:
            self.assert_learnt(program, 1, 1)
        self.server.stop()
        self.issuer.publish(self.first.jwk, self.second.jwk)
        for program in programs:
            self.assert_learnt(program, 2, 1)
