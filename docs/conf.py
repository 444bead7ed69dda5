"""Sphinx configuration. Reference pages and pictures are made from the code at each build, into ``_generated``."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

import hpcplan

sys.path.insert(0, str(Path(__file__).parent))

project = "hpcplan"
author = "the hpcplan authors"
copyright = "the hpcplan authors, Apache-2.0"
release = version = hpcplan.__version__

extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hpcplan {release}"
html_show_sphinx = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
suppress_warnings = ["myst.header"]


def setup(app: Sphinx) -> None:
    """Make the generated pages before Sphinx reads anything."""
    from generate import generate

    app.connect("builder-inited", lambda _: generate(Path(__file__).parent / "_generated"))
