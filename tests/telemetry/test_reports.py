"""What log, audit log and counters are told of sessions, in a library and in the program."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import tempfile
from typing import Any

from tests.support.proxy_process import ProxyProcess, wait_until
from wsproxy import WebsocketProxy
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 60.0
_OF_NO_SESSION = ("wsproxy.proxy", "wsproxy.resolver", "wsproxy.server")


class ReportsTestCase(ProxyTestCase):
    tls = False

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.audit = os.path.join(directory.name, "audit")
        self.api.add_vmi("vm", self.namespace)

    def events(self, path: str | None = None) -> list[Any]:
        with open(path or self.audit, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def wait_for_events(self, count: int, path: str | None = None) -> list[Any]:
        self.assertTrue(wait_until(lambda: len(self.events(path)) >= count, _TIMEOUT), self.events(path))
        return self.events(path)

    def exchange(self, url: str) -> str:
        """Have a session, and return the client's address."""
        with RawClient.open(url) as client:
            client.send_frame(BINARY, b"hello")
            client.recv_frame()
            client.send_close(4001, "done\nwith it")
            client.recv_close()
            client.wait_for_end()
            host, port = client.sock.getsockname()
        return f"{host}:{port}"


class InTheLibrary(ReportsTestCase):
    def test_a_session(self) -> None:
        """A session is one event when it opens and one when it ends, in the log as in the audit log."""
        proxy = self.start_proxy(audit_log=self.audit)
        with self.assertLogs("wsproxy.session", "INFO") as logged:
            token = self.token("vm", user=5)
            peer = self.exchange(self.url(proxy, "vm", token))
            opened, ended = self.wait_for_events(2)
            proxy.stop_thread()
        session = opened["session"]
        about = {
            "session": session,
            "peer": peer,
            "client": "127.0.0.1",
            "user": 5,
            "namespace": self.namespace,
            "vmi": "vm",
            "subresource": "vnc",
            "token_id": opened["token_id"],
        }
        self.assertTrue(opened["token_id"] and opened["token_id"] not in token)
        del opened["time"], ended["time"]
        self.assertEqual(opened, {"event": "open", **about})
        seconds = ended.pop("seconds")
        self.assertGreaterEqual(seconds, 0)
        end = {
            "bytes_up": 11 + 6 + 2 + len("done\nwith it"),
            "bytes_down": ended["bytes_down"],
            "by": "client",
            "cause": "close-4xxx",
            "code": 4001,
            "reason": "done\nwith it",
            "close_not_sent": [],
        }
        self.assertEqual(ended, {"event": "end", **about, **end})
        for record, event in zip(logged.records, ({}, {"seconds": seconds} | end), strict=True):
            self.assertEqual(record.__dict__["session"], session)
            self.assertEqual(record.__dict__["fields"], about | event)
        who = f"client {peer} user 5 vmi {self.namespace}/vm"
        self.assertEqual(logged.records[0].getMessage(), f"session {session} opened: {who}")
        self.assertRegex(
            logged.records[1].getMessage(),
            rf"^session {session} ended: by client code 4001 'done\\nwith it' after \d+\.\d s, "
            rf"{end['bytes_up']} bytes up, \d+ bytes down: {re.escape(who)}$",
        )

    def refused_by(self, proxy: WebsocketProxy, target: str) -> Any:
        with RawClient(proxy.address) as client:
            client.send_raw(RawClient.request(target))
            client.body()
        return self.wait_for_events(1)[-1]

    def test_a_refusal_before_the_token(self) -> None:
        """Who has not proved who they are is an address."""
        event = self.refused_by(self.start_proxy(audit_log=self.audit), "/-/vm")
        self.assertEqual(
            (event["event"], event["client"], event["status"], event["reason"]),
            ("refused", "127.0.0.1", 401, "bad-token"),
        )
        self.assertNotIn("user", event)

    def test_a_refusal_of_the_api(self) -> None:
        """Who was let in and got no console has a name, in the log, too."""
        proxy = self.start_proxy(audit_log=self.audit)
        with self.assertLogs("wsproxy.connection", "INFO") as logged:
            event = self.refused_by(proxy, f"/{self.token('other', user='ann')}/other")
        self.assertEqual((event["user"], event["vmi"], event["reason"]), ("ann", "other", "vmi-not-found"))
        self.assertIn(f" user 'ann' vmi {self.namespace}/other: 404 vmi-not-found: ", logged.output[0])

    def test_every_record(self) -> None:
        """Every record of a session has its id, whichever thread and module it comes from."""
        proxy = self.start_proxy(audit_log=self.audit)
        root = logging.getLogger("wsproxy")
        level = root.level
        root.setLevel(logging.DEBUG)
        self.addCleanup(root.setLevel, level)
        with self.assertLogs("wsproxy", "DEBUG") as logged:
            client = RawClient.open(self.url(proxy, "vm"))
            client.reset()
            (opened, _) = self.wait_for_events(2)
            proxy.stop_thread()
        ours = [record for record in logged.records if record.name not in _OF_NO_SESSION]
        self.assertGreaterEqual(len(ours), 2)
        self.assertEqual({record.__dict__["session"] for record in ours}, {opened["session"]})


class InTheProgram(ReportsTestCase):
    def program(self, **settings: str) -> ProxyProcess:
        proxy = ProxyProcess(self.api, WSPROXY_AUDIT_LOG=self.audit, **settings)
        self.addCleanup(proxy.close)
        return proxy

    def test_rotation(self) -> None:
        """After SIGHUP the audit log goes on in a new file, of one process and of several; sessions stay."""
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.rotate(workers)

    def rotate(self, workers: int) -> None:
        proxy = self.program(WSPROXY_WORKERS=str(workers))
        clients = [RawClient.open(f"{proxy.url}/{self.token('vm')}/vm") for _ in range(3)]
        self.wait_for_events(3)
        old = f"{self.audit}.{workers}"
        os.rename(self.audit, old)
        proxy.process.send_signal(signal.SIGHUP)
        self.assertTrue(
            wait_until(lambda: proxy.output.count(b"log files reopened") == workers, _TIMEOUT),
            proxy.output,
        )
        for client in clients:
            client.send_close(1000)
            client.recv_close()
            client.close()
        ends = self.wait_for_events(3)
        self.assertEqual([event["event"] for event in ends], ["end"] * 3)
        self.assertEqual([event["event"] for event in self.events(old)], ["open"] * 3)
        self.assertEqual(proxy.stop(signal.SIGTERM), 0)
        os.unlink(self.audit)

    def test_one_object_a_line(self) -> None:
        """With JSON every line is an object, a session's with its id, and the audit log agrees with them."""
        proxy = self.program(WSPROXY_LOG_FORMAT="json", WSPROXY_WORKERS="2")
        self.exchange(f"{proxy.url}/{self.token('vm')}/vm")
        opened, ended = self.wait_for_events(2)
        self.assertEqual(proxy.stop(signal.SIGTERM), 0)
        lines = [json.loads(line) for line in proxy.output.splitlines() if not line.startswith(b"wsproxy ")]
        ours = [line for line in lines if line.get("session") == opened["session"]]
        self.assertEqual([line["message"].split()[2] for line in ours], ["opened:", "ended:"])
        self.assertEqual(ours[1]["reason"], ended["reason"])
        self.assertEqual(len({line["process"] for line in lines}), 3)

    def test_uncaught_exceptions(self) -> None:
        """What nobody catches is a line of the log, too."""
        change = (
            "threading.Thread(target=lambda: 1 / 0).start(); "
            "type('X', (), {'__del__': lambda self: int('x')})(); raise RuntimeError('a bug')"
        )
        command = (
            "-c",
            "import sys, threading\nfrom wsproxy.cli import program\ndef fail(config, address):\n"
            f"    {change}\nprogram._print_ready = fail\nsys.exit(program.main([]))",
        )
        with self.assertRaises(RuntimeError) as caught:
            ProxyProcess(self.api, command, WSPROXY_LOG_FORMAT="json")
        text = str(caught.exception).partition("the proxy did not start: ")[2]
        lines = [json.loads(line) for line in text.splitlines()]
        failures = [line["exception"].splitlines()[-1] for line in lines if "exception" in line]
        self.assertEqual(
            sorted(failures),
            [
                "RuntimeError: a bug",
                "ValueError: invalid literal for int() with base 10: 'x'",
                "ZeroDivisionError: division by zero",
            ],
        )

    def test_a_faulty_setting(self) -> None:
        """An audit log that cannot be written to stops the start."""
        self.audit = os.path.join(self.audit, "nowhere")
        with self.assertRaisesRegex(RuntimeError, "audit_log is '.*nowhere'"):
            self.program()
