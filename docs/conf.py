"""Settings of Sphinx; scripts/docs builds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

from wsproxy import Config, WebsocketProxy, __version__

project = "wsproxy"
release = __version__
copyright = "the authors of wsproxy, MPL-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "alabaster"
html_theme_options = {
    "description": "A console gateway for virtual machines on Kubernetes",
    "page_width": "1100px",
}
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

# No build shall need the network, so names of the standard library and of Flask lead nowhere.
_STANDARD = "|".join(map(re.escape, sorted(sys.stdlib_module_names)))
nitpick_ignore_regex = [
    ("py:.*", rf"({_STANDARD}|flask)\..+"),
    ("py:class", "StartResponse|WSGIApplication|WSGIEnvironment|Unpack|ConfigOptions|Options"),
    (
        "py:class",
        r"CollectorRegistry|wsproxy\.(access\.sessions\.Relayed|runtime\.systemd\.Notifier|telemetry\.counters\.Snapshot|tokens\.claims\.TokenKey)",
    ),
    ("py:class", r"wsproxy\.(flask\.\w+T|testing\.application\._Self)"),  # type variables
    ("py:class", r"wsproxy\.testing\.kubevirt\.cluster\.(Cluster|Upgrade)"),  # what a stand-in is made of
]

# Classes whose objects are handed out: how they are made is no concern of whoever gets one.
_HANDED_OUT = ("Ending", "FakeConsole", "FakeVMI", "SessionHandle")

# The reference of settings has their parameters; Sphinx shows the signature that is written, with **options.
for _class in (Config, WebsocketProxy):
    del _class.__init__.__signature__  # type: ignore[attr-defined]

_ROOT = Path(__file__).parent.parent
_AT_ROOT = {
    "readme": "README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "reporting": "SECURITY.md",
}

_TO_ROOT = re.compile(rf"\]\(\.\./((?:\.\./)*)({'|'.join(map(re.escape, _AT_ROOT.values()))})")


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the pages that stand at the project's root in their places; links work both there and here."""
    if page in _AT_ROOT:
        text = (_ROOT / _AT_ROOT[page]).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](").replace("](examples/", "](../examples/")
    else:
        text = re.sub(_TO_ROOT, r"](\1\2", source[0])
    for name, file in _AT_ROOT.items():
        text = re.sub(rf"\]\(((?:\.\./)*){re.escape(file)}", rf"](\1{name}.md", text)
    source[0] = text


def _hide_making(
    app: Sphinx,
    kind: str,
    name: str,
    thing: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    return ("", None) if name.rpartition(".")[2] in _HANDED_OUT else (signature, returns)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-signature", _hide_making)
