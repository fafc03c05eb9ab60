"""The types of all settings, for editors and type checkers. No I/O.

scripts/settings generates this file from the declarations. Do not edit it by hand.
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
    token_lifetime: float | None
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
    state: str
    state_unavailable: str
    state_lease: float
    state_group: str | None
    state_file: str | None
    state_prefix: str
    state_ca_file: str | None
    state_password_file: str | None
    replica_name: str | None
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
    """The value of each setting: the one that was given, or the default."""

    local_dev_mode: bool
    """Connect to the API without TLS and without a service account, as ``kubectl proxy`` requires.
    (default: ``false``)"""

    remote_url: str
    """URL of the Kubernetes API: ``wss://HOST:PORT``, or ``ws://HOST:PORT`` if ``local_dev_mode`` is on.
    (default: made from the next three settings)"""

    token_file: str
    """File with the bearer token that the proxy sends to the API. (default: the service account's
    ``token``)"""

    sslopt: Mapping[str, Any] = field(repr=False)
    """TLS options for the API, with the names that websocket-client gives them. ``ca_certs`` is the same
    as ``ca_file``. (default: the service account's ``ca.crt`` as ``ca_certs``)"""

    dial_timeout: float
    """Time in which the proxy must connect to the API: name resolution, TCP, TLS and opening handshake
    together. (seconds; default: ``10``)"""

    secret_key: str | bytes | Sequence[str | bytes] = field(repr=False)
    """Secret that signs tokens (use 32 bytes or more), or public keys (PEM) that verify them.
    ``secret_key_files`` or ``jwks`` may replace it. (default: none)"""

    secret_key_files: tuple[str, ...]
    """Files that each contain a secret, or public keys (PEM)."""

    jwks: str | None = field(repr=False)
    """JWK Set with the keys that verify tokens: a file, or an ``https`` URL. An ``http`` URL must have a
    loopback address."""

    jwks_interval: float
    """Time between two fetches of the URL in ``jwks``. (seconds; default: ``300``)"""

    jwks_ca_file: str | None
    """File with the certificate authorities (PEM) for the URL in ``jwks``. (default: the system's)"""

    algorithms: tuple[str, ...] | None
    """The only JWS algorithms that the proxy accepts. (default: ``HS256`` for a secret, and all algorithms
    that fit a public key)"""

    issuer: tuple[str, ...] | None
    """The only issuers (``iss``) whose tokens the proxy accepts. (default: any)"""

    audience: tuple[str, ...] | None
    """The only audiences (``aud``) whose tokens the proxy accepts. Without it, the proxy refuses every
    token that names an audience."""

    leeway: float | None
    """Tolerated clock difference to the issuer of a token, 0 to 300. (seconds; default: 5 for ``nbf`` and
    ``iat``, 0 for ``exp``)"""

    allow_eternal_tokens: bool
    """Accept tokens without ``exp``. (default: ``false``)"""

    token_lifetime: float | None
    """Longest life that the issuer gives tokens. A token without ``iat`` counts as issued that long before
    its ``exp``. Only revocations use this. (seconds; default: unknown)"""

    claim_user: tuple[str, ...]
    """JSON pointers to the user. The proxy uses the first one whose claim the token has. (default:
    ``/id,/sub``)"""

    claim_namespace: str
    """JSON pointer to the namespace. (default: ``/lab_instance/namespace_name``)"""

    claim_vmis: str
    """JSON pointer to the list of VMs. (default: ``/lab_instance/allowed_vmi_names``)"""

    claim_takeover: str
    """JSON pointer to a claim. If the claim is ``false``, the token cannot take over consoles. (default:
    ``/may_take_over``)"""

    allow_vmi_patterns: bool
    """Let ``*`` in the token's list of VMs match any characters. (default: ``false``)"""

    namespaces: tuple[str, ...] | None
    """The only namespaces that the proxy serves. (default: all)"""

    host: str
    """Address that the proxy listens on. ``::`` means every IPv6 and IPv4 address. ``0.0.0.0`` means every
    IPv4 address. (default: ``::``)"""

    port: int
    """TCP port that the proxy listens on. If it is 0, the kernel chooses a free port. (default: ``5001``)"""

    listen: str | None
    """Where the proxy listens instead of ``host`` and ``port``: ``unix:PATH``, or ``fd:NUMBER`` for an
    inherited socket."""

    reuse_port: bool
    """Let a successor process listen on the same port, or take over the same path, before this process
    stops. (default: ``false``)"""

    host_path_prefix: str | None
    """Path in front of every route, such as ``ws_proxy`` or ``a/b``."""

    tls_cert: str | None
    """File with the certificate chain (PEM) that the proxy shows to clients. Without it, clients connect
    without TLS."""

    tls_key: str | None
    """File with the private key (PEM, without a password), if the file in ``tls_cert`` does not contain
    it."""

    tls_client_ca: str | None
    """File with certificate authorities (PEM). If it is set, each client must present a certificate that
    one of them has signed."""

    credentials: tuple[str, ...]
    """Where clients may send a token: ``path``, ``header``, ``subprotocol``, ``query``, ``cookie``.
    ``cookie`` requires ``allow_origin``. (default: ``path,header,subprotocol``)"""

    cookie_name: str
    """Name of the cookie that contains a token. (default: ``wsproxy_token``)"""

    tickets: bool
    """Let clients exchange a token for a one-time ticket by ``POST /ticket``. (default: ``false``)"""

    allow_origin: tuple[str, ...] | None
    """Origins of the pages that may connect, such as ``https://console.example``, or ``*`` for all. The
    proxy's own pages may always connect. (default: any page that has a token)"""

    require_origin: bool
    """Refuse clients that send no ``Origin`` header. Browsers send one with every WebSocket handshake.
    (default: ``false``)"""

    reject: str
    """How the proxy refuses a WebSocket. With ``auto``, browsers get a Close frame, and other clients get
    an HTTP status. (default: ``auto``)"""

    trusted_proxies: tuple[str, ...]
    """Addresses and networks of the proxies in front whose ``X-Forwarded-*`` or ``Forwarded`` headers
    wsproxy trusts. ``unix`` stands for every client of a Unix socket."""

    forwarded_headers: str
    """Which of these headers the proxy reads. With ``auto`` it reads both, and refuses requests in which
    they disagree. (default: ``auto``)"""

    proxy_protocol: bool
    """Require a PROXY protocol header on each connection from ``trusted_proxies``, and on no other.
    (default: ``false``)"""

    api_path: str
    """Path of a console at the API, with ``{namespace}`` and ``{vmi_name}``. It may name any subresource
    that streams over a WebSocket. (default: KubeVirt's v1 path of ``vnc``)"""

    subresources: tuple[str, ...]
    """Further subresources that clients may open as ``/TOKEN/VMI/SUBRESOURCE``, such as ``console``."""

    console: tuple[str, ...]
    """What happens if several clients want a console: ``passthrough``, ``takeover``, ``refuse``, or rules
    such as ``exam-*/*/vnc=refuse``. Commas separate rules, and the first that matches counts. Several
    workers support ``passthrough`` only. (default: ``passthrough``)"""

    show_user: bool
    """Tell clients which user has the console that they want, or took it over. (default: ``false``)"""

    screenshots: bool
    """Answer ``/TOKEN/VMI/screenshot.png`` with a screenshot of the VM. (default: ``false``)"""

    console_page: bool
    """Serve the console page at ``/console/``. (default: ``false``)"""

    novnc: str | None
    """Directory with noVNC for the console page. (default: ``/usr/share/novnc``, if it exists)"""

    xterm: str | None
    """Directory with xterm.js for the console page. Without it, the page shows no serial consoles."""

    web: str | None
    """Directory of a web client, such as noVNC. The proxy serves its files, and reads them again on
    SIGHUP."""

    frame_ancestors: tuple[str, ...]
    """Origins that may embed the proxy's pages in a frame, such as ``https://lab.example``. ``self`` is
    the proxy's own origin."""

    request_timeout: float
    """Time in which a client must send its whole request. It also bounds the sending of a refusal.
    (seconds; default: ``10``)"""

    close_timeout: float
    """Time in which a session must end, from the first cause on. (seconds; default: ``5``)"""

    ping_interval: float
    """Time between pings to the client, and to the API. If either side is silent for two intervals, the
    proxy treats it as dead. (seconds; default: ``25``)"""

    grace: float
    """Time for which a session may continue after its token expires. ``inf`` means no limit. (seconds;
    default: ``0``)"""

    idle_timeout: float
    """Time after which the proxy ends a session whose client sends no data. (seconds; default: 0: no
    limit)"""

    max_age: float
    """Longest duration of a session. (seconds; default: 0: no limit)"""

    max_frame_size: int
    """Largest payload of a WebSocket frame, at least 65536. (bytes; default: ``16777216``)"""

    max_head_size: int
    """Largest head of a request, 16384 to 131072. Raise it if cookies or a login proxy make heads larger.
    (bytes; default: ``16384``)"""

    max_pending: int
    """Maximum number of clients of one process that are connected and have not authenticated. At least 8.
    (default: ``512``)"""

    max_sessions: int
    """Maximum number of sessions in total, in all processes that share ``state``. (default: 0: no limit)"""

    max_sessions_per_user: int
    """Maximum number of sessions of one user. The token names the user. (default: 0: no limit)"""

    max_sessions_per_vmi: int
    """Maximum number of sessions with one subresource of one VM. (default: 0: no limit)"""

    max_pending_per_address: int
    """Maximum number of clients of one address that are connected and have not authenticated. (default: 0:
    no limit)"""

    max_failures: int
    """Maximum number of failed attempts to authenticate from one address in a minute. (default: 0: no
    limit)"""

    workers: int
    """Number of processes that serve clients, 1 to 64. (default: ``1``)"""

    cpu_affinity: str
    """With ``auto``, the Python threads of each process run on one CPU. With ``off``, the proxy sets no
    CPU affinity. (default: ``auto``)"""

    drain_grace: float
    """Time after SIGTERM in which the proxy still accepts clients, while ``/readyz`` answers 503.
    (seconds; default: ``0``)"""

    drain_timeout: float
    """Time after ``drain_grace`` in which open sessions may continue. Then the proxy closes them.
    (seconds; default: ``0``)"""

    state: str = field(repr=False)
    """Where limits, tickets, consoles and revocations are kept. ``memory`` is in each process.
    ``local:PATH`` is a store for the processes of one host, at a Unix socket. ``redis://``, ``rediss://``,
    ``redis+unix://``, ``redis+sentinel://`` and ``redis+cluster://`` URLs are a Redis or Valkey for all
    replicas. (default: ``memory``)"""

    state_unavailable: str
    """What happens to new sessions while the store does not answer. With ``refuse``, clients get 503. With
    ``local``, each process counts for itself, and applies the revocations that it knows. So there may be
    more sessions than the limits allow, and no tickets. (default: ``refuse``)"""

    state_lease: float
    """Time after which the store forgets a process that is silent, with its sessions. 0.3 to 600.
    (seconds; default: ``15``)"""

    state_group: str | None
    """Group whose members may use the store of ``local:PATH``, too: a name or a number. (default: the user
    of the first process alone)"""

    state_file: str | None
    """File in which a process with ``memory`` keeps revocations, so that they outlive a restart."""

    state_prefix: str
    """Beginning of the names of all keys in a Redis, so that several deployments can share it. (default:
    ``wsproxy``)"""

    state_ca_file: str | None
    """File with the certificate authorities (PEM) for a ``rediss://`` URL. (default: the system's)"""

    state_password_file: str | None
    """File with the password of a Redis. The user's name is in the URL, such as ``redis://USER@HOST``."""

    replica_name: str | None
    """Name of this replica in lists of sessions. (default: the host's name)"""

    log_level: str
    """Lowest level of the messages that the program logs. (default: ``INFO``)"""

    log_format: str
    """Format of log lines. With ``json``, each line is one JSON object. (default: ``text``)"""

    audit_log: str | None
    """File to which the proxy appends a JSON line for each session that opens or ends, and for each
    refusal. On SIGHUP the proxy reopens it. ``-`` means standard output."""

    admin: str | None
    """Address of the operator's listener: ``HOST:PORT`` or ``unix:PATH``. It serves metrics, and lists and
    ends sessions. Of several processes of an application that share their state, one gets it."""

    admin_hosts: tuple[str, ...]
    """Names that requests to ``admin`` may have in their ``Host`` header, besides IP addresses and
    ``localhost``."""

    admin_token_file: str | None
    """File with the bearer token for listing and ending sessions. If it does not exist, the proxy creates
    it. (default: a file in a directory of the proxy's user; no token if ``admin`` is a path)"""
