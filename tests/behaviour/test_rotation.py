"""Keys, the authority and the service account's token are rotated while sessions keep opening.

No client with a valid token is refused meanwhile, and no key is taken after its removal.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType

from tests.support.issuer import Issuer, SigningKey
from wsproxy import WebsocketProxy
from wsproxy.testing.case import SECRET, ProxyTestCase
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE
from wsproxy.testing.kubevirt.service_account import ServiceAccountDirectory
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token

_CLIENTS = 4
_ROUNDS = 5
_TIMEOUT = 60.0
_INTERVAL = 0.1

MakeToken = Callable[[str], str]
"""Makes a token for a VMI."""


def _echo(console: FakeConsole) -> None:
    while (frame := console.recv_frame(None)).opcode != CLOSE:
        console.send_frame(frame.opcode, frame.payload)
    console.send_close(1000)


class Traffic:
    """Clients that open sessions, one after the other, in several threads, until the end of the ``with``.

    Each has a VMI of its own, for a console has one session at a time.

    :param url: is given a VMI and a token and returns the session's URL.
    :param make: makes their tokens, see :meth:`use`.
    :ivar refused: what went wrong: nothing may.
    """

    def __init__(self, url: Callable[[str, str], str], make: MakeToken) -> None:
        self._url = url
        # Guards the attributes below.
        self._changed = threading.Condition()
        self._make = make
        self._stopping = False
        self._served = [0] * _CLIENTS
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_CLIENTS)]

    def use(self, make: MakeToken) -> None:
        """Give every later session a token that ``make`` makes."""
        with self._changed:
            self._make = make

    def flow(self) -> None:
        """Wait until every client has begun and ended two sessions from now on: none of before is left."""
        with self._changed:
            enough = [served + 3 for served in self._served]
            done = self._changed.wait_for(
                lambda: (
                    self.refused or all(now >= then for now, then in zip(self._served, enough, strict=True))
                ),
                _TIMEOUT,
            )
            assert done, "the sessions do not get on"

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
        for thread in self._threads:
            thread.join(_TIMEOUT)

    def _run(self, number: int) -> None:
        while True:
            with self._changed:
                if self._stopping or self.refused:
                    return
                make = self._make
            vmi = f"vm-{number}"
            refused = self._session(self._url(vmi, make(vmi)))
            with self._changed:
                self._served[number] += 1
                if refused:
                    self.refused.append(refused)
                self._changed.notify_all()

    def _session(self, url: str) -> str:
        """Open a session, use it and close it; return what went wrong."""
        try:
            client = RawClient.open(url)
            try:
                if client.status != 101:
                    return f"{client.status}: {client.body().decode()}"
                client.send_frame(BINARY, b"hello")
                if (echo := client.recv_frame()).payload != b"hello":
                    return f"no echo but {echo!r}"
                client.send_close()
                client.recv_close()
            finally:
                client.close()
        except Exception as exc:  # noqa: BLE001 - all of it is a failure
            return repr(exc)
        return ""


class RotationTest(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("vm", *(f"vm-{number}" for number in range(_CLIENTS))):
            self.api.add_vmi(name, self.namespace, backend=Script(_echo))
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def traffic(self, proxy: WebsocketProxy, make: MakeToken) -> Traffic:
        return Traffic(lambda vmi, token: self.url(proxy, vmi, token), make)

    def status(self, proxy: WebsocketProxy, token: str) -> int:
        with RawClient.open(self.url(proxy, "vm", token)) as client:
            return client.status

    def secret_token(self, secret: str) -> MakeToken:
        users = itertools.count()
        return lambda vmi: make_token(secret, namespace=self.namespace, vmis=[vmi], user=next(users))

    def test_key_files(self) -> None:
        """Secrets are rotated in mounted files: the new one comes, the tokens change, the old one goes."""
        volume = ServiceAccountDirectory(self.directory)
        names = itertools.cycle(("second", "first"))
        volume.write(first=SECRET.encode(), second=b"not in use, and of thirty-two bytes")
        proxy = self.start_proxy(
            secret_key="", secret_key_files=(volume.path("first"), volume.path("second"))
        )
        old = SECRET
        with self.traffic(proxy, self.secret_token(old)) as traffic:
            for number in range(_ROUNDS):
                traffic.flow()
                new, kept = f"{SECRET} of round {number}", self.secret_token(old)("vm")
                self.assertEqual(self.status(proxy, kept), 101)
                name, other = next(names), next(names)
                next(names)
                volume.write(**{name: new.encode()})
                traffic.use(self.secret_token(new))
                traffic.flow()
                self.assertEqual(self.status(proxy, kept), 101)
                volume.write(**{other: b"not in use any more, of thirty-two bytes"})
                for token in (kept, self.secret_token(old)("vm")):
                    self.assertEqual(self.status(proxy, token), 401)
                old = new
            traffic.flow()
        self.assertEqual(traffic.refused, [])

    def test_jwks_file(self) -> None:
        """Public keys are rotated in a file that is replaced, and tokens use the new key at once."""
        path = os.path.join(self.directory, "jwks")
        self.rotate_keys(path, lambda issuer: self.write(path, issuer.answer.partition(b"\r\n\r\n")[2]), 0)

    def test_jwks_url(self) -> None:
        """Public keys are rotated at a URL: a token of the new key makes the proxy look for it.

        The old key is taken until the next fetch, and not after it.
        """
        self.rotate_keys(None, lambda issuer: None, 2)

    def rotate_keys(self, path: str | None, publish: Callable[[Issuer], None], fetches: int) -> None:
        old = SigningKey("ES256", "key-0")
        with Issuer() as issuer:
            issuer.publish(old.jwk)
            publish(issuer)
            proxy = self.start_proxy(secret_key="", jwks=path or issuer.url, jwks_interval=_INTERVAL)
            with self.traffic(proxy, old.token) as traffic:
                for number in range(1, _ROUNDS + 1):
                    traffic.flow()
                    kept = old.token()
                    self.assertEqual(self.status(proxy, kept), 101)
                    new = SigningKey(("EdDSA", "RS256", "ES256")[number % 3], f"key-{number}")
                    issuer.publish(old.jwk, new.jwk)
                    publish(issuer)
                    traffic.use(new.token)
                    traffic.flow()
                    self.assertEqual(self.status(proxy, kept), 101)
                    issuer.publish(new.jwk)
                    publish(issuer)
                    # The second fetch from now began after the removal; with the third, it has been taken.
                    self.assertTrue(
                        issuer.wait_for_requests(len(issuer.requests) + fetches + 1 if fetches else 0)
                    )
                    for token in (kept, old.token()):
                        self.assertEqual(self.status(proxy, token), 401)
                    old = new
                traffic.flow()
            proxy.stop_thread()
        self.assertEqual(traffic.refused, [])

    def test_service_account(self) -> None:
        """The API's authority and our token for it are rotated as a cluster does it, with an overlap."""
        proxy = self.start_proxy()
        with self.traffic(proxy, self.secret_token(SECRET)) as traffic:
            for _ in range(_ROUNDS):
                before = self.api.token
                self.api.rotate_token(overlap=traffic.flow)
                self.api.rotate_ca(overlap=traffic.flow)
                traffic.flow()
                used = {request.values("authorization")[0] for request in self.api.requests[-_CLIENTS:]}
                self.assertNotIn(f"Bearer {before}", used)
        self.assertEqual(traffic.refused, [])
        self.assertEqual({request.status for request in self.api.requests}, {101})
        self.assertEqual(self.api.tls_failures, [])

    def write(self, path: str, content: bytes) -> None:
        with open(f"{path}.new", "wb") as file:
            file.write(content)
        os.replace(f"{path}.new", path)
