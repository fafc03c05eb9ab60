"""The peers: how the benchmark configures, starts and addresses each of them.

Each has the configuration that an operator would choose, with one thread or worker unless its name says more.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wsproxy.settings.table import SETTINGS

from .processes import Process, find_program
from .tools import Target

__all__ = ["MODES", "SETTING_NAMES", "Ours", "Peer", "Running", "Surroundings", "all_peers", "first_match"]

MODES = ("bulk-32k", "bulk-1k", "bulk-64", "sink", "echo", "idle")
"""The names of the virtual machines. Each name stands for a behaviour (upstream.c)."""

_HERE = os.path.dirname(os.path.abspath(__file__))
_START_TRIES = 3
# haproxy needs twice as many descriptors, and 20,000 is a common limit.
_CONNECTIONS = 8000
SETTING_NAMES = frozenset(setting.env for setting in SETTINGS)
"""The variables that configure wsproxy. The user's environment may contain some; a peer gets none."""

_API_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"


@dataclass(frozen=True)
class Surroundings:
    """The upstream, the token and the files for all peers.

    :ivar directory: directory for configuration and logs; removed at the end.
    :ivar ports: the upstream's ports by name.
    :ivar token: a JWT for every mode, signed with ``secret``.
    :ivar ca_file: file with the authority that issued the upstream's certificate.
    :ivar token_file: file with a service account's token.
    """

    directory: str
    ports: Mapping[str, int]
    secret: str
    token: str
    ca_file: str
    token_file: str

    def path(self, name: str) -> str:
        """Return a path in the directory."""
        return os.path.join(self.directory, name)

    def log(self, peer: Peer) -> str:
        """Return the path of the file that gets a peer's output."""
        return self.path(peer.name.replace(" ", "-") + ".log")

    def write(self, name: str, text: str) -> str:
        """Write a file and return its path."""
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def upstream(self, tls: bool) -> int:
        """Return the upstream's port."""
        return self.ports["tls" if tls else "plain"]


class Running:
    """A running peer.

    :param process: None for the direct connection.
    """

    def __init__(self, peer: Peer, around: Surroundings, process: Process | None) -> None:
        self._peer = peer
        self._around = around
        self.process = process

    def target(self, vmi: str) -> Target:
        """Return the address for a session with a virtual machine."""
        if self.process is None:
            return Target(self._around.upstream(self._peer.tls), f"/direct/{vmi}", self._peer.tls)
        return Target(self.process.port, self._peer.path(self._around, vmi))

    def stop(self) -> None:
        """Stop the peer. Idempotent."""
        if self.process is not None:
            self.process.stop()


@dataclass(frozen=True)
class Peer:
    """One column of the table, for one kind of upstream.

    :ivar column: the name of the column.
    :ivar tls: whether it uses TLS to the upstream.
    :ivar frames: whether it passes frames on unchanged.
    :ivar pings: whether it pings idle sessions.
    """

    column: str
    tls: bool
    frames: bool = field(default=True, kw_only=True)
    pings: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """The column and the kind of upstream."""
        return f"{self.column} {'TLS' if self.tls else 'plain'}"

    def missing(self) -> str | None:
        """Return why it cannot be measured here; None if it can."""
        return None

    def version(self) -> str:
        """Return its version, for the header."""
        return ""

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return the command to run, and the environment to add."""
        raise NotImplementedError

    def path(self, around: Surroundings, vmi: str) -> str:
        """Return the path that opens a session."""
        return f"/{around.token}/{vmi}"

    def start(self, around: Surroundings) -> Running:
        """Start it and wait until it listens.

        :raises RuntimeError: if it does not start.
        """
        environ = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
        log = around.log(self)
        for tries_left in reversed(range(_START_TRIES)):
            port = _free_port()
            command, added = self.command(around, port)
            try:
                return Running(self, around, Process(command, port, {**environ, **added}, log))
            except RuntimeError:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def first_match(pattern: str, command: Sequence[str]) -> str:
    """Return the version from a program's output; "?" if it cannot be found."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "?"


@dataclass(frozen=True)
class Direct(Peer):
    """No proxy: the load generator connects to the upstream."""

    def start(self, around: Surroundings) -> Running:
        return Running(self, around, None)


@dataclass(frozen=True)
class Ours(Peer):
    """wsproxy as a program: in dev mode, or with TLS and its in-cluster configuration."""

    workers: int = field(default=1, kw_only=True)

    def missing(self) -> str | None:
        if self.workers > 1 and not _has_workers():
            return "this wsproxy has no --workers"
        return None

    def version(self) -> str:
        from wsproxy.version import __version__

        return f"wsproxy {__version__} on Python {'.'.join(map(str, sys.version_info[:3]))}"

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        command = [sys.executable, "-m", "wsproxy", "serve"]
        if self.workers > 1:
            command += ["--workers", str(self.workers)]
        added = {"SECRET_KEY": around.secret, "HOST": "127.0.0.1", "PORT": str(port)}
        upstream = around.upstream(self.tls)
        if not self.tls:
            return command, added | {"LOCAL_DEV_MODE": "true", "WS_REMOTE_URL": f"ws://127.0.0.1:{upstream}"}
        return command, added | {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(upstream),
            "WSPROXY_CA_FILE": around.ca_file,
            "WSPROXY_TOKEN_FILE": around.token_file,
        }


def _has_workers() -> bool:
    command = [sys.executable, "-m", "wsproxy", "serve", "--help"]
    return first_match(r"(--workers)", command) != "?"


@dataclass(frozen=True)
class Original(Peer):
    """lab-orchestrator-ws-proxy-lib 1.0.0 with its pinned dependencies, which scripts/bench installs."""

    def missing(self) -> str | None:
        if os.environ.get("BENCH_ORIGINAL"):
            return None
        return os.environ.get("BENCH_ORIGINAL_MISSING") or "start the benchmark with scripts/bench"

    def version(self) -> str:
        code = "import sys, websockets; print('of', *sys.version_info[:3], websockets.version.version)"
        found = first_match(r"of ([\d. ]+)", [self._python, "-c", code]).split()
        python, websockets = ".".join(found[:3]), found[-1]
        return f"lab-orchestrator-ws-proxy-lib 1.0.0 (websockets {websockets}) on Python {python}"

    @property
    def _python(self) -> str:
        return os.environ.get("BENCH_ORIGINAL", "")

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        scheme = "wss" if self.tls else "ws"
        url = f"{scheme}://127.0.0.1:{around.upstream(self.tls)}"
        files = [around.ca_file, around.token_file] if self.tls else []
        script = os.path.join(_HERE, "run_original.py")
        command = [self._python, "-W", "ignore", script, url, _API_PATH, str(port), *files]
        return command, {"SECRET_KEY": around.secret}


@dataclass(frozen=True)
class Installed(Peer):
    """A program of the distribution.

    :ivar program: its name.
    :ivar package: its Debian package.
    """

    program: str = field(default="", kw_only=True)
    package: str = field(default="", kw_only=True)

    def missing(self) -> str | None:
        if find_program(self.program):
            return None
        return f"no {self.program} (Debian, Ubuntu: apt-get install {self.package})"

    @property
    def _program(self) -> str:
        return find_program(self.program) or self.program


_NGINX = """\
{user}
worker_processes 1;
worker_rlimit_nofile {connections};
daemon off;
pid {directory}/{name}.pid;
error_log {directory}/{name}-error.log;
events {{ worker_connections {connections}; }}
http {{
    access_log {directory}/{name}-access.log;
    client_body_temp_path {directory}/{name}-client;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass {scheme}://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Authorization "Bearer a-service-account";
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            {tls}
        }}
    }}
}}
"""
_NGINX_TLS = """proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca_file};
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;"""


@dataclass(frozen=True)
class Nginx(Installed):
    """nginx with one worker. It checks no tokens."""

    def version(self) -> str:
        return "nginx " + first_match(r"nginx/([\d.]+)", [self._program, "-v"])

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        name = f"nginx-{'tls' if self.tls else 'plain'}"
        # If root starts nginx, nginx would change to a user that may not write here.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        text = _NGINX.format(
            user=user,
            connections=_CONNECTIONS,
            directory=around.directory,
            name=name,
            port=port,
            scheme="https" if self.tls else "http",
            upstream=around.upstream(self.tls),
            tls=_NGINX_TLS.format(ca_file=around.ca_file) if self.tls else "",
        )
        config = around.write(f"{name}.conf", text)
        log = around.path(f"{name}-error.log")
        return [self._program, "-p", around.directory, "-e", log, "-c", config], {}


_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend clients
    bind 127.0.0.1:{port} backlog 1024
    default_backend api
backend api
    http-request set-header Authorization "Bearer a-service-account"
    server api 127.0.0.1:{upstream}{tls}
"""


@dataclass(frozen=True)
class Haproxy(Installed):
    """haproxy with one thread. It checks no tokens."""

    def version(self) -> str:
        return "haproxy " + first_match(r"version ([\d.]+)", [self._program, "-v"])

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        tls = f" ssl verify required verifyhost localhost ca-file {around.ca_file}" if self.tls else ""
        text = _HAPROXY.format(
            connections=_CONNECTIONS, port=port, upstream=around.upstream(self.tls), tls=tls
        )
        config = around.write(f"haproxy-{'tls' if self.tls else 'plain'}.cfg", text)
        return [self._program, "-db", "-f", config], {}


@dataclass(frozen=True)
class Websockify(Installed):
    """websockify. It gets the same bytes over bare TCP, so it does less, and it makes its own frames."""

    def version(self) -> str:
        return "websockify " + first_match(r"\s([\d.]+)", ["dpkg-query", "-W", self.package])

    def command(self, around: Surroundings, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        targets = "".join(f"{mode}: 127.0.0.1:{around.ports[mode]}\n" for mode in MODES)
        source = around.write("websockify-targets", targets)
        tokens = ["--token-plugin", "TokenFile", "--token-source", source]
        return [self._program, *tokens, f"127.0.0.1:{port}"], {}

    def path(self, around: Surroundings, vmi: str) -> str:
        return f"/websockify?token={vmi}"


def all_peers() -> list[Peer]:
    """Return every peer, in the order of the table."""
    peers: list[Peer] = []
    for tls in (False, True):
        peers += [
            Ours("ours", tls, pings=True),
            Ours("ours x2", tls, workers=2, pings=True),
            Original("original", tls, pings=True),
            Nginx("nginx", tls, program="nginx", package="nginx-light"),
            Haproxy("haproxy", tls, program="haproxy", package="haproxy"),
        ]
        if not tls:
            peers.append(
                Websockify("websockify", tls, frames=False, program="websockify", package="websockify")
            )
        peers.append(Direct("direct", tls))
    return peers
