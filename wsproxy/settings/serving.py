"""The settings of where and how the program serves, and of what the operator sees. No I/O."""

from __future__ import annotations

from .setting import Group, Setting, within

__all__ = ["CONFIG_FILE", "FILE", "LISTENING", "LOGGING", "OPERATOR", "PROCESSES"]

_MAX_WORKERS = 64

CONFIG_FILE = Setting(
    "config",
    "str",
    None,
    "File with settings, in TOML. A flag or a variable wins over the file.",
    value="FILE",
    part_of="file",
    program=True,
)

FILE = Group("Settings from a file", (CONFIG_FILE,))

LISTENING = Group(
    "Where clients connect",
    (
        Setting(
            "host",
            "AnyText",
            "::",
            "Address that the proxy listens on. `::` is every address, IPv6 and IPv4; `0.0.0.0` is every "
            "IPv4 address.",
            value="ADDRESS",
            variable="HOST",
            program=True,
        ),
        Setting(
            "port",
            "Port",
            5001,
            "TCP port that the proxy listens on. With 0 the system chooses a free one.",
            value="PORT",
            variable="PORT",
            program=True,
        ),
        Setting(
            "listen",
            "str",
            None,
            "Where the proxy listens instead: `unix:PATH`, or `fd:NUMBER` for an inherited socket.",
            value="unix:PATH|fd:NUMBER",
            program=True,
        ),
        Setting(
            "reuse_port",
            "bool",
            False,
            "Let a successor listen at the same port, or take over the same path, before this process stops.",
            program=True,
        ),
        Setting(
            "host_path_prefix",
            "AnyText",
            None,
            "Path in front of every route, such as `ws_proxy` or `a/b`.",
            value="PATH",
            variable="HOST_PATH_PREFIX",
        ),
        Setting(
            "tls_cert",
            "str",
            None,
            "File with the certificate chain (PEM) that clients see. Without it clients connect without TLS.",
            value="FILE",
            stand_in="unset",
            reread=True,
        ),
        Setting(
            "tls_key",
            "str",
            None,
            "File with the private key (PEM, no password), if `tls_cert` does not hold the key.",
            value="FILE",
            reread=True,
        ),
        Setting(
            "tls_client_ca",
            "str",
            None,
            "File with authorities (PEM). If it is set, each client needs a certificate that one of them "
            "has signed.",
            value="FILE",
            reread=True,
        ),
    ),
)

PROCESSES = Group(
    "Processes and restarts",
    (
        Setting(
            "workers",
            "int",
            1,
            "Number of processes that serve, 1 to 64.",
            check=within(1, _MAX_WORKERS),
            program=True,
        ),
        Setting(
            "cpu_affinity",
            "str",
            "auto",
            "`auto` keeps the Python threads of each process on one CPU; `off` leaves CPUs alone.",
            choices=("auto", "off"),
            program=True,
        ),
        Setting(
            "drain_grace",
            "Pause",
            0.0,
            "Time after SIGTERM in which new clients are still accepted while `/readyz` says 503.",
            unit="seconds",
        ),
        Setting(
            "drain_timeout",
            "Pause",
            0.0,
            "Time after `drain_grace` in which open sessions may go on, before the proxy closes them.",
            unit="seconds",
        ),
    ),
)

LOGGING = Group(
    "Logs",
    (
        Setting(
            "log_level",
            "str",
            "INFO",
            "Least severe messages that the program logs.",
            choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
            variable="LOGLEVEL",
            program=True,
        ),
        Setting(
            "log_format",
            "str",
            "text",
            "Form of the log's lines. With `json` each line is one JSON object.",
            choices=("text", "json"),
            program=True,
        ),
        Setting(
            "audit_log",
            "str",
            None,
            "File to which the proxy appends a JSON line for each session that opens or ends, and each "
            "refusal. SIGHUP opens it anew. `-` is standard output.",
            value="FILE",
        ),
    ),
)

OPERATOR = Group(
    "The operator's listener",
    (
        Setting(
            "admin",
            "str",
            None,
            "Where the operator's listener is: `HOST:PORT` or `unix:PATH`. It serves metrics, the list of "
            "sessions, and kicks.",
            value="HOST:PORT|unix:PATH",
            stand_in="unix:unset",
        ),
        Setting(
            "admin_hosts",
            "Texts",
            (),
            "Names that requests to `admin` may have as their host, besides addresses and `localhost`.",
            value="HOST,HOST",
        ),
        Setting(
            "admin_token_file",
            "str",
            None,
            "File with the bearer token that lists and ends sessions there. The proxy makes it if it is "
            "missing.",
            shown_default="a file of the user's own; none where `admin` is a path",
            value="FILE",
        ),
    ),
)
