"""What ``--fix`` can name: a part of the sharding that the search has to keep, read from words and written back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpcplan.cost.shardings import CONTEXT_EXCHANGE, OFFLOAD, QUANTIZED, RECOMPUTE, RECOMPUTE_MLP, SCHEDULES
from hpcplan.errors import InputError, nearest

__all__ = ["COLUMNS", "parse_fixed", "spelled"]

COLUMNS: Mapping[str, str] = {"recompute_layers": "spared_layers"}
"""Columns of the shardings that have another name than ``--fix`` has for them."""

_FLAG = {"on": 1, "off": 0, "true": 1, "false": 0, "1": 1, "0": 0}
_CHOICES = {"recompute": RECOMPUTE, "recompute_mlp": RECOMPUTE_MLP, "schedule": SCHEDULES, "offload": OFFLOAD,
            "context_exchange": CONTEXT_EXCHANGE, "quantized": QUANTIZED}  # fmt: skip
_WORDS = {**_CHOICES, "sequence_parallel": ("off", "on")}
_ALL, _NONE = "all", "none"  # 0 in the columns of shardings
_BESIDE_NUMBERS = {"recompute_layers": _ALL, "shard_group": _ALL, "secondary_group": _NONE}


def _count_or_all(word: str) -> int:
    count = 0 if word == _ALL else int(word)
    if count < 0 or (count == 0 and word != _ALL):
        raise ValueError(word)
    return count


def _count_or_none(word: str) -> int:
    return 0 if word == _NONE else _at_least_one(word)


def _at_least_one(word: str) -> int:
    if int(word) < 1:
        raise ValueError(word)
    return int(word)


_READ: Mapping[str, Callable[[str], int]] = {
    **dict.fromkeys(("tp", "pp", "vpp", "dp", "cp", "ep", "micro_batch", "micro_batches", "zero"), int),
    **{name: {word: i for i, word in enumerate(words)}.__getitem__ for name, words in _CHOICES.items()},
    "recompute_layers": _count_or_all,
    "recompute_block": _at_least_one,
    "shard_group": _count_or_all,
    "secondary_group": _count_or_none,
    "sequence_parallel": _FLAG.__getitem__,
}


def parse_fixed(words: tuple[str, ...]) -> dict[str, int]:
    """Return ``{'tp': 8}`` for ``('tp=8',)``.

    Raises:
        InputError: no ``=``, a name that cannot be fixed, or a value that it cannot have.
    """
    fixed: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _READ:
            known = nearest(name, _READ) or "; known: " + ", ".join(sorted(_READ))
            raise InputError(f"--fix {word!r}: write NAME=VALUE{known}")
        if not equals:
            raise InputError(f"--fix {word!r}: which {name}? Write NAME=VALUE, as in tp=8")
        try:
            fixed[name] = _READ[name](value.strip().lower())
        except (KeyError, ValueError):
            able = " or ".join(_WORDS.get(name, ("a whole number",)))
            others = f", or {_BESIDE_NUMBERS[name]}" if name in _BESIDE_NUMBERS else ""
            raise InputError(f"--fix {word!r}: {name} cannot be {value!r}; write {able}{others}") from None
    return fixed


def spelled(name: str, value: int) -> str:
    """Return a value as ``--fix`` takes it: ``cpu`` for 1 of ``offload``."""
    if value == 0 and name in _BESIDE_NUMBERS:
        return _BESIDE_NUMBERS[name]
    if name == "recompute_block":
        return str(max(1, value))
    known: tuple[str, ...] = _WORDS.get(name, ())
    return known[value] if 0 <= value < len(known) else str(value)
