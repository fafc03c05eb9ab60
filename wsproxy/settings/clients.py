"""The settings of clients: how they show a token, which pages and proxies they come through. No I/O."""

from __future__ import annotations

from .setting import Group, Setting

__all__ = ["AUTHENTICATION", "PAGES", "PROXIES"]

AUTHENTICATION = Group(
    "How clients show a token, and from which pages",
    (
        Setting(
            "credentials",
            "Texts",
            ("path", "header", "subprotocol"),
            "Where a token may stand: `path`, `header`, `subprotocol`, `query`, `cookie`. A cookie needs "
            "`allow_origin`.",
            value="PLACE,PLACE",
        ),
        Setting(
            "cookie_name",
            "str",
            "wsproxy_token",
            "Name of the cookie that holds a token.",
            value="NAME",
        ),
        Setting(
            "tickets",
            "bool",
            False,
            "Let `POST /ticket` exchange a token for a one-time ticket. This needs one worker.",
        ),
        Setting(
            "allow_origin",
            "Restriction",
            None,
            "Origins of the pages that may use the proxy, such as `https://console.example`, or `*` for "
            "all. The proxy's own pages always may.",
            shown_default="any page that knows a token",
            value="ORIGIN,ORIGIN",
            stand_in=("https://unset",),
        ),
        Setting(
            "require_origin",
            "bool",
            False,
            "Refuse clients that send no `Origin`, since they are not browsers.",
        ),
        Setting(
            "reject",
            "str",
            "auto",
            "How the proxy refuses a WebSocket. `auto` sends browsers a Close frame, and all other clients "
            "an HTTP status.",
            choices=("auto", "http", "close"),
        ),
    ),
)

PROXIES = Group(
    "Proxies in front",
    (
        Setting(
            "trusted_proxies",
            "Texts",
            (),
            "Addresses and networks of the proxies whose `X-Forwarded-*` or `Forwarded` headers count. "
            "`unix` stands for every client of a Unix socket.",
            value="NET,NET",
        ),
        Setting(
            "forwarded_headers",
            "str",
            "auto",
            "Which of these headers count. With `auto` both do, if they agree.",
            choices=("auto", "x-forwarded", "forwarded"),
        ),
        Setting(
            "proxy_protocol",
            "bool",
            False,
            "Expect a PROXY protocol header on each connection from `trusted_proxies`, and on no other.",
        ),
    ),
)

PAGES = Group(
    "Pages",
    (
        Setting(
            "console_page",
            "bool",
            False,
            "Serve the console page at `/console/`.",
            stand_in=True,
        ),
        Setting(
            "novnc",
            "str",
            None,
            "Directory with noVNC for the console page.",
            shown_default="`/usr/share/novnc`, if it is there",
            value="DIR",
        ),
        Setting(
            "xterm",
            "str",
            None,
            "Directory with xterm.js for serial consoles on the console page. Without it the page shows "
            "none.",
            value="DIR",
        ),
        Setting(
            "web",
            "str",
            None,
            "Directory of a web client, such as noVNC, whose files the proxy serves. SIGHUP reads them "
            "again.",
            value="DIR",
            stand_in="unset",
        ),
        Setting(
            "frame_ancestors",
            "Texts",
            (),
            "Pages that may show the proxy's pages in a frame: `self`, and origins such as "
            "`https://lab.example`.",
            value="ORIGIN,ORIGIN",
        ),
    ),
)
