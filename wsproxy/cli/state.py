"""``wsproxy state``: runs the store that the processes of one host share."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from ..exceptions import ConfigError
from ..net.addresses import ListenAddress, listen_fault
from ..net.listeners import FD, UNIX, Listener, listen
from ..runtime.logs import TextFormatter
from ..runtime.systemd import Notifier, activated_descriptor
from ..state.stores.choice import group_id
from ..state.stores.local.lock import StoreLock
from ..state.stores.local.process import listen_at, serve_store
from .output import print_line, stderr_handler

__all__ = ["add_state_command"]


def add_state_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``state`` to those of the program."""
    parser = commands.add_parser(
        "state",
        help="run the store that the processes of one host share",
        description="Run the store that the processes of one host share, until SIGTERM.",
        epilog="Without this command, the first process that needs the store starts one. Once this command "
        "has run at a path, processes no longer do so there. Remove PATH.lock to change that.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "--listen", metavar="unix:PATH", help="the store's socket (default: the socket that systemd passes)"
    )
    parser.add_argument("--group", metavar="GROUP", help="name or number of a group that may use it, too")


def _run(options: argparse.Namespace) -> int:
    inherited = activated_descriptor(os.environ, os.getpid())
    group = group_id("--group", options.group)
    path = "" if options.listen is None and inherited is not None else _path(options.listen)
    handler = stderr_handler(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        if inherited is None:
            return _serve(path, None, group)
        with listen(f"{FD}{inherited}", 0) as listener:
            return _serve(path or listener.address[0].removeprefix(UNIX), listener, group)
    except OSError as exc:
        print_line(f"wsproxy state: {exc if exc.filename else exc.strerror or exc}", sys.stderr)
        return 1


def _serve(path: str, inherited: Listener | None, group: int | None) -> int:
    """Serve at a path, perhaps with a socket that the parent process has bound there.

    :raises OSError: if that is not possible.
    """
    path = os.path.abspath(path)
    lock = StoreLock.take(path, group)
    if lock is None:
        print_line(f"wsproxy state: another store runs at {path}; {path}.lock has its PID", sys.stderr)
        return 1
    notifier = Notifier.from_env(os.environ)
    with lock, inherited or listen_at(path, group) as listener:
        serve_store(listener, lock, group=group, managed=True, on_ready=notifier.ready)
    return 0


def _path(text: str | None) -> str:
    if text is None:
        raise ConfigError(["--listen is missing; give it as unix:PATH"])
    fault = listen_fault(text, False) if text.startswith(UNIX) else "it must be unix:PATH"
    if fault:
        raise ConfigError([f"--listen is {text!r}: {fault}"])
    return ListenAddress.parse(text).path
