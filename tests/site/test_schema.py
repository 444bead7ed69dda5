"""The JSON Schema of a site file: it allows what hpcplan reads, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcplan.documents import read_document
from hpcplan.resources import shipped
from hpcplan.site.schema import site_schema

SCHEMA = site_schema()
SITES = sorted(path for path in shipped("sites").iterdir() if path.name.endswith(".yaml"))


def mistakes(value: Any, schema: Any, at: str = "") -> Iterator[str]:
    """Yield where a value is not as the schema says, as far as the words go that this schema uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")] | {
            k: v for k, v in schema.items() if k != "$ref"
        }
    if "anyOf" in schema and not any(not list(mistakes(value, option, at)) for option in schema["anyOf"]):
        yield f"{at}: none of the alternatives"
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    if "type" in schema and (
        not isinstance(value, types[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")
    ):
        yield f"{at}: not {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: not one of {schema['enum']}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{at}: not like {schema['pattern']}"
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        yield from (f"{at}: lacks {key}" for key in schema.get("required", ()) if key not in value)
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            if below is False:
                yield f"{at}.{key}: unknown"
            elif below is not True:
                yield from mistakes(item, below, f"{at}.{key}")
    for index, item in enumerate(value if isinstance(value, list) and isinstance(schema.get("items"), dict) else ()):
        yield from mistakes(item, schema["items"], f"{at}[{index}]")


@pytest.mark.parametrize("path", SITES, ids=lambda path: Path(path).stem)
def test_every_shipped_site_fits(path: Path) -> None:
    assert list(mistakes(read_document(path).value, SCHEMA)) == []


def test_what_the_reader_refuses_does_not_fit() -> None:
    good: dict[str, Any] = {
        "name": "x", "partitions": {"p": {"nodes": "g"}}, "fabric": {"switches": [{"name": "s", "nodes": "n1"}]},
        "node_groups": {"g": {"nodes": "n1", "cpus": 4, "memory": "8 GiB", "nics": {"bandwidth": "10 Gb/s"}}},
    }  # fmt: skip
    assert list(mistakes(good, SCHEMA)) == []
    for change in ({"memory": 8}, {"cpus": "four"}, {"colour": "red"}, {"cpus": True}):
        group = good["node_groups"]["g"] | change
        assert list(mistakes(good | {"node_groups": {"g": group}}, SCHEMA))
    assert list(mistakes({key: value for key, value in good.items() if key != "fabric"}, SCHEMA)) == [": lacks fabric"]
    assert list(mistakes(good | {"partitoins": {}}, SCHEMA)) == [".partitoins: unknown"]


def test_quantities_are_text_with_a_unit_in_their_example() -> None:
    group = SCHEMA["$defs"]["NodeGroup"]["properties"]
    assert (group["memory"]["type"], group["memory"]["examples"]) == ("string", ["80 GiB"])
    assert {"type": "string", "examples": ["36 h"], "pattern": r"^\s*[0-9.].*"} in group["mtbf"]["anyOf"]
    assert SCHEMA["$schema"].endswith("2020-12/schema")
