"""The page of what templates there are and what they may use, made from the code that renders them."""

from __future__ import annotations

from collections.abc import Iterator

from hpcplan.frameworks import FRAMEWORKS
from hpcplan.render.catalogue import list_templates, variables
from hpcplan.render.versions import SINCE

__all__ = ["templates_page"]

_AXES = ("tp", "pp", "vpp", "cp", "ep")


def templates_page() -> str:
    """Return the page of frameworks, templates, variables, filters and options of Slurm."""
    return "\n".join(["# Templates and frameworks", "", *_frameworks(), *_templates(), *_variables(), *_options()])


def _frameworks() -> Iterator[str]:
    yield from (
        "## Frameworks", "",
        "What each can run of a plan. The search leaves out what it cannot, and rendering refuses it.", "",
        "| `framework` | what it is | releases | Slurm starts | axes | ZeRO | recompute | precision |",
        "|---|---|---|---|---|---|---|---|",
    )  # fmt: skip
    for name, traits in FRAMEWORKS.items():
        axes = ", ".join(axis for axis in _AXES if axis in traits.axes) or "data only"
        zero = ", ".join(map(str, sorted(traits.zero)))
        recompute = ", ".join(word for word in ("none", "selective", "full") if word in traits.recompute)
        cells = (f"`{name}`", traits.title, traits.versions, f"one task a {traits.tasks}", axes, zero, recompute,
                 ", ".join(sorted(traits.precision)))  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _templates() -> Iterator[str]:
    yield from ("## Templates", "", "| file | what it is | blocks |", "|---|---|---|")
    for template in list_templates():
        if template.origin == "shipped":
            blocks = ", ".join(f"`{block}`" for block in template.blocks)
            yield f"| `{template.name}` | {template.summary} | {blocks} |"
    yield ""


def _variables() -> Iterator[str]:
    known = variables()
    yield from ("## Variables", "", "| variable | type | what it is |", "|---|---|---|")
    for name, (kind, meaning) in known.items():
        if not name.startswith("| "):
            yield f"| `{name}` | `{kind.replace('|', 'or')}` | {meaning.replace('``', '`')} |"
    yield from ("", "## Filters", "", "| filter | what it makes |", "|---|---|")
    for name, (_, meaning) in known.items():
        if name.startswith("| "):
            yield f"| `{name[2:]}` | {meaning.replace('``', '`')} |"
    yield ""


def _options() -> Iterator[str]:
    yield from (
        "## Options by Slurm release", "",
        "`supports(\"segment\")` tells whether the site's Slurm knows an option. All others are older.", "",
        "| option | since |", "|---|---|",
    )  # fmt: skip
    for option, (year, month) in SINCE.items():
        shown = option if option == "hetjob" else f"--{option}"
        yield f"| `{shown}` | {year}.{month:02d} |"
    yield ""
