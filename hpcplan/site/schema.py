"""The JSON Schema of a site file, for editors: what one writes, with units, rather than what the code keeps."""

from __future__ import annotations

from typing import Any, Final

from hpcplan.site.model import Site

__all__ = ["site_schema"]

# alias types of hpcplan.quantities as JSON Schema has them, told by the bounds that only they have
_QUANTITY: Final = "as in {example}"
_EXAMPLES: Final = {
    "Bytes": "80 GiB", "Bandwidth": "400 Gb/s", "Flops": "312 TFLOP/s", "Watts": "700 W", "Duration": "36 h",
    "EnergyPrice": "0.12 /kWh",
}  # fmt: skip


def site_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema, draft 2020-12); keys are those of the file, quantities are text with a unit."""
    schema = Site.model_json_schema(by_alias=True, mode="validation")
    quantities = _quantities()
    definitions = {"Site": schema, **schema.get("$defs", {})}
    for model, fields in quantities.items():
        properties = definitions.get(model, {}).get("properties", {})
        for key, example in fields.items():
            if key in properties:
                properties[key] = _with_unit(properties[key], example)
    for definition in definitions.values():
        for key, value in definition.get("properties", {}).items():
            definition["properties"][key] = _one_or_many(value)
    cables = definitions["Cables"]
    definitions["Cables"] = {
        "description": cables.get("description", ""),
        "anyOf": [{"type": "string", "examples": ["4 x 400 Gb/s"]}, cables],
    }
    schema["$defs"] = {name: definition for name, definition in definitions.items() if name != "Site"}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Site file of hpcplan"
    return schema


def _quantities() -> dict[str, dict[str, str]]:
    """Return, for each model, the keys that take a quantity, with an example."""
    import typing

    from pydantic import BaseModel

    from hpcplan import quantities

    example_of = {getattr(quantities, name): example for name, example in _EXAMPLES.items()}
    found: dict[str, dict[str, str]] = {}
    pending: list[Any] = [Site]
    while pending:
        model = pending.pop()
        if model.__name__ in found:
            continue
        hints = typing.get_type_hints(model, include_extras=True)
        keys: dict[str, str] = {}
        for name, info in model.model_fields.items():
            parts = list(_parts(hints[name]))
            example = next((text for part in parts for known, text in example_of.items() if part is known), None)
            if example is not None:
                keys[info.alias or name] = example
            pending += [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        found[model.__name__] = keys
    return found


def _parts(annotation: Any) -> Any:
    import typing

    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)


def _with_unit(value: dict[str, Any], example: str) -> dict[str, Any]:
    """Return a field's schema with a quantity, or a mapping of them, in place of the number that it becomes."""
    written = {"type": "string", "examples": [example], "pattern": r"^\s*[0-9.].*"}
    kept: dict[str, Any] = {key: value[key] for key in ("description", "default", "title") if key in value}
    if value.get("type") == "object":
        return {**kept, "type": "object", "additionalProperties": written}
    nullable = any(option.get("type") == "null" for option in value.get("anyOf", []))
    kept["description"] = "; ".join(
        part for part in (kept.get("description"), _QUANTITY.format(example=example)) if part
    )
    if kept.get("default") is not None:
        kept.pop("default")  # a number in base units, which a file must not say
    return {**kept, **({"anyOf": [written, {"type": "null"}]} if nullable else written)}


def _one_or_many(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of words with one word allowed in its place, as ``Words`` reads it."""
    words = value.get("type") == "array" and value.get("items") == {"type": "string"}
    if not words:
        return value
    kept: dict[str, Any] = {key: value[key] for key in ("description", "default", "title") if key in value}
    return {**kept, "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
