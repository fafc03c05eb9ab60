"""Settings of Sphinx; scripts/docs builds."""

from __future__ import annotations

import re
import sys

from wsproxy import __version__

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
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# No build shall need the network, so names of the standard library lead nowhere.
_STANDARD = "|".join(map(re.escape, sorted(sys.stdlib_module_names)))
nitpick_ignore_regex = [("py:.*", rf"({_STANDARD})(\..+)?")]
