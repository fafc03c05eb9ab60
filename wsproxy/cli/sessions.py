"""``wsproxy sessions``: lists or ends sessions through a running proxy's operator's listener."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from typing import Any

from ..admin.auth import default_token_file, read_operator_token
from ..exceptions import ConfigError, TransportClosed
from ..net.addresses import ListenAddress
from ..net.http_client import ResponseStream, request_head
from ..net.transport import PlainTransport
from ..runtime.deadline import Deadline
from .config import add_config_file, setting_in_file

__all__ = ["add_sessions_command"]

_SECONDS = 30.0
_MAX_ANSWER = 64 * 1024 * 1024
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_CHOICES = ("user", "namespace", "vmi", "token_id")
_HEADINGS = ("ID", "USER", "NAMESPACE", "VMI", "CONSOLE", "CLIENT", "OPEN", "EXPIRES", "IDLE", "UP", "DOWN")


class _Failed(Exception):
    """The request failed. The text says why."""


def add_sessions_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``sessions`` to those of the program."""
    parser = commands.add_parser(
        "sessions",
        help="list or end the sessions of a running proxy",
        usage="wsproxy sessions [list | kick [ID ...]] [options]",  # argparse wants IDs before options
        description="List the sessions of a running proxy, or end some of them and revoke their tokens.",
        epilog="kick ends the sessions that match all given options, or those with the given IDs.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "action", nargs="?", choices=("list", "kick"), default="list", help="default: %(default)s"
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="kick: ID of a session, from list")
    parser.add_argument("--user", help="kick: sessions of this user")
    parser.add_argument("--namespace", help="kick: sessions in this namespace")
    parser.add_argument("--vmi", help="kick: sessions with this VMI; requires --namespace")
    parser.add_argument("--token-id", help="kick: sessions of the token with this ID")
    parser.add_argument(
        "--token-file", metavar="FILE", help="kick: sessions of the token in this file; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_file(parser)
    parser.add_argument(
        "--admin",
        default=os.environ.get("WSPROXY_ADMIN"),
        metavar="ADDRESS",
        help="the operator's listener, HOST:PORT or unix:PATH (environment: WSPROXY_ADMIN)",
    )
    parser.add_argument(
        "--admin-token-file",
        default=os.environ.get("WSPROXY_ADMIN_TOKEN_FILE"),
        metavar="FILE",
        help="file with the operator's token (environment: WSPROXY_ADMIN_TOKEN_FILE; default: the file that "
        "a proxy of the same user creates)",
    )


def _run(options: argparse.Namespace) -> int:
    client = _Client(*_settings(options))
    try:
        if options.action == "list":
            return _list(client, options.json)
        return _kick(client, options)
    except _Failed as exc:
        print(f"wsproxy sessions: {exc}", file=sys.stderr)
        return 1


def _settings(options: argparse.Namespace) -> tuple[ListenAddress, str | None]:
    """Return the address of the operator's listener, and the operator's token; None for no token.

    :raises ConfigError: if settings are wrong; lists every fault.
    """
    faults, chosen = [], [options.ids, options.token_file, _criteria(options)]
    admin = options.admin or setting_in_file(options, "admin")
    if options.action == "list" and any(chosen):
        faults.append("list always lists all sessions; give IDs and options to kick only")
    if options.action == "kick" and sum(map(bool, chosen)) != 1:
        faults.append("kick needs IDs, or --token-file, or any of --user, --namespace, --vmi and --token-id")
    try:
        address = ListenAddress.parse(admin or "")
    except ValueError as exc:
        raise ConfigError(
            [*faults, f"WSPROXY_ADMIN is {admin or 'not set'}; {exc}, as in the proxy's settings"]
        ) from None
    token, path = None, options.admin_token_file or setting_in_file(options, "admin_token_file")
    where = f" in {path}" if path else ""
    if path or not address.path:
        try:
            if not path:
                where = f" in {default_token_file()}"
            token = read_operator_token(path)
        except (OSError, ValueError) as exc:
            fault = getattr(exc, "strerror", None) or exc
            faults.append(
                f"the operator's token{where}: {fault}; name another file in WSPROXY_ADMIN_TOKEN_FILE"
            )
    if faults:
        raise ConfigError(faults)
    return address, token


def _criteria(options: argparse.Namespace) -> dict[str, str]:
    return {name: value for name in _CHOICES if (value := getattr(options, name)) is not None}


def _list(client: _Client, as_json: bool) -> int:
    found = client.ask("GET", "/sessions")
    try:
        now = _time(found["time"])
        rows = [_row(session, now) for session in found["sessions"]]
    except (KeyError, TypeError, ValueError):
        raise _Failed(client.stranger) from None
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print_table([_HEADINGS, *rows])
    return 0


def _kick(client: _Client, options: argparse.Namespace) -> int:
    if options.token_file:
        wanted = [{"token": _read_token(options.token_file)}]
    else:
        wanted = [{"session": id} for id in options.ids] or [_criteria(options)]
    done: dict[str, list[str]] = {"sessions": [], "tokens": []}
    missing = []
    for body in wanted:
        answer = client.ask("POST", "/kick", body)
        try:
            done = {name: ids + answer[name] for name, ids in done.items()}
        except (KeyError, TypeError):
            raise _Failed(client.stranger) from None
        if not any(answer.values()):
            missing.append(body.get("session", "the options"))
    if options.json:
        print(json.dumps(done, indent=2))
    else:
        print(f"{len(done['sessions'])} sessions ended, {len(done['tokens'])} tokens revoked")
    if missing:
        raise _Failed(f"no session or token matches {', '.join(missing)}")
    return 0


def _read_token(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read().strip()
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as exc:
        raise _Failed(f"--token-file {path}: {exc.strerror}") from None


class _Client:
    """A client of one proxy's operator's listener.

    :param token: the operator's token; None if the listener needs no token.
    :ivar stranger: the error text for an answer that cannot be wsproxy's.
    """

    def __init__(self, address: ListenAddress, token: str | None) -> None:
        self._address = address
        self._headers = [] if token is None else [f"Authorization: Bearer {token}"]
        self.stranger = f"{address} is not the operator's listener of a wsproxy"

    def ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send a request and return the answer. Blocks for at most 30 seconds.

        :raises _Failed: if no answer comes, or the proxy refuses.
        """
        content = None if body is None else json.dumps(body).encode()
        head = request_head(method, path, "localhost", self._headers, content)
        deadline = Deadline(_SECONDS)
        try:
            with closing(PlainTransport(_connected(self._address, deadline))) as transport:
                transport.send(head + (content or b""), deadline)
                status, text = _received(ResponseStream(transport, deadline))
            answer = json.loads(text)
        except TimeoutError:
            raise _Failed(f"no answer from {self._address} in {_SECONDS:.0f} seconds") from None
        except (OSError, TransportClosed) as exc:
            fault = getattr(exc.__cause__ or exc, "strerror", None) or exc
            raise _Failed(f"no answer from {self._address}: {fault}") from None
        except (http.client.HTTPException, ValueError, RecursionError):
            raise _Failed(self.stranger) from None
        if not isinstance(answer, dict):
            raise _Failed(self.stranger)
        if status != 200:
            raise _Failed(f"{status}: {_shown(answer.get('message'))}")
        return answer


def _connected(address: ListenAddress, deadline: Deadline) -> socket.socket:
    """Connect to an operator's listener. Blocks until the deadline, and while the host's name is resolved."""
    if not address.path:
        host = _ANYWHERE.get(address.host, address.host)
        return socket.create_connection((host, address.port), deadline.remaining())
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(deadline.remaining())
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _received(stream: ResponseStream) -> tuple[int, bytes]:
    """Return the status and the body of a response. Blocks until the stream's deadline."""
    with closing(http.client.HTTPResponse(stream)) as response:  # type: ignore[arg-type]
        response.begin()
        return response.status, response.read(_MAX_ANSWER)


def _row(session: Mapping[str, Any], now: float) -> tuple[str, ...]:
    expires = session["expires"]
    if session["since"] is None:  # the proxy could not describe the session; its log says why
        return (_shown(session["id"]), *("-" for _ in _HEADINGS[1:]))
    return (
        *(_shown(session[name]) for name in ("id", "user", "namespace", "vmi", "subresource", "client")),
        "opening" if session.get("state") == "opening" else _duration(now - _time(session["since"])),
        "never" if expires is None else f"in {_duration(_time(expires) - now)}",
        _duration(now - _time(session["last_activity"])),
        _size(session["bytes_up"]),
        _size(session["bytes_down"]),
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    """Return text that cannot control a terminal. The issuer of a token chooses the names of users."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in str(value)) or "-"


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _duration(seconds: float) -> str:
    """Return a duration, such as 12s, 5m03s, 2h07m or 3d04h."""
    whole = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{smaller}"
    return f"{whole}s"


def _size(count: int) -> str:
    """Return a size, such as 512, 3.4K or 120M."""
    if count < 1024:
        return str(count)
    size, units = count / 1024, "KMGTP"
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.{1 if size < 10 else 0}f}{units[0]}"
