"""A load test of the proxy: full-duplex sessions, every byte checked, and a control that has to fail.

``scripts/soak --tls`` runs it. The proxy runs in a process of its own, the clients and the stand-in in this
one. Both directions of each session carry numbered messages with a checksum, and each session is closed in
good order. With ``--tls``, or with ``--client-tls``, or both, the same load is run once more through a proxy
whose TLS transport lets two threads into one OpenSSL object, as ``ssl.SSLSocket`` in blocking mode with a
timeout does. That one has to fail: if it does not, the load proves nothing. ``--churn`` is another load,
:mod:`tests.soak.churn`.
"""

from __future__ import annotations

import argparse
import configparser
import os
import random
import re
import resource
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.soak.churn import main as churn
from tests.support.proxy_process import ProxyProcess
from wsproxy.exceptions import TransportClosed
from wsproxy.net import sockets, tls
from wsproxy.runtime.deadline import Deadline
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, CLOSE, PING, PONG, Frame, close_payload, encode_frame
from wsproxy.testing.rfb.raw_client import RawClient, client_context
from wsproxy.tokens.issue import make_token

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
_NAMESPACE = "lab-1"
_SESSION_SECONDS = 0.5  # at most; the lengths differ
_WAIT = 20.0  # seconds without a message after which a session hangs
_SIZES = (0, 1, 100, 1000, 4096, 16384, 32768, 65536)
_CHECKED = struct.Struct("!BII")  # kind, number, checksum of all of the message but this
_DATA, _LAST = 0, 1
_TLS_TIMEOUT = 10.0
_CONTROL_MUST_FAIL_FROM = 60.0
_TELLING = re.compile(r"upstream leg: .|ended: by \S+ code (?!1000)")
_VERSIONS = ("3.10", "3.11", "3.12", "3.13")


class UnlockedTLSTransport(tls.TLSTransport):
    """The control: what blocking ``SSLSocket`` methods do when one thread reads and another writes."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.settimeout(_TLS_TIMEOUT)

    def recv_into(self, buffer: memoryview) -> int:
        if self._unread:
            return self._take_unread(buffer)
        try:
            return self._tls.recv_into(buffer)
        except (OSError, ValueError) as exc:
            raise TransportClosed(str(exc)) from exc

    def sendall(self, data: memoryview | bytes) -> None:
        try:
            self._tls.sendall(data)
        except (OSError, ValueError) as exc:
            raise TransportClosed(str(exc)) from exc

    def try_send(self, data: memoryview | bytes) -> int:
        self.sendall(data)
        return len(data)

    def _try_recv(self, size: int) -> bytes | None:
        return self._tls.recv(size)


class _Peer(Protocol):
    """One end of a session."""

    def recv_frame(self, timeout: float) -> Frame: ...

    def send_raw(self, data: bytes) -> None: ...


@dataclass
class Tally:
    """What was seen of one run. Safe from every thread."""

    sessions: int = 0
    messages: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    errors: list[str] = field(default_factory=list)
    failed_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, direction: str, size: int) -> None:
        with self.lock:
            self.messages[direction] += 1
            self.bytes[direction] += size

    def fail(self, what: str) -> None:
        with self.lock:
            self.failed_at = self.failed_at or time.monotonic()
            self.errors.append(what)

    def __str__(self) -> str:
        up, down = (
            f"{self.messages[way]} messages, {self.bytes[way] / 2**20:.0f} MiB {way}"
            for way in ("up", "down")
        )
        return f"{self.sessions} sessions, {up}, {down}, {len(self.errors)} errors"


class _Messages:
    """Numbered messages with a checksum, and the check of the other side's.

    :param peer: the end that sends and receives them.
    :param direction: which way the received ones go, "up" or "down".
    :param masks: whether what is sent has to be masked.
    :param seed: of the sizes and contents of what is sent.
    """

    def __init__(self, peer: _Peer, tally: Tally, direction: str, masks: bool, seed: str) -> None:
        self._peer = peer
        self._tally = tally
        self._direction = direction
        self._masks = masks
        self._random = random.Random(seed)
        self._pool = self._random.randbytes(2 * max(_SIZES))
        self._sending = threading.Lock()  # the sender's messages, the receiver's pongs

    def choose(self, most: float) -> float:
        """Return a number from 0 to ``most``."""
        return self._random.uniform(0, most)

    def send_all(self, until: float) -> None:
        """Send messages until a time, and then the last one."""
        number = 0
        while time.monotonic() < until:
            self._send_message(_DATA, number, self._random.choice(_SIZES))
            number += 1
        self._send_message(_LAST, number, 0)

    def _send_message(self, kind: int, number: int, size: int) -> None:
        start = self._random.randrange(len(self._pool) - size)
        body = self._pool[start : start + size]
        self.send(BINARY, _CHECKED.pack(kind, number, _checksum(kind, number, body)) + body)

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame."""
        frame = encode_frame(opcode, payload, mask=self._random.randbytes(4) if self._masks else None)
        with self._sending:
            self._peer.send_raw(frame)

    def receive_all(self) -> None:
        """Receive up to the last message, and check all of them.

        :raises ValueError: at the first that is not what it has to be.
        """
        for expected, frame in enumerate(self._data_frames()):
            kind, number, checksum = _CHECKED.unpack_from(frame.payload)
            if checksum != _checksum(kind, number, frame.payload[_CHECKED.size :]):
                raise ValueError(f"message {expected} {self._direction} is corrupt")
            if number != expected:
                raise ValueError(f"message {number} {self._direction} came instead of {expected}")
            if kind == _LAST:
                return
            self._tally.count(self._direction, len(frame.raw))

    def _data_frames(self) -> Iterator[Frame]:
        while True:
            frame = self._next_frame()
            if frame.opcode == BINARY and len(frame.payload) >= _CHECKED.size:
                yield frame
            else:
                what = f"{frame.opcode}: {frame.payload[:40]!r}"
                raise ValueError(f"a frame {self._direction} that was never sent, opcode {what}")

    def _next_frame(self) -> Frame:
        """Receive a frame that is no ping: pings, which are answered, do not show that a session moves."""
        deadline = Deadline(_WAIT)
        while (frame := self._peer.recv_frame(deadline.remaining())).opcode == PING:
            self.send(PONG, frame.payload)
        return frame

    def receive_close(self) -> None:
        """Receive a Close 1000.

        :raises ValueError: if something else comes.
        """
        frame = self._next_frame()
        if frame.opcode != CLOSE or frame.payload != close_payload(1000):
            raise ValueError(f"instead of Close 1000 came opcode {frame.opcode}: {frame.payload[:40]!r}")


def _checksum(kind: int, number: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_CHECKED.pack(kind, number, 0)))


class Load:
    """Sessions through one proxy, several at a time, for a while.

    :param api: the stand-in; VMIs are added to it.
    :param proxy: in front of it.
    :param sessions: how many at a time.
    :param seconds: for how long.
    :param stop_at_first_error: whether one error ends the run.
    :param client_tls: how clients come by TLS, None for without.
    """

    def __init__(
        self,
        api: FakeKubeVirtAPI,
        proxy: ProxyProcess,
        sessions: int,
        seconds: float,
        stop_at_first_error: bool,
        client_tls: ssl.SSLContext | None,
    ) -> None:
        self.tally = Tally()
        self._client_tls = client_tls
        self._api = api
        self._proxy = proxy
        self._names = [f"vm-{number}" for number in range(sessions)]
        self._until = time.monotonic() + seconds
        self._stop_at_first_error = stop_at_first_error
        self._token = make_token(SECRET, namespace=_NAMESPACE, vmis=self._names, expires_in=seconds + 3600)

    def run(self) -> Tally:
        """Run it. Blocks until the time is over or the proxy is gone."""
        threads = [threading.Thread(target=self._sessions, args=(name,)) for name in self._names]
        for name in self._names:
            self._api.add_vmi(name, _NAMESPACE, backend=Script(self._upstream))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.tally

    def _over(self) -> bool:
        failed = self._stop_at_first_error and self.tally.errors
        return bool(failed) or time.monotonic() >= self._until or self._proxy.process.poll() is not None

    def _sessions(self, name: str) -> None:
        number = 0
        while not self._over():
            self._session(name, number)
            number += 1

    def _session(self, name: str, number: int) -> None:
        try:
            with RawClient.open(f"{self._proxy.url}/{self._token}/{name}", tls=self._client_tls) as client:
                if client.status != 101:
                    raise ValueError(f"the proxy answered {client.head!r}")
                messages = _Messages(client, self.tally, "down", True, f"{name} {number} up")
                self._exchange(messages)
                messages.send(CLOSE, close_payload(1000))
                messages.receive_close()
        except (OSError, EOFError, ValueError) as exc:
            self.tally.fail(f"client of {name}: {exc!r}")
        else:
            with self.tally.lock:
                self.tally.sessions += 1

    def _upstream(self, console: FakeConsole) -> None:
        seed = f"{console.name} {len(self._api.consoles)} down"
        messages = _Messages(console, self.tally, "up", False, seed)
        try:
            self._exchange(messages)
            messages.receive_close()
            messages.send(CLOSE, close_payload(1000))
        except (OSError, EOFError, ValueError, TransportClosed) as exc:
            self.tally.fail(f"upstream of {console.name}: {exc!r}")

    def _exchange(self, messages: _Messages) -> None:
        """Send and receive at the same time."""
        until = min(self._until, time.monotonic() + messages.choose(_SESSION_SECONDS))

        def send() -> None:
            try:
                messages.send_all(until)
            except (OSError, TransportClosed):
                pass  # the receiving thread sees the same end, and tells

        sender = threading.Thread(target=send)
        sender.start()
        try:
            messages.receive_all()
            sender.join(_SESSION_SECONDS + _WAIT)
            if sender.is_alive():
                raise TimeoutError("what is sent is not taken")
        except BaseException:
            self._end(messages)
            raise
        finally:
            sender.join()

    @staticmethod
    def _end(messages: _Messages) -> None:
        """Wake the sender, which may be blocked because the other side has failed."""
        peer = messages._peer
        if isinstance(peer, FakeConsole):
            peer.kill()
        elif isinstance(peer, RawClient):
            sockets.wake(peer.sock)


def _no_core_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclass
class _Outcome:
    """What became of one run.

    :ivar failure: how the proxy failed, as a process; None if it did not.
    :ivar log: what it logged.
    :ivar seconds: how long it took.
    :ivar failed_after: seconds to the first error, the wait for a session that hangs included.
    """

    tally: Tally
    failure: str | None
    log: str
    seconds: float
    failed_after: float


def _run(
    options: argparse.Namespace, command: Sequence[str], log_level: str, stop_at_first_error: bool
) -> _Outcome:
    """Run the load through a proxy."""
    started = time.monotonic()
    settings = {"LOGLEVEL": log_level, "WSPROXY_PING_INTERVAL": "5"}
    with ExitStack() as owned:
        context = None
        if options.client_tls:
            authority = CertificateAuthority(owned.enter_context(tempfile.TemporaryDirectory()))
            settings["WSPROXY_TLS_CERT"], settings["WSPROXY_TLS_KEY"] = authority.issue()
            context = client_context(authority.ca_file)
        api = owned.enter_context(FakeKubeVirtAPI(tls=options.tls))
        proxy = owned.enter_context(ProxyProcess(api, command, **settings))
        tally = Load(api, proxy, options.sessions, options.seconds, stop_at_first_error, context).run()
        ended = time.monotonic()
        status = proxy.stop()
        for error in api.errors:
            tally.fail(f"the stand-in: {error!r}")
        failure = None
        if status:
            killed = status < 0 and f"was killed by {signal.Signals(-status).name}"
            failure = f"the proxy {killed or f'ended with status {status}'}"
        log = proxy.output.decode(errors="replace").partition("\n")[2]  # without the line when ready
        failed_after = (tally.failed_at or ended) - started
        return _Outcome(tally, failure, log, ended - started, failed_after)


def _soak(options: argparse.Namespace) -> int:
    """Run the load on this Python, and the control."""
    legs = [name for name, tls in (("upstream", options.tls), ("clients", options.client_tls)) if tls]
    what = f"TLS to {' and '.join(legs)}" if legs else "no TLS"
    print(
        f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: {options.sessions} sessions at a time, "
        f"{what}, {options.seconds:g} s",
        flush=True,
    )
    outcome = _run(options, ("-m", "wsproxy"), "WARNING", stop_at_first_error=False)
    tally = outcome.tally
    print(f"  proxy: {tally} in {outcome.seconds:.1f} s", flush=True)
    faults = [outcome.failure] if outcome.failure else []
    faults += [*tally.errors[:10], *outcome.log.splitlines()[:40]]
    for line in faults:
        print(f"    {line}", flush=True)
    good = not faults and tally.sessions > 0
    if legs and not options.no_control:
        good = _control(options) and good
    return 0 if good else 1


def _control(options: argparse.Namespace) -> bool:
    """Run the control until it fails; return whether it did, or need not have."""
    command = ("-m", "tests.soak", "--serve-without-lock")
    outcome = _run(options, command, "DEBUG", stop_at_first_error=True)
    errors = outcome.tally.errors
    if outcome.failure or errors:
        print(
            f"  control, no lock: fails as it has to, {outcome.failed_after:.1f} s after its start",
            flush=True,
        )
        legs = [line.partition(": ")[2] for line in outcome.log.splitlines() if _TELLING.search(line)]
        for line in [outcome.failure, *legs[:3], *errors[:2]]:
            print(f"    {line}" if line else "", end="\n" if line else "", flush=True)
        return True
    short: bool = options.seconds < _CONTROL_MUST_FAIL_FROM
    print(
        f"  control, no lock: control did not fail: {outcome.tally} in {outcome.seconds:.1f} s"
        + (f"; with {_CONTROL_MUST_FAIL_FROM:g} s or more that would be an error" if short else ""),
        flush=True,
    )
    return short


def _serve_without_lock() -> int:
    """Be the control's proxy."""
    from wsproxy.cli import main as serve

    _no_core_dump()
    tls.TLSTransport = UnlockedTLSTransport  # type: ignore[misc]
    return serve(["serve"])


# Every Python


def _pythons() -> Iterator[tuple[str, str]]:
    """Yield version and path of each Python found, at most one of a version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in _VERSIONS:
        candidates = [Path(directory) / f"python{version}" for directory in os.get_exec_path()]
        candidates += sorted(pyenv.glob(f"{version}.*/bin/python"))
        for candidate in candidates:
            if _works(candidate, version):
                yield version, str(candidate)
                break
        else:
            print(f"Python {version}: not found", flush=True)


def _works(python: Path, version: str) -> bool:
    if not python.is_file():
        return False
    text = f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    try:
        return subprocess.run([python, "-c", text], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _requirements() -> list[str]:
    """What the project needs. It is not installed itself: that would write into its tree."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(_ROOT / "setup.cfg")
    return setup["options"]["install_requires"].strip().splitlines()


def _each_python(arguments: Sequence[str]) -> int:
    status, found = 0, 0
    for version, python in _pythons():
        found += 1
        with tempfile.TemporaryDirectory(prefix=f"soak-{version}-") as directory:
            subprocess.run([python, "-m", "venv", directory], check=True)
            own = os.path.join(directory, "bin", "python")
            subprocess.run(
                [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_requirements()],
                check=True,
            )
            status |= subprocess.run([own, "-m", "tests.soak", *arguments], cwd=_ROOT).returncode
    return 1 if status or not found else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and return its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--tls", action="store_true", help="TLS upstream, and the control")
    parser.add_argument("--client-tls", action="store_true", help="TLS to clients, and the control")
    parser.add_argument("--seconds", type=float, default=120, help="of load (default: %(default)s)")
    parser.add_argument("--sessions", type=int, default=8, help="at a time (default: %(default)s)")
    parser.add_argument("--no-control", action="store_true", help="leave the control out")
    parser.add_argument("--each-python", action="store_true", help="on every Python 3.10 to 3.13 found")
    parser.add_argument("--serve-without-lock", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--churn", action="store_true", help="sessions that come and go; --churn --help has its options"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--churn" in arguments:
        return churn([argument for argument in arguments if argument != "--churn"])
    options = parser.parse_args(arguments)
    if options.serve_without_lock:
        return _serve_without_lock()
    if options.each_python:
        arguments = [argument for argument in arguments if argument != "--each-python"]
        return _each_python(arguments)
    return _soak(options)


if __name__ == "__main__":
    sys.exit(main())
