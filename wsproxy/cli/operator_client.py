"""What commands that ask a running proxy's operator's listener share: its address, its answers, tables."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping
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

__all__ = [
    "BEHIND",
    "UNSAVED",
    "Failed",
    "OperatorClient",
    "add_listener_options",
    "duration",
    "operator_client",
    "parsed_time",
    "print_table",
    "printable",
    "warned",
]

BEHIND = 3
"""Exit status if processes have not applied a kick or a lift yet."""

UNSAVED = 4
"""Exit status if a kick or a lift is done, but a restart of the proxy forgets it."""

_SECONDS = 30.0
_MAX_ANSWER = 64 * 1024 * 1024
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Failed(Exception):
    """The request failed. The text says why.

    :ivar status: HTTP status of the answer; 0 if there is none that counts.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def add_listener_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the operator's listener is, and what token it needs."""
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


def operator_client(options: argparse.Namespace, faults: list[str]) -> OperatorClient:
    """Return a client for the listener that the options name.

    :param faults: of the other options.
    :raises ConfigError: if there are any, or these options are wrong; lists every fault.
    """
    admin = options.admin or setting_in_file(options, "admin")
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
    return OperatorClient(address, token)


class OperatorClient:
    """A client of one proxy's operator's listener.

    :param token: the operator's token; None if the listener needs no token.
    :ivar stranger: the error text for an answer that cannot be wsproxy's.
    """

    def __init__(self, address: ListenAddress, token: str | None) -> None:
        self._address = address
        self._headers = [] if token is None else [f"Authorization: Bearer {token}"]
        self.stranger = f"{address} is not the operator's listener of a wsproxy"

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Send a request and return the answer. Blocks for at most 30 seconds.

        :raises Failed: if no answer comes, or the proxy refuses.
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
            raise Failed(f"no answer from {self._address} in {_SECONDS:.0f} seconds") from None
        except (OSError, TransportClosed) as exc:
            fault = getattr(exc.__cause__ or exc, "strerror", None) or exc
            raise Failed(f"no answer from {self._address}: {fault}") from None
        except (http.client.HTTPException, ValueError, RecursionError):
            raise Failed(self.stranger) from None
        if not isinstance(answer, dict):
            raise Failed(self.stranger)
        if status != 200:
            raise Failed(f"{status}: {printable(answer.get('message'))}", status)
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


def warned(command: str, answers: Iterable[Mapping[str, Any]]) -> int:
    """Say on standard error what of kicks or lifts is not done yet; return the exit status for it.

    :param command: the command's name.
    :param answers: what the proxy said to each.
    """
    answers = list(answers)
    behind = dict.fromkeys(printable(name) for answer in answers for name in answer.get("behind") or ())
    unsaved = dict.fromkeys(printable(why) for answer in answers if (why := answer.get("unsaved")))
    if behind:
        text = f"not applied yet by {', '.join(behind)}; they admit nobody until they have"
        print(f"{command}: {text}", file=sys.stderr)
    if unsaved:
        text = f"not saved, so a restart of the proxy forgets it: {', '.join(unsaved)}"
        print(f"{command}: {text}", file=sys.stderr)
    return BEHIND if behind else UNSAVED if unsaved else 0


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows, the first of which has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(value: object) -> str:
    """Return text that cannot control a terminal. The issuer of a token chooses the names of users."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in str(value)) or "-"


def parsed_time(text: str) -> float:
    """Return the UNIX time of a text in the proxy's answers.

    :raises ValueError: if it is none.
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def duration(seconds: float) -> str:
    """Return a duration, such as 12s, 5m03s, 2h07m or 3d04h."""
    whole = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{smaller}"
    return f"{whole}s"
