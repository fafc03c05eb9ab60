"""Measures the CPU time of each step of opening a session, in the thread that opens it.

The C upstream runs in a separate process, whose time does not count. The kernel's time in system calls does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from wsproxy.config import Config
from wsproxy.net.resolver import Resolver
from wsproxy.protocol.handshake import PLAIN_KUBEVIRT, Upgrade
from wsproxy.protocol.request import HeadReader, RequestHead
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.threads import start_thread
from wsproxy.tokens.issue import make_token
from wsproxy.tokens.keys import Keyring, load_keys
from wsproxy.tokens.verifier import TokenVerifier
from wsproxy.upstream.dialler import Dialler

from .peers import Surroundings

__all__ = ["measure_opening", "opening_table"]

_WARMUP = 20
_ROUNDS = 400
_PATH = "/apis/subresources.kubevirt.io/v1/namespaces/lab-1/virtualmachineinstances/idle/vnc"
_REQUEST = """GET /{token}/idle HTTP/1.1\r
Host: proxy.example:5001\r
Connection: Upgrade\r
Pragma: no-cache\r
Cache-Control: no-cache\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0 and some more\r
Upgrade: websocket\r
Origin: https://labs.example\r
Sec-WebSocket-Version: 13\r
Accept-Encoding: gzip, deflate, br\r
Accept-Language: en-US,en;q=0.9\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r
Sec-WebSocket-Protocol: binary\r
\r
"""

Step = tuple[str, Callable[[], object]]


def measure_opening(around: Surroundings) -> dict[str, float]:
    """Return the CPU time of each step in microseconds. As in a session, each sample runs in a new thread.

    The result is the lower quartile, since other load on the machine only makes a step slower.
    """
    steps = _steps(around)
    samples = [[_microseconds(step) for _, step in steps] for _ in range(_WARMUP + _ROUNDS)][_WARMUP:]
    columns = zip(*samples, strict=True)
    return {name: statistics.quantiles(column)[0] for (name, _), column in zip(steps, columns, strict=True)}


def opening_table(figures: dict[str, float]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| step of an opening | CPU, microseconds |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value:.0f} |" for name, value in figures.items())])


def _steps(around: Surroundings) -> Sequence[Step]:
    request = _REQUEST.format(token=around.token).encode()
    head = _head(request)
    verifier = TokenVerifier(Keyring(load_keys(around.secret)))
    # A verifier caches tokens, so each round uses a new one.
    new = iter([_token(around.secret, number) for number in range(_WARMUP + _ROUNDS)])
    return (
        ("request head", lambda: _head(request)),
        ("upgrade and its answer", lambda: Upgrade(head).accept("binary")),
        ("token, new", lambda: verifier.verify(next(new))),
        ("token, known", lambda: verifier.verify(around.token)),
        ("dial, plain", _dial(around, tls=False)),
        ("dial, TLS, first", _dial(around, tls=True, resume=False)),
        ("dial, TLS, resumed", _dial(around, tls=True)),
    )


def _token(secret: str, user: int) -> str:
    return make_token(secret, namespace="lab-1", vmis=["idle"], user=user)


def _head(request: bytes) -> RequestHead:
    head = HeadReader().feed(request)
    assert head is not None
    return head


def _dial(around: Surroundings, *, tls: bool, resume: bool = True) -> Callable[[], None]:
    config = Config(
        remote_url=f"{'wss' if tls else 'ws'}://127.0.0.1:{around.upstream(tls)}",
        api_path="/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc",
        local_dev_mode=not tls,
        secret_key=around.secret,
        sslopt={"ca_certs": around.ca_file},
        token_file=around.token_file,
    )
    dialler = Dialler(config.upstream_rules, Resolver())

    def dial() -> None:
        if not resume and dialler._tls:
            dialler._tls._session = None
        upstream = dialler.dial(_PATH, [PLAIN_KUBEVIRT], Deadline(10), lambda sock: None)
        upstream.transport.close()

    return dial


def _microseconds(step: Callable[[], object]) -> float:
    taken: list[float] = []

    def run() -> None:
        started = time.thread_time()
        step()
        taken.append(time.thread_time() - started)

    start_thread("step", run, step).join()
    return taken[0] * 1e6
