"""Turns the models that read and write hpcplan's files into reference pages: one table a model, taken from the code."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hpcplan import quantities

__all__ = ["file_page", "output_page"]

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
_PLAIN: dict[Any, str] = {str: "text", bool: "`true` or `false`", int: "whole number", float: "number"}


def _words(annotation: Any, page: str, *, null: bool) -> str:
    """Return what stands in the file for a value of this type; ``null`` says whether to mention null."""
    for known, words in _EXAMPLES.items():
        if annotation is known:
            return words
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(arguments[0], page, null=null)
    if origin in (types.UnionType, typing.Union):
        kept = [part for part in arguments if part is not type(None)]
        either = " or ".join(_words(part, page, null=null) for part in kept)
        return f"{either} or null" if null and len(kept) < len(arguments) else either
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping of names to {_words(arguments[1], page, null=null)}"
    if origin is tuple:
        return f"list of {_words(arguments[0], page, null=null)}"
    if _is_model(annotation):
        return f"[{annotation.__name__}](#{_label(annotation, page)})"
    return _PLAIN.get(annotation, "value")


def _is_model(annotation: Any) -> bool:
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)


def _label(model: type[Any], page: str) -> str:
    """Return the heading's label: a model may be described on more than one page, and names recur among modules."""
    return f"{page}-{model.__module__.split('.')[1]}-{model.__name__.lower()}"


def _hints(model: type[Any]) -> dict[str, Any]:
    import polars

    return typing.get_type_hints(model, localns={"pl": polars}, include_extras=True)


def _models(model: type[Any], skip: frozenset[str]) -> list[type[Any]]:
    """Return a model and all that it holds, each once, in the order in which a reader meets them."""
    seen: list[type[Any]] = []

    def walk(annotation: Any) -> None:
        if _is_model(annotation) and annotation not in seen:
            seen.append(annotation)
            for name, inner in _hints(annotation).items():
                if name not in skip:
                    walk(inner)
        for part in typing.get_args(annotation):
            walk(part)

    walk(model)
    return seen


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True) if info.default_factory is None else None
    if value in (None, (), {}, "") or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _heading(model: type[Any], page: str, skip: frozenset[str] = frozenset()) -> list[str]:
    sentences = re.split(r"(?<=\.)\s+", " ".join((model.__doc__ or "").split()))
    summary = " ".join(sentence for sentence in sentences if not any(f"``{name}``" in sentence for name in skip))
    return [f"({_label(model, page)})=", f"## {model.__name__}", "", summary, ""]


def file_page(page: str, title: str, introduction: str, model: type[BaseModel]) -> str:
    """Return the page of a file: for each model its keys, what one writes, the default and the meaning."""
    lines = [f"# {title}", "", introduction, ""]
    for each in _models(model, frozenset()):
        hints = _hints(each)
        lines += [*_heading(each, page), "| key | what one writes | default | meaning |", "|---|---|---|---|"]
        for name, info in each.model_fields.items():
            written = _words(hints[name], page, null=False)
            lines.append(_row(f"`{info.alias or name}`", written, _default(info), info.description or ""))
        lines.append("")
    return "\n".join(lines)


def output_page(
    page: str, title: str, introduction: str, model: type[Any], *, skip: frozenset[str], first: Mapping[str, str]
) -> str:
    """Return the page of JSON that a command prints from dataclasses; ``first`` are keys that are put before."""
    lines = [f"# {title}", "", introduction, ""]
    for each in _models(model, skip):
        hints = _hints(each)
        lines += [*_heading(each, page, skip), "| key | value |", "|---|---|"]
        if each is model:
            lines += [_row(f"`{key}`", value) for key, value in first.items()]
        for field in dataclasses.fields(each):
            if field.name not in skip:
                lines.append(_row(f"`{field.name}`", _words(hints[field.name], page, null=True)))
        if hasattr(each, "coverage"):
            lines.append(_row("`coverage`", "number from 0 to 1, or null: " + " ".join(each.coverage.__doc__.split())))
        lines.append("")
    return "\n".join(lines)
