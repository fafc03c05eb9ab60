"""The tables of docs/guides/testing.md: how the simulated cluster behaves, and what a client gets."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import wsproxy.testing
from wsproxy import WebsocketProxy
from wsproxy.testing import FakeKubeVirtAPI, LeakTestCase, RawClient
from wsproxy.testing.kubevirt.frames import CLOSE, parse_close

_GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
_ROW = re.compile(r"\| (?P<what>.+) \| `(?P<example>[^`]+)` \| (?P<outcome>.+) \|")
_NAMES = {name: getattr(wsproxy.testing, name) for name in wsproxy.testing.__all__}
_SECONDS = 30.0


class Row(NamedTuple):
    """A line of a table."""

    what: str
    example: str
    outcome: str


def rows(heading: str) -> list[Row]:
    """Return the lines of the table below a heading."""
    text = _GUIDE.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    return [Row(*found.groups()) for found in _ROW.finditer(text)]


class Scene(ExitStack):
    """A simulated cluster with a VM, and a proxy in front of it."""

    def __init__(self, directory: str, dial_timeout: float) -> None:
        super().__init__()
        self.api = self.enter_context(FakeKubeVirtAPI())
        self.vmi = self.api.add_vmi("ubuntu", "lab-1")
        options = wsproxy.testing.proxy_options(self.api, wsproxy.testing.SECRET)
        proxy = WebsocketProxy(**options, dial_timeout=dial_timeout)
        host, port = self.enter_context(proxy.run_in_thread("127.0.0.1", 0)).address
        token = wsproxy.testing.make_token(wsproxy.testing.SECRET, namespace="lab-1", vmis=["ubuntu"])
        self.url = f"ws://{host}:{port}/{token}/ubuntu"
        self.names: dict[str, Any] = {
            **_NAMES,
            "api": self.api,
            "vmi": self.vmi,
            "url": self.url,
            "directory": directory,
        }

    def open(self) -> RawClient:
        """Open the console, whether that succeeds or not."""
        return self.enter_context(RawClient.open(self.url))


def outcome_of(client: RawClient) -> str:
    """Return what a client gets before it sends anything, in the words of the tables."""
    if client.status != 101:
        return f"{client.status} {json.loads(client.body())['reason']}"
    client.send_frame(2, b"echo")
    frame = client.recv_frame(_SECONDS)
    if frame.opcode != CLOSE:
        return "a console" if frame.payload == b"echo" else "data"
    code, reason = parse_close(frame.payload)
    return f"Close {code} {reason.partition(':')[0]}"


class TablesTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def test_before(self) -> None:
        """What is set before a console is opened has the effect that the table names."""
        for row in rows("Before a console is opened"):
            slow = row.outcome.startswith("504")
            with self.subTest(row.what), Scene(self.directory, 0.3 if slow else _SECONDS) as scene:
                exec(row.example, scene.names)
                client = scene.open()
                if row.outcome == "silence":
                    self.assertEqual(client.status, 101)
                    client.send_frame(2, b"echo")
                    self.assertEqual(scene.vmi.wait_for_session().bytes_sent, 0)
                else:
                    self.assertEqual(outcome_of(client), row.outcome)

    def test_while(self) -> None:
        """What is done while a console is open has the effect that the table names."""
        for row in rows("While a console is open"):
            with self.subTest(row.what), Scene(self.directory, _SECONDS) as scene:
                client = scene.open()
                self.assertEqual(outcome_of(client), "a console")
                exec(row.example, {**scene.names, "console": scene.vmi.wait_for_session()})
                frame = client.recv_frame(_SECONDS)
                code, reason = parse_close(frame.payload) if frame.opcode == CLOSE else (0, "")
                seen = f"Close {code} {reason.partition(':')[0]}" if code else "data"
                self.assertEqual(seen, row.outcome)

    def test_every_behaviour_is_there(self) -> None:
        """The tables have every field of a Behaviour, and every backend."""
        text = _GUIDE.read_text(encoding="utf-8")
        backends = ("Stream", "Script", "TCPBackend", "UnixBackend", "SocketBackend")
        for name in (*wsproxy.testing.Behaviour.__dataclass_fields__, *backends):
            with self.subTest(name):
                self.assertRegex(text, rf"`[^`\n]*\b{name}\b")
        self.assertGreater(len(rows("Before a console is opened")), 30)
        self.assertGreater(len(rows("While a console is open")), 5)
