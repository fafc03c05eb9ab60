"""The end of a program: what serves in its threads keeps it up, or is stopped in good order.

When a program's main thread is done, the interpreter ends in three steps: it calls the functions that
``threading._register_atexit`` was given, it joins the threads that are no daemons, and it calls those of
:mod:`atexit`. A :class:`Service` that keeps its program up is waited for in the first step, by code of ours,
which can catch Ctrl-C. In the second step that would be a traceback. What serves even so is stopped in the
third step, while threads still run.
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
"""The status of a program that Ctrl-C has ended, as shells have it."""

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
"""What calls a program's code and then ends by rules of its own: servers, reloaders, what runs tests."""

_EMBEDDING = ("mod_wsgi", "uwsgi")
"""Modules that exist only inside servers that Python is a part of."""

_RELOADERS = ("RUN_MAIN", "WERKZEUG_RUN_MAIN")
"""Environment variables of programs that Django or Werkzeug ends when their code has changed."""


class Service:
    """Something that serves in threads of a program, from its start until :meth:`end`.

    Any thread. In a forked child there are none.

    :param stop: stops it, which calls :meth:`end`, in a bounded time. Called when the interpreter ends.
    :param name: of a thread that stands for it, until it has ended; None for no such thread.
    :param keeps_up: whether the program goes on when its main thread is done, until Ctrl-C or :meth:`end`.
    :ivar thread: that thread; somebody may join it.
    :raises RuntimeError: if the system will not start the thread.
    """

    def __init__(self, stop: Callable[[], None], name: str | None = None, *, keeps_up: bool = False) -> None:
        self.stop = stop
        self.keeps_up = keeps_up
        self._over = threading.Event()
        # Where Python calls nobody, it waits for the thread, and Ctrl-C is a traceback.
        daemon = _program.is_called_in_time() or not keeps_up
        self.thread = None if name is None else start_thread(name, self._over.wait, self, daemon=daemon)
        _program.services.add(self)

    def release(self) -> None:
        """Do not keep the program up any more. Does not block."""
        self.keeps_up = False
        _program.wake()
        if self.thread and not self.thread.daemon:
            self._over.set()

    def end(self) -> None:
        """Take note that it is stopped. Idempotent; waits for :attr:`thread`, which ends at once."""
        _program.services.discard(self)
        self.stop = _nothing  # which knows us, and would be left to the garbage collector
        _program.wake()
        self._over.set()
        if self.thread:
            self.thread.join()


def _nothing() -> None:
    """What there is to stop of a service that has ended."""


def keeps_program_up() -> bool:
    """Whether a program expects to be kept up by what it starts now, if it does not say.

    It does if its main thread calls us, outside of an event loop, and no server and nothing that runs tests
    has called the code that leads here: these end by rules of their own, and must not wait for us.
    """
    if threading.current_thread() is not threading.main_thread() or _in_event_loop():
        return False
    if any(os.environ.get(name) == "true" for name in _RELOADERS):
        return False
    return not any(name in sys.modules for name in _EMBEDDING) and not _called_by_a_runner()


def starts_no_threads() -> bool:
    """Whether this Python starts no thread any more once the main one is done (python/cpython#113964)."""
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
    """The process's services, and what becomes of them at its end. There is one of these, as of ends."""

    def __init__(self) -> None:
        self.services: set[Service] = set()
        self._waker: socket.socket | None = None  # while the main thread waits for them
        self._registered = False

    def is_called_in_time(self) -> bool:
        """Have the interpreter call us at its end; return False if it cannot do so before it joins threads.

        Registers once for a process, and for all that it forks.
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
        """Have the main thread look again at what it waits for."""
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
        """In a forked child: there is no service."""
        self.services.clear()
        self._waker = None

    def _main_thread_is_done(self) -> None:
        """Wait for what keeps the program up, in the main thread. Does not return if it is interrupted."""
        interactive = hasattr(sys, "ps1")  # who leaves an interpreter's prompt wants to leave
        if interactive or getattr(sys, "last_type", None) is KeyboardInterrupt or not self._is_kept_up():
            return
        try:
            logger.info("the main thread is done; the program goes on until Ctrl-C, or the proxy is stopped")
            if starts_no_threads():
                logger.error("this Python serves no new client now; have the main thread join the proxy's")
            self._wait()
        except BaseException as exc:  # noqa: BLE001 - of a signal's handler
            _leave(exc)

    def _wait(self) -> None:
        try:
            self._waker, woken = socket.socketpair()
        except OSError:  # no descriptors; whoever holds them may be a reason to serve on
            while self._is_kept_up():
                time.sleep(_LOOK_SECONDS)
            return
        # Handlers stay what they are; but whichever thread a signal is given to, this one is woken.
        with self._waker, woken, signals_to(self._waker, ()):
            while self._is_kept_up():
                woken.recv(64)

    def _is_kept_up(self) -> bool:
        return any(service.keeps_up for service in list(self.services))


_program = _Program()
os.register_at_fork(after_in_child=_program.forget)


def _leave(exc: BaseException) -> NoReturn:
    """Stop all, and end the process with the status of a program that ``exc`` ends.

    Python has no way to say a status at this point, and would print ``exc`` with a traceback.
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
    """Write what open files have buffered, as Python does when it destroys them. Takes a second at most."""
    # In another thread, because somebody may hold a file's lock who writes to a full pipe.
    start_thread("wsproxy-flush", _flush_all, None).join(_FLUSH_SECONDS)


def _flush_all() -> None:
    for thing in gc.get_objects():
        # Of the type, because what only looks like one may do anything when it is asked.
        if issubclass(type(thing), io.TextIOBase | io.BufferedIOBase):
            with suppress(OSError, ValueError):  # closed already
                thing.flush()
