"""Every setting of the proxy, checked as a whole. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .access.control import AccessRules
from .access.credentials import credential_faults
from .exceptions import ConfigError
from .kinds import (
    Age,
    AnyText,
    Count,
    Options,
    OrderedTexts,
    Pause,
    Port,
    Restriction,
    Secrets,
    Texts,
    Timeout,
    collect,
    read_fields,
    shown_url,
)
from .net.addresses import ListenAddress, listen_fault
from .net.tls_context import ServerTLSFiles, sslopt_faults
from .protocol.client import TrustedProxies
from .protocol.names import is_dns_label
from .protocol.origin import OriginPolicy
from .protocol.request import MAX_HEAD_SIZE
from .protocol.routing import RouteRules, prefix_segments
from .relay.lifetime import LifetimeRules
from .state.arbitration import ConsolePolicies
from .state.limits import LimitRules
from .tokens.claims import ClaimRules
from .tokens.jwks import JWKSLocation
from .tokens.key_store import KeyRules
from .tokens.keys import Keyring, load_keyring
from .upstream.dialler import UpstreamRules
from .upstream.location import (
    DEFAULT_API_PATH,
    SERVICE_ACCOUNT_CA,
    SERVICE_ACCOUNT_TOKEN,
    ApiPath,
    UpstreamURL,
)
from .web.csp import frame_ancestors
from .web.endpoints import EndpointRules
from .web.screenshots import PictureRules
from .web.static_files import FileRules
from .web.urls import URLRules

__all__ = ["Config"]

_CHOICES = {
    "reject": ("auto", "http", "close"),
    "cpu_affinity": ("auto", "off"),
    "log_format": ("text", "json"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
}
_MIN_FRAME_SIZE = 65536
_MAX_HEAD_SIZE = 128 * 1024  # each client that has not authenticated may cost as much
_MAX_WORKERS = 64
_MAX_LEEWAY = 300  # RFC 7519 section 4.1.4: no more than a few minutes
_MIN_PENDING = 8

_LIMITS = (
    "max_sessions",
    "max_sessions_per_user",
    "max_sessions_per_vmi",
    "max_pending_per_address",
    "max_failures",
)

_INSTEAD = {
    "remote_url": "wss://unset",
    "secret_key": "-" * 32,
    "secret_key_files": ("unset",),
    "jwks": "unset",
    "tls_cert": "unset",
    "allow_origin": ("https://unset",),
    "web": "unset",
    "console_page": True,
    "admin": "unix:unset",
}
"""What takes the place of a value of the wrong kind, where a default would be a further fault."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one proxy.

    :param remote_url: base URL of the Kubernetes API; ``wss://`` in a cluster, ``ws://`` in dev mode.
    :param api_path: path of a VMI's subresource with ``{namespace}`` and ``{vmi_name}``.
    :param local_dev_mode: no TLS and no service-account token, as behind ``kubectl proxy``.
    :param secret_key: the HMAC secret of the tokens, or PEM public keys, or several of these; "" for none.
    :param secret_key_files: files that each hold an HMAC secret or PEM public keys.
    :param jwks: a file, or the URL of a JWK Set.
    :param jwks_interval: seconds from one fetch of the JWK Set to the next.
    :param jwks_ca_file: authorities for its URL, None for the system's.
    :param host_path_prefix: path in front of every route; None or "" for none.
    :param algorithms: JWS algorithms that the keys may be used for at most; None for HS256, and for all that
        a public key is for.
    :param issuer: ``iss`` claims that are taken, None for any and none.
    :param audience: ``aud`` claims that are taken; None means that a token for an audience is refused.
    :param leeway: seconds by which the clock of who made a token may be wrong; None for 5 by ``nbf`` and
        ``iat``, and none by ``exp``.
    :param allow_eternal_tokens: whether a token without ``exp`` is taken.
    :param claim_user: JSON pointers to who the user is; the first that is there counts.
    :param claim_namespace: JSON pointer to the namespace.
    :param claim_vmis: JSON pointer to the list of VMIs.
    :param claim_takeover: JSON pointer to whether consoles may be taken over; by default they may.
    :param allow_vmi_patterns: whether ``*`` in that list stands for any characters.
    :param namespaces: the only namespaces that are served, None for all.
    :param subresources: subresources that a path may name besides the one of ``api_path``.
    :param sslopt: TLS towards the API in websocket-client's vocabulary.
    :param token_file: file with the service account's bearer token.
    :param tls_cert: file with the certificate chain (PEM) shown to clients; None if they come without TLS.
    :param tls_key: file with its private key; None if ``tls_cert`` holds that, too.
    :param tls_client_ca: file with authorities, one of which has to have signed each client's certificate;
        None if clients need none.
    :param reject: "auto" (browsers get a Close frame, others HTTP), "http" or "close".
    :param credentials: where a token may stand: any of path, header, subprotocol, query and cookie.
    :param cookie_name: name of the cookie that holds a token, where "cookie" is one of them.
    :param allow_origin: origins of the pages that may use the proxy, ``*`` for all; None for no such limit
        but on credentials that browsers send by themselves. The proxy's own host is always allowed.
    :param require_origin: whether clients without an Origin header, which are no browsers, are refused.
    :param trusted_proxies: networks of the proxies whose X-Forwarded and Forwarded headers are believed, and
        ``unix`` for all that come over a Unix socket.
    :param forwarded_headers: which of these count: "auto" (both if they agree), "x-forwarded" or "forwarded".
    :param proxy_protocol: whether these proxies begin each connection with a PROXY protocol header.
    :param tickets: whether ``POST /ticket`` exchanges a token for a one-time ticket.
    :param web: directory of a web client, the files of which are served below the prefix; None for none.
    :param console_page: whether the console page is served, at ``/console/``.
    :param novnc: directory with noVNC for that page; None for an installed one, if there is one.
    :param xterm: directory with xterm.js for that page; None for none, and so no serial consoles on it.
    :param frame_ancestors: which pages may show these in a frame: "self" and origins; empty for none.
    :param screenshots: whether ``.../screenshot.png`` answers with a picture of a VMI's screen.
    :param console: who keeps a console that several clients want: "passthrough" (KubeVirt's last one),
        "takeover" or "refuse", or rules such as ``exam-*/*/vnc=refuse``, the first that fits.
    :param show_user: whether a client is told who else has, or took over, its console.
    :param request_timeout: seconds for a whole request head, and for a refusal.
    :param dial_timeout: seconds for connecting upstream: name, TCP, TLS and handshake together.
    :param close_timeout: seconds in which every session ends, from the first cause.
    :param drain_grace: seconds for which everybody is let in as before, after a signal to stop; only
        ``/readyz`` says no.
    :param drain_timeout: seconds for which open sessions may go on after that, before they are closed.
    :param ping_interval: seconds between pings on each leg; a dead leg is found after two.
    :param max_frame_size: largest WebSocket frame, bytes of payload.
    :param max_head_size: largest head of a request, bytes.
    :param max_sessions: how many sessions there may be, 0 for any number; as the next four.
    :param max_sessions_per_user: how many one user may have.
    :param max_sessions_per_vmi: how many there may be with one subresource of one VMI.
    :param max_pending_per_address: how many clients from one address may not have authenticated yet.
    :param max_failures: how many attempts from one address may fail to authenticate in a minute.
    :param grace: seconds for which a session outlives its token; ``math.inf`` if it does so for ever.
    :param idle_timeout: seconds for which a client may send no data, 0 for ever.
    :param max_age: seconds for which a session may last, 0 for ever.
    :param host: address to listen on; ``::`` is every address, IPv6 and IPv4.
    :param port: TCP port to listen on, 0 for any.
    :param listen: where to listen instead: ``unix:PATH``, or ``fd:NUMBER`` for an inherited descriptor.
    :param reuse_port: whether other processes may listen at the same address (SO_REUSEPORT), or take the
        path's place.
    :param log_level: what the program logs.
    :param log_format: how the program logs: "text", or "json" for one object in each line.
    :param audit_log: file to which events of sessions are appended as JSON lines, "-" for standard output;
        None for none.
    :param admin: where the operator's listener is, ``HOST:PORT`` or ``unix:PATH``; None for nowhere.
    :param admin_hosts: names by which that may be asked for, besides addresses and localhost.
    :param admin_token_file: file with the operator's bearer token; None for a file of the user's own, or for
        none where ``admin`` is a path.
    :param max_pending: how many clients of one process may not have authenticated yet.
    :param workers: how many processes the program serves with; :class:`.WebsocketProxy` is always one.
    :param cpu_affinity: "auto" (each process of the program keeps the threads that run Python on one CPU) or
        "off"; of no meaning for :class:`.WebsocketProxy`.
    :raises ConfigError: listing every fault.
    """

    remote_url: str
    secret_key: Secrets = field(repr=False)
    api_path: str = DEFAULT_API_PATH
    local_dev_mode: bool = False
    host_path_prefix: AnyText | None = None
    algorithms: Restriction | None = None
    secret_key_files: Texts = ()
    jwks: str | None = field(default=None, repr=False)
    jwks_interval: Timeout = 300.0
    jwks_ca_file: str | None = None
    issuer: Restriction | None = None
    audience: Restriction | None = None
    leeway: float | None = None
    allow_eternal_tokens: bool = False
    claim_user: OrderedTexts = ("/id", "/sub")
    claim_namespace: str = "/lab_instance/namespace_name"
    claim_vmis: str = "/lab_instance/allowed_vmi_names"
    claim_takeover: str = "/may_take_over"
    allow_vmi_patterns: bool = False
    namespaces: Restriction | None = None
    subresources: Texts = ()
    sslopt: Options = field(default_factory=lambda: {"ca_certs": SERVICE_ACCOUNT_CA}, repr=False)
    token_file: str = SERVICE_ACCOUNT_TOKEN
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    reject: str = "auto"
    credentials: Texts = ("path", "header", "subprotocol")
    cookie_name: str = "wsproxy_token"
    allow_origin: Restriction | None = None
    require_origin: bool = False
    trusted_proxies: Texts = ()
    forwarded_headers: str = "auto"
    proxy_protocol: bool = False
    tickets: bool = False
    web: str | None = None
    console_page: bool = False
    novnc: str | None = None
    xterm: str | None = None
    frame_ancestors: Texts = ()
    screenshots: bool = False
    console: OrderedTexts = ()
    show_user: bool = False
    request_timeout: Timeout = 10.0
    dial_timeout: Timeout = 10.0
    close_timeout: Timeout = 5.0
    drain_grace: Pause = 0.0
    drain_timeout: Pause = 0.0
    ping_interval: Timeout = 25.0
    max_frame_size: int = 16 * 1024 * 1024
    max_head_size: int = MAX_HEAD_SIZE
    max_pending: int = 512
    max_sessions: Count = 0
    max_sessions_per_user: Count = 0
    max_sessions_per_vmi: Count = 0
    max_pending_per_address: Count = 0
    max_failures: Count = 0
    grace: float = 0.0
    idle_timeout: Age = 0.0
    max_age: Age = 0.0
    host: AnyText = "::"
    port: Port = 5001
    listen: str | None = None
    reuse_port: bool = False
    log_level: str = "INFO"
    log_format: str = "text"
    audit_log: str | None = None
    admin: str | None = None
    admin_hosts: Texts = ()
    admin_token_file: str | None = None
    workers: int = 1
    cpu_affinity: str = "auto"

    # Made from the above while checking it.
    upstream: UpstreamURL = field(init=False, repr=False, compare=False)
    keyring: Keyring = field(init=False, repr=False, compare=False)
    jwks_location: JWKSLocation | None = field(init=False, repr=False, compare=False)
    claim_rules: ClaimRules = field(init=False, repr=False, compare=False)
    console_policies: ConsolePolicies = field(init=False, repr=False, compare=False)
    lifetime_rules: LifetimeRules = field(init=False, repr=False, compare=False)
    limit_rules: LimitRules = field(init=False, repr=False, compare=False)
    path_template: ApiPath = field(init=False, repr=False, compare=False)
    routes: RouteRules = field(init=False, repr=False, compare=False)
    origin_policy: OriginPolicy = field(init=False, repr=False, compare=False)
    ancestors: str = field(init=False, repr=False, compare=False)
    admin_address: ListenAddress | None = field(init=False, repr=False, compare=False)
    trusted: TrustedProxies = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults: list[str] = []
        wrong = read_fields(self, _INSTEAD, faults)
        upstream = collect(faults, lambda: UpstreamURL.parse(self.remote_url))
        policies = collect(faults, lambda: ConsolePolicies(self.console))
        path = collect(faults, lambda: ApiPath(self.api_path))
        prefix = collect(faults, lambda: prefix_segments(self.host_path_prefix))
        default = path.subresource if path else ""
        elsewhere = bool(self.secret_key_files or self.jwks)
        if self.screenshots and path and path.version_path is None:
            faults.append(
                "screenshots is set, but api_path is no path of the Kubernetes API; KubeVirt takes them"
            )
        made = {
            "upstream": upstream,
            "keyring": collect(faults, lambda: load_keyring(self.secret_key, self.algorithms, elsewhere)),
            "jwks_location": collect(faults, lambda: JWKSLocation.parse(self.jwks) if self.jwks else None),
            "claim_rules": collect(faults, self._claim_rules),
            "console_policies": policies,
            "lifetime_rules": LifetimeRules(self.grace, self.idle_timeout, self.max_age),
            "limit_rules": LimitRules(*(getattr(self, name) for name in _LIMITS)),
            "path_template": path,
            "routes": RouteRules(prefix or (), default, frozenset({default, *self.subresources})),
            "origin_policy": collect(faults, lambda: OriginPolicy(self.allow_origin, self.require_origin)),
            "ancestors": collect(faults, lambda: frame_ancestors(self.frame_ancestors)),
            "admin_address": collect(faults, self._admin_address),
            "trusted": collect(faults, self._trusted),
        }
        faults += self._faults(None if wrong & {"remote_url", "local_dev_mode"} else upstream)
        faults += self._worker_faults(policies)
        certificates = self.tls_client_ca is not None
        faults += credential_faults(self.credentials, self.cookie_name, self.allow_origin or (), certificates)
        if faults or wrong:
            raise ConfigError(faults)
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def _admin_address(self) -> ListenAddress | None:
        try:
            return None if self.admin is None else ListenAddress.parse(self.admin)
        except ValueError as exc:
            raise ConfigError([f"admin is {shown_url(self.admin or '')}; {exc}"]) from None

    def _trusted(self) -> TrustedProxies:
        return TrustedProxies.parse(self.trusted_proxies, self.forwarded_headers, self.proxy_protocol)

    def _claim_rules(self) -> ClaimRules:
        return ClaimRules.load(
            issuers=self.issuer,
            audiences=self.audience,
            leeway=self.leeway,
            eternal=self.allow_eternal_tokens,
            user=self.claim_user,
            namespace=self.claim_namespace,
            vmis=self.claim_vmis,
            takeover=self.claim_takeover,
            patterns=self.allow_vmi_patterns,
            namespaces=self.namespaces,
        )

    def _faults(self, upstream: UpstreamURL | None) -> list[str]:
        faults = []
        if upstream and not self.local_dev_mode and not upstream.tls:
            faults.append(
                f"remote_url is {self.remote_url!r} but local_dev_mode is off: the service-account token "
                "needs wss://; set LOCAL_DEV_MODE=true for kubectl proxy"
            )
        if upstream and self.local_dev_mode and upstream.tls:
            faults.append(
                f"remote_url is {self.remote_url!r} but local_dev_mode is on, which speaks no TLS; use ws://"
            )
        if self.leeway is not None and not 0 <= self.leeway <= _MAX_LEEWAY:
            faults.append(f"leeway is {self.leeway}; it must be seconds, 0 to {_MAX_LEEWAY}")
        if not self.grace >= 0:
            faults.append(f"grace is {self.grace}; it must be seconds, 0 or more, or inf")
        if self.max_frame_size < _MIN_FRAME_SIZE:
            faults.append(
                f"max_frame_size is {self.max_frame_size}; KubeVirt needs {_MIN_FRAME_SIZE} bytes or more"
            )
        if not MAX_HEAD_SIZE <= self.max_head_size <= _MAX_HEAD_SIZE:
            faults.append(
                f"max_head_size is {self.max_head_size}; it must be {MAX_HEAD_SIZE} to {_MAX_HEAD_SIZE}"
            )
        if self.max_pending < _MIN_PENDING:
            faults.append(f"max_pending is {self.max_pending}; it must be {_MIN_PENDING} or more")
        if self.listen is not None and (fault := listen_fault(self.listen, self.reuse_port)):
            faults.append(fault)
        if not 1 <= self.workers <= _MAX_WORKERS:
            faults.append(f"workers is {self.workers}; it must be 1 to {_MAX_WORKERS}")
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                faults.append(f"{name} is set but tls_cert is not; set it, or clients come without TLS")
        for name in ("novnc", "xterm"):
            if getattr(self, name) is not None and not self.console_page:
                faults.append(f"{name} is set but console_page is not; it is for that page")
        faults += sslopt_faults(self.sslopt)
        if self.frame_ancestors and not self.console_page and self.web is None:
            faults.append("frame_ancestors is set but neither console_page nor web is; it is for their pages")
        if self.admin_token_file is not None and self.admin is None:
            faults.append("admin_token_file is set but admin is not; say where the operator's listener is")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                shown = "LOGLEVEL" if name == "log_level" else name
                faults.append(f"{shown} is {value!r}; choose from {', '.join(choices)}")
        if bad := [name for name in self.subresources if not re.fullmatch(r"[a-z]+", name)]:
            faults.append(f"subresources has {bad[0]!r}; names such as vnc and console are meant")
        if bad := [name for name in self.namespaces or () if not is_dns_label(name)]:
            faults.append(f"namespaces has {bad[0]!r}, which is no Kubernetes name (DNS-1123 label)")
        return faults

    def _worker_faults(self, policies: ConsolePolicies | None) -> list[str]:
        faults = []
        limited = [name for name in _LIMITS if getattr(self, name) > 0]
        if limited and self.workers > 1:
            faults.append(
                f"workers is {self.workers}; each process would count {' and '.join(limited)} for itself: "
                "use one worker, or no such limit"
            )
        if policies and policies.arbitrate and self.workers > 1:
            faults.append(
                f"console is {', '.join(self.console)}, but workers is {self.workers}: each process knows "
                "only its own clients of a console; use one worker, or passthrough"
            )
        if self.tickets and self.workers > 1:
            faults.append(
                f"tickets are on, but workers is {self.workers}: a ticket is known only to the process that "
                "issued it; use one worker, or no tickets"
            )
        return faults

    # What each part of the proxy goes by.

    @property
    def access_rules(self) -> AccessRules:
        """Who may come in."""
        certificates = self.tls_client_ca is not None
        return AccessRules(
            self.routes, self.credentials, self.cookie_name, self.origin_policy, certificates, self.namespaces
        )

    @property
    def key_rules(self) -> KeyRules:
        """Where the keys of tokens are."""
        files, url = self.secret_key_files, self.jwks_location
        return KeyRules(self.keyring, self.algorithms, files, url, self.jwks_interval, self.jwks_ca_file)

    @property
    def upstream_rules(self) -> UpstreamRules:
        """Where the Kubernetes API is and how to get in."""
        return UpstreamRules(self.upstream, self.sslopt, self.token_file)

    @property
    def server_tls(self) -> ServerTLSFiles | None:
        """What TLS towards clients is made of, None if they come without."""
        if self.tls_cert is None:
            return None
        return ServerTLSFiles(self.tls_cert, self.tls_key or self.tls_cert, self.tls_client_ca)

    @property
    def file_rules(self) -> FileRules:
        """Which files are served to browsers."""
        mount = self.routes.prefix[-1:]
        return FileRules(self.ancestors, mount, self.web, self.console_page, self.novnc, self.xterm)

    @property
    def endpoint_rules(self) -> EndpointRules:
        """Which endpoints there are besides consoles."""
        return EndpointRules(self.routes, self.tickets, self.console_page, self.screenshots, self.grace)

    @property
    def url_rules(self) -> URLRules:
        """What URLs of consoles may hold."""
        return URLRules(self.routes, self.credentials, self.tickets, self.console_page)

    @property
    def picture_rules(self) -> PictureRules:
        """How pictures of screens are asked for."""
        return PictureRules(self.path_template, self.dial_timeout)
