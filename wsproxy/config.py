"""Every setting of the proxy, checked as a whole. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .exceptions import ConfigError
from .keys import VerificationKey
from .routing import ApiPath, host_and_port, prefix_segments

__all__ = [
    "DEFAULT_API_PATH",
    "SERVICE_ACCOUNT_CA",
    "SERVICE_ACCOUNT_TOKEN",
    "SETTINGS",
    "Config",
    "Setting",
    "UpstreamURL",
]

DEFAULT_API_PATH = (
    "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vmi_name}/vnc"
)
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVICE_ACCOUNT_CA = f"{_SERVICE_ACCOUNT}/ca.crt"
SERVICE_ACCOUNT_TOKEN = f"{_SERVICE_ACCOUNT}/token"

CPU_AFFINITIES = ("auto", "off")
REJECT_MODES = ("auto", "http", "close")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_MIN_FRAME_SIZE = 65536
_MAX_WORKERS = 64

T = TypeVar("T")


@dataclass(frozen=True)
class UpstreamURL:
    """Where the Kubernetes API is.

    :ivar host: a name or an IP address, without brackets.
    :ivar path: a path in front of every API path, "" for none.
    """

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> UpstreamURL:
        """Parse a ``ws://`` or ``wss://`` URL.

        :raises ConfigError: if it is none.
        """
        if "@" in url:  # not quoted: it holds a password
            raise ConfigError(["remote_url has a user name in it; the service-account token is what lets in"])
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ConfigError([f"remote_url is {url!r}: {exc}"]) from exc
        extra = parts.query or parts.fragment
        if parts.scheme not in ("ws", "wss") or not host or extra or not re.fullmatch(r"[!-~]+", url):
            raise ConfigError([f"remote_url is {url!r}; it must look like wss://HOST:PORT or ws://HOST:PORT"])
        tls = parts.scheme == "wss"
        return cls(host, port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    def url(self, path: str) -> str:
        """Return the whole URL of an API path."""
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{host_and_port(self.host, self.port)}{self.path}{path}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one proxy.

    :param remote_url: base URL of the Kubernetes API; ``wss://`` in a cluster, ``ws://`` in dev mode.
    :param api_path: path of a VMI's subresource with ``{namespace}`` and ``{vmi_name}``.
    :param local_dev_mode: no TLS and no service-account token, as behind ``kubectl proxy``.
    :param secret_key: the HMAC secret of the tokens, or a PEM public key.
    :param host_path_prefix: path in front of every route; None or "" for none.
    :param algorithms: JWS algorithms that the key may be used for.
    :param subresources: subresources that a path may name besides the one of ``api_path``.
    :param sslopt: TLS towards the API in websocket-client's vocabulary (:class:`.ClientTLS`).
    :param token_file: file with the service account's bearer token.
    :param reject: "auto" (browsers get a Close frame, others HTTP), "http" or "close".
    :param request_timeout: seconds for a whole request head, and for a refusal.
    :param dial_timeout: seconds for connecting upstream: name, TCP, TLS and handshake together.
    :param close_timeout: seconds in which every session ends, from the first cause.
    :param ping_interval: seconds between pings on each leg; a dead leg is found after two to three.
    :param max_frame_size: largest WebSocket frame, bytes of payload.
    :param host: address to listen on; ``::`` is dual-stack.
    :param port: TCP port to listen on, 0 for any.
    :param log_level: what the program logs.
    :param workers: how many processes the program serves with; :class:`.WebsocketProxy` is always one.
    :param cpu_affinity: "auto" (each process of the program keeps the threads that run Python on one CPU) or
        "off"; of no meaning for :class:`.WebsocketProxy`.
    :raises ConfigError: listing every fault.
    """

    remote_url: str
    secret_key: str | bytes = field(repr=False)
    api_path: str = DEFAULT_API_PATH
    local_dev_mode: bool = False
    host_path_prefix: str | None = None
    algorithms: tuple[str, ...] = ("HS256",)
    subresources: tuple[str, ...] = ()
    sslopt: Mapping[str, Any] = field(default_factory=lambda: {"ca_certs": SERVICE_ACCOUNT_CA}, repr=False)
    token_file: str = SERVICE_ACCOUNT_TOKEN
    reject: str = "auto"
    request_timeout: float = 10.0
    dial_timeout: float = 10.0
    close_timeout: float = 5.0
    ping_interval: float = 25.0
    max_frame_size: int = 16 * 1024 * 1024
    host: str = "0.0.0.0"
    port: int = 5001
    log_level: str = "INFO"
    workers: int = 1
    cpu_affinity: str = "auto"

    # Made from the above while checking it.
    upstream: UpstreamURL = field(init=False, repr=False, compare=False)
    verification_key: VerificationKey = field(init=False, repr=False, compare=False)
    path_template: ApiPath = field(init=False, repr=False, compare=False)
    prefix: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults: list[str] = []
        upstream = _collect(faults, lambda: UpstreamURL.parse(self.remote_url))
        made = {
            "upstream": upstream,
            "verification_key": _collect(
                faults, lambda: VerificationKey.load(self.secret_key, self.algorithms)
            ),
            "path_template": _collect(faults, lambda: ApiPath(self.api_path)),
            "prefix": _collect(faults, lambda: prefix_segments(self.host_path_prefix)),
        }
        faults += self._faults(upstream)
        if faults:
            raise ConfigError(faults)
        for name, value in made.items():
            object.__setattr__(self, name, value)

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
        for name in ("request_timeout", "dial_timeout", "close_timeout", "ping_interval"):
            if not 0 < getattr(self, name) < 86400:
                faults.append(f"{name} is {getattr(self, name)}; it must be seconds, above 0 and below a day")
        if self.max_frame_size < _MIN_FRAME_SIZE:
            faults.append(
                f"max_frame_size is {self.max_frame_size}; KubeVirt needs {_MIN_FRAME_SIZE} bytes or more"
            )
        if not 0 <= self.port <= 65535:
            faults.append(f"port is {self.port}; it must be 0 to 65535")
        if not 1 <= self.workers <= _MAX_WORKERS:
            faults.append(f"workers is {self.workers}; it must be 1 to {_MAX_WORKERS}")
        if self.reject not in REJECT_MODES:
            faults.append(f"reject is {self.reject!r}; choose from {', '.join(REJECT_MODES)}")
        if self.cpu_affinity not in CPU_AFFINITIES:
            faults.append(f"cpu_affinity is {self.cpu_affinity!r}; choose from {', '.join(CPU_AFFINITIES)}")
        if self.log_level not in _LOG_LEVELS:
            faults.append(f"LOGLEVEL is {self.log_level!r}; choose from {', '.join(_LOG_LEVELS)}")
        if bad := [name for name in self.subresources if not re.fullmatch(r"[a-z]+", name)]:
            faults.append(f"subresources has {bad[0]!r}; names such as vnc and console are meant")
        return faults

    @property
    def enabled_subresources(self) -> frozenset[str]:
        """The subresources that a path may name."""
        return frozenset({self.path_template.subresource, *self.subresources})

    @classmethod
    def from_env(cls, environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Config:
        """Read the program's settings.

        :param environ: such as ``os.environ``; a variable that is empty counts as not set.
        :param flags: values by the same names, which win; None counts as not given.
        :raises ConfigError: listing every fault.
        """
        given = {name: value for name, value in environ.items() if value or name == "SECRET_KEY"}
        given.update({name: value for name, value in (flags or {}).items() if value is not None})
        faults = _unknown_variables(given)
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            if setting.env in given and setting.target:
                value = _collect(faults, lambda s=setting: s.parse(given[s.env]))  # type: ignore[misc]
                if value is not None:
                    values[setting.target] = value
        values.setdefault("secret_key", "")
        # Where the mode itself is a fault, neither mode's further demands are added to it.
        values.setdefault("local_dev_mode", "LOCAL_DEV_MODE" in given)
        if "ca_certs" in values:
            values["sslopt"] = {"ca_certs": values.pop("ca_certs")}
        values["remote_url"] = _remote_url(given, values["local_dev_mode"], faults)
        config = _collect(faults, lambda: cls(**values))
        if config is None or faults:
            raise ConfigError(faults)
        return config


def _collect(faults: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ConfigError as exc:
        faults.extend(exc.faults)
        return None


def _remote_url(given: Mapping[str, str], dev: bool, faults: list[str]) -> str:
    if dev:
        return given.get("WS_REMOTE_URL", "ws://localhost:8001")
    host, port = given.get("KUBERNETES_SERVICE_HOST"), given.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        faults.append(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run in a cluster, "
            "or set LOCAL_DEV_MODE=true"
        )
        return "wss://unset"
    return f"wss://{host_and_port(host, port)}"


def _unknown_variables(given: Mapping[str, str]) -> list[str]:
    """Find misspelt settings; Kubernetes injects two families of variables for a Service named wsproxy."""
    known = {setting.env for setting in SETTINGS}
    injected = ("WSPROXY_PORT", "WSPROXY_SERVICE_")
    return [
        f"{name} is not a setting; see wsproxy serve --help"
        for name in sorted(given)
        if name.startswith("WSPROXY_") and name not in known and not name.startswith(injected)
    ]


@dataclass(frozen=True)
class Setting:
    """One setting of the program.

    :ivar env: the environment variable; the flag is made from it.
    :ivar target: the field of :class:`Config`, "" where several make one.
    :ivar convert: text to value; raises ValueError.
    :ivar default: what the help shows.
    """

    env: str
    target: str
    convert: Callable[[str], Any]
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.env.removeprefix("WSPROXY_").lower().replace("_", "-")

    def parse(self, text: str) -> Any:
        """Convert ``text``.

        :raises ConfigError: naming the variable; a secret is not quoted.
        """
        try:
            return self.convert(text)
        except ValueError as exc:
            raise ConfigError([f"{self.env} is {text!r}; {exc}"]) from None


def _number(kind: Callable[[str], T], what: str) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"it must be {what}") from None

    return convert


def _flag(text: str) -> bool:
    value = text.strip().lower()
    if value in ("y", "yes", "t", "true", "on", "1"):
        return True
    if value in ("n", "no", "f", "false", "off", "0"):
        return False
    raise ValueError("it must be true or false")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


_seconds = _number(float, "a number of seconds")
_DEFAULTS = {item.name: item.default for item in fields(Config)}


def _setting(env: str, target: str, convert: Callable[[str], Any], help: str) -> Setting:
    return Setting(env, target, convert, _DEFAULTS[target], help)


SETTINGS = (
    Setting("SECRET_KEY", "secret_key", str, None, "secret of the tokens, or a PEM public key"),
    _setting("LOCAL_DEV_MODE", "local_dev_mode", _flag, "no TLS and no service account: for kubectl proxy"),
    _setting("HOST", "host", str, "address to listen on; :: is dual-stack"),
    _setting("PORT", "port", _number(int, "a number"), "TCP port to listen on"),
    _setting("HOST_PATH_PREFIX", "host_path_prefix", str, "path in front of every route"),
    Setting("KUBERNETES_SERVICE_HOST", "", str, None, "host of the API, set by Kubernetes in every pod"),
    Setting("KUBERNETES_SERVICE_PORT", "", str, None, "port of the API, set by Kubernetes in every pod"),
    Setting("WS_REMOTE_URL", "", str, "ws://localhost:8001", "URL of the API in dev mode"),
    _setting("LOGLEVEL", "log_level", str.upper, "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    _setting("WSPROXY_API_PATH", "api_path", str, "API path with {namespace} and {vmi_name}"),
    Setting("WSPROXY_SUBRESOURCES", "subresources", _names, None, "further subresources a path may name"),
    Setting("WSPROXY_ALGORITHMS", "algorithms", _names, "HS256", "JWS algorithms, separated by commas"),
    Setting("WSPROXY_CA_FILE", "ca_certs", str, SERVICE_ACCOUNT_CA, "authorities of the API's certificate"),
    _setting("WSPROXY_TOKEN_FILE", "token_file", str, "bearer token of the service account"),
    _setting("WSPROXY_REJECT", "reject", str.lower, "how to refuse: auto, http or close"),
    _setting("WSPROXY_REQUEST_TIMEOUT", "request_timeout", _seconds, "seconds for a whole request head"),
    _setting("WSPROXY_DIAL_TIMEOUT", "dial_timeout", _seconds, "seconds for connecting to the API"),
    _setting("WSPROXY_CLOSE_TIMEOUT", "close_timeout", _seconds, "seconds in which every session ends"),
    _setting("WSPROXY_PING_INTERVAL", "ping_interval", _seconds, "seconds between pings on each leg"),
    _setting("WSPROXY_MAX_FRAME_SIZE", "max_frame_size", _number(int, "a number"), "largest frame, bytes"),
    _setting("WSPROXY_WORKERS", "workers", _number(int, "a whole number"), "processes to serve with"),
    _setting("WSPROXY_CPU_AFFINITY", "cpu_affinity", str.lower, "one CPU for each process: auto or off"),
)
"""Every setting of the program, in the order of the help."""
