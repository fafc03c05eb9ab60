"""The program: ``wsproxy serve``, ``check``, ``config``, ``sessions``, ``state``, ``token`` and ``demo``."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Config, settings_of_program
from ..exceptions import ConfigError
from ..net.listeners import address_text
from ..protocol.names import is_dns_label, is_dns_subdomain
from ..proxy import WebsocketProxy
from ..runtime.cpu_affinity import settle
from ..runtime.logs import JSONFormatter, TextFormatter, get_logger
from ..runtime.reloading import file_fault
from ..runtime.signals import children_reaped, ignore_signals, signals_for_proxy
from ..runtime.systemd import Notifier, activated_descriptor
from ..server.supervisor import Supervisor
from ..settings.setting import Setting
from ..settings.table import GROUPS, SETTINGS, meant
from ..tokens.issue import make_token
from ..tokens.key_store import read_key_file
from ..tokens.keys import load_keys
from ..version import __version__
from .check import check, raise_descriptor_limit
from .config import add_config_file, setting_in_file, shown_settings
from .output import print_line, stderr_handler
from .revocations import add_revocations_command
from .sessions import add_sessions_command
from .state import add_state_command

__all__ = ["main", "program_parser"]

logger = get_logger("wsproxy.cli")

_USAGE_ERROR = 2
_WHICH_COUNTS = (
    "Each flag has an environment variable, which is at the end of its text. A flag overrides the variable, "
    "and the variable overrides the file of --config. For more see docs/reference/settings.md."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status.

    :param argv: arguments without the program's name; ``sys.argv`` if None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "serve")
    options = _parsed(arguments)
    try:
        status: int = options.command(options)
        return status
    except ConfigError as exc:
        faults = "\n".join(f"  - {fault}" for fault in exc.faults)
        print_line(f"wsproxy: the settings have faults:\n{faults}", sys.stderr)
        return _USAGE_ERROR


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse arguments. An unknown flag ends the program with an error that suggests a similar flag."""
    parser = program_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = [name.partition("=")[0] for name in unknown if name.startswith("-")] or unknown[:1]
        known = [setting.flag for setting in SETTINGS if setting.env in options]
        parser.error("; ".join(_unknown(name, known) for name in names))
    return options


def _unknown(name: str, known: Sequence[str]) -> str:
    question = meant(name, known) or "--help lists the flags of each command"
    return f"{name} is not a flag; {question}"


def _serve(options: argparse.Namespace) -> int:
    config, _ = _settings(options, activated_descriptor(os.environ, os.getpid()))
    if config.workers == 1 and config.cpu_affinity == "auto":
        settle(random.randrange(1024))  # before logging starts a thread
    _set_logging_up(config)
    raise_descriptor_limit()
    _collect_less()
    try:
        notifier = Notifier.from_env(os.environ)
        if config.workers > 1:
            return _supervise(config, notifier)
        proxy = WebsocketProxy.from_config(config)
        with children_reaped():
            proxy.run(
                config.listen or config.host,
                config.port,
                on_ready=lambda proxy: _print_ready(config, proxy.address),
                reuse_port=config.reuse_port,
                notifier=notifier,
            )
    except OSError as exc:
        print_line(f"wsproxy: {exc if exc.filename else exc.strerror or exc}", sys.stderr)
        return 1
    return 0


def _set_logging_up(config: Config) -> None:
    """Set up the root logger. It also logs uncaught exceptions, so that every line has the same format."""
    as_text = TextFormatter(with_process=config.workers > 1)
    handler = stderr_handler(JSONFormatter() if config.log_format == "json" else as_text)
    logging.basicConfig(level=config.log_level, handlers=[handler])
    # No format uses these fields, so logging need not collect them (logging HOWTO, "Optimization").
    for name in ("logThreads", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, name, False)
    sys.excepthook = lambda *failure: logger.critical("the program failed", exc_info=failure)
    threading.excepthook = _log_thread_failure
    sys.unraisablehook = _log_unraisable


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread else "a thread"
        logger.critical("%s failed", name, exc_info=failure.exc_value)


def _log_unraisable(failure: sys.UnraisableHookArgs) -> None:
    if failure.exc_value is not None:
        # The object itself is not logged, since it may be partly destroyed.
        logger.error("%s", failure.err_msg or "Exception ignored", exc_info=failure.exc_value)


def _supervise(config: Config, notifier: Notifier) -> int:
    if Supervisor(config, notifier).run(lambda address: _print_ready(config, address)):
        return 0
    print_line("wsproxy: the workers cannot start; the log says why", sys.stderr)
    return 1


def _collect_less() -> None:
    """Collect garbage less often: with Python's defaults that took an eighth of the time of an opening.

    The objects that imports make stay until the process ends. A session leaves some hundred small objects.
    """
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


def _print_ready(config: Config, address: tuple[str, int]) -> None:
    ignore_signals(signals_for_proxy())  # those that come after the program has stopped
    schemes = "" if config.tls_cert is None else " (wss, https)"
    print_line(f"wsproxy {__version__} listening on {address_text(*address)}{schemes}", sys.stdout)


def _token(options: argparse.Namespace) -> int:
    secret = _signing_secret(options)
    faults = [
        f"--vmi {name!r} is not a Kubernetes name" for name in options.vmi if not is_dns_subdomain(name)
    ]
    if not is_dns_label(options.namespace):
        faults.append(f"--namespace {options.namespace!r} is not a Kubernetes name")
    if faults:
        raise ConfigError(faults)
    user = int(options.user) if options.user.isdecimal() else options.user
    print(
        make_token(
            secret,
            namespace=options.namespace,
            vmis=options.vmi,
            user=user,
            expires_in=options.expires_in,
        )
    )
    return 0


def _signing_secret(options: argparse.Namespace) -> bytes:
    """Return the first secret with which a proxy with the same settings verifies tokens."""
    text: str | bytes = options.SECRET_KEY or os.environ.get("SECRET_KEY") or ""
    source = "SECRET_KEY"
    files = options.SECRET_KEY_FILE or os.environ.get("SECRET_KEY_FILE")
    if not text and not files:
        secrets = setting_in_file(options, "secret_key") or ""
        text = secrets if isinstance(secrets, str | bytes) else secrets[0]
        files = ",".join(setting_in_file(options, "secret_key_files") or ())
    if not text and files:
        source = files.partition(",")[0].strip()
        try:
            text = read_key_file(source)
        except OSError as exc:
            raise ConfigError([file_fault("SECRET_KEY_FILE", source, exc)]) from None
    key = load_keys(text, source=source)[0].key
    if not isinstance(key, bytes):
        raise ConfigError([f"{source} holds a public key, which cannot sign; give an HMAC secret"])
    return key


def _check(options: argparse.Namespace) -> int:
    status = 0
    for finding in check(_settings(options)[0]):
        print(finding, flush=True)
        status = status if finding.ok else 1
    return status


def _demo(options: argparse.Namespace) -> int:
    from .demo import run_demo, visit_demo  # imports wsproxy.testing, which a server does not need

    if options.once:
        return visit_demo(options.screenshot)
    return run_demo(options.port, novnc=options.novnc, xterm=options.xterm, browser=options.open)


def _show(options: argparse.Namespace) -> int:
    for line in shown_settings(*_settings(options)):
        print(line)
    return 0


def _settings(options: argparse.Namespace, inherited: int | None = None) -> tuple[Config, dict[str, str]]:
    """Return the settings, and their sources by name.

    :param inherited: a listening descriptor that systemd passes; None if it passes none.
    """
    given: Mapping[str, Any] = vars(options)
    flags = {setting.env: given[setting.env] for setting in SETTINGS}
    return settings_of_program(os.environ, flags, inherited)


def program_parser(*, repeat: bool = True) -> argparse.ArgumentParser:
    """Return the parser of the program's arguments.

    :param repeat: whether all commands that take the settings have their flags. In the manual page only
        ``serve`` has them.
    """
    parser = argparse.ArgumentParser(
        prog="wsproxy",
        description="A console gateway for virtual machines on Kubernetes.",
        epilog="Without a command, wsproxy serves. wsproxy serve --help lists the settings.",
    )
    parser.add_argument("--version", action="version", version=f"wsproxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True)

    serve = commands.add_parser("serve", help="serve until SIGTERM", epilog=_WHICH_COUNTS)
    serve.set_defaults(command=_serve)
    _add_settings(serve)

    _add_token_command(commands)

    check_ = commands.add_parser(
        "check", help="check whether a proxy with these settings can serve", epilog=_WHICH_COUNTS
    )
    check_.set_defaults(command=_check)
    if repeat:
        _add_settings(check_)

    config = commands.add_parser(
        "config", help="print the settings that count, and the source of each", epilog=_WHICH_COUNTS
    )
    config.set_defaults(command=_show)
    if repeat:
        _add_settings(config)

    add_sessions_command(commands)
    add_revocations_command(commands)
    add_state_command(commands)
    _add_demo_command(commands)
    return parser


def _add_token_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    token = commands.add_parser("token", help="print a token that SECRET_KEY signs")
    token.set_defaults(command=_token)
    add_config_file(token)
    token.add_argument(
        "--secret-key", dest="SECRET_KEY", metavar="SECRET", help="the secret (environment: SECRET_KEY)"
    )
    token.add_argument(
        "--secret-key-file",
        dest="SECRET_KEY_FILE",
        metavar="FILE",
        help="file with the secret (environment: SECRET_KEY_FILE)",
    )
    token.add_argument(
        "--vmi", action="append", required=True, help="VMI that the token allows; may be repeated"
    )
    token.add_argument("--namespace", required=True, help="namespace of the VMIs")
    token.add_argument("--user", default="0", help="id of the user (default: %(default)s)")
    token.add_argument(
        "--expires-in", type=float, default=600, metavar="SECONDS", help="lifetime (default: %(default)s)"
    )


def _add_demo_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="show consoles of a simulated cluster in a browser")
    demo.set_defaults(command=_demo)
    demo.add_argument(
        "--port", type=int, default=5001, help="port of the proxy; 0 for any free one (default: %(default)s)"
    )
    demo.add_argument("--open", action="store_true", help="open the first console in a browser")
    demo.add_argument("--novnc", metavar="DIR", help="noVNC for the page (default: an installed one)")
    demo.add_argument("--xterm", metavar="DIR", help="xterm.js for serial consoles (default: none)")
    demo.add_argument("--once", action="store_true", help="open a console, type, check the screen, and exit")
    demo.add_argument("--screenshot", metavar="FILE.png", help="with --once: save the screen")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting. Its value stays text, and is converted together with the variables."""
    parser.usage = f"{parser.prog} [SETTING ...]"
    for group in GROUPS:
        flags = parser.add_argument_group(group.title)
        for setting in group.settings:
            if setting.flag:
                alone: dict[str, Any] = {"nargs": "?", "const": "true"} if setting.is_switch else {}
                flags.add_argument(
                    setting.flag,
                    dest=setting.env,
                    metavar=setting.metavar,
                    **alone,
                    help=f"{setting.text} ({_notes(setting)})".replace("`", "").replace("%", "%%"),
                )


def _notes(setting: Setting) -> str:
    """Return the unit, the default and the variable of a setting for the help."""
    notes = []
    if setting.shown_default:
        notes = [setting.unit, f"default: {setting.shown_default}"]
    elif setting.default_text:
        notes = [f"default: {setting.default_text} {setting.unit}".rstrip()]
    return "; ".join(filter(None, [*notes, setting.env]))
