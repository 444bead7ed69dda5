"""Shapes of public models by the names that tables and people give them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from pydantic import RootModel

from hpcplan.documents import read_document
from hpcplan.validation import Value
from hpcplan.workload.load import list_workloads, load_workload
from hpcplan.workload.model import ModelShape

__all__ = ["shape_by_name"]

_FILE = Path(__file__).with_name("public_models.yaml")


class _Entry(Value):
    names: tuple[str, ...]
    source: str
    model: ModelShape


_Entries = RootModel[dict[str, _Entry]]
# words after a name that say how it was run, not which model it is
_TAIL = re.compile(
    r"(bf16|fp8|fp4|nvfp4|mxfp8|gb200|gb300|h100|strongscaling|womtp|tokendrop|dropless|pretrain|instruct|chat).*$"
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _shapes() -> dict[str, ModelShape]:
    shapes = {_plain(name): load_workload(name).workload.model for name in list_workloads()}
    for alias, name in {"llama318b": "llama3-8b", "llama3170b": "llama3-70b", "llama31405b": "llama3-405b",
                        "gpt3": "gpt3-175b", "megatron1t": "megatron-1t"}.items():  # fmt: skip
        shapes[alias] = load_workload(name).workload.model
    entries = _Entries.model_validate(read_document(_FILE).value).root
    return shapes | {_plain(name): entry.model for entry in entries.values() for name in entry.names}


def shape_by_name(name: str) -> ModelShape | None:
    """Return the shape of a public model: ``'LLAMA3.1_405B'``, ``'Llama 3.1 70b FP8'``; ``None`` if it is not known."""
    plain = _plain(name)
    shapes = _shapes()
    return shapes.get(plain) or shapes.get(_TAIL.sub("", plain))
