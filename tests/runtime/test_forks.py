"""What a forked child keeps of its parent's proxies: nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import unittest
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.processes import python
from wsproxy.testing.case import LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_TIMEOUT = 120.0

# What all of the scripts begin with. A child that hangs is killed by its own alarm.
_FORKING = """
import gc, json, os, select, signal, sys, threading, traceback, warnings
warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks where there are threads
from wsproxy import WebsocketProxy
from wsproxy.runtime import forks, threads

def say(*what):
    print(*what, flush=True)

def in_child(act):
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        try:
            act()
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    return child

def wait_for(child):
    say("exit status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

_ACTIONS = """
class Thing:
    def __init__(self, name):
        self.name = name

def fail(thing):
    raise OSError("closed already")

failing = forks.in_forked_child(Thing("failing"), fail)
kept = forks.in_forked_child(Thing("kept"), lambda thing: say(thing.name, os.getpid() == parent))
dropped = forks.in_forked_child(Thing("dropped"), lambda thing: say(thing.name))
del dropped
gc.collect()
parent = os.getpid()
wait_for(in_child(lambda: wait_for(in_child(lambda: say("grandchild")))))
wait_for(in_child(lambda: None))
"""

_LOCKS = """
held = threading.Event()

def hold():
    with threads._lock:
        held.set()
        threading.Event().wait(0.2)  # by now the main thread is about to fork

holder = threading.Thread(target=hold)
holder.start()
held.wait()

def start():
    thread = threads.start_thread("one", lambda: say("started"), None)
    thread.join()
    say(threading.stack_size())

wait_for(in_child(start))
holder.join()

options = json.loads(sys.argv[1])
proxy = WebsocketProxy(**options)
inside, leave = threading.Event(), threading.Event()
import wsproxy.proxy
listen = wsproxy.proxy.listen

def slow_listen(*arguments, **options):
    inside.set()
    leave.wait()
    return listen(*arguments, **options)

wsproxy.proxy.listen = slow_listen
starter = threading.Thread(target=proxy.run_in_thread, args=("127.0.0.1", 0))
starter.start()
inside.wait()

def start_proxy():
    wsproxy.proxy.listen = listen
    with proxy.run_in_thread("127.0.0.1", 0):
        say("running", proxy.connections)

wait_for(in_child(start_proxy))
leave.set()
starter.join()
proxy.stop_thread()
"""

_RUNNING = """
def sockets():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return [link for link in links if link.startswith("socket:") or "eventpoll" in link]

def refused(use):
    try:
        use()
    except RuntimeError as exc:
        return "before a fork" in str(exc)
    return False

def child():
    say(sockets() if sys.platform == "linux" else [])
    uses = (
        lambda: proxy.address, lambda: proxy.connections, proxy.sessions, proxy.stop_thread,
        lambda: proxy.run("127.0.0.1", 0), lambda: proxy.run_in_thread("127.0.0.1", 0),
        lambda: proxy.console_url("TOKEN", "vm"),
    )
    say([refused(use) for use in uses], proxy)
    handles[0].close()
    say(handles[0].ending)
    until_the_end = select.poll()
    until_the_end.register(0, 0)  # not read: the input is for the parent
    until_the_end.poll()

proxy = WebsocketProxy(**json.loads(sys.argv[1])).run_in_thread("127.0.0.1", 0)
say(proxy.address[1])
sys.stdin.readline()
handles = proxy.sessions()
pid = in_child(child)
sys.stdin.readline()
proxy.stop_thread()
say("stopped")
sys.stdin.readline()
"""


class Alone(LeakTestCase):
    """Forks without sessions."""

    def run_script(self, script: str, *arguments: str) -> list[str]:
        with python("-c", _FORKING + script, *arguments, seconds=_TIMEOUT) as process:
            assert process.stdout
            return process.stdout.read().splitlines()

    def test_actions(self) -> None:
        """An action is called in each child, not in the parent or a grandchild, while its object lives."""
        self.assertEqual(
            self.run_script(_ACTIONS),
            ["kept False", "grandchild", "exit status 0", "exit status 0", "kept False", "exit status 0"],
        )

    def test_locks(self) -> None:
        """A fork while another thread starts a thread, or a proxy, leaves the child no lock that is held."""
        options = {
            "remote_url": "ws://127.0.0.1:9",
            "api_path": "/{namespace}/{vmi_name}/vnc",
            "local_dev_mode": True,
            "secret_key": "x" * 32,
            "close_timeout": 0.2,
        }
        self.assertEqual(
            self.run_script(_LOCKS, json.dumps(options)),
            ["started", "0", "exit status 0", "running 0", "exit status 0"],
        )


class WithASession(ProxyTestCase):
    """A child that is forked while a session is open, with TLS on both legs, and that lives on."""

    client_tls = True

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)

    @contextmanager
    def forked(self) -> Iterator[tuple[subprocess.Popen[str], RawClient, tuple[str, int]]]:
        """Run a process with a proxy, a session and a child; yield it, the client and the address."""
        options = json.dumps(self.proxy_options())
        arguments = ("-c", _FORKING + _RUNNING, options)
        with python(*arguments, stdin=subprocess.PIPE, seconds=_TIMEOUT) as process:
            assert process.stdin and process.stdout
            address = ("127.0.0.1", int(process.stdout.readline()))
            with RawClient.open(f"wss://127.0.0.1:{address[1]}/{self.token('vm')}/vm") as client:
                self.assertEqual(client.status, 101)
                client.send_frame(BINARY, b"is it open?")
                client.recv_frame()
                self.tell(process)
                self.assertEqual(process.stdout.readline(), "[]\n", "the child keeps something open")
                refused = process.stdout.readline()
                self.assertEqual(refused, f"{[True] * 7} <WebsocketProxy of the parent process>\n")
                ending = process.stdout.readline()
                self.assertEqual(ending, "Ending(by='proxy', code=None, reason='forked')\n")
                yield process, client, address

    def tell(self, process: subprocess.Popen[str]) -> None:
        """Let the process go on to its next step."""
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()

    def test_parent_goes_on(self) -> None:
        """The child has no socket of the parent's, whose session goes on; its port is free afterwards."""
        with self.forked() as (process, client, address):
            client.send_frame(BINARY, b"hello")
            self.assertEqual(client.recv_frame().payload, b"hello")
            self.tell(process)
            self.assertEqual(client.recv_close(), (1012, "restarting"))
            client.send_close(1012)
            client.wait_for_end()
            assert process.stdout
            self.assertEqual(process.stdout.readline(), "stopped\n")
            with self.assertRaises(ConnectionError):
                socket.create_connection(address)

    def test_parent_is_killed(self) -> None:
        """When the parent is killed its client and the API know at once, though the child lives."""
        with self.forked() as (process, client, address):
            process.kill()
            process.wait()
            client.wait_for_end()
            self.assertTrue(self.api.wait_until_idle())
            with self.assertRaises(ConnectionError):
                socket.create_connection(address)


class StopWhileACopyIsOpen(LeakTestCase):
    """A child that a library forked, past Python, knows of nothing and closes nothing."""

    def test_port(self) -> None:
        """A stopped proxy's port takes no more clients, though another process still has its listener."""
        from wsproxy import WebsocketProxy

        proxy = WebsocketProxy("ws://127.0.0.1:9", "/{namespace}/{vmi_name}/vnc", True, "x" * 32)
        proxy.run_in_thread("127.0.0.1", 0)
        address = proxy.address
        assert proxy._server
        copy = proxy._server.socket.dup()
        self.addCleanup(copy.close)
        proxy.stop_thread()
        with self.assertRaises(ConnectionError):
            socket.create_connection(address)
        self.assertEqual(threading.active_count(), 1)


if __name__ == "__main__":
    unittest.main()
