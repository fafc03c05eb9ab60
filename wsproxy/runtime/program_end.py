"""The end of a program: a service in its threads keeps the program running, or is stopped gracefully.

When a program's main thread is done, the interpreter ends in three steps:

1. It calls the functions that were passed to ``threading._register_atexit``. If a :class:`Service` keeps the
   program up, this file waits for it here, and can catch Ctrl-C.
2. It joins the threads that are not daemons. Ctrl-C would print a traceback in this step.
3. It calls the functions of :mod:`atexit`. Here this file stops the services that still run. Their daemon
   threads still run, too.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from .logs import get_logger
from .signals import signals_to
from .threads import start_thread

__all__ = ["Service", "keeps_program_up", "starts_no_threads"]

logger = get_logger("wsproxy.program")

_INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a program that Ctrl-C has ended, by the convention of shells."""

_FLUSH_SECONDS = 1.0
_LOOK_SECONDS = 0.5

_OWN_END = (
    "IPython",
    "_pytest",
    "bdb",
    "behave",
    "celery",
    "cheroot",
    "django.apps",
    "doctest",
    "flask.cli",
    "gunicorn",
    "hupper",
    "hypercorn",
    "ipykernel",
    "nose2",
    "robot",
    "twisted.trial",
    "unittest",
    "uvicorn",
    "waitress",
    "werkzeug",
)
"""Modules of servers, reloaders and test runners, which call a program's code and end by their own rules."""

_EMBEDDING = ("mod_wsgi", "uwsgi")
"""Modules that exist only in servers that embed Python."""

_RELOADERS = ("RUN_MAIN", "WERKZEUG_RUN_MAIN")
"""Variables that Django and Werkzeug set for a program that they restart when its code changes."""


class Service:
    """A service in threads of a program, from its start until :meth:`end`.

    Any thread may call the methods. A forked child has no services.

    :param stop: stops the service in a bounded time and calls :meth:`end`. This file calls it when the
        interpreter ends.
    :param name: name of a thread that lives as long as the service; None for no such thread.
    :param keeps_up: whether the program continues when its main thread is done, until Ctrl-C or :meth:`end`.
    :ivar thread: that thread, which a program may join; or None.
    :raises RuntimeError: if the system cannot start the thread.
    """

    def __init__(self, stop: Callable[[], None], name: str | None = None, *, keeps_up: bool = False) -> None:
        self.stop = stop
        self.keeps_up = keeps_up
        self._over = threading.Event()
        # Without _register_atexit, Python waits for this thread instead, and Ctrl-C prints a traceback.
        daemon = _program.is_called_in_time() or not keeps_up
        self.thread = None if name is None else start_thread(name, self._over.wait, self, daemon=daemon)
        _program.services.add(self)

    def release(self) -> None:
        """Stop keeping the program up. Does not block."""
        self.keeps_up = False
        _program.wake()
        if self.thread and not self.thread.daemon:
            self._over.set()

    def end(self) -> None:
        """Record that the service has stopped. Idempotent; waits for :attr:`thread`, which ends at once."""
        _program.services.discard(self)
        self.stop = _nothing  # the old function refers to this object: a cycle that only the collector frees
        _program.wake()
        self._over.set()
        if self.thread:
            self.thread.join()


def _nothing() -> None:
    """Stop a service that has ended already."""


def keeps_program_up() -> bool:
    """Whether a service that starts now keeps the program up if the program does not say.

    It does if the main thread calls this, outside of an event loop, and no server, reloader or test runner
    is among its callers. Those end by their own rules, and must not wait for a service.
    """
    if threading.current_thread() is not threading.main_thread() or _in_event_loop():
        return False
    if any(os.environ.get(name) == "true" for name in _RELOADERS):
        return False
    return not any(name in sys.modules for name in _EMBEDDING) and not _called_by_a_runner()


def starts_no_threads() -> bool:
    """Whether this Python cannot start threads once the main thread is done (python/cpython#113964)."""
    return (3, 12, 0) <= sys.version_info < (3, 12, 3)


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _called_by_a_runner() -> bool:
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        module = frame.f_globals.get("__name__") or ""
        if any(module == name or module.startswith(f"{name}.") for name in _OWN_END):
            return True
    return False


class _Program:
    """The services of the process, and how they end. There is one object, because a process ends once."""

    def __init__(self) -> None:
        self.services: set[Service] = set()
        self._waker: socket.socket | None = None  # while the main thread waits for them
        self._registered = False

    def is_called_in_time(self) -> bool:
        """Register for the interpreter's end; return False if Python has no call before it joins threads.

        The registration happens once. Forked children inherit it.
        """
        register = getattr(threading, "_register_atexit", None)
        if not self._registered:
            self._registered = True
            atexit.register(self.stop_all)
            if register:
                with suppress(RuntimeError):  # the main thread is done already
                    register(self._main_thread_is_done)
        return register is not None

    def wake(self) -> None:
        """Have the main thread check again whether a service keeps the program up. Does not block."""
        if waker := self._waker:
            with suppress(OSError):  # closed meanwhile
                waker.send(b"\0")

    def stop_all(self) -> None:
        """Stop every service that still runs, one after the other."""
        for service in list(self.services):
            try:
                service.stop()
            except Exception:
                logger.exception("stopping at the end of the program failed")

    def forget(self) -> None:
        """Forget all services. For a forked child, which has none of their threads."""
        self.services.clear()
        self._waker = None

    def _main_thread_is_done(self) -> None:
        """Wait, in the main thread, for the services that keep the program up.

        Blocks without a timeout. If a signal handler raises, such as that of Ctrl-C, it ends the process.
        """
        interactive = hasattr(sys, "ps1")  # a user who leaves an interpreter's prompt wants to leave
        if interactive or getattr(sys, "last_type", None) is KeyboardInterrupt or not self._is_kept_up():
            return
        try:
            logger.info("the main thread is done; the program runs on until Ctrl-C, or until the proxy stops")
            if starts_no_threads():
                logger.error(
                    "this Python starts no thread now, so the proxy serves no new client; "
                    "let the main thread join proxy.thread"
                )
            self._wait()
        except BaseException as exc:  # noqa: BLE001 - of a signal's handler
            _leave(exc)

    def _wait(self) -> None:
        try:
            self._waker, woken = socket.socketpair()
        except OSError:  # no descriptors left, perhaps because the service has many clients
            while self._is_kept_up():
                time.sleep(_LOOK_SECONDS)
            return
        # The program keeps its signal handlers. A signal wakes this thread, whichever thread receives it.
        with self._waker, woken, signals_to(self._waker, ()):
            while self._is_kept_up():
                woken.recv(64)

    def _is_kept_up(self) -> bool:
        return any(service.keeps_up for service in list(self.services))


_program = _Program()
os.register_at_fork(after_in_child=_program.forget)


def _leave(exc: BaseException) -> NoReturn:
    """Stop all services, and end the process with the status of a program that ``exc`` ends.

    ``os._exit`` is needed: at this point Python offers no exit status, and would print a traceback.
    """
    status = 1
    try:
        status = _status_of(exc)
        _program.stop_all()
        atexit._run_exitfuncs()
        _flush_files()
    finally:
        os._exit(status)


def _status_of(exc: BaseException) -> int:
    if isinstance(exc, KeyboardInterrupt):
        logger.info("SIGINT: stopping")
        return _INTERRUPTED
    if not isinstance(exc, SystemExit):
        sys.excepthook(type(exc), exc, exc.__traceback__)
        return 1
    if exc.code is None or isinstance(exc.code, int):
        return (exc.code or 0) & 0xFF
    print(exc.code, file=sys.stderr)
    return 1


def _flush_files() -> None:
    """Flush the buffers of open files, as Python does when it destroys them. Blocks for a second at most."""
    # In another thread, because a thread that writes to a full pipe may hold the file's lock.
    start_thread("wsproxy-flush", _flush_all, None).join(_FLUSH_SECONDS)


def _flush_all() -> None:
    for thing in gc.get_objects():
        # Check the type: isinstance() may run code of an object that only resembles a file.
        if issubclass(type(thing), io.TextIOBase | io.BufferedIOBase):
            with suppress(OSError, ValueError):  # closed already
                thing.flush()
