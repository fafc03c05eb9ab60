"""Makes URLs of consoles and of the console page for browsers. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from ..access.credentials import looks_like_ticket
from ..protocol.names import is_dns_subdomain
from ..protocol.routing import RouteRules
from ..tokens.verifier import MAX_TOKEN_SIZE

__all__ = ["URLRules", "console_url", "page_url"]

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")  # RFC 3986 section 3.2
_SAFE_IN_SEGMENT = "!$&'()*+,;=:@%"  # section 3.3
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_JWT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")  # RFC 7515 section 7.1


@dataclass(frozen=True)
class URLRules:
    """What the URLs of a proxy may contain, by its settings.

    :ivar routes: the proxy's rules for request targets.
    :ivar credentials: the places that may hold a token.
    :ivar tickets: whether a path may hold a ticket, too.
    :ivar console_page: whether the proxy has a console page.
    """

    routes: RouteRules
    credentials: Collection[str]
    tickets: bool
    console_page: bool


def console_url(rules: URLRules, base: str, token: str, vmi: str, subresource: str | None = None) -> str:
    """Return the URL of a console: ``BASE/TOKEN/VMI``, or ``BASE/TOKEN/VMI/SUBRESOURCE``.

    :param rules: those of the proxy that the URL leads to.
    :param base: where the browser finds that proxy: ``wss://HOST[:PORT][/PATH]``; http and https count as ws
        and wss. A path replaces the configured prefix, because a server in front may have another one. If
        there is no path, the prefix is added.
    :param token: a token or a ticket. This does not verify it, but checks that the proxy takes its form.
    :param vmi: name of the virtual machine instance.
    :param subresource: None for the default one.
    :raises ValueError: if any of these cannot be part of a console's URL. The text does not quote the token.
    """
    _check_token(rules, token)
    _check_console(rules, vmi, subresource)
    root, path = _parsed(base)
    return "/".join(
        [root, *(path or rules.routes.prefix), token, vmi, *([subresource] if subresource else [])]
    )


def page_url(
    rules: URLRules, base: str, token: str, vmi: str | None = None, subresource: str | None = None
) -> str:
    """Return the link to a console on the console page: ``BASE/console/#TOKEN/VMI``.

    :param rules: those of the proxy that the link leads to.
    :param base: as for :func:`console_url`, but the link has http or https.
    :param token: a token. This does not verify it, but checks that the page takes its form.
    :param vmi: name of the virtual machine instance; None to let the user choose.
    :param subresource: None for the default one.
    :raises ValueError: if any of these cannot be part of such a link, or if the proxy has no console page.
        The text does not quote the token.
    """
    if not rules.console_page:
        raise ValueError("the proxy has no console page; set console_page")
    if not _JWT.fullmatch(token) or len(token) > MAX_TOKEN_SIZE:
        raise ValueError("the token is not a JWT that the console page takes")
    if vmi is None and subresource is not None:
        raise ValueError("a subresource needs a VMI")
    if vmi is not None:
        _check_console(rules, vmi, subresource)
    root, path = _parsed(base)
    page = "/".join([root.replace("ws", "http", 1), *(path or rules.routes.prefix), "console/"])
    return f"{page}#{'/'.join(part for part in (token, vmi, subresource) if part is not None)}"


def _check_console(rules: URLRules, vmi: str, subresource: str | None) -> None:
    if not is_dns_subdomain(vmi):
        raise ValueError("the VMI's name is not a Kubernetes name (DNS-1123 subdomain)")
    if subresource is not None and subresource not in rules.routes.enabled:
        raise ValueError(f"the subresource {subresource!r} is not enabled")


def _check_token(rules: URLRules, token: str) -> None:
    if rules.tickets and looks_like_ticket(token):
        return
    if not _JWT.fullmatch(token):
        kinds = "neither a JWT nor a ticket" if rules.tickets else "not a JWT"
        raise ValueError(f"the token is {kinds}, so a path cannot hold it")
    if len(token) > MAX_TOKEN_SIZE:
        raise ValueError(f"the token is {len(token)} bytes; the proxy takes {MAX_TOKEN_SIZE} at most")
    if "path" not in rules.credentials:
        raise ValueError(
            "the proxy takes no token from a path; add path to the setting credentials, or use a ticket"
        )


def _parsed(base: str) -> tuple[str, tuple[str, ...]]:
    """Return ``scheme://host[:port]``, and the segments of the path."""
    wrong = ValueError("the base must look like wss://HOST[:PORT][/PATH], without user, query and fragment")
    if not re.fullmatch(r"[^\s\x00-\x1f\x7f?#\\]+", base):
        raise wrong
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        raise wrong from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or port == 0 or not _AUTHORITY.fullmatch(parts.netloc):
        raise wrong
    segments = tuple(_encoded(segment) for segment in parts.path.split("/") if segment)
    if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in segments):
        raise wrong  # a browser would remove them, and the segments before them
    return f"{scheme}://{parts.netloc}", segments


def _encoded(segment: str) -> str:
    return quote(_BAD_PERCENT.sub("%25", segment), safe=_SAFE_IN_SEGMENT)
