"""Writes the files that are generated from wsproxy/settings. ``scripts/settings`` runs it."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import shtab
from argparse_manpage.manpage import Manpage

from wsproxy.cli.program import program_parser
from wsproxy.settings.setting import REQUIRED, Setting
from wsproxy.settings.table import FIELDS, GROUPS, OPTIONS, POSITIONAL

_ROOT = Path(__file__).parents[1]
_BEGIN, _END = "<!-- settings: begin -->", "<!-- settings: end -->"
_WIDTH = 110


def typed() -> str:
    """Return the module with the types of all settings."""
    others = {
        name: item for name, item in FIELDS.items() if name not in (*OPTIONS, *POSITIONAL[:1], "secret_key")
    }
    return "\n".join(
        [
            '"""The types of all settings, for editors and type checkers. No I/O.',
            "",
            "scripts/settings generates this file from the declarations. Do not edit it by hand.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Iterable, Mapping, Sequence",
            "from dataclasses import dataclass, field",
            "from typing import Any, TypedDict",
            "",
            '__all__ = ["ConfigOptions", "Options", "Settings"]',
            "",
            "",
            "class Options(TypedDict, total=False):",
            '    """What :class:`.WebsocketProxy` takes besides its first five parameters and its hooks."""',
            "",
            *(f"    {name}: {_given(item)}" for name, item in OPTIONS.items()),
            "",
            "",
            "class ConfigOptions(Options, total=False):",
            '    """What :class:`.Config` takes besides ``remote_url`` and ``secret_key``."""',
            "",
            *(f"    {name}: {_given(item)}" for name, item in others.items()),
            "",
            "",
            "@dataclass(frozen=True, kw_only=True)",
            "class Settings:",
            '    """The value of each setting: the one that was given, or the default."""',
            "",
            *(line for item in FIELDS.values() for line in _field(item)),
        ]
    )


def _field(item: Setting) -> Iterator[str]:
    hidden = " = field(repr=False)" if item.mask else ""
    yield f"    {item.name}: {_type(item.of_kind.field, item)}{hidden}"
    lines = textwrap.wrap(f'"""{_rst(item)}', _WIDTH - 7)
    yield from (f"    {line}" for line in lines[:-1])
    yield f'    {lines[-1]}"""'
    yield ""


def _given(item: Setting) -> str:
    given = _type(item.of_kind.given, item)
    return given if item.name != "sslopt" else f"{given} | None"


def _type(kind: Any, item: Setting) -> str:
    text = kind.__name__ if type(kind) is type else str(kind)
    return re.sub(r"collections\.abc\.|typing\.", "", text) + (" | None" if item.nullable else "")


def _rst(item: Setting) -> str:
    text = re.sub("`([^`]+)`", r"``\1``", item.text)
    notes = "; ".join(filter(None, (item.unit, re.sub("`([^`]+)`", r"``\1``", default_of(item)))))
    return f"{text} ({notes})" if notes else text


def default_of(item: Setting) -> str:
    """Return the default as the reference shows it, in Markdown; "" if there is none."""
    if item.shown_default:
        return f"default: {item.shown_default}"
    if item.default in (None, REQUIRED, ()):
        return ""
    return f"default: `{item.default_text}`"


def page(now: str) -> str:
    """Return the reference with new tables."""
    head, _, rest = now.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    return f"{head}{_BEGIN}\n\n{''.join(_tables())}{_END}{tail}"


def _tables() -> Iterator[str]:
    for group in GROUPS:
        yield f"### {group.title}\n\n"
        yield "| setting | variable | default | meaning |\n|---|---|---|---|\n"
        yield from map(_row, group.settings)
        yield "\n"


def _row(item: Setting) -> str:
    variable = f"`{item.env}`" if item.env else "-"
    default = default_of(item).removeprefix("default: ") or "none"
    unit = f" {item.unit}" if item.unit and default.startswith("`") else ""
    notes = [f"One of {', '.join(f'`{one}`' for one in item.choices)}."] if item.choices else []
    if item.unit and not unit:
        notes.append(f"In {item.unit}.")
    if item.reread:
        notes.append("If the file changes, the proxy reads it again.")
    if item.program and not item.part_of:
        notes.append("For the program only.")
    text = " ".join([item.text, *notes]).replace("|", "\\|")
    return f"| `{item.name}` | {variable} | {default}{unit} | {text} |\n"


def man(now: str) -> str:
    """Return the manual page."""
    page = Manpage(program_parser(repeat=False), format="single-commands-section")
    page.date, page.source, page.manual = "", "wsproxy", "User Commands"
    page.description = "console gateway for virtual machines on Kubernetes"
    return str(page).rstrip() + "\n"


def completion(shell: str) -> str:
    """Return the script that completes the program's commands, flags, files and choices in a shell."""
    parser = program_parser()
    for action in _actions(parser):
        if action.metavar in ("FILE", "DIR"):
            action.complete = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and re.fullmatch("[A-Za-z-]+([|][A-Za-z-]+)+", action.metavar):
            action.choices = action.metavar.split("|")
    return shtab.complete(parser, shell).rstrip() + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _actions(command)


FILES: Mapping[str, Callable[[str], str]] = {
    "wsproxy/settings/typed.py": lambda now: typed(),
    "docs/reference/settings.md": page,
    "share/man/man1/wsproxy.1": man,
    "share/bash-completion/completions/wsproxy": lambda now: completion("bash"),
    "share/zsh/site-functions/_wsproxy": lambda now: completion("zsh"),
}
"""The generated files, each with a function that makes its new text from the present one."""


def main() -> int:
    """Write the files that are out of date, or only name them."""
    parser = argparse.ArgumentParser(prog="scripts/settings", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    options = parser.parse_args()
    os.environ["COLUMNS"] = "80"  # argparse wraps its help to this width
    status = 0
    for name, make in FILES.items():
        path = _ROOT / name
        now = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = make(now)
        if wanted == now:
            continue
        if options.check:
            print(f"{name} is out of date; run scripts/settings", file=sys.stderr)
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
            print(name)
    return status


if __name__ == "__main__":
    sys.exit(main())
