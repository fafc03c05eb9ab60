"""The store's process on one host: answers at a Unix socket what the rules decide.

One thread with a selector serves all peers. The rules decide one thing at a time anyway, so more threads
would only pass the interpreter lock and the store's lock around. Nothing here waits for a peer. What one does
not read stays in its own outbox, and nothing more is read from it until that is empty.

A peer that holds members is a process of theirs, whose other connections come and go. The kernel closes it
when the process ends, whatever the reason. The store then forgets its members at once.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from ....net.sockets import GONE, OUT_OF_RESOURCES, has_hung_up, why_not_accepted
from ....runtime.deadline import Clock
from ....runtime.logs import Complaints, get_logger
from ..memory import MemoryStore
from ..remote import answer_call
from .frames import Inbox, packed, unpacked
from .peers import is_trusted, peer_process

__all__ = ["LocalServer"]

logger = get_logger("wsproxy.state.local")

_CHUNK = 65536
_SWEEP = 1.0  # seconds
_STALLED = 5.0  # seconds without a byte, in the middle of a message; nobody waits for an answer that long
_LATE = 0.1  # seconds after which a turn was due, that may be more than a busy machine
_SURE = 60.0  # seconds from the start, after which all members that live have come
_LONGEST_LISTEN = 60.0  # seconds
_MOST_PEERS = 1000
_ACCEPTS = 64  # at a time, so that others have their turn
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Nonsense(Exception):
    """What a peer sent is no request."""


class _Peer:
    """One connection.

    :ivar name: for the log.
    :ivar outbox: the rest of an answer.
    :ivar moved: when it last sent or read a byte.
    :ivar members: the ids of those that end with it.
    :ivar listening: the member that it waits for, and until when.
    """

    def __init__(self, sock: socket.socket, name: str, now: float) -> None:
        self.sock = sock
        self.name = name
        self.inbox = Inbox()
        self.outbox: bytes | memoryview = b""
        self.has_to_wait = False  # for the peer to read
        self.moved = now
        self.members: set[str] = set()
        self.listening: tuple[str, float] | None = None
        self.is_closed = False

    @property
    def is_in_a_message(self) -> bool:
        """Whether a message has begun, and nothing but the peer keeps it from going on."""
        return bool(self.outbox) or not (self.inbox.is_empty or self.listening)


class LocalServer:
    """Serves a store to other processes. The caller closes the listener. One thread.

    :param listener: listens at a Unix socket.
    :param group: id of a group whose members may connect, too.
    :param linger: seconds without any peer after which it ends.
    :param note_members: is told whether there are members: True before the first is answered.
    :param is_lost: whether no new client can find the listener any more. It is asked once a second.
    :param clock: seconds; the store has a clock of its own.
    """

    def __init__(
        self,
        listener: socket.socket,
        store: MemoryStore,
        *,
        group: int | None = None,
        linger: float = math.inf,
        note_members: Callable[[bool], None] = lambda there: None,
        is_lost: Callable[[], bool] = lambda: False,
        clock: Clock = time.monotonic,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._store = store
        self._group = group
        self._linger = linger
        self._note_members = note_members
        self._is_lost = is_lost
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._peers: set[_Peer] = set()
        self._owners: dict[str, _Peer] = {}  # of members
        self._listeners: set[_Peer] = set()
        self._is_accepting = False
        self._has_members = False
        self._tick = _SWEEP  # a part of the shortest lease, so that no stop is as long as that and not seen
        self._changed = False  # whether there may be news for those who listen
        self._now = self._begun = self._alone_since = self._swept = clock()
        self._complaints = Complaints(logger, clock)

    def run(self, woken: socket.socket) -> None:
        """Serve until ``woken`` is readable, nobody has been there for a while, or the listener is lost."""
        self._selector.register(woken, _READ)
        self._accept_from_now_on()
        try:
            while not self._is_over():
                ready = self._selected()
                for key, events in ready:
                    if key.fileobj is woken:
                        return
                    self._serve(key.data, events)
                self._tell_news()
        finally:
            self._close_all()

    def _selected(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for what is next, and see to it if this process was stopped meanwhile."""
        patience = self._patience()
        due = self._now + patience
        ready = self._selector.select(patience)
        self._now = self._clock()
        late = self._now - due
        if late > _LATE and self._store.was_stopped(late + patience):
            logger.info("the store was stopped for %.1f s; its members publish again", late)
        return ready

    def _is_over(self) -> bool:
        if self._now - self._swept >= _SWEEP:
            self._swept = self._now
            self._sweep()
            if self._is_lost():
                logger.error("another file is in the place of the store's socket; this store ends")
                return True
        if self._peers or self._now - self._alone_since < self._linger:
            return False
        self._note_members(False)
        return True

    def _patience(self) -> float:
        """Return for how many seconds nothing has to be done."""
        untils = [peer.listening[1] for peer in self._listeners if peer.listening]
        if not self._peers:
            untils.append(self._alone_since + self._linger)
        return max(0.0, min([self._swept + _SWEEP, self._now + self._tick, *untils]) - self._now)

    def _serve(self, peer: _Peer | None, events: int) -> None:
        if peer is None:
            self._accept()
        elif peer.is_closed:
            return  # by what became of another one in this turn
        elif events & _WRITE:
            self._flush(peer)
            self._answer_all(peer)
        else:
            self._receive(peer)

    # Peers

    def _accept_from_now_on(self) -> None:
        if not self._is_accepting:
            self._is_accepting = True
            self._selector.register(self._listener, _READ)

    def _accept(self) -> None:
        try:
            for _ in range(_ACCEPTS):
                self._welcome(self._listener.accept()[0])
        except GONE:
            pass
        except OSError as exc:
            if exc.errno in OUT_OF_RESOURCES:
                self._selector.unregister(self._listener)  # until the next sweep
                self._is_accepting = False
            logger.error("the store cannot accept a process: %s", why_not_accepted(exc))

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            who = peer_process(sock)
        except OSError:
            sock.close()
            return
        name = f"process {who.pid} of user {who.uid}" if who else "a process"
        if not is_trusted(who, self._group) or len(self._peers) >= _MOST_PEERS:
            why = "it is not trusted" if len(self._peers) < _MOST_PEERS else "there are too many"
            logger.info("a connection of %s was closed: %s", name, why)
            sock.close()
            return
        peer = _Peer(sock, name, self._now)
        self._peers.add(peer)
        self._selector.register(sock, _READ, peer)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        peer.moved = self._now
        try:
            peer.inbox.feed(data)
            if not data or has_hung_up(peer.sock):
                self._part_with(peer)
            else:
                self._answer_all(peer)
        except ValueError as exc:
            self._close(peer, str(exc))

    def _part_with(self, peer: _Peer) -> None:
        """Close the connection of a peer that has closed it.

        Nobody waits for the answers. What a client gave up while this process was stopped must not happen
        now, behind what the client has done since.
        """
        while peer.inbox.take() is not None:
            pass
        self._close(peer, "" if peer.inbox.is_empty else "it ended in the middle of a message")

    def _close(self, peer: _Peer, why: str) -> None:
        """Close a connection, and forget the members that end with it. Idempotent.

        :param why: for the log; "" if it is as it should be.
        """
        if peer.is_closed:
            return
        peer.is_closed = True
        if why:
            logger.info("the connection of %s was closed: %s", peer.name, why)
        self._selector.unregister(peer.sock)
        peer.sock.close()
        self._peers.discard(peer)
        self._listeners.discard(peer)
        if not self._peers:
            self._alone_since = self._now
        members = [member for member in peer.members if self._owners.get(member) is peer]
        for member in members:
            del self._owners[member]
            self._store.leave(member)
            self._changed = True
        if members:
            logger.info("%s is gone: what it held is free", peer.name)

    # Requests

    def _answer_all(self, peer: _Peer) -> None:
        """Answer the requests of a peer that have arrived, as long as it reads the answers."""
        try:
            while not (peer.is_closed or peer.outbox or peer.listening):
                if (text := peer.inbox.take()) is None:
                    return
                operation, arguments = _request(text)
                self._answer(peer, operation, arguments)
        except _Nonsense as exc:
            self._close(peer, str(exc))
        except ValueError as exc:
            self._close(peer, f"it sent no request: {exc}")

    def _answer(self, peer: _Peer, operation: str, arguments: list[Any]) -> None:
        if operation == "listen":
            member, seconds = _two(arguments, str, (int, float))
            peer.listening = member, self._now + min(seconds, _LONGEST_LISTEN)
            self._listeners.add(peer)
            self._changed = True
            return
        try:
            result = self._do(peer, operation, arguments)
            message = packed({"result": result})
        except ValueError as exc:
            logger.info("%s asked what this store does not understand: %s", peer.name, exc)
            message = packed({"fault": str(exc)})
        except Exception:  # noqa: BLE001 - a bug, which must not end the store for all others
            self._complaints.note("unexpected error in the store")
            message = packed({"fault": "the store failed; its log says why"})
        self._changed = True
        self._send(peer, message)

    def _do(self, peer: _Peer, operation: str, arguments: list[Any]) -> Any:
        """Do what a peer asks, and return the JSON form of the result.

        :raises ValueError: if this version cannot.
        """
        if operation == "sizes":
            return self._store.sizes
        if operation == "hold":
            (member,) = arguments
            if not isinstance(member, str):
                raise ValueError("a member's id is a text")
            peer.members.add(member)
            self._owners[member] = peer
            return True
        if operation == "publish" and not self._has_members:
            self._has_members = True
            self._note_members(True)
        result = answer_call(self._store, operation, arguments)
        if operation == "publish":
            self._tick = min(_SWEEP, self._store.shortest_lease / 4)
        if operation == "leave" and (owner := self._owners.pop(arguments[0], None)):
            owner.members.discard(arguments[0])
        return result

    def _send(self, peer: _Peer, message: bytes) -> None:
        peer.moved = self._now
        peer.outbox = message
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        """Send what the peer takes now; wait for it to be writable if that is not all."""
        try:
            sent = peer.sock.send(peer.outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(peer, "it ended before its answer")
            return
        if sent:
            peer.moved = self._now
            peer.outbox = memoryview(peer.outbox)[sent:]
        if bool(peer.outbox) != peer.has_to_wait:
            peer.has_to_wait = bool(peer.outbox)
            self._selector.modify(peer.sock, _WRITE if peer.outbox else _READ, peer)

    def _tell_news(self) -> None:
        """Answer those who listen, if there may be news for them, or their time is over."""
        changed, self._changed = self._changed, False
        for peer in list(self._listeners):
            assert peer.listening
            member, until = peer.listening
            heard = changed and self._store.news(member)
            if heard or self._now >= until:
                peer.listening = None
                self._listeners.discard(peer)
                self._send(peer, packed({"result": heard}))
                self._answer_all(peer)

    # Upkeep

    def _sweep(self) -> None:
        """Close the connections that have stopped in a message, and look whether there are members."""
        for peer in list(self._peers):
            if peer.is_in_a_message and self._now - peer.moved >= _STALLED:
                self._close(peer, "it stopped in the middle of a message")
        # Members of an earlier store may still come for a while.
        if self._has_members and self._now - self._begun >= _SURE and not self._store.members():
            self._has_members = False
            self._note_members(False)
        self._changed = True  # leases may have passed
        self._accept_from_now_on()

    def _close_all(self) -> None:
        logger.info("the store ends, with %d connections", len(self._peers))
        for peer in self._peers:
            peer.sock.close()
        self._peers.clear()
        self._owners.clear()
        self._listeners.clear()
        self._selector.close()


def _request(text: bytes) -> tuple[str, list[Any]]:
    """Return the operation and the arguments that a message names.

    :raises ValueError: if it is no request.
    """
    operation, arguments = _two(unpacked(text), str, list)
    return operation, arguments


def _two(data: Any, first: type, second: Any) -> tuple[Any, Any]:
    if type(data) is list and len(data) == 2 and isinstance(data[0], first) and isinstance(data[1], second):
        return data[0], data[1]
    raise _Nonsense("it sent no request")
