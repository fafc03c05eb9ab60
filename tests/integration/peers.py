"""Peers of a proxy, programs that can be frozen: ``python -m tests.integration.peers client|upstream WHERE``.

Both write a line for each ping that they have answered, and run until they are killed.
"""

from __future__ import annotations

import sys
import threading

import websocket

from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.kubevirt.backends import Script
from wsproxy.testing.kubevirt.console import FakeConsole
from wsproxy.testing.kubevirt.frames import BINARY, PING, PONG

__all__ = ["ANSWERED", "NAMESPACE", "VMI"]

ANSWERED = "answered a ping"
NAMESPACE, VMI = "lab-1", "vm"


def client(url: str) -> None:
    """Read a console, by websocket-client, which answers pings by itself."""
    connection = websocket.create_connection(url, timeout=60)
    while True:
        opcode, _ = connection.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_PING:
            print(ANSWERED, flush=True)


def upstream(host: str) -> None:
    """Be the API, and a console that reads all it is sent; the first line is the URL."""

    def read(console: FakeConsole) -> None:
        console.send_frame(BINARY, b"hello")
        while True:
            frame = console.recv_frame()
            if frame.opcode == PING:
                console.send_frame(PONG, frame.payload)
                print(ANSWERED, flush=True)

    with FakeKubeVirtAPI(host, tls=False) as api:
        api.add_vmi(VMI, NAMESPACE, backend=Script(read))
        print(api.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    {"client": client, "upstream": upstream}[sys.argv[1]](sys.argv[2])
