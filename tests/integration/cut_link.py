"""Cuts the link to a peer: ``unshare --user --map-root-user --net python -m tests.integration.cut_link LEG``.

The network namespace that it runs in gets a second one, with the peer in it, and a veth pair between them.
Prints what the relay says of the peer, how many seconds after the cut, and what the other side was told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.integration.frozen import INTERVAL, Peer, Told, Verdict
from tests.integration.peers import NAMESPACE, VMI
from wsproxy import WebsocketProxy
from wsproxy.net.addresses import host_and_port
from wsproxy.testing.case import SECRET
from wsproxy.testing.kubevirt.api import FakeKubeVirtAPI
from wsproxy.testing.rfb.raw_client import RawClient
from wsproxy.tokens.issue import make_token
from wsproxy.upstream.location import DEFAULT_API_PATH

__all__ = ["FAR", "run", "second_namespace"]

NEAR, FAR = "10.77.0.1", "10.77.0.2"


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


@contextmanager
def second_namespace() -> Iterator[tuple[str, ...]]:
    """Make it, and the link to it; yield what a command for it begins with."""
    run("ip", "link", "set", "lo", "up")
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo there; exec sleep 600"], stdout=-1
    ) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"there\n"
            there = ("nsenter", "--target", str(holder.pid), "--net")
            pair = ("veth", "peer", "name", "far", "netns", str(holder.pid))
            run("ip", "link", "add", "near", "type", *pair)
            run("ip", "address", "add", f"{NEAR}/24", "dev", "near")
            run(*there, "ip", "address", "add", f"{FAR}/24", "dev", "far")
            run("ip", "link", "set", "near", "up")
            run(*there, "ip", "link", "set", "far", "up")
            yield there
        finally:
            holder.kill()


def _proxy(url: str) -> WebsocketProxy:
    return WebsocketProxy(url, DEFAULT_API_PATH, True, SECRET, ping_interval=INTERVAL, close_timeout=1)


def _target() -> str:
    return f"/{make_token(SECRET, namespace=NAMESPACE, vmis=[VMI])}/{VMI}"


def _cut(there: tuple[str, ...], peer: Peer, verdict: Verdict) -> float:
    """Cut the link right after the peer has answered a ping; return when the relay noticed, in seconds."""
    peer.wait_for_answer()
    started = time.monotonic()
    run(*there, "ip", "link", "set", "far", "down")
    return verdict.seconds_since(started)


def cut_client(there: tuple[str, ...]) -> dict[str, object]:
    """Cut the link to the client."""
    with ExitStack() as stack:
        api = stack.enter_context(FakeKubeVirtAPI(tls=False))
        vmi = api.add_vmi(VMI, NAMESPACE)
        proxy = stack.enter_context(_proxy(api.url).run_in_thread(NEAR, 0))
        verdict = stack.enter_context(Verdict())
        url = f"ws://{host_and_port(*proxy.address)}{_target()}"
        peer = stack.enter_context(Peer("client", url, prefix=there))
        seconds = _cut(there, peer, verdict)
        console = vmi.wait_for_session()
        assert console.ended.wait(10)
        return {"found": verdict.text, "seconds": seconds, "told": console.close_received}


def cut_upstream(there: tuple[str, ...]) -> dict[str, object]:
    """Cut the link to the upstream."""
    with ExitStack() as stack:
        peer = stack.enter_context(Peer("upstream", FAR, prefix=there))
        proxy = stack.enter_context(_proxy(peer.line()).run_in_thread("127.0.0.1", 0))
        verdict = stack.enter_context(Verdict())
        client = stack.enter_context(RawClient.open(f"ws://{host_and_port(*proxy.address)}{_target()}"))
        told = Told(client)
        seconds = _cut(there, peer, verdict)
        return {"found": verdict.text, "seconds": seconds, "told": told.wait()}


if __name__ == "__main__":
    with second_namespace() as there:
        print(json.dumps({"client": cut_client, "upstream": cut_upstream}[sys.argv[1]](there)))
