"""Sphinx configuration. Reference pages and pictures are made from the code at each build, into ``_generated``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import hpcplan

sys.path.insert(0, str(Path(__file__).parent))

project = "hpcplan"
author = "the hpcplan authors"
copyright = "the hpcplan authors, Apache-2.0"
release = version = hpcplan.__version__

extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hpcplan {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["hpcplan.css"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
smartquotes = False  # "--constraint" stays an option
suppress_warnings = ["myst.header"]


def setup(app: Sphinx) -> None:
    """Make the generated pages before Sphinx reads anything, and show examples in help texts as code."""
    from generate import generate

    app.connect("builder-inited", lambda _: generate(Path(__file__).parent / "_generated"))
    app.connect("sphinx-click-process-description", examples_as_code)


def examples_as_code(app: Sphinx, ctx: Any, lines: list[str]) -> None:
    """Show the examples of a help text as code; sphinx-click makes what click must not re-wrap a line block."""
    shown: list[str] = []
    for line in lines:
        if not line.startswith("| "):
            shown.append(line)
            continue
        title, _, command = line[2:].partition(":")
        if title in {"Example", "Examples", "Try"}:
            shown += [f"{title}:", "", ".. code-block:: console", ""]
            line = f"|   {command.strip()}"
        if line.startswith("|   "):
            shown += [f"   $ {line[2:].strip()}"] if line.strip("| ") else []
        else:
            shown += ["", line[2:]]
    lines[:] = shown
