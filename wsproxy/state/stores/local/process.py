"""Starts the store's process, and is that process."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from ....net.listeners import UNIX, Listener, listen
from ....runtime.cpu_affinity import anywhere
from ....runtime.logs import TextFormatter, get_logger
from ....runtime.signals import STOP_SIGNALS, signals_to
from ..memory import MemoryStore
from .lock import StoreLock, opened_beside
from .server import LocalServer

__all__ = ["CannotStart", "be_the_store", "listen_at", "serve_store", "start_process"]

logger = get_logger("wsproxy.state.local")

LINGER = 60.0
"""Seconds for which a store that was started on demand outlives the last process that is connected."""

_BOOT = (
    "import os,sys,json; os.fork() and os._exit(0); sys.path[:]=json.loads(sys.argv.pop());"
    "from wsproxy.state.stores.local.process import be_the_store; be_the_store()"
)
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
_EMBEDDING = ("mod_wsgi", "uwsgi")  # modules of servers whose sys.executable is not Python
_MOST_LOG_BYTES = 1024 * 1024


class CannotStart(Exception):
    """The store's process cannot be started from this one. The text says why."""


def start_process(path: str, group: int | None, lock: StoreLock) -> subprocess.Popen[bytes]:
    """Start the store's process, which gets the lock. It is detached: it becomes no child of this process.

    Returns before it listens. It gets nothing of this process but the lock: no descriptor, none of the
    variables that may have secrets, and no session or process group.

    :returns: the process between the two, which ends at once. The caller waits for it.
    :raises CannotStart: if there is no Python to start.
    :raises OSError: if the system cannot.
    """
    if not sys.executable or any(name in sys.modules for name in _EMBEDDING):
        raise CannotStart("no process can be started from this server")
    paths = [os.path.abspath(entry) for entry in sys.path]
    given = [path, "" if group is None else str(group), str(lock.descriptor), json.dumps(paths)]
    log = _opened_log(f"{path}.log", group)
    try:
        with anywhere():
            return subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, *given],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(lock.descriptor,),
                cwd="/",
                env={name: value for name in _KEPT if (value := os.environ.get(name)) is not None},
                start_new_session=True,
            )
    finally:
        os.close(log)


def _opened_log(name: str, group: int | None) -> int:
    """Open the file for what the process says. One that is long begins anew."""
    log = opened_beside(name, os.O_WRONLY | os.O_APPEND, group)
    if os.fstat(log).st_size > _MOST_LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def be_the_store() -> None:
    """Be the process that :func:`start_process` started."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the starter's mask is inherited
    os.umask(0o077)
    path, group_text, descriptor = sys.argv[1:]
    group = int(group_text) if group_text else None
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter(with_process=True))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    lock = StoreLock(int(descriptor))
    os.set_inheritable(lock.descriptor, False)
    try:
        listener = listen_at(path, group)
    except OSError as exc:
        logger.error("%s", exc.strerror or exc)
        sys.exit(1)
    with lock, listener:
        serve_store(listener, lock, group=group, linger=LINGER)


def listen_at(path: str, group: int | None) -> Listener:
    """Return a socket that listens at a path, for this user or for a group as well.

    :raises OSError: if that is not possible; the text names the path.
    """
    listener = listen(UNIX + path, 0, mode=0o600, fault="the store cannot listen on")
    if group is not None:
        try:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)
        except OSError:
            listener.close()
            raise
    return listener


def serve_store(
    listener: Listener,
    lock: StoreLock,
    *,
    group: int | None = None,
    linger: float = math.inf,
    managed: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until nobody has been connected for a while. For the main thread.

    :param linger: how long that is, seconds.
    :param managed: whether a service manager starts the store when there is none.
    :param on_ready: is called once the store answers.
    """
    had_members = lock.had_members(first=not managed)
    lock.note(managed=managed, members=had_members)
    path = "" if listener.inherited else listener.address[0].removeprefix(UNIX)
    identity = _identity(path)
    server = LocalServer(
        listener,
        MemoryStore(settled=not had_members),
        group=group,
        linger=linger,
        note_members=lambda there: lock.note(managed=managed, members=there),
        is_lost=lambda: _identity(path) != identity,
    )
    waker, woken = socket.socketpair()
    with waker, woken, signals_to(waker, STOP_SIGNALS):
        logger.info("the store answers at %s", listener.address[0])
        on_ready()
        server.run(woken)


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.lstat(path)
        return status.st_dev, status.st_ino
    return None
