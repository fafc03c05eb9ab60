"""Compiles the C programs, and runs them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .processes import find_program

__all__ = ["LoadFailed", "Target", "Tools", "Upstream"]

_HERE = os.path.dirname(os.path.abspath(__file__))
_COMPILE_TIMEOUT = 120


class LoadFailed(Exception):
    """A measure gave no result. The text says why."""


@dataclass(frozen=True)
class Target:
    """The address that the load generator connects to.

    :ivar tls: whether the client uses TLS. True for the direct connection only.
    """

    port: int
    path: str
    tls: bool = False


class Tools:
    """``load``, ``siege`` and ``upstream``, compiled into a directory.

    :raises SystemExit: if a compiler or a header is missing; says which.
    """

    def __init__(self, directory: str) -> None:
        self.load = os.path.join(directory, "load")
        self.siege = os.path.join(directory, "siege")
        self.upstream = os.path.join(directory, "upstream")
        compiler = find_program(os.environ.get("CC", "cc"))
        if compiler is None:
            raise SystemExit("bench: a C compiler is missing (Debian, Ubuntu: apt-get install gcc libc6-dev)")
        for program in (self.load, self.siege, self.upstream):
            source = os.path.join(_HERE, os.path.basename(program) + ".c")
            flags = ["-O2", "-Wall", "-Wextra", "-pthread", "-o", program, source, "-lssl", "-lcrypto"]
            made = subprocess.run(
                [compiler, *flags], capture_output=True, text=True, timeout=_COMPILE_TIMEOUT, check=False
            )
            if made.returncode:
                raise SystemExit(_compile_error(made.stderr))

    def run_load(
        self,
        mode: str,
        target: Target,
        *,
        sessions: int,
        size: int,
        warmup: float,
        seconds: float,
        at_begin: Callable[[], None],
        at_end: Callable[[], None],
    ) -> dict[str, Any]:
        """Run one measure, and return the output of ``load``.

        :param at_begin: is called when the warm-up is over.
        :param at_end: is called when the measured time is over.
        :raises LoadFailed: if it gave no result.
        """
        with self.start_load(
            mode, target, sessions=sessions, size=size, warmup=warmup, seconds=seconds
        ) as process:
            process.wait_for_begin()
            at_begin()
            line = process.read_line()
            at_end()
            return process.result(line)

    def start_load(
        self, mode: str, target: Target, *, sessions: int, size: int, warmup: float, seconds: float
    ) -> LoadProcess:
        """Start ``load``. It ends by itself half a minute after its warm-up and its measured time."""
        leg = "tls" if target.tls else "plain"
        arguments = [str(value) for value in (sessions, size, warmup, seconds)]
        return LoadProcess([self.load, mode, "127.0.0.1", str(target.port), leg, target.path, *arguments])

    def start_siege(self, port: int, *, half_open: int, slow: int, rate: int) -> LoadProcess:
        """Start ``siege``. It ends by itself after a minute and a half."""
        return LoadProcess([self.siege, *(str(value) for value in (port, half_open, slow, rate))])


def _compile_error(text: str) -> str:
    if "openssl/" in text:
        return "bench: OpenSSL's headers are missing (Debian, Ubuntu: apt-get install libssl-dev)"
    return f"bench: the load generator cannot be compiled:\n{text}"


class LoadProcess:
    """A running ``load`` or ``siege``. The end of ``with`` ends it."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def wait_for_begin(self) -> None:
        """Wait until the sessions are open and the warm-up is over.

        :raises LoadFailed: if the process ends before.
        """
        if self.read_line() != "begin":
            raise LoadFailed(self._why())

    def read_line(self) -> str:
        """Return the next line; "" at the end. Blocks, but ``load`` ends by itself."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().decode().strip()

    def result(self, line: str) -> dict[str, Any]:
        """Return the parsed result.

        :raises LoadFailed: if there is no result, or a session failed.
        """
        if not line:
            raise LoadFailed(self._why())
        result: dict[str, Any] = json.loads(line)
        if result["failures"]:
            raise LoadFailed(f"{result['failures']} sessions failed {self._why()}")
        return result

    def finish(self) -> dict[str, Any]:
        """End a process that holds sessions, and return its result.

        :raises LoadFailed: as :meth:`result` does.
        """
        assert self._popen.stdin is not None
        self._popen.stdin.write(b"end\n")
        self._popen.stdin.flush()
        return self.result(self.read_line())

    def _why(self) -> str:
        status = self._popen.poll()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return text or ("no answer in time" if status == -14 else f"load ended with status {status}")

    def __enter__(self) -> LoadProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._popen.kill()
        self._popen.communicate()
        self._errors.close()


class Upstream:
    """The simulated API, ``upstream``. :meth:`stop` ends it.

    :ivar ports: its ports by name: ``plain``, ``tls``, and each mode over bare TCP.
    """

    def __init__(self, tools: Tools, certfile: str, keyfile: str) -> None:
        self._popen = subprocess.Popen(
            [tools.upstream, certfile, keyfile], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._popen.stdout is not None
        words = self._popen.stdout.readline().decode().split()
        self.ports = {name: int(port) for name, port in zip(words[::2], words[1::2], strict=True)}

    def stop(self) -> None:
        """End the process. Idempotent."""
        self._popen.kill()
        self._popen.communicate()
