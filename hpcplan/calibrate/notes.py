"""What the free text of a measured row says: how stages were cut, states shared, tokens dropped, a trainer built.

Tables say in notes what has no column. Each function looks for one thing in that text, in lower case.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from hpcplan.calibrate.recipes import recipe_features

__all__ = [
    "Counted",
    "accumulated",
    "capacity_factor",
    "drops_tokens",
    "features",
    "is_hybrid_sharded",
    "memory_counted",
    "micro_batches",
    "recomputed_layers",
    "schedule",
    "shard_group",
    "stage_layers",
]

Counted: TypeAlias = Literal["card", "reserved", "allocated"]

_ACCUMULATED = re.compile(r"(?:micro_num|(?:gradient[ _]?)?accumulation(?:[ _]steps)?|grad_accum)\s*[=:]?\s*(\d+)")
_CUT = re.compile(r"(?:layers[ _-]per[ _-]stage|stage[ _-]layers)\s*[=:]?\s*[\[(]([\d,\s]+)[\])]")
_CAPACITY = re.compile(r"capacity[_ ]?factor\s*[=:]?\s*(\d+(?:\.\d+)?)")
_MONTH = re.compile(r"(?<!\d)(20[2-9]\d)[-_]?(0[1-9]|1[0-2])(?!\d)")
_LOSS_COMPILED = "202504"  # torchtitan compiles the loss with the model again since pull request 1033,
_PARTS_AS_STAGES = "202501"  # and cuts batches into as many parts as there are stages of all ranks since 781


def accumulated(words: str) -> int | None:
    """Return the micro-batches of a step that the text names."""
    found = _ACCUMULATED.search(words)
    return max(1, int(found[1])) if found else None


def stage_layers(words: str, layers: int) -> tuple[int, ...]:
    """Return the cut of ``layers_per_stage=[7, 9, 9, 9]``; embedding and head, where they count, are taken off."""
    found = _CUT.search(words)
    sizes = [int(number) for number in re.findall(r"\d+", found[1])] if found else []
    if sizes and sum(sizes) == layers + 2:
        sizes[0] -= 1
        sizes[-1] -= 1
    return tuple(sizes)


def shard_group(words: str) -> int:
    """Return the ranks that states are divided over, as in ``1 (group 8)``; 0 if none are named."""
    found = re.search(r"\(\s*group\s*(\d+)\s*\)", words)
    return int(found[1]) if found else 0


def is_hybrid_sharded(words: str) -> bool:
    """Tell whether states are sharded inside nodes only."""
    return bool(re.search(r"\bhsdp\b|hybrid[-_ ]?shard", words))


def recomputed_layers(recompute: str) -> int:
    """Return the layers of a stage that a cell like ``full (4 layers)`` says are recomputed; 0 for all of them."""
    found = re.match(r"full\D*(\d+)\s*layers?", recompute)
    return int(found[1]) if found else 0


def capacity_factor(words: str) -> float | None:
    """Return the capacity factor of experts that the text names."""
    found = _CAPACITY.search(words)
    return (float(found[1]) or None) if found else None


def memory_counted(words: str) -> Counted:
    """Return what a memory is of: the card, or what PyTorch's allocator reserved or handed out at the most."""
    found = re.search(r"max_memory_(reserved|allocated)", words)
    if found is None:
        return "card"
    return "reserved" if found[1] == "reserved" else "allocated"


def drops_tokens(words: str) -> bool:
    """Tell whether tokens beyond the experts' capacity are dropped."""
    return bool(re.search(r"token[-_ ]?drop", words))


def schedule(words: str) -> str:
    """Return the pipeline schedule that the text names, 1F1B if none."""
    if re.search(r"zero.?bubble|\bzb-?[hv]", words):
        return "zero-bubble"
    return "gpipe" if "gpipe" in words else "1f1b"


def micro_batches(source: str, ranks: int, stages: int) -> int:
    """Return the micro-batches that torchtitan cuts a batch into by default: by pipeline ranks, later by all stages."""
    return stages if _since(_PARTS_AS_STAGES, source) else ranks


def _since(month: str, source: str) -> bool:
    """Tell whether a source is of that month or later, as what bears no month is taken to be."""
    found = _MONTH.search(source)
    return not found or found[1] + found[2] >= month


def features(words: str, framework: str, source: str, model: str = "", hardware: str = "") -> tuple[str, ...]:
    """Return what the text says of the trainer that changes its speed: files of that name hold the factors."""
    text = words.replace("asynctp", "async tp")
    marks = {"compile": "torch.compile", "async-tp": "async tp", "rowwise": "rowwise",
             "half-gradients": "gradients in 16 bits"}  # fmt: skip
    found = [name for name, mark in marks.items() if mark in text]
    if framework == "nemo":
        found += recipe_features(source, model, hardware, text)
    if framework == "torchtitan" and "compile" in found and _since(_LOSS_COMPILED, source):
        found.append("compiled-loss")
    return tuple(found)
