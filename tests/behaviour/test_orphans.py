"""Processes whose parent has ended: the program is PID 1 in a container, and so gets them all."""

from __future__ import annotations

import os
import re
import sys
import unittest

from tests.support.proxy_process import ProxyProcess, needs_proc, wait_until
from wsproxy.testing.case import ProxyTestCase
from wsproxy.testing.kubevirt.frames import BINARY
from wsproxy.testing.rfb.raw_client import RawClient

# Becomes the program, with three children that it knows nothing of: one that has ended, one that ends with
# the test's pipe, and one that it gets from a parent that has ended, as PID 1 gets all of them.
_PROGRAM = """
import ctypes, os, sys

def child(body):
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
    finally:
        os._exit(0)

def adopted():
    ours, theirs = os.pipe()
    parent = child(lambda: os.write(theirs, b"%d" % child(lambda: os.read(0, 1))))
    os.waitpid(parent, 0)
    return int(os.read(ours, 20))

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
pids = adopted(), child(lambda: os.read(0, 1)), child(lambda: None)
os.waitid(os.P_PID, pids[2], os.WEXITED | os.WNOWAIT)
print("children", *pids, flush=True)
os.execv(sys.executable, [sys.executable, "-m", "wsproxy"])
"""


@needs_proc
@unittest.skipUnless(sys.platform == "linux", "needs a process that adopts others")
class Orphans(ProxyTestCase):
    tls = False

    def test_reaped(self) -> None:
        """Children that the program did not start leave no zombies, and disturb nothing."""
        self.api.add_vmi("vm", self.namespace)
        for workers in ("1", "2"):
            with self.subTest(workers=workers):
                reader, writer = os.pipe()
                with ProxyProcess(self.api, ("-c", _PROGRAM), reader, WSPROXY_WORKERS=workers) as proxy:
                    os.close(reader)
                    match = re.search(rb"children (\d+) (\d+) (\d+)\n", proxy.output)
                    assert match
                    adopted, own, ended = map(int, match.groups())
                    os.close(writer)
                    for pid in (ended, own, adopted):
                        gone = wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 5)  # type: ignore[misc]
                        self.assertTrue(gone, f"{pid} is a zombie")
                    with RawClient.open(f"{proxy.url}/{self.token('vm')}/vm") as client:
                        client.send_frame(BINARY, b"console")
                        self.assertEqual(client.recv_frame().payload, b"console")
                    self.assertEqual(proxy.stop(), 0)
                    self.assertNotRegex(proxy.output, b"WARNING|ERROR|Traceback")
