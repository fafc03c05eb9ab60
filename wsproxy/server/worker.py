"""One worker: a process that shares a listening socket with others, under a supervisor."""

from __future__ import annotations

import selectors
import signal
import socket
from typing import Any

from ..admin.deferred import AnswerThreads
from ..admin.endpoints import session_endpoints
from ..config import Config
from ..net.listeners import Listener
from ..runtime.logs import get_logger
from ..runtime.signals import RELOAD_SIGNAL, STOP_SIGNALS, signals_to
from .acceptor import ConsoleServer
from .channel import Channel
from .gateway import Gateway
from .lifecycle import STOPPED, log_reload, name_of, stop_in_good_order

__all__ = ["WORKER_SIGNALS", "work"]

logger = get_logger("wsproxy.worker")

WORKER_SIGNALS = (*STOP_SIGNALS, RELOAD_SIGNAL, signal.SIGUSR1)
"""Signals that a worker handles. It ignores SIGUSR1, which may go to the whole process group."""


def work(config: Config, listener: Listener, channel: Channel, copies: str = "") -> None:
    """Serve until SIGINT or SIGTERM, or until the supervisor is gone; then stop.

    Call it in the main thread of a process that has no other thread and ends afterwards. After a signal the
    worker drains as the settings say. A second signal ends the drain; then stopping takes at most the close
    timeout and a few seconds. Signals that the supervisor blocked over the fork are unblocked here.

    :param listener: the listening socket; closed here.
    :param channel: to the supervisor. The worker tells it when it serves, and sends numbers when asked. The
        end of the channel means that the supervisor is gone.
    :param copies: as for :class:`.Gateway`.
    """
    waker, woken = socket.socketpair()
    with waker, woken, signals_to(waker, WORKER_SIGNALS):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
        gateway = Gateway(config, copies=copies)
        gateway.readiness.check_files(told=True)  # the supervisor has logged the faults
        server = ConsoleServer(listener, gateway, shared=True)
        answers = AnswerThreads(session_endpoints(None, gateway.kicks()), gateway)
        try:
            server.start()
            channel.send({"ready": True})
            number = _attend(server, gateway, channel, woken, answers)
            logger.info("%s: stopping", name_of(number))
            if number is not None:
                _drain(server, gateway, channel, waker, woken, answers)
        finally:
            answers.stop()
            server.stop()
        _send_numbers(server, channel)
        logger.info("stopped")


def _drain(
    server: ConsoleServer,
    gateway: Gateway,
    channel: Channel,
    waker: socket.socket,
    woken: socket.socket,
    answers: AnswerThreads,
) -> None:
    """Drain as the settings say, then stop; stop at once on another signal, or if the supervisor is gone."""
    config = gateway.config
    stop_in_good_order(
        lambda: server.stop(config.drain_timeout, config.drain_grace),
        server.hurry,
        waker,
        lambda: _attend(server, gateway, channel, woken, answers),
        channel,
        logger,
    )


def _attend(
    server: ConsoleServer, gateway: Gateway, channel: Channel, woken: socket.socket, answers: AnswerThreads
) -> int | None:
    """Answer the supervisor, and reload on SIGHUP, until there is a reason to stop.

    :returns: the signal to stop on, :data:`.STOPPED`, or None if the supervisor is gone.
    """
    with selectors.PollSelector() as selector:  # needs no descriptor of its own: none may be left
        selector.register(woken, selectors.EVENT_READ)
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    number = woken.recv(1)[0]
                    if number in (*STOP_SIGNALS, STOPPED):
                        return number
                    if number == RELOAD_SIGNAL:
                        gateway.reload()
                        log_reload(logger)
                elif (messages := channel.receive()) is None:
                    return None
                else:
                    _answer(messages, server, channel, answers)


def _answer(
    messages: list[dict[str, Any]], server: ConsoleServer, channel: Channel, answers: AnswerThreads
) -> None:
    """Do what the supervisor asks for."""
    for message in messages:
        if "operator" in message and (sock := channel.take_passed()):
            answers.answer(sock)
        elif "ask" in message:
            _send_numbers(server, channel)


def _send_numbers(server: ConsoleServer, channel: Channel) -> None:
    channel.send({"numbers": server.numbers().to_json()})
