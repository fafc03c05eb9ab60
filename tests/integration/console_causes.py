"""Why a console is not opened, or ends, and what a person reads then: for tests, and for docs/console.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.integration.console_visits import USER, VMI, Visit
from tests.integration.person import click
from tests.integration.web_clients import CONSOLE_PAGE, NOVNC_INSTALLED, WebClient
from tests.support.proxy_process import wait_until
from tests.support.tokens import early
from wsproxy.proxy import WebsocketProxy
from wsproxy.state.stores.local.lock import StoreLock
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.testing.rfb.raw_client import RawClient

__all__ = ["ENDS", "REFUSALS", "Cause"]

_PART_OF_A_FRAME = b"\x82\x7e\x04\x00"
_WHILE = 10.0  # seconds in which a browser shows a console, even on a busy machine
_NEW_LINK = "Go back to where you got the link, and open the console again."


@dataclass(frozen=True)
class Cause:
    """Why a person has no console.

    :ivar name: of its pictures.
    :ivar what: what happened, in Markdown.
    :ivar http: the status that a client gets which is told by HTTP; None for an end.
    :ivar close: code and slug of the Close, in Markdown; None if there is none.
    :ivar message: what the proxy says behind the slug, "" for nothing.
    :ivar page: title and text that our page shows; None if that cannot happen to it.
    :ivar provoke: brings a visit to it.
    :ivar before: whether it happens before the VM's side has sent anything.
    """

    name: str
    what: str
    http: int | None
    close: str | None
    message: str
    page: tuple[str, str] | None
    provoke: Callable[[Visit], object]
    before: bool = True

    @property
    def detail(self) -> str:
        """The message as our page shows it, below its own words."""
        told = f"it was taken over {self.message}" if self.name == "taken-over" else self.message
        sentence = told if "." in told.partition(" ")[0][:-1] else told[:1].upper() + told[1:]  # a name
        return sentence if sentence[-1:] in ("", ".", "!", "?") else f"{sentence}."

    def words(self, client: WebClient) -> str | None:
        """Return what a client says, as its ``told`` has it; None if it cannot come to that with it."""
        if client is CONSOLE_PAGE:
            return self.page and "\n".join((*self.page, self.detail))
        if client is NOVNC_INSTALLED:
            rejected = f"New connection has been rejected with reason: {self.message}"
            return rejected if self.before else "Disconnected"
        if self.before:
            return f"securityfailure: {self.message}\ndisconnect: not clean"
        return "disconnect: clean"


def _open_with(token: Callable[[Visit], str], vmi: str = VMI) -> Callable[[Visit], None]:
    return lambda visit: visit.open(visit.start_proxy(), token=token(visit), vmi=vmi)


def _machine(**properties: Any) -> Callable[[Visit], None]:
    """Open the console of a VMI with these properties."""

    def provoke(visit: Visit) -> None:
        visit.case.api.add_vmi(VMI, visit.case.namespace, **properties)
        visit.open(visit.start_proxy(dial_timeout=1.0))

    return provoke


def _viewed(vmi: str = VMI, user: str = "bob", **options: Any) -> Callable[[Visit], None]:
    """Open the console while somebody looks at that of a VMI."""

    def provoke(visit: Visit) -> None:
        desktop = visit.vmi.backend
        visit.case.api.add_vmi("other", visit.case.namespace, backend=desktop)
        proxy = visit.start_proxy(**options)
        visit.view(proxy, vmi, user)
        visit.open(proxy)

    return provoke


def _from_elsewhere(visit: Visit) -> None:
    visit.open(visit.start_proxy(allow_origin=["https://lab.example"]), from_elsewhere=True)


def _forbidden_account(visit: Visit) -> None:
    visit.case.api.forbid = True
    visit.open(visit.start_proxy())


def _cookies(visit: Visit) -> None:
    """Have a neighbour set cookies, which go to every port of a host.

    Our page comes from the same proxy: it opens the console before that, and once more after it.
    """
    proxy = visit.start_proxy()
    if visit.client is CONSOLE_PAGE:
        visit.connect(proxy)
    visit.on_exit(lambda: visit.browser.call("Network.clearBrowserCookies"))
    for number in range(5):
        cookie = {"name": f"neighbour-{number}", "value": "x" * 4000, "url": "http://127.0.0.1/"}
        visit.browser.call("Network.setCookie", **cookie)
    if visit.client is not CONSOLE_PAGE:
        return visit.open(proxy, from_elsewhere=True)
    proxy.sessions()[0].close()
    visit.browser.wait_until("document.getElementById('try-now').checkVisibility()")
    click(visit.browser, "#try-now")


def _bug(visit: Visit) -> None:
    patcher = mock.patch("wsproxy.server.opening.Console", side_effect=ZeroDivisionError)
    patcher.start()
    visit.on_exit(patcher.stop)
    visit.open(visit.start_proxy())


def _crowd(visit: Visit) -> None:
    """Have as many clients of the address as there may be say nothing.

    Our page comes from the same proxy: it opens the console before that, and once more after it.
    """
    most = 16  # a browser opens several connections to load our page
    proxy = visit.start_proxy(max_pending_per_address=most)
    if visit.client is CONSOLE_PAGE:
        visit.connect(proxy)
        # The browser may have opened more connections than it needed.
        visit.case.assertTrue(wait_until(lambda: proxy.connections == 1, 60.0))
    before = proxy.connections
    for _ in range(most):
        visit.on_exit(RawClient(proxy.address).close)
    visit.case.assertTrue(wait_until(lambda: proxy.connections == before + most))
    if visit.client is not CONSOLE_PAGE:
        return visit.open(proxy, from_elsewhere=True)
    proxy.sessions()[0].close()
    visit.browser.wait_until("document.getElementById('try-now').checkVisibility()")
    click(visit.browser, "#try-now")


def _failures(visit: Visit) -> None:
    proxy = visit.start_proxy(max_failures=1)
    with RawClient.open(f"ws://127.0.0.1:{proxy.address[1]}/garbage/{VMI}") as other:
        other.wait_for_end()
    visit.open(proxy)


def _store_away(visit: Visit) -> None:
    """Have a store that does not run. It belongs to a service manager, so nobody else starts it."""
    path = os.path.join(visit.case.directory, "state")
    lock = StoreLock.take(path)
    assert lock
    with lock:
        lock.note(managed=True, members=False)
    visit.open(visit.start_proxy(state=f"local:{path}", max_sessions=1))


def _stop_while_dialling(visit: Visit) -> None:
    api = visit.case.api
    api.add_vmi(VMI, visit.case.namespace, behaviour=Behaviour(hang=True))
    proxy, dials = visit.start_proxy(), len(api.requests)
    visit.open(proxy)
    api.wait_for_requests(dials + 1, 30.0)
    proxy.stop_thread()


def _connected(end: Callable[[Visit, WebsocketProxy], object], **options: Any) -> Callable[[Visit], None]:
    """Open the console at a proxy with these arguments, and end it."""

    def provoke(visit: Visit) -> None:
        proxy = visit.start_proxy(**options)
        visit.connect(proxy)
        end(visit, proxy)

    return provoke


def _wait(visit: Visit, proxy: WebsocketProxy) -> None:
    """Have the proxy end the console."""


def _break_off(visit: Visit, proxy: WebsocketProxy) -> None:
    """Leave a frame incomplete, so that no Close can follow."""
    [console] = visit.vmi.sessions
    console.send_raw(_PART_OF_A_FRAME)
    console.drop()


def _expire(visit: Visit) -> None:
    """Open the console with a token that expires once it is open, however slow this machine is."""
    proxy = visit.start_proxy()
    for seconds in (3, 12, 48):
        visit.open(proxy, token=visit.token(expires_in=seconds))
        try:
            visit.browser.wait_until(visit.client.connected, seconds)
        except AssertionError:
            visit.browser.open("about:blank")
        else:
            return


REFUSALS = (
    Cause(
        "bad-request",
        "the link is malformed; in this example, no VM can have the name",
        400,
        "4400 `bad-request`",
        "the VMI in the path is not a Kubernetes name (DNS-1123 subdomain)",
        ("The link is wrong", f"The server does not understand it. {_NEW_LINK}"),
        _open_with(lambda visit: visit.token(), "VM"),
    ),
    Cause(
        "not-found",
        "the path leads to no console, for example because the path prefix is wrong",
        404,
        "4404 `not-found`",
        "the path must be /TOKEN/VMI or /TOKEN/VMI/SUBRESOURCE",
        None,
        _open_with(lambda visit: f"x/y/{visit.token()}"),
    ),
    Cause(
        "bad-token",
        "the token is not valid, or revoked",
        401,
        "4401 `bad-token`",
        "the token is not a JWT",
        ("The link is not valid", f"The server does not accept it. {_NEW_LINK}"),
        _open_with(lambda visit: "garbage"),
    ),
    Cause(
        "token-expired",
        "the token has expired",
        401,
        "4401 `token-expired`",
        "the token has expired",
        ("Your access has expired", _NEW_LINK),
        _open_with(lambda visit: visit.token(expires_in=-60)),
    ),
    Cause(
        "token-not-yet-valid",
        "the token is not valid yet",
        401,
        "4401 `token-not-yet-valid`",
        "the token is not valid yet, by its nbf claim",
        (
            "Your access has not started yet",
            "Try again in a minute. The clock of the site that made your link may be ahead.",
        ),
        _open_with(lambda visit: early(visit.token())),
    ),
    Cause(
        "forbidden",
        "the token is not for this VM",
        403,
        "4403 `forbidden`",
        "the token does not allow this VMI",
        ("You may not open this console", "Your link does not allow it, or not from this page."),
        _open_with(lambda visit: visit.token(), "other"),
    ),
    Cause(
        "forbidden-origin",
        "the page's origin is not allowed (`WSPROXY_ALLOW_ORIGIN`)",
        403,
        "4403 `forbidden`",
        "the page's origin is not allowed here",
        None,
        _from_elsewhere,
    ),
    Cause(
        "head-too-large",
        "the browser sends a larger head than `WSPROXY_MAX_HEAD_SIZE`, for example because of cookies",
        431,
        "4431 `head-too-large`",
        "the request head is larger than 16384 bytes; there may be too many cookies for this host",
        (
            "Your browser sends too much data",
            "This site has set too many cookies. Delete them, and connect again.",
        ),
        _cookies,
    ),
    Cause(
        "vmi-not-found",
        "there is no such VM",
        404,
        "4404 `vmi-not-found`",
        'virtualmachineinstance.kubevirt.io "gone" not found',
        ("The machine was not found", "It may be stopped, or not created yet."),
        _open_with(lambda visit: visit.case.token("gone"), "gone"),
    ),
    Cause(
        "console-busy",
        "somebody else has the console (`WSPROXY_CONSOLE=refuse`)",
        409,
        "4409 `console-busy`",
        "the console is in use by bob",
        ("Someone else is using this console", "Try again when they have left it."),
        _viewed(console="refuse", show_user=True),
    ),
    Cause(
        "vmi-not-running",
        "the VM does not run",
        409,
        "4420 `vmi-not-running`",
        "VMI is not running",
        ("The machine is not running", "The console opens when the machine has started."),
        _machine(phase="Scheduled"),
    ),
    Cause(
        "vmi-no-console",
        "the VM has no display",
        409,
        "4421 `vmi-no-console`",
        "No graphics devices are present.",
        ("The machine has no console of this kind", "It was created without one."),
        _machine(display=False),
    ),
    Cause(
        "limit-user",
        "the user has as many sessions as allowed",
        429,
        "4429 `limit-user`",
        "you have as many sessions as you may",
        ("You have too many consoles open", "Close one that you do not need."),
        _viewed("other", USER, max_sessions_per_user=1),
    ),
    Cause(
        "limit-vmi",
        "the console has as many sessions as allowed",
        429,
        "4429 `limit-vmi`",
        "this console has as many sessions as it may",
        ("Too many people are using this machine", "One of them has to leave first."),
        _viewed(max_sessions_per_vmi=1),
    ),
    Cause(
        "limit-address",
        "too many clients from the user's network have not authenticated",
        429,
        "4429 `limit-address`",
        "too many connections from your address have not authenticated yet",
        ("Too many connections come from your network", "Close consoles that you do not need."),
        _crowd,
    ),
    Cause(
        "limit-failures",
        "too many attempts from the user's network have failed",
        429,
        "4429 `limit-failures`",
        "too many attempts from your address have failed",
        ("Too many attempts have failed", "The server refuses your network for a while."),
        _failures,
    ),
    Cause(
        "busy",
        "the proxy has as many sessions as allowed",
        503,
        "4503 `busy`",
        "the proxy has as many sessions as it may",
        ("The server is full", "Try again when others have left."),
        _viewed("other", max_sessions=1),
    ),
    Cause(
        "state-unavailable",
        "the proxy cannot reach the [state that it shares](operate/workers-and-replicas.md) with others",
        503,
        "4503 `state-unavailable`",
        "the proxy cannot reach the state that it shares with others",
        ("The server cannot let anyone in right now", "It will be back in a moment."),
        _store_away,
    ),
    Cause(
        "draining",
        "the proxy is stopping",
        503,
        "4503 `draining`",
        "the proxy is stopping",
        ("The server is restarting", "It will be back in a moment."),
        _stop_while_dialling,
    ),
    Cause(
        "internal-error",
        "the proxy has a bug",
        500,
        "4500 `internal-error`",
        "the proxy failed; its log says why",
        ("The server failed", "If this happens again, tell your administrator."),
        _bug,
    ),
    Cause(
        "upstream-refused",
        "the API refuses the proxy itself, or fails",
        502,
        "4502 `upstream-refused`",
        "the Kubernetes API refused",
        ("The console could not be opened", "If this happens again, tell your administrator."),
        _forbidden_account,
    ),
    Cause(
        "upstream-ended",
        "the API accepts, and ends the console before the VM's side has sent anything",
        None,
        "4502 `upstream-refused`",
        "the console ended before it showed anything; the machine may be starting or stopping",
        ("The console could not be opened", "If this happens again, tell your administrator."),
        _machine(behaviour=Behaviour(eof=True)),
    ),
    Cause(
        "upstream-timeout",
        "the API does not answer",
        504,
        "4504 `upstream-timeout`",
        "the Kubernetes API did not answer in time",
        ("The console did not open in time", "If this happens again, tell your administrator."),
        _machine(behaviour=Behaviour(hang=True)),
    ),
)
"""Before anything was seen. For each the HTTP status is what other clients than browsers get."""


def _end(
    name: str,
    what: str,
    close: str | None,
    page: tuple[str, str],
    provoke: Callable[[Visit], object],
    message: str = "",
) -> Cause:
    return Cause(name, what, None, close, message, page, provoke, before=False)


ENDS = (
    _end(
        "upstream-closed",
        "KubeVirt drops the connection because the VM has stopped, or another client has the console now",
        "1011 `upstream-closed`",
        ("The machine closed the console", "It may have been stopped or restarted."),
        _connected(lambda visit, proxy: visit.vmi.drop_sessions()),
    ),
    _end(
        "close",
        "the VM's side sends a Close, which the proxy forwards",
        "the same code, in this example 1000",
        ("The console was closed", "Connect again to continue where you were."),
        _connected(lambda visit, proxy: visit.vmi.sessions[0].send_close(1000, "closing time")),
        "closing time",
    ),
    _end(
        "taken-over",
        "somebody else has taken the console over (`WSPROXY_CONSOLE=takeover`)",
        "4410 `taken-over`",
        ("Someone else took over this console", "If you take it back, they lose it."),
        _connected(lambda visit, proxy: visit.view(proxy), console="takeover", show_user=True),
        "by bob",
    ),
    _end(
        "expired",
        "the token has expired",
        "4411 `expired`",
        ("Your access has expired", _NEW_LINK),
        _expire,
        "the token's time is over",
    ),
    _end(
        "idle",
        "nobody has typed or moved the mouse for too long (`WSPROXY_IDLE_TIMEOUT`)",
        "4408 `idle`",
        ("The console was closed because nobody used it", "Connect again to continue where you were."),
        _connected(_wait, idle_timeout=_WHILE),
        f"the client sent no data for {_WHILE:g} s",
    ),
    _end(
        "max-age",
        "the session has lasted as long as allowed (`WSPROXY_MAX_AGE`)",
        "4412 `max-age`",
        ("The console reached its time limit", "Connect again to continue where you were."),
        _connected(_wait, max_age=_WHILE),
        f"a session lasts {_WHILE:g} s at most",
    ),
    _end(
        "kicked",
        "the operator has ended it (`wsproxy sessions kick`)",
        "4499 `kicked`",
        ("An administrator closed the console", "Ask them before you connect again."),
        _connected(lambda visit, proxy: proxy.sessions()[0].close()),
    ),
    _end(
        "restarting",
        "the proxy stops",
        "1012 `restarting`",
        ("The server is restarting", "It will be back in a moment."),
        _connected(lambda visit, proxy: proxy.stop_thread()),
    ),
    _end(
        "protocol-error",
        "the VM's side breaks RFC 6455, or sends too big a frame",
        "1011 `upstream-protocol-error`",
        ("The connection broke", "The machine sent data that the server cannot pass on."),
        _connected(lambda visit, proxy: visit.vmi.sessions[0].send_raw(b"\xff\xff")),
    ),
    _end(
        "lost",
        "the network fails, or the session ends where the proxy cannot send a Close",
        None,
        ("The connection was lost", "There is a problem with the network or the server."),
        _connected(_break_off),
    ),
)
"""After the console was seen."""
