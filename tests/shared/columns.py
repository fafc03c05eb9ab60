"""The columns of the table: ways to serve consoles with one process or several.

Each starts what it needs: programs or workers, the store, and what stands in front. Each has a simulated API
of its own. All have the same limits.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, ClassVar

from tests.integration.redis_server import RedisServer
from tests.integration.wsgi_servers import WSGIServerProcess
from tests.shared.cluster import CountingAPI
from tests.shared.nginx import Nginx
from tests.shared.visitors import Visitors
from tests.support.ports import free_port, listeners
from tests.support.proxy_process import ProxyProcess, wait_until

__all__ = [
    "COLUMNS",
    "LIMITS",
    "Column",
    "GunicornBeside",
    "GunicornByItself",
    "GunicornInFront",
    "GunicornLocal",
    "GunicornMemory",
    "Handover",
    "OneProcess",
    "TwoPrograms",
    "TwoReplicas",
    "Workers",
    "ask_operator",
]

LIMITS = {
    "WSPROXY_MAX_SESSIONS": "12",
    "WSPROXY_MAX_SESSIONS_PER_USER": "2",
    "WSPROXY_MAX_SESSIONS_PER_VMI": "3",
    "WSPROXY_MAX_FAILURES": "5",
    "WSPROXY_TICKETS": "true",
    "WSPROXY_CONSOLE": "*/contested-*/*=takeover,passthrough",
    # Not the table's: clients say who they are; and nobody waits for long.
    "WSPROXY_TRUSTED_PROXIES": "127.0.0.1",
    "WSPROXY_CLOSE_TIMEOUT": "2",
    "WSPROXY_DIAL_TIMEOUT": "3",
}
_LEASE = "2"
_START_TIMEOUT = 20.0
_PROBES = 12  # sessions, one after the other, that show that all processes have joined the store


class Column(ABC):
    """One way to serve; use ``with``, or :meth:`close`.

    :param store: whether the processes get a store in common.
    :ivar admin: the path of the operator's listener of one process; "" if there is none.
    :cvar title: heads the column.
    :cvar needs_store: settings that it does not accept without a store in common.
    :cvar programs: what must be installed, by the name of the program.
    :cvar processes: how many processes serve at a time.
    """

    title: ClassVar[str]
    programs: ClassVar[tuple[str, ...]] = ()
    processes: ClassVar[int]
    needs_store: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, store: bool = True) -> None:
        self._stack = ExitStack()
        self.admin = ""
        self._addresses: list[tuple[str, int]] = []
        self._turns = itertools.count()
        try:
            self.directory = tempfile.mkdtemp(prefix="wsproxy-")
            self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.api = CountingAPI()
            self.api.start()
            self._stack.callback(self.api.stop)
            self.settings = self.store_settings() if store else {}
            left_away = () if store else self.needs_store
            self.settings |= {name: value for name, value in LIMITS.items() if name not in left_away}
            self._addresses = self.start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @classmethod
    def missing(cls) -> list[str]:
        """Return the programs that are not installed."""
        return [program for program in cls.programs if shutil.which(program) is None]

    @abstractmethod
    def store_settings(self) -> dict[str, str]:
        """Start the store if it is a server of its own, and return what processes need to know of it."""

    @abstractmethod
    def start(self) -> list[tuple[str, int]]:
        """Start all processes; return where clients connect."""

    def turn(self) -> None:  # noqa: B027 - most columns have nothing to do
        """Do what happens between the first and the second half of a row's clients."""

    def address(self) -> tuple[str, int]:
        """Return where the next client connects: each address in turn."""
        return self._addresses[next(self._turns) % len(self._addresses)]

    @property
    def one_address(self) -> tuple[str, int]:
        """Where always the same process answers, if the column has such an address."""
        return self._addresses[0]

    def start_program(self, **settings: str) -> ProxyProcess:
        """Start ``wsproxy serve``, with an operator's listener of its own; return it."""
        proxy = ProxyProcess(self.api, **(self.settings | settings))
        self._stack.callback(proxy.close)
        return proxy

    def path(self, name: str) -> str:
        """Return the path of a file in the column's directory."""
        return os.path.join(self.directory, name)

    def local_store(self) -> dict[str, str]:
        """Return the settings for a store of this host."""
        return {"WSPROXY_STATE": f"local:{self.path('state')}", "WSPROXY_STATE_LEASE": _LEASE}

    def redis_store(self) -> dict[str, str]:
        """Start a redis-server, and return the settings for it."""
        port = free_port()
        server = RedisServer("--port", str(port), "--bind", "127.0.0.1")
        self._stack.callback(server.close)
        return {"WSPROXY_STATE": f"redis://127.0.0.1:{port}/0", "WSPROXY_STATE_LEASE": _LEASE}

    def _wait_until_ready(self) -> None:
        """Wait until clients get sessions, whichever process they come to."""
        self.api.add_vmi("probe-0")
        with Visitors(self) as visitors:
            for _ in range(_PROBES if self.processes > 1 else 1):
                visitors.leave([visitors.open(visitors.wanted("probe-0", "probe")).client])

    def close(self) -> None:
        """End everything. Idempotent."""
        self._stack.close()

    def __enter__(self) -> Column:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OneProcess(Column):
    title = "1 process"
    processes = 1

    def store_settings(self) -> dict[str, str]:
        return {}

    def start(self) -> list[tuple[str, int]]:
        self.admin = self.path("admin")
        return [self.start_program(WSPROXY_ADMIN=f"unix:{self.admin}").address]


class Workers(Column):
    title = "`--workers 4`"
    processes = 4
    needs_store = (
        "WSPROXY_MAX_SESSIONS",
        "WSPROXY_MAX_SESSIONS_PER_USER",
        "WSPROXY_MAX_SESSIONS_PER_VMI",
        "WSPROXY_MAX_FAILURES",
        "WSPROXY_TICKETS",
        "WSPROXY_CONSOLE",
    )

    def store_settings(self) -> dict[str, str]:
        return {}  # workers make one by themselves

    def start(self) -> list[tuple[str, int]]:
        self.admin = self.path("admin")
        return [self.start_program(WSPROXY_WORKERS="4", WSPROXY_ADMIN=f"unix:{self.admin}").address]


class _Programs(Column):
    processes = 2

    def start(self) -> list[tuple[str, int]]:
        paths = [self.path(f"admin-{number}") for number in range(self.processes)]
        self.admin = paths[0]
        return [self.start_program(WSPROXY_ADMIN=f"unix:{path}").address for path in paths]


class TwoReplicas(_Programs):
    title = "2 replicas, Redis, nginx"
    programs = ("redis-server", "nginx")

    def store_settings(self) -> dict[str, str]:
        return self.redis_store()

    def start(self) -> list[tuple[str, int]]:
        replicas = super().start()
        self._one_address = replicas[0]
        nginx = Nginx(self.directory, replicas)
        self._stack.callback(nginx.close)
        return [nginx.address]

    @property
    def one_address(self) -> tuple[str, int]:
        return self._one_address


class TwoPrograms(_Programs):
    title = "2 programs, `local:PATH`"

    def store_settings(self) -> dict[str, str]:
        return self.local_store()

    def turn(self) -> None:
        """Have the second half's clients come to the other program than those of the first half."""
        self.address()


class _ReusePort(WSGIServerProcess):
    """gunicorn whose workers listen by themselves, so that the kernel spreads connections over them.

    It does not write its address. So whoever starts it waits for the listeners.
    """

    def __init__(self, api: CountingAPI, port: int, *options: str, **settings: str) -> None:
        self._port = port
        command = ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--reuse-port", "--no-control-socket"]
        super().__init__([*command, *options], api, **settings)

    def wait_until_ready(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)


class _Gunicorn(Column):
    """gunicorn with four processes, one of which serves the operator."""

    processes = 4
    needs_store: ClassVar[tuple[str, ...]] = ("WSPROXY_TICKETS",)
    application: ClassVar[str]

    def start(self) -> list[tuple[str, int]]:
        self.admin = self.path("admin")
        settings = self.settings | {"WSPROXY_ADMIN": f"unix:{self.admin}"} | self.environment()
        self.server = _ReusePort(self.api, free_port(), *self.options(), **settings)
        self._stack.callback(self.server.close)
        self.wait_for_listeners(self.server.address[1])
        return [self.server.address]

    def wait_for_listeners(self, port: int) -> None:
        """Wait until every worker listens at a port."""
        if not wait_until(lambda: listeners(port) == self.processes, _START_TIMEOUT):
            raise AssertionError(f"{listeners(port)} of {self.processes} workers listen")

    def options(self) -> list[str]:
        """Return gunicorn's further arguments."""
        workers = ["--workers", str(self.processes), "--worker-class", "gthread", "--threads", "64"]
        return [*workers, self.application]

    def environment(self) -> dict[str, str]:
        """Return further variables of gunicorn."""
        return {}


class GunicornByItself(_Gunicorn):
    title = "gunicorn 4, Redis, `ConsoleApp`"
    programs = ("redis-server",)
    application = "tests.shared.application:by_itself"

    def store_settings(self) -> dict[str, str]:
        return self.redis_store()


class GunicornInFront(GunicornByItself):
    title = "gunicorn 4, Redis, `ConsoleApp` in front of another"
    application = "tests.shared.application:in_front"


class GunicornBeside(GunicornByItself):
    title = "gunicorn 4, Redis, beside mode"
    application = "tests.integration.beside_application:application"
    needs_store = ()

    def start(self) -> list[tuple[str, int]]:
        self._consoles = free_port()
        super().start()
        self.wait_for_listeners(self._consoles)
        return [("127.0.0.1", self._consoles)]

    def options(self) -> list[str]:
        hooks = ["--config", "python:tests.integration.beside_application"]
        return ["--workers", str(self.processes), *hooks, self.application]

    def environment(self) -> dict[str, str]:
        return {"BESIDE_PORT": str(self._consoles)}


class GunicornLocal(_Gunicorn):
    title = "gunicorn 4, `local:PATH`"
    application = "tests.shared.application:by_itself"

    def store_settings(self) -> dict[str, str]:
        return self.local_store()


class GunicornMemory(_Gunicorn):
    """Several processes that have nothing in common: no column, as each request for a console is a fault."""

    title = "gunicorn 4, `memory`"
    application = "tests.shared.application:in_front"

    def store_settings(self) -> dict[str, str]:
        return {"WSPROXY_STATE": "memory"}

    def output(self) -> str:
        """Return what gunicorn has logged."""
        return self.server.output

    def _wait_until_ready(self) -> None:
        """Its processes listen; there is nothing else to wait for."""


class Handover(Column):
    """One program, which a successor replaces at the same port in the middle of each row."""

    title = "handover, `--reuse-port`, `local:PATH`"
    processes = 1

    def store_settings(self) -> dict[str, str]:
        return self.local_store()

    def start(self) -> list[tuple[str, int]]:
        self._starts = itertools.count()
        self._serving = self._start("0")
        return [self._serving.address]

    def _start(self, port: str) -> ProxyProcess:
        self.admin = self.path(f"admin-{next(self._starts)}")
        return self.start_program(
            PORT=port,
            WSPROXY_REUSE_PORT="true",
            WSPROXY_DRAIN_TIMEOUT="60",
            WSPROXY_ADMIN=f"unix:{self.admin}",
        )

    def turn(self) -> None:
        """Start the successor, and have the first program drain: it serves its sessions, and nobody else."""
        port = self._serving.address[1]
        leaving, self._serving = self._serving, self._start(str(port))
        leaving.process.send_signal(signal.SIGTERM)
        if not wait_until(lambda: listeners(port) == 1, _START_TIMEOUT):
            raise AssertionError("the first program still listens")


COLUMNS: tuple[type[Column], ...] = (
    OneProcess,
    Workers,
    TwoReplicas,
    GunicornByItself,
    GunicornInFront,
    GunicornBeside,
    GunicornLocal,
    TwoPrograms,
    Handover,
)


def ask_operator(path: str, method: str, target: str, body: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask an operator's listener; return the status and the parsed body.

    :param path: where it listens.
    """
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(_START_TIMEOUT)
        sock.connect(path)
        sock.sendall(head.encode() + b"\r\n" + content)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest)
