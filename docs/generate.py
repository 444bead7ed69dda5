"""Makes ``docs/_generated``: the tables of the file formats, from the models that read them, and the pictures.

Run by Sphinx at each build (conf.py); by hand: ``python docs/generate.py``.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hpcplan import quantities
from hpcplan.cost.constants import read_base
from hpcplan.plan import Plan
from hpcplan.resources import shipped
from hpcplan.site import list_sites, load_site
from hpcplan.site.catalogue import accelerators
from hpcplan.site.draw import draw_topology
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from hpcplan.units import format_bandwidth, format_bytes, format_flops
from hpcplan.workload import Workload, list_workloads, load_workload
from hpcplan.workload.arithmetic import active_parameters, parameters

_EXAMPLES: dict[Any, str] = {
    quantities.Bytes: "memory, as in `80 GiB`",
    quantities.Bandwidth: "bandwidth, as in `400 Gb/s`",
    quantities.Flops: "rate, as in `312 TFLOP/s`",
    quantities.Watts: "power, as in `700 W`",
    quantities.Duration: "time, as in `36 h`, `2 us` or `1-12:00:00`",
    quantities.EnergyPrice: "price, as in `0.12 /kWh`",
    quantities.Count: "count, as in `15T` or `4096`",
    quantities.PositiveInt: "whole number",
    quantities.NonNegative: "number",
    quantities.Fraction: "number from 0 to 1",
}


def _kind(annotation: Any) -> str:
    """Return what a person writes for a value of this type."""
    for known, words in _EXAMPLES.items():
        if annotation is known:
            return words
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(part) for part in arguments if part is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping of names to {_kind(arguments[1])}"
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{_anchor(annotation)})"
    return {str: "text", bool: "`true` or `false`", int: "whole number", float: "number"}.get(annotation, "value")


def _anchor(model: type[BaseModel]) -> str:
    """Return the heading's label: the module keeps apart models that share a name."""
    return f"{model.__module__.split('.')[1]}-{model.__name__.lower()}"


def _models(model: type[BaseModel], seen: list[type[BaseModel]]) -> list[type[BaseModel]]:
    if model in seen:
        return seen
    seen.append(model)

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            _models(annotation, seen)
        for part in typing.get_args(annotation):
            walk(part)

    for info in model.model_fields.values():
        walk(info.annotation)
    return seen


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True) if info.default_factory is None else None
    if value in (None, (), {}, "") or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def schema_page(title: str, introduction: str, model: type[BaseModel]) -> str:
    """Return a page with one table a model: key, what one writes, default, meaning."""
    lines = [f"# {title}", "", introduction, ""]
    for each in _models(model, []):
        hints = typing.get_type_hints(each, include_extras=True)
        summary = " ".join((each.__doc__ or "").split())
        lines += [f"({_anchor(each)})=", f"## {each.__name__}", "", summary, ""]
        lines += ["| key | what one writes | default | meaning |", "|---|---|---|---|"]
        for name, info in each.model_fields.items():
            cells = (f"`{info.alias or name}`", _kind(hints[name]), _default(info), info.description or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def catalogue_page() -> str:
    """Return the page of shipped sites, workloads, accelerators and constants."""
    lines = ["# What ships", "", "## Sites", "", "| site | what it is | sources |", "|---|---|---|"]
    for name in list_sites():
        site = load_site(name).site
        lines.append(f"| `{name}` | {site.description} | {'; '.join(site.sources)} |")
    lines += ["", "## Workloads", "", "| workload | parameters | active | sequence | batch | tokens | sources |"]
    lines.append("|---|---:|---:|---:|---:|---:|---|")
    for name in list_workloads():
        workload = load_workload(name).workload
        run, shape = workload.training, workload.model
        size, active = f"{parameters(shape) / 1e9:.2f} B", f"{active_parameters(shape) / 1e9:.2f} B"
        sources = "; ".join(workload.sources)
        lines.append(
            f"| `{name}` | {size} | {active} | {run.sequence_length:,} | {run.global_batch:,} "
            f"| {run.tokens / 1e9:,.0f} B | {sources} |"
        )
    lines += [
        "",
        "## Accelerators",
        "",
        "| accelerator | memory | bandwidth | bf16 or fp16 | source |",
        "|---|---:|---:|---:|---|",
    ]
    for name, chip in accelerators().items():
        memory, bandwidth = format_bytes(chip.memory_bytes), format_bandwidth(chip.memory_bandwidth_bytes_per_s)
        lines.append(f"| `{name}` | {memory} | {bandwidth} | {format_flops(chip.peak('bf16'))} | {chip.source} |")
    lines += ["", "## Constants of the cost model", "", "| constant | value | source |", "|---|---|---|"]
    for name, entry in read_base(shipped("sites") / "constants").constants.items():
        lines.append(f"| `{name}` | {entry.value:g} | {entry.source} |")
    return "\n".join([*lines, ""])


def generate(folder: Path) -> None:
    """Write every generated page and picture into ``folder``."""
    folder.mkdir(exist_ok=True)
    pages = {
        "site-file.md": schema_page("The site file", "One YAML file a site. Quantities carry their units.", Site),
        "workload-file.md": schema_page(
            "The workload file",
            "One YAML file a workload. `model` is a shape as below, a name of the catalogue (`model: llama3-8b`), or "
            "the name of a Hugging Face `config.json` beside the file.",
            Workload,
        ),
        "plan-file.md": schema_page(
            "plan.json", "What `hpcplan plan` writes and `hpcplan render` reads. Plain numbers in base units.", Plan
        ),
        "catalogue.md": catalogue_page(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for name in ("superpod-h100", "mixed-lab"):
        site = load_site(name).site
        draw_topology(site, build_topology(site), folder / f"{name}.svg")


if __name__ == "__main__":
    generate(Path(__file__).parent / "_generated")
