"""The program with several workers."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
import resource
import signal
import socket
import tempfile
from unittest import mock

from tests.cli.test_program import call
from tests.support.processes import python
from tests.support.proxy_process import ProxyProcess, needs_proc, wait_until
from wsproxy import WebsocketProxy
from wsproxy.config import config_from_env
from wsproxy.server.supervisor import _Place
from wsproxy.testing.case import SECRET, LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

_DEV = {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true", "HOST": "127.0.0.1", "PORT": "0"}
_STRICT = ("-W", "error::DeprecationWarning")  # Python 3.12 warns so of a fork that copies threads
_PROGRAM = (*_STRICT, "-m", "wsproxy")
_TIMEOUT = 60.0
_MANY = 30  # sessions, one by one, among which each worker has one for sure
_RESTARTING = (1012, "restarting")
_STARTED = re.compile(rb"worker \d+ \(pid (\d+)\) started\n")
_OPENED = re.compile(rb"\[(\d+)\] INFO wsproxy\.session: session \w+ opened: client 127\.0\.0\.1:(\d+) ")


def changed(change: str) -> tuple[str, ...]:
    """Return a command that runs the program with something replaced first."""
    return (
        *_STRICT,
        "-c",
        "import os, signal, sys, time\n"
        "from wsproxy.cli import program\nfrom wsproxy.server import supervisor\nwork = supervisor.work\n"
        f"{change}\nsys.exit(program.main([]))",
    )


def is_gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def sockets(pid: int) -> set[str]:
    """Return the sockets of a process, by inode."""
    directory = f"/proc/{pid}/fd"
    found = set()
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(os.path.join(directory, name)))
    return {link for link in found if link.startswith("socket:")}


class WorkersTestCase(ProxyTestCase):
    """Runs the program with two workers in front of a stand-in."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.numbers = itertools.count()

    def program(self, command: tuple[str, ...] = _PROGRAM, **settings: str) -> ProxyProcess:
        settings = {"WSPROXY_WORKERS": "2", "WSPROXY_CLOSE_TIMEOUT": "5"} | settings
        proxy = ProxyProcess(self.api, command, **settings)
        self.addCleanup(proxy.close)
        if (workers := int(settings["WSPROXY_WORKERS"])) > 1:
            proxy.wait_for(_STARTED.pattern, workers)
        return proxy

    def pids(self, proxy: ProxyProcess) -> list[int]:
        """Return the process ids of all workers there have been, in the order of their starts."""
        return [int(pid) for pid in _STARTED.findall(proxy.output)]

    def open(self, proxy: ProxyProcess) -> tuple[int, RawClient]:
        """Open a session with a VM of its own; return the process id of its worker, and the client."""
        vmi = f"vm{next(self.numbers)}"
        self.api.add_vmi(vmi, self.namespace)
        client = RawClient.open(f"{proxy.url}/{self.token(vmi)}/{vmi}")
        self.addCleanup(client.close)
        self.assertEqual(client.status, 101)
        port = str(client.sock.getsockname()[1]).encode()

        def serving() -> list[int]:
            return [int(pid) for pid, found in _OPENED.findall(proxy.output) if found == port]

        self.assertTrue(wait_until(lambda: bool(serving()), _TIMEOUT))
        return serving()[0], client

    def replace_first(self, proxy: ProxyProcess) -> tuple[int, int]:
        """Kill the first of two workers, and return the other one and the replacement."""
        first, second = self.pids(proxy)
        os.kill(first, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: len(self.pids(proxy)) == 3))
        return second, self.pids(proxy)[2]

    def one_on_each(self, proxy: ProxyProcess, *pids: int) -> list[RawClient]:
        """Open a session on each of these workers, and return the clients; further ones are closed."""
        clients: dict[int, RawClient] = {}
        for _ in range(_MANY):
            pid, client = self.open(proxy)
            if pid in pids and pid not in clients:
                clients[pid] = client
            else:
                client.close()
            if len(clients) == len(pids):
                return [clients[pid] for pid in pids]
        self.fail(f"of {_MANY} sessions none was on one of {pids}")

    def assert_echoes(self, client: RawClient) -> None:
        client.send_frame(BINARY, b"console")
        self.assertEqual(client.recv_frame().payload, b"console")


@needs_proc
class NoDescriptors(WorkersTestCase):
    """Descriptor exhaustion: the supervisor has as many as it may."""

    def test_supervisor_lives(self) -> None:
        """The supervisor logs this, does not spin, and does the rest when it has descriptors again."""
        proxy = self.program(WSPROXY_ADMIN="127.0.0.1:0")
        port = int(proxy.wait_for(rb"operator's listener is at 127\.0\.0\.1:(\d+)")[1])
        limit = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (proxy.descriptors(), limit[1]))
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as operator:
            proxy.wait_for(rb"cannot accept a connection of the operator: \[Errno 24\]")
            os.kill(self.pids(proxy)[0], signal.SIGKILL)
            proxy.wait_for(rb"worker 1 \(pid \d+\) was killed by SIGKILL")
            proxy.process.send_signal(signal.SIGUSR1)  # it answers
            proxy.wait_for(rb"INFO wsproxy\.supervisor: in all ")
            spent = _processor_seconds(proxy.pid)
            self.assertFalse(wait_until(lambda: proxy.process.poll() is not None, 1.5))
            self.assertLess(_processor_seconds(proxy.pid) - spent, 0.5)
            resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, limit)
            operator.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertRegex(operator.recv(4096), rb"\AHTTP/1.1 \d+ ")  # 404 without prometheus-client
        self.assertTrue(wait_until(lambda: len(self.pids(proxy)) == 3, _TIMEOUT))
        self.assert_echoes(self.open(proxy)[1])
        self.assertEqual(proxy.stop(), 0)
        self.assertNotIn(b"Traceback", proxy.output)

    def test_error_that_nobody_expects(self) -> None:
        """An unexpected error in the supervisor ends neither the supervisor nor a worker."""
        change = (
            "wait, failures = supervisor.Supervisor._wait_once, [1, 2, 3]\n"
            "def failing(self, seconds):\n"
            "    if failures: raise KeyError(failures.pop())\n"
            "    wait(self, seconds)\n"
            "supervisor.Supervisor._wait_once = failing\n"
        )
        proxy = self.program(changed(change))
        self.assert_echoes(self.open(proxy)[1])
        self.assertEqual(proxy.stop(), 0)
        self.assertEqual(proxy.output.count(b"unexpected error; the supervisor continues\nTraceback"), 1)


def _processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@needs_proc
class Serving(WorkersTestCase):
    """Sessions and workers come and go."""

    def test_spread(self) -> None:
        """Sessions that come one by one spread over the workers, which do not disturb each other."""
        proxy = self.program()
        sessions = [self.open(proxy) for _ in range(8)]
        found = [pid for pid, _ in sessions]
        self.assertEqual(set(found), set(self.pids(proxy)))
        self.assertGreaterEqual(min(map(found.count, found)), 2, found)
        for _, client in sessions:
            self.assert_echoes(client)
        self.assertEqual(proxy.output.count(b"wsproxy 2.0.0 listening on"), 1)

    def test_one_worker(self) -> None:
        """One worker is no worker: the program serves itself, and its log is as ever."""
        proxy = self.program(WSPROXY_WORKERS="1")
        self.api.add_vmi("vm", self.namespace)
        with RawClient.open(f"{proxy.url}/{self.token('vm')}/vm") as client:
            self.assert_echoes(client)
        proxy.stop()
        self.assertNotIn(b"worker", proxy.output)
        self.assertNotIn(f"[{proxy.process.pid}]".encode(), proxy.output)

    def test_worker_is_killed(self) -> None:
        """A worker that is killed is replaced, and only its own sessions end."""
        proxy = self.program()
        first, second = self.pids(proxy)
        lost, kept = self.one_on_each(proxy, first, second)
        os.kill(first, signal.SIGKILL)
        lost.wait_for_end()
        proxy.wait_for(rb"ERROR .* \(pid %d\) was killed by SIGKILL; the next is started in 0\.1 s" % first)
        self.assert_echoes(kept)
        self.assertTrue(wait_until(lambda: len(self.pids(proxy)) == 3))
        (fresh,) = self.one_on_each(proxy, self.pids(proxy)[2])
        for client in (fresh, kept):
            self.assert_echoes(client)

    def test_worker_is_stopped(self) -> None:
        """A worker that gets a SIGTERM of its own stops in good order, and is replaced."""
        proxy = self.program()
        first, second = self.pids(proxy)
        lost, kept = self.one_on_each(proxy, first, second)
        os.kill(second, signal.SIGUSR1)  # which is not for workers, and does them no harm
        os.kill(first, signal.SIGTERM)
        self.assertEqual(lost.recv_close(), _RESTARTING)
        lost.close()
        proxy.wait_for(rb"WARNING .* \(pid %d\) ended with status 0; the next is started" % first)
        self.assertTrue(wait_until(lambda: len(self.pids(proxy)) == 3))
        self.one_on_each(proxy, self.pids(proxy)[2])
        self.assert_echoes(kept)

    def test_sockets_are_not_shared(self) -> None:
        """Only the listening socket is in several processes: no worker keeps another's channel open."""
        proxy = self.program()
        second, third = self.replace_first(proxy)
        self.one_on_each(proxy, third)  # it serves, so it has closed what it was not to keep
        pids = (proxy.process.pid, second, third)
        found = collections.Counter(itertools.chain.from_iterable(map(sockets, pids)))
        self.assertEqual([count for count in found.values() if count > 1], [3], found)

    def test_numbers(self) -> None:
        """SIGUSR1 logs the sum over all workers, ended ones included, and each worker's numbers."""
        proxy = self.program()
        first, second = self.pids(proxy)
        for client in self.one_on_each(proxy, first, second):
            self.assert_echoes(client)
        opened = len(_OPENED.findall(proxy.output))
        pattern = (
            rb"INFO .*: in all \d+ connections, (\d+) sessions, (\d+) opened so far, (\d+) bytes up, .*\n"
        )

        def sessions() -> int:
            """Ask until the sessions that were closed are not counted any more."""
            before = len(re.findall(pattern, proxy.output))
            proxy.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: len(re.findall(pattern, proxy.output)) > before)
            return int(re.findall(pattern, proxy.output)[-1][0])

        self.assertTrue(wait_until(lambda: sessions() == 2))
        *_, last = re.finditer(pattern, proxy.output)
        self.assertEqual(int(last[2]), opened)
        self.assertGreater(int(last[3]), 0)
        for pid in (first, second):
            self.assertRegex(last[0], rb"; worker \d \(pid %d\): 1 connections, 1 sessions, " % pid)
        os.kill(first, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: sessions() == 1))
        *_, last = re.finditer(pattern, proxy.output)
        self.assertEqual(int(last[2]), opened)

    def test_worker_that_does_not_answer(self) -> None:
        """Snapshot are not waited for longer than a second."""
        proxy = self.program()
        _, second = self.pids(proxy)
        os.kill(second, signal.SIGSTOP)
        self.addCleanup(os.kill, second, signal.SIGCONT)
        proxy.process.send_signal(signal.SIGUSR1)
        proxy.wait_for(rb"in all 0 connections, .* \(pid %d\): no answer\n" % second)


@needs_proc
class Stopping(WorkersTestCase):
    """The end of the program."""

    def test_signals(self) -> None:
        """On a signal every session gets its Close; then no process is left, and the status is 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number):
                proxy = self.program()
                clients = self.one_on_each(proxy, *self.pids(proxy))
                proxy.process.send_signal(number)
                for client in clients:
                    self.assertEqual(client.recv_close(), _RESTARTING)
                    client.send_close(1012)
                    client.close()
                self.assertEqual(proxy.process.wait(_TIMEOUT), 0)
                self.assertEqual([pid for pid in self.pids(proxy) if not is_gone(pid)], [])
                proxy.stop()
                self.assertIn(f"{number.name}: stopping".encode(), proxy.output)
                self.assertEqual(proxy.output.count(b"wsproxy.worker: stopped"), 2, proxy.output)
                self.assertNotRegex(proxy.output, rb"ERROR|WARNING")

    def test_terminal(self) -> None:
        """Ctrl-C goes to all processes of the terminal: the workers may stop before they are told to."""
        proxy = self.program()
        clients = self.one_on_each(proxy, *self.pids(proxy))
        for pid in (*self.pids(proxy), proxy.process.pid):
            os.kill(pid, signal.SIGINT)
        for client in clients:
            self.assertEqual(client.recv_close(), _RESTARTING)
            client.close()
        self.assertEqual(proxy.process.wait(_TIMEOUT), 0)

    def test_supervisor_is_killed(self) -> None:
        """Without their supervisor the workers stop in good order, also one that came later."""
        proxy = self.program()
        second, third = self.replace_first(proxy)
        clients = self.one_on_each(proxy, second, third)
        proxy.process.kill()
        for client in clients:
            self.assertEqual(client.recv_close(), _RESTARTING)
            client.close()
        self.assertTrue(wait_until(lambda: is_gone(second) and is_gone(third)))
        self.assertEqual(proxy.output.count(b"the supervisor is gone: stopping"), 2, proxy.output)

    def test_second_signal(self) -> None:
        """A second signal ends at once what a client holds up."""
        proxy = self.program(WSPROXY_CLOSE_TIMEOUT="600")
        (client,) = self.one_on_each(proxy, self.pids(proxy)[0])
        proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(client.recv_close(), _RESTARTING)  # and no answer
        proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(proxy.process.wait(_TIMEOUT), 0)
        client.wait_for_end()
        self.assertEqual([pid for pid in self.pids(proxy) if not is_gone(pid)], [])
        self.assertIn(b"ERROR wsproxy.supervisor: worker 1", proxy.output)

    def test_worker_that_does_not_stop(self) -> None:
        """A worker that does not stop is killed when the time is over."""
        proxy = self.program(
            changed(
                "supervisor._STOP_SLACK = 0.1\n"
                "def hang(config, listener, channel, copies):\n"
                "    channel.send({'ready': True})\n"
                "    time.sleep(600)\n"  # its signals are held back, since nobody lets them in
                "supervisor.work = hang\n"
            ),
            WSPROXY_CLOSE_TIMEOUT="0.1",
        )
        self.assertEqual(proxy.stop(), 0)
        self.assertEqual([pid for pid in self.pids(proxy) if not is_gone(pid)], [])
        self.assertEqual(proxy.output.count(b" is killed"), 2, proxy.output)
        self.assertEqual(proxy.output.count(b" was killed by SIGKILL"), 2, proxy.output)


class Starting(WorkersTestCase):
    """The start, and what may go wrong in it."""

    def environment(self) -> dict[str, str]:
        """Return the environment of a program with two workers."""
        return os.environ | _DEV | {"WSPROXY_WORKERS": "2"}

    def failed(self, change: str) -> str:
        """Run a program that cannot start, and return what it wrote."""
        with python(*changed(change), env=self.environment()) as process:
            output, _ = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 1, output)
        self.assertTrue(output.endswith("wsproxy: the workers cannot start; the log says why\n"), output)
        self.assertNotIn("listening on", output)
        return output

    def test_workers_die(self) -> None:
        """When workers die as soon as they are started, the program gives up; it does not spin."""
        output = self.failed("supervisor.work = lambda *arguments: os._exit(3)")
        self.assertLessEqual(output.count(" started\n"), 6, output)
        self.assertIn("ended with status 3; the next is started in 0.2 s", output)
        self.assertIn("a worker failed to start 3 times: giving up", output)

    def test_workers_raise(self) -> None:
        """Why a worker failed is in the log."""
        output = self.failed(
            "def work(*arguments):\n    raise RuntimeError('a fault of ours')\nsupervisor.work = work"
        )
        self.assertIn("RuntimeError: a fault of ours", output)
        self.assertIn("ended with status 1;", output)

    def test_workers_talk_nonsense(self) -> None:
        """A worker that sends what is no report is given up: its channel ends, and so it stops."""
        output = self.failed(
            "def nonsense(config, listener, channel, copies):\n"
            "    channel.send({'numbers': 1})\n"
            "    work(config, listener, channel)\n"
            "supervisor.work = nonsense"
        )
        self.assertRegex(output, r"ERROR .* is dropped: this is not a snapshot\n")
        self.assertIn("the supervisor is gone: stopping", output)

    def test_no_processes(self) -> None:
        """When the system allows no further process, the program gives up."""
        output = self.failed("os.fork = lambda: os.getpgid(1 << 30)")
        self.assertIn(output.count("cannot be started: "), range(3, 7), output)

    def test_one_dies(self) -> None:
        """A worker that dies in its start is replaced, and the program is ready when all of them serve."""
        with tempfile.TemporaryDirectory() as directory:
            change = f"""
def die_once(*arguments):
    try:
        os.close(os.open({os.path.join(directory, "died")!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return work(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
supervisor.work = die_once"""
            proxy = self.program(changed(change))
            proxy.wait_for(_STARTED.pattern, 3)
            self.assertEqual(proxy.output.count(b"was killed by SIGKILL; the next is started in 0.1 s"), 1)
            _, client = self.open(proxy)
            client.close()
            self.assertEqual(proxy.stop(), 0)

    def test_signal_during_the_start(self) -> None:
        """A signal that comes before a worker can take it is not lost, nor taken for the supervisor's."""
        change = """
forks, fork = 0, os.fork
def counted():
    global forks
    forks += 1
    return fork()
def signalled(*arguments):
    if forks == 1:
        os.kill(os.getppid(), signal.SIGTERM)
    while signal.SIGTERM not in signal.sigpending():
        time.sleep(0.01)
    work(*arguments)
os.fork, supervisor.work = counted, signalled"""
        with python(*changed(change), env=self.environment()) as process:
            output, _ = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 0, output)
        self.assertGreater(output.count("wsproxy.worker: SIGTERM: stopping"), 0, output)
        self.assertNotRegex(output, "ERROR|listening on")

    def test_address_is_taken(self) -> None:
        """A port that is taken is told once, by the supervisor, before it forks."""
        port = str(self.api.port)
        with python(*_PROGRAM, env=self.environment() | {"PORT": port}) as process:
            output, _ = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(output, rf"\Awsproxy: cannot listen on 127\.0\.0\.1:{port}: .*\n\Z")


class LateSignals(WorkersTestCase):
    """Signals that come after a process has stopped, to whichever of its threads."""

    LATE = """
import threading
def late(function, numbers):
    def send():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        for number in numbers:
            os.kill(os.getpid(), number)
    def call(*arguments, **more):
        result = function(*arguments, **more)
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
        return result
    return call
stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""

    def assert_ends_well(self, change: str, **settings: str) -> None:
        proxy = self.program(changed(self.LATE + change), **settings)
        self.assertEqual(proxy.stop(), 0, proxy.output)
        self.assertNotRegex(proxy.output, rb"ERROR|CRITICAL|WARNING|Traceback")

    def test_worker(self) -> None:
        """A late signal is no failure of a worker, and never turns it into a second supervisor."""
        self.assert_ends_well("supervisor.work = late(work, (*stops, signal.SIGUSR1))")

    def test_program(self) -> None:
        """A late signal changes neither the status of the program nor its log."""
        self.assert_ends_well("supervisor.Supervisor.run = late(supervisor.Supervisor.run, stops)")
        proxy = "program.WebsocketProxy"
        self.assert_ends_well(f"{proxy}.run = late({proxy}.run, stops)", WSPROXY_WORKERS="1")

    def test_interrupted_end(self) -> None:
        """Whatever interrupts the last steps of a worker, it ends there."""
        proxy = self.program(
            changed(
                "def interrupted():\n"
                "    raise KeyboardInterrupt\n"
                "supervisor.flush_program_log = interrupted\n"
            )
        )
        self.assertEqual(proxy.stop(), 0, proxy.output)
        self.assertNotRegex(proxy.output, rb"ERROR|CRITICAL|Traceback")


class Settings(LeakTestCase):
    """How many workers."""

    def test_faults(self) -> None:
        """Anything but a whole number from 1 to 64 is a fault, by flag and by environment."""
        for text in ("0", "65", "-1", "1.5", "two"):
            for arguments, environment in ((["--workers", text], {}), ([], {"WSPROXY_WORKERS": text})):
                with self.subTest(arguments=arguments, environment=environment):
                    status, out, err = call("serve", *arguments, **_DEV, **environment)
                    self.assertEqual((status, out), (2, ""))
                    self.assertRegex(err, rf"(?m)^  - (--workers|WSPROXY_WORKERS) is '?{text}'?; it must be ")

    def test_library(self) -> None:
        """A ``WebsocketProxy`` is one process, whatever its settings say."""
        config = config_from_env(_DEV | {"WSPROXY_WORKERS": "2"})
        self.assertEqual(config.workers, 2)
        no_fork = mock.patch("os.fork", side_effect=AssertionError("it forks"))
        with no_fork, WebsocketProxy.from_config(config).run_in_thread("127.0.0.1", 0) as proxy:
            self.assertEqual(proxy.connections, 0)

    def test_delays(self) -> None:
        """Workers that die in a row are started again after 0.1 s, 0.2 s and so on, up to 5 s."""
        place = _Place(1)
        found = [place.delay() for _ in range(2000)]
        self.assertEqual(found[:8], [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        self.assertEqual(found[-1], 5.0)
