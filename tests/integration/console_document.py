"""The tables and pictures of docs/console.md, which are made from :mod:`.console_causes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.integration.console_causes import ENDS, REFUSALS, Cause
from tests.integration.palette_png import palette_png
from tests.integration.web_clients import CLIENTS, CONSOLE_PAGE, NOVNC_INSTALLED, WebClient

__all__ = [
    "BEGIN",
    "CONNECTED_PICTURE",
    "DOCUMENT",
    "END",
    "PICTURES",
    "picture_name",
    "render",
    "save_picture",
    "write",
]

CONNECTED_PICTURE = "connected-page.png"

DOCUMENT = Path(__file__).parents[2] / "docs" / "console.md"
PICTURES = DOCUMENT.parent / "console"
BEGIN, END = "<!-- made by scripts/console_docs -->\n", "<!-- end of what scripts/console_docs makes -->\n"


def picture_name(cause: Cause, client: WebClient) -> str:
    """Return the name of the picture of what a client says. What always looks the same is there once."""
    if client is CONSOLE_PAGE:
        return f"{cause.name}-page.png"
    if client is NOVNC_INSTALLED and cause.before:
        return f"{cause.name}-novnc-1.3.png"
    return f"{'refused' if cause.before else 'ended'}-{client.name.replace(' ', '-').lower()}.png"


def save_picture(name: str, png: bytes) -> None:
    """Write a screenshot of a browser into the document's directory, unless there is one of this name."""
    PICTURES.mkdir(exist_ok=True)
    if not (PICTURES / name).exists():
        (PICTURES / name).write_bytes(palette_png(png))


def render() -> str:
    """Return what stands between the marks: the tables, by what is expected of every client."""
    tables = (("Refusals", REFUSALS), ("Ends", ENDS))
    return "\n".join(f"### {title}\n\n{_table(causes)}" for title, causes in tables)


def _table(causes: Sequence[Cause]) -> str:
    refusals = causes[0].before
    columns = ["what happens", *(["HTTP"] if refusals else []), "close", *(client.name for client in CLIENTS)]
    rows = [columns, ["---"] * len(columns)]
    for cause in causes:
        status = [str(cause.http or "101")] if refusals else []
        cells = [cause.what, *status, cause.close or "none", *(_cell(cause, client) for client in CLIENTS)]
        rows.append(cells)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(cause: Cause, client: WebClient) -> str:
    """Return what a client says, and a link to the picture of it."""
    words = cause.words(client)
    if words is None:
        return "cannot happen"
    lines = [line.replace("|", "\\|") for line in words.split("\n") if line]
    if client is CONSOLE_PAGE:
        lines[0] = f"**{lines[0]}**"
    return f"{'<br>'.join(lines)} ([picture](console/{picture_name(cause, client)}))"


def write() -> None:
    """Put the tables into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOCUMENT.write_text(f"{head}{BEGIN}\n{render()}\n{END}{tail}", encoding="utf-8")
