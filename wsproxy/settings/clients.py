"""The settings of clients: how they send a token, and which pages and proxies they use. No I/O."""

from __future__ import annotations

from .setting import Group, Setting

__all__ = ["AUTHENTICATION", "PAGES", "PROXIES"]

AUTHENTICATION = Group(
    "How clients authenticate, and from which pages",
    (
        Setting(
            "credentials",
            "Texts",
            ("path", "header", "subprotocol"),
            "Where clients may send a token: `path`, `header`, `subprotocol`, `query`, `cookie`. `cookie` "
            "requires `allow_origin`.",
            value="PLACE,PLACE",
        ),
        Setting(
            "cookie_name",
            "str",
            "wsproxy_token",
            "Name of the cookie that contains a token.",
            value="NAME",
        ),
        Setting(
            "tickets",
            "bool",
            False,
            "Let clients exchange a token for a one-time ticket by `POST /ticket`.",
        ),
        Setting(
            "allow_origin",
            "Restriction",
            None,
            "Origins of the pages that may connect, such as `https://console.example`, or `*` for all. The "
            "proxy's own pages may always connect.",
            shown_default="any page that has a token",
            value="ORIGIN,ORIGIN",
            stand_in=("https://unset",),
        ),
        Setting(
            "require_origin",
            "bool",
            False,
            "Refuse clients that send no `Origin` header. Browsers send one with every WebSocket handshake.",
        ),
        Setting(
            "reject",
            "str",
            "auto",
            "How the proxy refuses a WebSocket. With `auto`, browsers get a Close frame, and other clients "
            "get an HTTP status.",
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
            "Addresses and networks of the proxies in front whose `X-Forwarded-*` or `Forwarded` headers "
            "wsproxy trusts. `unix` stands for every client of a Unix socket.",
            value="NET,NET",
        ),
        Setting(
            "forwarded_headers",
            "str",
            "auto",
            "Which of these headers the proxy reads. With `auto` it reads both, and refuses requests in "
            "which they disagree.",
            choices=("auto", "x-forwarded", "forwarded"),
        ),
        Setting(
            "proxy_protocol",
            "bool",
            False,
            "Require a PROXY protocol header on each connection from `trusted_proxies`, and on no other.",
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
            shown_default="`/usr/share/novnc`, if it exists",
            value="DIR",
        ),
        Setting(
            "xterm",
            "str",
            None,
            "Directory with xterm.js for the console page. Without it, the page shows no serial consoles.",
            value="DIR",
        ),
        Setting(
            "web",
            "str",
            None,
            "Directory of a web client, such as noVNC. The proxy serves its files, and reads them again on "
            "SIGHUP.",
            value="DIR",
            stand_in="unset",
        ),
        Setting(
            "frame_ancestors",
            "Texts",
            (),
            "Origins that may embed the proxy's pages in a frame, such as `https://lab.example`. `self` is "
            "the proxy's own origin.",
            value="ORIGIN,ORIGIN",
        ),
    ),
)
