"""The settings of listening, processes, logs and the operator's listener. No I/O."""

from __future__ import annotations

from .setting import Group, Setting, within

__all__ = ["CONFIG_FILE", "FILE", "LISTENING", "LOGGING", "OPERATOR", "PROCESSES"]

_MAX_WORKERS = 64

CONFIG_FILE = Setting(
    "config",
    "str",
    None,
    "TOML file with settings. A flag or an environment variable overrides the file.",
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
            "Address that the proxy listens on. `::` means every IPv6 and IPv4 address. `0.0.0.0` means "
            "every IPv4 address.",
            value="ADDRESS",
            variable="HOST",
            program=True,
        ),
        Setting(
            "port",
            "Port",
            5001,
            "TCP port that the proxy listens on. If it is 0, the kernel chooses a free port.",
            value="PORT",
            variable="PORT",
            program=True,
        ),
        Setting(
            "listen",
            "str",
            None,
            "Where the proxy listens instead of `host` and `port`: `unix:PATH`, or `fd:NUMBER` for an "
            "inherited socket.",
            value="unix:PATH|fd:NUMBER",
            program=True,
        ),
        Setting(
            "reuse_port",
            "bool",
            False,
            "Let a successor process listen on the same port, or take over the same path, before this "
            "process stops.",
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
            "File with the certificate chain (PEM) that the proxy shows to clients. Without it, clients "
            "connect without TLS.",
            value="FILE",
            stand_in="unset",
            reread=True,
        ),
        Setting(
            "tls_key",
            "str",
            None,
            "File with the private key (PEM, without a password), if the file in `tls_cert` does not "
            "contain it.",
            value="FILE",
            reread=True,
        ),
        Setting(
            "tls_client_ca",
            "str",
            None,
            "File with certificate authorities (PEM). If it is set, each client must present a certificate "
            "that one of them has signed.",
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
            "Number of processes that serve clients, 1 to 64.",
            check=within(1, _MAX_WORKERS),
            program=True,
        ),
        Setting(
            "cpu_affinity",
            "str",
            "auto",
            "With `auto`, the Python threads of each process run on one CPU. With `off`, the proxy sets no "
            "CPU affinity.",
            choices=("auto", "off"),
            program=True,
        ),
        Setting(
            "drain_grace",
            "Pause",
            0.0,
            "Time after SIGTERM in which the proxy still accepts clients, while `/readyz` answers 503.",
            unit="seconds",
        ),
        Setting(
            "drain_timeout",
            "Pause",
            0.0,
            "Time after `drain_grace` in which open sessions may continue. Then the proxy closes them.",
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
            "Lowest level of the messages that the program logs.",
            choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
            variable="LOGLEVEL",
            program=True,
        ),
        Setting(
            "log_format",
            "str",
            "text",
            "Format of log lines. With `json`, each line is one JSON object.",
            choices=("text", "json"),
            program=True,
        ),
        Setting(
            "audit_log",
            "str",
            None,
            "File to which the proxy appends a JSON line for each session that opens or ends, and for each "
            "refusal. On SIGHUP the proxy reopens it. `-` means standard output.",
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
            "Address of the operator's listener: `HOST:PORT` or `unix:PATH`. It serves metrics, and lists "
            "and ends sessions. Of several processes of an application that share their state, one gets it.",
            value="HOST:PORT|unix:PATH",
            stand_in="unix:unset",
        ),
        Setting(
            "admin_hosts",
            "Texts",
            (),
            "Names that requests to `admin` may have in their `Host` header, besides IP addresses and "
            "`localhost`.",
            value="HOST,HOST",
        ),
        Setting(
            "admin_token_file",
            "str",
            None,
            "File with the bearer token for listing and ending sessions. If it does not exist, the proxy "
            "creates it.",
            shown_default="a file in a directory of the proxy's user; no token if `admin` is a path",
            value="FILE",
        ),
    ),
)
