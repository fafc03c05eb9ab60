"""Authenticates and authorises requests by origin, credential, token and the embedder's hook. No I/O.

Nothing in this file reaches the upstream, and no client reaches the upstream without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from ..exceptions import BadRequest, BadToken, Forbidden, NotFound, Refused, TokenExpired
from ..protocol.client import Client
from ..protocol.names import is_dns_label
from ..protocol.origin import Origin, OriginPolicy
from ..protocol.request import OWS, RequestHead
from ..protocol.routing import Route, RouteRules, screenshot_route, session_route
from ..runtime.deadline import Clock, Deadline
from ..runtime.logs import get_logger
from ..runtime.wall_clock import unix_time
from ..state.limits import Limits
from ..state.tickets import Ticket, Tickets
from ..tokens.claims import Grant
from ..tokens.verifier import TokenVerifier
from .credentials import GRANT, TICKET, bearer_token, find_credential, looks_like_ticket
from .hooks import AccessRequest, Authorize, Report, authorized

__all__ = ["AccessControl", "AccessRules"]

logger = get_logger("wsproxy.access")

_OWN_PAGE, _ADDRESS_BAR = "same-origin", "none"  # of Sec-Fetch-Site (Fetch Metadata Request Headers)


OnVerified = Callable[[Route, Grant], None]


def _nobody(route: Route, grant: Grant) -> None:
    """Do nothing: the default callback."""


@dataclass(frozen=True)
class AccessRules:
    """The settings that decide which clients may come in.

    :ivar routes: how request targets are parsed.
    :ivar credentials: the places of a request where a token may be, from :data:`.CREDENTIALS`.
    :ivar cookie_name: name of the cookie that may hold a token.
    :ivar origins: the origins of the pages that may use the proxy.
    :ivar client_certificates: whether clients need a TLS certificate. A browser sends its own for any page.
    :ivar namespaces: the only namespaces that the proxy serves, None for all.
    """

    routes: RouteRules
    credentials: Collection[str]
    cookie_name: str
    origins: OriginPolicy
    client_certificates: bool
    namespaces: Collection[str] | None


class AccessControl:
    """Decides which clients may come in. Safe from every thread; blocks only for keys and the hook.

    :param rules: the settings.
    :param verifier: verifies tokens.
    :param tickets: None if tickets are switched off.
    :param authorize: the embedder's hook, None if there is no hook.
    :param limits: counts failed attempts, and refuses further ones.
    :param is_revoked: whether the token of a grant is revoked for a VMI, or for all if that is None.
    :param report: gets the exceptions that the hook raises.
    :param wall_clock: UNIX time, seconds.
    """

    def __init__(
        self,
        rules: AccessRules,
        verifier: TokenVerifier,
        tickets: Tickets | None,
        authorize: Authorize | None,
        limits: Limits,
        is_revoked: Callable[[Grant, str | None], bool],
        report: Report,
        wall_clock: Clock = unix_time,
    ) -> None:
        self._rules = rules
        self._routes = rules.routes
        self._verifier = verifier
        self._tickets = tickets
        self._authorize = authorize
        self._limits = limits
        self._is_revoked = is_revoked
        self._report = report
        self._wall_clock = wall_clock

    def admit(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        on_verified: OnVerified = _nobody,
    ) -> tuple[Route, Grant]:
        """Authenticate and authorise an upgrade request.

        :param client: the client that sent it.
        :param deadline: bounds the wait for the token's key.
        :param on_verified: called with the route and the token's grant, before the embedder's hook is asked.
            After this call, the proxy checks once more whether the token is revoked.
        :returns: the route, and the grant that allows it.
        :raises Refused: if the client may not come in, for any reason.
        """
        with self._attempt(head, client):
            route = session_route(head.target, self._routes)
            tickets = self._tickets is not None
            return route, self._admit(head, client, deadline, route, on_verified, tickets=tickets)

    def admit_screenshot(self, head: RequestHead, client: Client, deadline: Deadline) -> tuple[Route, Grant]:
        """Authenticate and authorise a request for a screenshot as :meth:`admit` does, but without tickets.

        :raises NotFound: if the request asks for something else.
        """
        with self._attempt(head, client):
            if (route := screenshot_route(head.target, self._routes.prefix)) is None:
                raise NotFound("the path must be /TOKEN/VMI/screenshot.png")
            return route, self._admit(head, client, deadline, route, _nobody, tickets=False)

    def _admit(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        route: Route,
        on_verified: OnVerified,
        *,
        tickets: bool,
    ) -> Grant:
        rules = self._rules
        try:
            # Check the origin first. A refused page must not learn whether its visitor is logged in. A token
            # that the page makes up must not count as a failed attempt of its visitor.
            self._check_origin(head, client, ambient=False)
            credential = find_credential(head, route, rules.credentials, rules.cookie_name, tickets)
            if credential.ambient:
                self._check_origin(head, client, ambient=True)
        except Refused:
            if tickets:
                self._use_up_ticket(route)
            raise
        if credential.kind == TICKET:
            assert self._tickets is not None
            grant = self._tickets.redeem(credential.token, route.subresource, head.origin)
            self._check_namespace(grant)  # a process with other settings may have issued it
        else:
            grant = self._verifier.verify(credential.token, deadline)
        return self._authorized(head, client, credential.kind, route, grant, on_verified)

    def _attempt(self, head: RequestHead, client: Client) -> AbstractContextManager[object]:
        """Return the context in which a client tries to authenticate: see :meth:`.Limits.attempt`."""
        foreign = self._may_be_of_foreign_page(head, client)
        return self._limits.attempt(client.network, foreign=foreign)

    def _may_be_of_foreign_page(self, head: RequestHead, client: Client) -> bool:
        """Whether a page that is neither the proxy's own nor listed may have made a browser send a request.

        A browser sends the page's Origin with a WebSocket handshake, and at most Sec-Fetch-Site with an
        image. A page can add an Authorization header only after a preflight (Fetch, "CORS"), which the proxy
        does not grant to such a page.
        """
        if head.origin is not None:
            return not self._rules.origins.knows(head.origin, client.own)
        if site := _fetch_site(head):
            return site not in ([_OWN_PAGE], [_ADDRESS_BAR])
        return not head.asks_for_websocket and not head.values("authorization")

    def _use_up_ticket(self, route: Route) -> None:
        """Use up the ticket of a request that is refused for another reason."""
        if self._tickets is not None and route.token is not None and looks_like_ticket(route.token):
            self._tickets.discard(route.token)

    def admit_granted(
        self,
        head: RequestHead,
        client: Client,
        route: Route,
        grant: Grant,
        on_verified: OnVerified = _nobody,
    ) -> Grant:
        """Authorise an upgrade request of a client that the embedding program has authenticated.

        :param route: the console to open.
        :param grant: what the client may open, as the embedding program says.
        :param on_verified: as for :meth:`admit`.
        :returns: the grant, or what the ``authorize`` hook leaves of it.
        :raises Refused: if the client may not come in, for any reason.
        """
        # The program probably knows its user by a cookie, which a browser sends for any page.
        self._check_origin(head, client, ambient=True)
        self._check_namespace(grant)
        return self._authorized(head, client, GRANT, route, grant, on_verified)

    def _check_namespace(self, grant: Grant) -> None:
        """Make sure that the proxy serves the namespace of a grant that is not from a token."""
        if not is_dns_label(grant.namespace):
            raise BadRequest("the namespace is not a Kubernetes name (DNS-1123 label)")
        served = self._rules.namespaces
        if served is not None and grant.namespace not in served:
            raise Forbidden("this namespace is not served here")

    def _authorized(
        self,
        head: RequestHead,
        client: Client,
        kind: str,
        route: Route,
        grant: Grant,
        on_verified: OnVerified,
    ) -> Grant:
        """Check that the grant allows the route now, and ask the embedder's hook."""
        self.check_revoked(grant, route.vmi)
        grant.authorize(route.vmi, route.namespace)
        on_verified(route, grant)
        self.check_revoked(
            grant, route.vmi
        )  # a kick from now on finds the session, which on_verified has listed
        if self._authorize is not None:
            request = _described(head, client, kind, grant, route)
            grant = authorized(self._authorize, grant, request, self._report)
            grant.authorize(route.vmi, route.namespace)
        if grant.seconds_left(self._wall_clock()) <= 0:  # a ticket's grant, or one that the hook made
            raise TokenExpired("the token has expired")
        return grant

    def check_revoked(self, grant: Grant, vmi: str | None = None) -> None:
        """Make sure that a grant's token is not revoked. Any thread; does not block.

        :param vmi: what the client wants to open; None if that is not known yet.
        :raises BadToken: if it is revoked.
        """
        if self._is_revoked(grant, vmi):
            raise BadToken("the token has been revoked")

    def _check_origin(self, head: RequestHead, client: Client, ambient: bool) -> None:
        """Check the page's origin. If clients need certificates, a browser sends one with every request."""
        ambient = ambient or self._rules.client_certificates
        site = _fetch_site(head) if head.origin is None else []
        if site == [_OWN_PAGE] and not head.asks_for_websocket:
            return  # a GET from the proxy's own page has no Origin; no page can forge Sec-Fetch-Site
        self._rules.origins.check(head.origin, client.own, ambient=ambient)
        if ambient and site not in ([], [_ADDRESS_BAR], [_OWN_PAGE]):  # for example, an image on another page
            raise Forbidden("the page's origin is not allowed here")

    # For POST /ticket

    def allows_page(self, head: RequestHead, client: Client) -> bool:
        """Whether a page's script may read the proxy's answers: its origin is listed, or the proxy's own."""
        return head.origin is not None and self._rules.origins.allows(head.origin, client.own)

    def authenticate_bearer(self, head: RequestHead, client: Client, deadline: Deadline) -> Grant:
        """Verify the token in the Authorization header of a request without an upgrade.

        :param deadline: bounds the wait for the token's key.
        :raises Refused: if the token is not valid, or the page's origin is not allowed.
        """
        with self._attempt(head, client):
            token = bearer_token(head)
            self._check_origin(head, client, ambient=False)
            grant = self._verifier.verify(token, deadline)
            self.check_revoked(grant)
            return grant

    def issue_ticket(
        self,
        grant: Grant,
        client: Client,
        *,
        vmi: str,
        namespace: str | None = None,
        subresource: str | None = None,
        origin: str | None = None,
    ) -> tuple[str, str, float]:
        """Issue a one-time ticket for one VMI's subresource.

        :param namespace: None for the token's own.
        :param subresource: None for the default one.
        :param origin: origin of the page that will redeem the ticket, None for a client that sends no Origin.
        :returns: the ticket, the path that it opens, and for how many seconds it is valid.
        :raises Forbidden: if the grant does not allow this, or if a ticket cannot be bound to that origin.
        :raises NotFound: if the subresource is not enabled.
        :raises LimitExceeded: if the user has too many tickets.
        :raises Busy: if all users together have too many tickets.
        """
        assert self._tickets is not None, "tickets are switched off"
        grant.authorize(vmi, namespace)
        if subresource is not None and subresource not in self._routes.enabled:
            raise NotFound("this subresource is not enabled")
        page = None if origin is None else Origin.parse(origin)
        if origin is not None and page is None:
            raise Forbidden("a ticket cannot be bound to this origin")
        wanted = subresource or self._routes.default
        ticket, seconds = self._tickets.issue(Ticket(replace(grant, vmis=(vmi,)), wanted, page))
        logger.info(
            "ticket issued: client %s user %r vmi %s/%s %s", client, grant.user, grant.namespace, vmi, wanted
        )
        path = "/".join(["", *self._routes.prefix, ticket, vmi, *([subresource] if subresource else [])])
        return ticket, path, seconds


def _fetch_site(head: RequestHead) -> list[str]:
    return [value.strip(OWS).lower() for value in head.values("sec-fetch-site")]


def _described(head: RequestHead, client: Client, kind: str, grant: Grant, route: Route) -> AccessRequest:
    return AccessRequest(
        namespace=grant.namespace,
        vmi=route.vmi,
        subresource=route.subresource,
        client=client.address,
        origin=head.origin,
        credential=kind,
        user_agent=next(iter(head.values("user-agent")), None),
    )
