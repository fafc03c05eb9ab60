"""Settings from outside: environment variables, flags of the same names, or a dict. No I/O."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from .config import Config
from .exceptions import ConfigError
from .kinds import FAULTY, collect, setting_value
from .net.addresses import host_and_port
from .upstream.location import SERVICE_ACCOUNT_CA

__all__ = ["SETTINGS", "Setting", "config_from_env", "config_from_mapping", "without_service_links"]

T = TypeVar("T")
_PREFIX = "WSPROXY_"


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

    @property
    def is_switch(self) -> bool:
        """Whether its flag may stand alone, for true."""
        return self.convert is _flag

    def parse(self, text: str, name: str | None = None) -> Any:
        """Convert ``text``.

        :param name: what the person calls the setting; None for the variable.
        :raises ConfigError: naming it; a secret is not quoted.
        """
        try:
            return self.convert(text)
        except ValueError as exc:
            raise ConfigError([f"{name or self.env} is {text!r}; {exc}"]) from None


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


def _some_names(text: str) -> tuple[str, ...]:
    """As :func:`_names`, where none would not mean none, but no restriction."""
    if names := _names(text):
        return names
    raise ValueError("it must name at least one")


_seconds = _number(float, "a number of seconds")
_whole = _number(int, "a whole number")
_DEFAULTS = {item.name: item.default for item in fields(Config)}


def _setting(env: str, target: str, convert: Callable[[str], Any], help: str) -> Setting:
    return Setting(env, target, convert, _DEFAULTS[target], help)


SETTINGS = (
    Setting("SECRET_KEY", "secret_key", str, None, "secret of the tokens, or a PEM public key"),
    Setting(
        "SECRET_KEY_FILE", "secret_key_files", _some_names, None, "files with a secret or PEM public keys"
    ),
    _setting("LOCAL_DEV_MODE", "local_dev_mode", _flag, "no TLS and no service account: for kubectl proxy"),
    _setting("HOST", "host", str, "address to listen on; :: is every one, IPv6 and IPv4"),
    _setting("PORT", "port", _number(int, "a number"), "TCP port to listen on"),
    _setting("WSPROXY_LISTEN", "listen", str, "where to listen instead: unix:PATH, or fd:NUMBER"),
    _setting("WSPROXY_REUSE_PORT", "reuse_port", _flag, "let a successor listen at the same address"),
    _setting("HOST_PATH_PREFIX", "host_path_prefix", str, "path in front of every route"),
    Setting("KUBERNETES_SERVICE_HOST", "", str, None, "host of the API, set by Kubernetes in every pod"),
    Setting("KUBERNETES_SERVICE_PORT", "", str, None, "port of the API, set by Kubernetes in every pod"),
    Setting("WS_REMOTE_URL", "", str, "ws://localhost:8001", "URL of the API in dev mode"),
    _setting("LOGLEVEL", "log_level", str.upper, "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    _setting("WSPROXY_LOG_FORMAT", "log_format", str.lower, "text, or json for one object in each line"),
    _setting("WSPROXY_AUDIT_LOG", "audit_log", str, "file to append events of sessions to, or -"),
    _setting("WSPROXY_ADMIN", "admin", str, "listener for the operator: HOST:PORT or unix:PATH"),
    Setting("WSPROXY_ADMIN_HOSTS", "admin_hosts", _names, None, "names that it may be asked for by"),
    _setting("WSPROXY_ADMIN_TOKEN_FILE", "admin_token_file", str, "file with its token, made if missing"),
    _setting("WSPROXY_API_PATH", "api_path", str, "API path with {namespace} and {vmi_name}"),
    Setting("WSPROXY_SUBRESOURCES", "subresources", _names, None, "further subresources a path may name"),
    Setting("WSPROXY_ALGORITHMS", "algorithms", _some_names, "HS256, or as the keys are", "JWS algorithms"),
    Setting("WSPROXY_JWKS", "jwks", str, None, "file or https URL of a JWK Set with the keys of the tokens"),
    _setting("WSPROXY_JWKS_INTERVAL", "jwks_interval", _seconds, "seconds between fetches of the JWK Set"),
    _setting("WSPROXY_JWKS_CA_FILE", "jwks_ca_file", str, "authorities of the JWK Set's URL"),
    Setting("WSPROXY_ISSUER", "issuer", _some_names, None, "iss claims that are taken, separated by commas"),
    Setting(
        "WSPROXY_AUDIENCE", "audience", _some_names, None, "aud claims that are taken, separated by commas"
    ),
    _setting("WSPROXY_LEEWAY", "leeway", _seconds, "seconds by which the issuer's clock may be wrong"),
    _setting("WSPROXY_ALLOW_ETERNAL_TOKENS", "allow_eternal_tokens", _flag, "take tokens without exp"),
    Setting("WSPROXY_CLAIM_USER", "claim_user", _some_names, "/id,/sub", "JSON pointers to the user"),
    _setting("WSPROXY_CLAIM_NAMESPACE", "claim_namespace", str, "JSON pointer to the namespace"),
    _setting("WSPROXY_CLAIM_VMIS", "claim_vmis", str, "JSON pointer to the list of VMIs"),
    _setting("WSPROXY_CLAIM_TAKEOVER", "claim_takeover", str, "JSON pointer to whether it may take over"),
    _setting("WSPROXY_ALLOW_VMI_PATTERNS", "allow_vmi_patterns", _flag, "let * in it stand for anything"),
    Setting("WSPROXY_NAMESPACES", "namespaces", _some_names, None, "the only namespaces that are served"),
    Setting("WSPROXY_CA_FILE", "ca_certs", str, SERVICE_ACCOUNT_CA, "authorities of the API's certificate"),
    _setting("WSPROXY_TOKEN_FILE", "token_file", str, "bearer token of the service account"),
    _setting("WSPROXY_TLS_CERT", "tls_cert", str, "certificate chain for clients; without it no TLS"),
    _setting("WSPROXY_TLS_KEY", "tls_key", str, "its private key, if that is in another file"),
    _setting("WSPROXY_TLS_CLIENT_CA", "tls_client_ca", str, "authorities; each client needs a certificate"),
    _setting("WSPROXY_REJECT", "reject", str.lower, "how to refuse: auto, http or close"),
    Setting(
        "WSPROXY_CREDENTIALS", "credentials", _names, "path,header,subprotocol", "where tokens may stand"
    ),
    _setting("WSPROXY_COOKIE_NAME", "cookie_name", str, "name of the cookie that holds a token"),
    Setting(
        "WSPROXY_ALLOW_ORIGIN", "allow_origin", _some_names, None, "pages that may use the proxy, * for all"
    ),
    _setting("WSPROXY_REQUIRE_ORIGIN", "require_origin", _flag, "refuse clients that send no Origin"),
    Setting("WSPROXY_TRUSTED_PROXIES", "trusted_proxies", _names, None, "networks of proxies in front"),
    _setting("WSPROXY_FORWARDED_HEADERS", "forwarded_headers", str.lower, "auto, x-forwarded or forwarded"),
    _setting("WSPROXY_PROXY_PROTOCOL", "proxy_protocol", _flag, "these proxies speak the PROXY protocol"),
    _setting("WSPROXY_TICKETS", "tickets", _flag, "exchange tokens for one-time tickets at POST /ticket"),
    _setting("WSPROXY_WEB", "web", str, "directory of a web client, such as noVNC, to serve"),
    _setting("WSPROXY_CONSOLE_PAGE", "console_page", _flag, "serve the console page at /console/"),
    _setting("WSPROXY_NOVNC", "novnc", str, "noVNC for that page; by default /usr/share/novnc"),
    _setting("WSPROXY_XTERM", "xterm", str, "xterm.js for its serial consoles, an unpacked npm package"),
    Setting("WSPROXY_FRAME_ANCESTORS", "frame_ancestors", _names, None, "pages that may frame these"),
    _setting(
        "WSPROXY_SCREENSHOTS", "screenshots", _flag, "answer .../screenshot.png with pictures of screens"
    ),
    Setting("WSPROXY_CONSOLE", "console", _names, "passthrough", "or takeover, refuse, NS/VMI=refuse, ..."),
    _setting("WSPROXY_SHOW_USER", "show_user", _flag, "tell clients who else has their console"),
    _setting("WSPROXY_REQUEST_TIMEOUT", "request_timeout", _seconds, "seconds for a whole request head"),
    _setting("WSPROXY_DIAL_TIMEOUT", "dial_timeout", _seconds, "seconds for connecting to the API"),
    _setting("WSPROXY_CLOSE_TIMEOUT", "close_timeout", _seconds, "seconds in which every session ends"),
    _setting("WSPROXY_DRAIN_GRACE", "drain_grace", _seconds, "seconds to go on as before after SIGTERM"),
    _setting("WSPROXY_DRAIN_TIMEOUT", "drain_timeout", _seconds, "seconds for open sessions after that"),
    _setting("WSPROXY_PING_INTERVAL", "ping_interval", _seconds, "seconds between pings on each leg"),
    _setting("WSPROXY_MAX_FRAME_SIZE", "max_frame_size", _number(int, "a number"), "largest frame, bytes"),
    _setting("WSPROXY_MAX_HEAD_SIZE", "max_head_size", _number(int, "a number"), "largest head, bytes"),
    _setting("WSPROXY_MAX_PENDING", "max_pending", _whole, "unauthenticated clients"),
    _setting("WSPROXY_MAX_SESSIONS", "max_sessions", _whole, "sessions in all, 0: any number"),
    _setting(
        "WSPROXY_MAX_SESSIONS_PER_USER", "max_sessions_per_user", _whole, "sessions of one user, 0: any"
    ),
    _setting("WSPROXY_MAX_SESSIONS_PER_VMI", "max_sessions_per_vmi", _whole, "sessions of one VMI, 0: any"),
    _setting(
        "WSPROXY_MAX_PENDING_PER_ADDRESS",
        "max_pending_per_address",
        _whole,
        "unauthenticated clients of one address, 0: any number",
    ),
    _setting(
        "WSPROXY_MAX_FAILURES", "max_failures", _whole, "failed attempts of one address a minute, 0: any"
    ),
    _setting("WSPROXY_GRACE", "grace", _seconds, "seconds for which sessions outlive their token, or inf"),
    _setting("WSPROXY_IDLE_TIMEOUT", "idle_timeout", _seconds, "seconds a client may send no data, 0: ever"),
    _setting("WSPROXY_MAX_AGE", "max_age", _seconds, "seconds a session may last, 0: for ever"),
    _setting("WSPROXY_WORKERS", "workers", _whole, "processes to serve with"),
    _setting("WSPROXY_CPU_AFFINITY", "cpu_affinity", str.lower, "one CPU for each process: auto or off"),
)
"""Every setting of the program, in the order of the help."""


def config_from_env(environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Config:
    """Read the program's settings, for a program of one's own. It reads nothing else.

    :param environ: such as ``os.environ``; a variable that is empty counts as not set, and one that is no
        setting and does not begin with ``WSPROXY_`` does not count; nor does what Kubernetes injects for a
        Service called ``wsproxy-...``, which is told by form and value.
    :param flags: values by the same names, which win; None counts as not given.
    :raises ConfigError: listing every fault.
    """
    given = without_service_links(environ)
    given = {name: value for name, value in given.items() if value or name == "SECRET_KEY"}
    given.update({name: value for name, value in (flags or {}).items() if value is not None})
    faults = [
        f"{name} is not a setting; {_meant(name, names) or 'see wsproxy serve --help'}"
        for names in [{setting.env for setting in SETTINGS}]
        for name in sorted(given)
        if name.startswith(_PREFIX) and name not in names
    ]
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.env in given and setting.target:
            values[setting.target] = _value(faults, setting.parse, given[setting.env])
    values.setdefault("secret_key", "")
    if "ca_certs" in values:
        values["sslopt"] = {"ca_certs": values.pop("ca_certs")}
    # Where the mode itself is a fault, neither mode's further demands are added to it.
    values["remote_url"] = _remote_url(given, bool(values.get("local_dev_mode")), faults)
    return _config(values, faults)


def without_service_links(environ: Mapping[str, T]) -> dict[str, T]:
    """Return an environment without what a kubelet has put there for Services called ``wsproxy-...``.

    It tells each pod of each Service of its namespace, by variables that begin with the Service's name. Only
    what has the form and the value of one of these is left out, so that a misspelt setting is none of them,
    and a setting whose name is of that form is one if its value is not.
    """
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith(_PREFIX) and _is_service_link(name, value))
    }


def _is_service_link(name: str, value: object) -> bool:
    return isinstance(value, str) and any(
        re.search(form, name) and is_one(value) for form, is_one in _SERVICE_LINKS
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_like(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


_PORT_OF_SERVICE = r"_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)"
_SERVICE_LINKS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"_SERVICE_HOST\Z", _is_address),
    (r"_SERVICE_PORT(_[A-Z0-9_]+)?\Z", _is_like("[0-9]{1,5}")),
    (rf"_PORT\Z|{_PORT_OF_SERVICE}\Z", _is_like(r"(tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+:[0-9]{1,5}")),
    (rf"{_PORT_OF_SERVICE}_PROTO\Z", _is_like("tcp|udp|sctp")),
    (rf"{_PORT_OF_SERVICE}_PORT\Z", _is_like("[0-9]{1,5}")),
    (rf"{_PORT_OF_SERVICE}_ADDR\Z", _is_address),
)
"""How the names of a kubelet's variables end, and what their values are like."""


def _value(faults: list[str], read: Callable[..., Any], *given: object) -> Any:
    """Return what ``read`` makes of a value; if that is wrong, note it, and return what says so to Config."""
    try:
        return read(*given)
    except ConfigError as exc:
        faults.extend(exc.faults)
        return FAULTY


def _config(values: dict[str, Any], faults: list[str]) -> Config:
    config = collect(faults, lambda: Config(**values))
    if config is None or faults:
        raise ConfigError(faults)
    return config


def _remote_url(given: Mapping[str, str], dev: bool, faults: list[str]) -> Any:
    if dev:
        return given.get("WS_REMOTE_URL", "ws://localhost:8001")
    host, port = given.get("KUBERNETES_SERVICE_HOST"), given.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        faults.append(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run in a cluster, "
            "or set LOCAL_DEV_MODE=true"
        )
        return FAULTY
    if not _is_like("[0-9]{1,5}")(port) or not 0 < int(port) < 65536:
        faults.append(f"KUBERNETES_SERVICE_PORT is {port!r}; it must be 1 to 65535")
        return FAULTY
    return f"wss://{host_and_port(host, port)}"


def config_from_mapping(given: Mapping[str, object]) -> Config:
    """Read settings from a dict, as a framework or a file in JSON or TOML has them. It reads nothing else.

    :param given: by the names of :class:`.Config`'s fields, or of the environment's variables, each setting
        once. A text is read as the environment's would be ("true", "5001", "a,b"), other values have the
        field's type; a list may be any iterable of texts. None and an empty text count as not given.
        ``remote_url`` may be left out in dev mode, and where ``KUBERNETES_SERVICE_HOST`` and ``_PORT`` are
        given.
    :raises ConfigError: listing every fault; a key that is no setting is one.
    """
    faults: list[str] = []
    names: dict[str, str] = {}  # what each setting is called here
    values: dict[str, Any] = {}
    for name, value in given.items():
        target = _TARGETS.get(name)
        if target is None:
            faults.append("; ".join(filter(None, (f"{name!r} is not a setting", _meant(name, _TARGETS)))))
        elif value is None or value == "":
            continue
        elif target in names:
            faults.append(f"{names[target]} and {name} are the same setting; give one")
        else:
            names[target] = name
            values[target] = _value(faults, _read, target, name, value)
    values.setdefault("secret_key", "")
    _join(values, names, faults)
    return _config(values, faults)


_KINDS: dict[str, str] = {item.name: str(item.type) for item in fields(Config) if item.init}
_SETTING_OF = {setting.target or setting.env: setting for setting in SETTINGS}
_TARGETS: dict[str, str] = {name: name for name in _KINDS} | {
    setting.env: setting.target or setting.env for setting in SETTINGS
}
_WHERE_THE_API_IS = ("WS_REMOTE_URL", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")


def _read(target: str, name: str, value: object) -> Any:
    setting = _SETTING_OF.get(target)
    if isinstance(value, str) and setting:
        return setting.parse(value, name)
    if target == "KUBERNETES_SERVICE_PORT" and type(value) is int:
        return str(value)
    return setting_value(_KINDS.get(target, "str"), name, value)


def _join(values: dict[str, Any], names: Mapping[str, str], faults: list[str]) -> None:
    """Make fields of what is no field by itself."""
    ca_certs = values.pop("ca_certs", None)
    if ca_certs is not None and "sslopt" in names:
        faults.append(f"{names['ca_certs']} and sslopt are both given; name the file in sslopt, as ca_certs")
    elif ca_certs is not None:
        values["sslopt"] = FAULTY if ca_certs is FAULTY else {"ca_certs": ca_certs}
    parts = {name: values.pop(name) for name in _WHERE_THE_API_IS if name in values}
    if "remote_url" in names:
        if parts:
            faults.append(f"remote_url and {' and '.join(parts)} are both given; give remote_url alone")
    elif FAULTY in parts.values():
        values["remote_url"] = FAULTY
    elif (
        not values.get("local_dev_mode")
        and len(parts.keys() - {"WS_REMOTE_URL"}) < 2
        and not all(name.isupper() for name in names.values())
    ):
        faults.append(
            "remote_url is missing; give the URL of the Kubernetes API, such as wss://10.96.0.1:443"
        )
        values["remote_url"] = FAULTY
    else:
        values["remote_url"] = _remote_url(parts, bool(values.get("local_dev_mode")), faults)


def _meant(name: object, known: Iterable[str]) -> str:
    """Return the question whether another name is meant; "" if none is like it."""
    given = str(name)
    plain = {_plain(one): one for one in known if one.isupper() == given.isupper()}
    close = difflib.get_close_matches(_plain(given), plain, 1, 0.75)
    return f"is {plain[close[0]]} meant?" if close else ""


def _plain(name: str) -> str:
    return name.removeprefix(_PREFIX).lower()
