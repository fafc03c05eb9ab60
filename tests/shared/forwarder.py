"""A TCP forwarder with faults: a network between processes and their store that a test breaks and mends.

It is a process of its own. Its connections come and go as those processes like, and are none of the test's.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from types import TracebackType

__all__ = ["Forwarder"]

_CHUNK = 65536
_BACKLOG = 128
_CONNECT_SECONDS = 5.0
_SUBSCRIBE = b"SUBSCRIBE"
_STDIN = 0


class _Way:
    """One direction of a connection: bytes, each with the time at which they arrive."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.has_ended = False

    def wait(self, now: float) -> float | None:
        """Return in how many seconds the next bytes arrive; None if there are none."""
        return max(self.under_way[0][0] - now, 0.0) if self.under_way else None

    def receive(self, arrival: float) -> bytes:
        """Take what there is in at the source. The end of the stream arrives as b""."""
        data = self.source.recv(_CHUNK)
        self.under_way.append((arrival, data))
        self.has_ended = not data
        return data

    def deliver(self) -> None:
        """Send what has arrived, as far as the target takes it."""
        due, data = self.under_way[0]
        if data:
            rest = data[self.target.send(data) :]
        else:
            self.target.shutdown(socket.SHUT_WR)
            rest = b""
        self.under_way.popleft()
        if rest:
            self.under_way.appendleft((due, rest))


class _Pair:
    """A client's connection and the one to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = client, server
        for sock in self.sockets:
            sock.setblocking(False)
        self.up, self.down = _Way(client, server), _Way(server, client)
        self.subscribes = False

    @property
    def is_over(self) -> bool:
        return all(way.has_ended and not way.under_way for way in (self.up, self.down))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Forwarder:
    """Forwards connections to a server, with faults that may change at any time. Use ``with``.

    While the link is cut, nothing is lost: what was sent arrives when it is mended, as with TCP.

    :param target: host and port of the server.
    :ivar address: host and port where it listens.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        command = [sys.executable, __file__, target[0], str(target[1])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self._lock = threading.Lock()  # held from a command to its answer
        self.address: tuple[str, int] = ("127.0.0.1", int(self._answer()))

    # Faults. Any thread. Each has happened when it returns.

    def cut(self) -> None:
        """Let nothing through, and accept nobody, until :meth:`mend`."""
        self._tell("cut")

    def mend(self) -> None:
        """End the cut, the latency, and the loss of messages."""
        self._tell("mend")

    def delay(self, seconds: float) -> None:
        """Delay all that is sent from now on, in both directions."""
        self._tell(f"delay {seconds}")

    def lose_messages(self) -> None:
        """Lose all that Redis sends to a connection that subscribes from now on or has subscribed."""
        self._tell("lose_messages")

    def drop_subscribers(self) -> None:
        """Close the connections that have subscribed to messages."""
        self._tell("drop_subscribers")

    def drop_all(self) -> None:
        """Close all connections."""
        self._tell("drop_all")

    def _tell(self, command: str) -> None:
        with self._lock:
            assert self._process.stdin
            self._process.stdin.write(f"{command}\n".encode())
            self._answer()

    def _answer(self) -> bytes:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise AssertionError("the forwarder has ended")
        return line

    def close(self) -> None:
        """Close all connections, and stop. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()
        self._process.wait()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Link:
    """What the process does: forwards, and obeys each line of its standard input, until that ends."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._pairs: list[_Pair] = []
        self._commands = b""
        self._is_over = False
        self._mend()

    def run(self) -> None:
        self._say(str(self._listener.getsockname()[1]))
        while not self._is_over:
            self._step()

    def _mend(self) -> None:
        self._is_cut = self._mutes_subscribers = False
        self._latency = 0.0

    def _obey(self) -> None:
        if not (data := os.read(_STDIN, _CHUNK)):
            self._is_over = True
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self._do(*line.decode().split())
            self._say("done")

    def _do(self, command: str, seconds: str = "") -> None:
        if command == "mend":
            self._mend()
        elif command == "cut":
            self._is_cut = True
        elif command == "lose_messages":
            self._mutes_subscribers = True
        elif command == "delay":
            self._latency = float(seconds)
        else:
            self._drop(all=command == "drop_all")

    def _say(self, text: str) -> None:
        os.write(1, f"{text}\n".encode())

    def _step(self) -> None:
        now = time.monotonic()
        due = [way for pair in self._pairs for way in (pair.up, pair.down) if way.wait(now) == 0.0]
        ready = self._select(due, now)
        if _STDIN in ready:
            self._obey()
        if self._is_cut:
            return
        for pair in list(self._pairs):
            self._serve(pair, ready, due)
        if self._listener.fileno() in ready:
            self._accept()

    def _select(self, due: list[_Way], now: float) -> dict[int, int]:
        """Wait until a descriptor is ready, or something arrives; return what is ready."""
        wanted: dict[int, int] = {}
        if not self._is_cut:
            for pair in self._pairs:
                for way in (pair.up, pair.down):
                    if not way.has_ended:
                        wanted[way.source.fileno()] = wanted.get(way.source.fileno(), 0) | select.POLLIN
            for way in due:
                wanted[way.target.fileno()] = wanted.get(way.target.fileno(), 0) | select.POLLOUT
            wanted[self._listener.fileno()] = select.POLLIN
        wanted[_STDIN] = select.POLLIN
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        return dict(poll.poll(self._timeout(now)))

    def _timeout(self, now: float) -> float | None:
        """Return in how many milliseconds the next bytes arrive that are still under way."""
        if self._is_cut:
            return None
        waits = [way.wait(now) for pair in self._pairs for way in (pair.up, pair.down)]
        later = [wait for wait in waits if wait]
        return min(later) * 1000 + 1 if later else None

    def _serve(self, pair: _Pair, ready: dict[int, int], due: list[_Way]) -> None:
        try:
            for way in (pair.up, pair.down):
                events = ready.get(way.source.fileno(), 0)
                if events & ~select.POLLOUT and not way.has_ended:
                    self._take_in(pair, way)
                if way in due and ready.get(way.target.fileno(), 0) & ~select.POLLIN:
                    way.deliver()
        except BlockingIOError:
            pass
        except OSError:
            self._forget(pair)
        else:
            if pair.is_over:
                self._forget(pair)

    def _take_in(self, pair: _Pair, way: _Way) -> None:
        data = way.receive(time.monotonic() + self._latency)
        if way is pair.up:
            pair.subscribes |= _SUBSCRIBE in data.upper()
        elif pair.subscribes and self._mutes_subscribers and data:
            way.under_way.pop()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, _CONNECT_SECONDS)
        except OSError:
            client.close()
            return
        self._pairs.append(_Pair(client, server))

    def _drop(self, *, all: bool) -> None:
        for pair in [one for one in self._pairs if all or one.subscribes]:
            self._forget(pair)

    def _forget(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        pair.close()


if __name__ == "__main__":
    _Link((sys.argv[1], int(sys.argv[2]))).run()
