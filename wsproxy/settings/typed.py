"""The types of all settings, for editors and type checkers. No I/O.

scripts/settings writes this file from the declarations; what is changed here is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

__all__ = ["ConfigOptions", "Options", "Settings"]


class Options(TypedDict, total=False):
    """What :class:`.WebsocketProxy` takes besides its first five parameters and its hooks."""

    token_file: str
    sslopt: Mapping[str, Any] | None
    dial_timeout: float
    secret_key_files: str | Iterable[str]
    jwks: str | None
    jwks_interval: float
    jwks_ca_file: str | None
    algorithms: str | Iterable[str] | None
    issuer: str | Iterable[str] | None
    audience: str | Iterable[str] | None
    leeway: float | None
    allow_eternal_tokens: bool
    claim_user: str | Iterable[str]
    claim_namespace: str
    claim_vmis: str
    claim_takeover: str
    allow_vmi_patterns: bool
    namespaces: str | Iterable[str] | None
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None
    credentials: str | Iterable[str]
    cookie_name: str
    tickets: bool
    allow_origin: str | Iterable[str] | None
    require_origin: bool
    reject: str
    trusted_proxies: str | Iterable[str]
    forwarded_headers: str
    proxy_protocol: bool
    subresources: str | Iterable[str]
    console: str | Iterable[str]
    show_user: bool
    screenshots: bool
    console_page: bool
    novnc: str | None
    xterm: str | None
    web: str | None
    frame_ancestors: str | Iterable[str]
    request_timeout: float
    close_timeout: float
    ping_interval: float
    grace: float
    idle_timeout: float
    max_age: float
    max_frame_size: int
    max_head_size: int
    max_pending: int
    max_sessions: int
    max_sessions_per_user: int
    max_sessions_per_vmi: int
    max_pending_per_address: int
    max_failures: int
    drain_grace: float
    drain_timeout: float
    audit_log: str | None
    admin: str | None
    admin_hosts: str | Iterable[str]
    admin_token_file: str | None


class ConfigOptions(Options, total=False):
    """What :class:`.Config` takes besides ``remote_url`` and ``secret_key``."""

    local_dev_mode: bool
    host: str
    port: int
    listen: str | None
    reuse_port: bool
    host_path_prefix: str | None
    api_path: str
    workers: int
    cpu_affinity: str
    log_level: str
    log_format: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The value of each setting, as somebody gave it, or its default."""

    local_dev_mode: bool
    """Connect to the API without TLS and without a service account, as ``kubectl proxy`` wants it.
    (default: ``false``)"""

    remote_url: str
    """URL of the Kubernetes API: ``wss://HOST:PORT``, or ``ws://HOST:PORT`` if ``local_dev_mode`` is on.
    (default: made from the next three)"""

    token_file: str
    """File with the bearer token that the proxy shows to the API. (default: the service account's
    ``token``)"""

    sslopt: Mapping[str, Any] = field(repr=False)
    """TLS towards the API, in the vocabulary of websocket-client. ``ca_certs`` in it is ``ca_file``.
    (default: the service account's ``ca.crt`` as ``ca_certs``)"""

    dial_timeout: float
    """Time in which the proxy connects to the API: name, TCP, TLS and handshake together. (seconds;
    default: ``10``)"""

    secret_key: str | bytes | Sequence[str | bytes] = field(repr=False)
    """Secret that tokens are signed with (32 bytes or more), or public keys (PEM). ``secret_key_files`` or
    ``jwks`` may take its place. (default: none)"""

    secret_key_files: tuple[str, ...]
    """Files that each hold a secret, or public keys (PEM)."""

    jwks: str | None = field(repr=False)
    """JWK Set with the keys of tokens: a file, or an ``https`` URL. ``http`` is for addresses of this
    machine only."""

    jwks_interval: float
    """Time from one fetch of the JWK Set's URL to the next. (seconds; default: ``300``)"""

    jwks_ca_file: str | None
    """File with the authorities of that URL's certificate. (default: the system's)"""

    algorithms: tuple[str, ...] | None
    """The only JWS algorithms that keys may be used for. (default: ``HS256`` for a secret, and all that a
    public key is for)"""

    issuer: tuple[str, ...] | None
    """The only issuers (``iss``) whose tokens the proxy accepts. (default: any)"""

    audience: tuple[str, ...] | None
    """The audiences (``aud``) whose tokens the proxy accepts. Without it the proxy refuses every token
    that names an audience."""

    leeway: float | None
    """How far the clock of the token's issuer may be off, 0 to 300. (seconds; default: 5 for ``nbf`` and
    ``iat``, 0 for ``exp``)"""

    allow_eternal_tokens: bool
    """Accept tokens without ``exp``. (default: ``false``)"""

    claim_user: tuple[str, ...]
    """JSON pointers to the user. The first one that leads somewhere counts. (default: ``/id,/sub``)"""

    claim_namespace: str
    """JSON pointer to the namespace. (default: ``/lab_instance/namespace_name``)"""

    claim_vmis: str
    """JSON pointer to the list of VMs. (default: ``/lab_instance/allowed_vmi_names``)"""

    claim_takeover: str
    """JSON pointer to a claim that forbids takeovers if it is ``false``. (default: ``/may_take_over``)"""

    allow_vmi_patterns: bool
    """Let ``*`` in the list of VMs stand for any characters. (default: ``false``)"""

    namespaces: tuple[str, ...] | None
    """The only namespaces that the proxy serves. (default: all)"""

    host: str
    """Address that the proxy listens on. ``::`` is every address, IPv6 and IPv4; ``0.0.0.0`` is every IPv4
    address. (default: ``::``)"""

    port: int
    """TCP port that the proxy listens on. With 0 the system chooses a free one. (default: ``5001``)"""

    listen: str | None
    """Where the proxy listens instead: ``unix:PATH``, or ``fd:NUMBER`` for an inherited socket."""

    reuse_port: bool
    """Let a successor listen at the same port, or take over the same path, before this process stops.
    (default: ``false``)"""

    host_path_prefix: str | None
    """Path in front of every route, such as ``ws_proxy`` or ``a/b``."""

    tls_cert: str | None
    """File with the certificate chain (PEM) that clients see. Without it clients connect without TLS."""

    tls_key: str | None
    """File with the private key (PEM, no password), if ``tls_cert`` does not hold the key."""

    tls_client_ca: str | None
    """File with authorities (PEM). If it is set, each client needs a certificate that one of them has
    signed."""

    credentials: tuple[str, ...]
    """Where a token may stand: ``path``, ``header``, ``subprotocol``, ``query``, ``cookie``. A cookie
    needs ``allow_origin``. (default: ``path,header,subprotocol``)"""

    cookie_name: str
    """Name of the cookie that holds a token. (default: ``wsproxy_token``)"""

    tickets: bool
    """Let ``POST /ticket`` exchange a token for a one-time ticket. This needs one worker. (default:
    ``false``)"""

    allow_origin: tuple[str, ...] | None
    """Origins of the pages that may use the proxy, such as ``https://console.example``, or ``*`` for all.
    The proxy's own pages always may. (default: any page that knows a token)"""

    require_origin: bool
    """Refuse clients that send no ``Origin``, since they are not browsers. (default: ``false``)"""

    reject: str
    """How the proxy refuses a WebSocket. ``auto`` sends browsers a Close frame, and all other clients an
    HTTP status. (default: ``auto``)"""

    trusted_proxies: tuple[str, ...]
    """Addresses and networks of the proxies whose ``X-Forwarded-*`` or ``Forwarded`` headers count.
    ``unix`` stands for every client of a Unix socket."""

    forwarded_headers: str
    """Which of these headers count. With ``auto`` both do, if they agree. (default: ``auto``)"""

    proxy_protocol: bool
    """Expect a PROXY protocol header on each connection from ``trusted_proxies``, and on no other.
    (default: ``false``)"""

    api_path: str
    """Path of a console at the API, with ``{namespace}`` and ``{vmi_name}``. It may name any subresource
    that streams over a WebSocket. (default: KubeVirt's v1 path of ``vnc``)"""

    subresources: tuple[str, ...]
    """Further subresources that ``/TOKEN/VMI/SUBRESOURCE`` may name, such as ``console``."""

    console: tuple[str, ...]
    """Who keeps a console that several clients want: ``passthrough``, ``takeover``, ``refuse``, or rules.
    Rules are separated by commas, such as ``exam-*/*/vnc=refuse``, and the first that fits counts.
    ``passthrough`` is all that several workers can do. (default: ``passthrough``)"""

    show_user: bool
    """Tell a client which user has its console, or took it over. (default: ``false``)"""

    screenshots: bool
    """Answer ``/TOKEN/VMI/screenshot.png`` with a picture of the VM's screen. (default: ``false``)"""

    console_page: bool
    """Serve the console page at ``/console/``. (default: ``false``)"""

    novnc: str | None
    """Directory with noVNC for the console page. (default: ``/usr/share/novnc``, if it is there)"""

    xterm: str | None
    """Directory with xterm.js for serial consoles on the console page. Without it the page shows none."""

    web: str | None
    """Directory of a web client, such as noVNC, whose files the proxy serves. SIGHUP reads them again."""

    frame_ancestors: tuple[str, ...]
    """Pages that may show the proxy's pages in a frame: ``self``, and origins such as
    ``https://lab.example``."""

    request_timeout: float
    """Time in which a client has to send its whole request, and in which a refusal has to be sent.
    (seconds; default: ``10``)"""

    close_timeout: float
    """Time in which a session ends, from the first cause. (seconds; default: ``5``)"""

    ping_interval: float
    """Time between pings to the client, and to the API. A side that is silent for two of them counts as
    dead. (seconds; default: ``25``)"""

    grace: float
    """Time by which a session outlives its token; ``inf`` for ever. (seconds; default: ``0``)"""

    idle_timeout: float
    """Time for which a client may send no data; 0 for ever. (seconds; default: 0: for ever)"""

    max_age: float
    """Longest time that a session may last; 0 for ever. (seconds; default: 0: for ever)"""

    max_frame_size: int
    """Largest payload of a WebSocket frame, 65536 or more. (bytes; default: ``16777216``)"""

    max_head_size: int
    """Largest head of a request, 16384 to 131072. Raise it if cookies, or a login in front, make heads
    larger. (bytes; default: ``16384``)"""

    max_pending: int
    """Clients of one process that may be connected without having authenticated, 8 or more. (default:
    ``512``)"""

    max_sessions: int
    """Sessions in all. This limit and the next four need one worker. (default: 0: any number)"""

    max_sessions_per_user: int
    """Sessions of one user, as the token names the user. (default: 0: any number)"""

    max_sessions_per_vmi: int
    """Sessions with one subresource of one VM. (default: 0: any number)"""

    max_pending_per_address: int
    """Clients from one address that may be connected without having authenticated. (default: 0: any
    number)"""

    max_failures: int
    """Attempts from one address that may fail to authenticate in a minute. (default: 0: any number)"""

    workers: int
    """Number of processes that serve, 1 to 64. (default: ``1``)"""

    cpu_affinity: str
    """``auto`` keeps the Python threads of each process on one CPU; ``off`` leaves CPUs alone. (default:
    ``auto``)"""

    drain_grace: float
    """Time after SIGTERM in which new clients are still accepted while ``/readyz`` says 503. (seconds;
    default: ``0``)"""

    drain_timeout: float
    """Time after ``drain_grace`` in which open sessions may go on, before the proxy closes them. (seconds;
    default: ``0``)"""

    log_level: str
    """Least severe messages that the program logs. (default: ``INFO``)"""

    log_format: str
    """Form of the log's lines. With ``json`` each line is one JSON object. (default: ``text``)"""

    audit_log: str | None
    """File to which the proxy appends a JSON line for each session that opens or ends, and each refusal.
    SIGHUP opens it anew. ``-`` is standard output."""

    admin: str | None
    """Where the operator's listener is: ``HOST:PORT`` or ``unix:PATH``. It serves metrics, the list of
    sessions, and kicks."""

    admin_hosts: tuple[str, ...]
    """Names that requests to ``admin`` may have as their host, besides addresses and ``localhost``."""

    admin_token_file: str | None
    """File with the bearer token that lists and ends sessions there. The proxy makes it if it is missing.
    (default: a file of the user's own; none where ``admin`` is a path)"""
