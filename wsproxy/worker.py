"""One worker: a process that serves next to others on one listening socket, under a supervisor."""

from __future__ import annotations

import selectors
import signal
import socket

from .channel import Channel
from .config import Config
from .logs import get_logger
from .server import ConsoleServer
from .session import Gateway
from .signals import REOPEN_SIGNAL, STOP_SIGNALS, signals_to

__all__ = ["WORKER_SIGNALS", "work"]

logger = get_logger("wsproxy.worker")

WORKER_SIGNALS = (*STOP_SIGNALS, REOPEN_SIGNAL, signal.SIGUSR1)
"""What a worker handles. SIGUSR1 is meant for the supervisor: one for the whole group must end no worker."""


def work(config: Config, listener: socket.socket, channel: Channel) -> None:
    """Serve until SIGINT or SIGTERM, or until the supervisor is gone, and then stop in good order.

    For the main thread of a process that has no other thread, and ends after this. Stopping takes at most
    the close timeout and a few seconds. Signals that were held back over the fork come in here.

    :param listener: what to accept from; closed here.
    :param channel: leads to the supervisor, which is told when clients are served, answered when it asks
        for numbers, and gone when the channel ends.
    """
    waker, woken = socket.socketpair()
    with waker, woken, signals_to(waker, WORKER_SIGNALS):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
        gateway = Gateway(config)
        server = ConsoleServer(listener, gateway, shared=True)
        try:
            server.start()
            channel.send({"ready": True})
            logger.info("%s: stopping", _attend(server, gateway, channel, woken))
        finally:
            server.stop()
        _send_numbers(server, channel)
        logger.info("stopped")
        signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)  # one more would end us as if we had failed


def _attend(server: ConsoleServer, gateway: Gateway, channel: Channel, woken: socket.socket) -> str:
    """Answer the supervisor until there is a reason to stop, and return that."""
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    received = woken.recv(64)
                    if number := next((byte for byte in received if byte in STOP_SIGNALS), 0):
                        return signal.Signals(number).name
                    if REOPEN_SIGNAL in received:
                        gateway.audit.open()
                        logger.info("%s: log files opened anew", REOPEN_SIGNAL.name)
                elif (messages := channel.receive()) is None:
                    return "the supervisor is gone"
                elif messages:
                    _send_numbers(server, channel)


def _send_numbers(server: ConsoleServer, channel: Channel) -> None:
    channel.send({"numbers": server.numbers().to_json()})
