"""Conditions on a report's figures, for monitoring: ``cpu_efficiency<0.4``, ``wait.p95>86400``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hpcplan.errors import InputError
from hpcplan.report.model import Report

__all__ = ["Threshold", "crossed", "parse_threshold"]

_FORM: Final = re.compile(r"\s*([a-z_0-9]+(?:\.[A-Za-z_0-9]+)*)\s*(<=|>=|<|>)\s*([0-9.]+)\s*(%?)\s*")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threshold:
    """A figure by its key in the report's JSON, and the bound that it must not cross."""

    key: str
    relation: str
    bound: float

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.key}{self.relation}{self.bound:g}"


def parse_threshold(text: str) -> Threshold:
    """Return the condition that a text is.

    Raises:
        InputError: it is none.
    """
    match = _FORM.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = float(match[3]) / (100 if match[4] else 1)
    except ValueError:
        hint = "write it as the key in the report's JSON, a relation and a number, like cpu_efficiency<0.4"
        raise InputError(f"{text!r} is no threshold; {hint}") from None
    return Threshold(match[1], match[2], bound)


def crossed(report: Report, thresholds: list[Threshold]) -> list[str]:
    """Return a line for each condition that holds; a figure that is not known crosses nothing.

    Raises:
        InputError: the report has no such figure.
    """
    plain = report.as_dict() if thresholds else {}
    found = []
    for one in thresholds:
        value = _value(plain, one.key)
        if value is not None and _COMPARE[one.relation](value, one.bound):
            found.append(f"{one.key} is {value:.4g}, which is {one.relation} {one.bound:g}")
    return found


def _value(plain: dict[str, Any], key: str) -> float | None:
    value: Any = plain
    for word in key.split("."):
        if not isinstance(value, dict) or word not in value:
            raise InputError(f"the report has no figure {key!r}; its keys are those of --format json")
        value = value[word]
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"{key} is not a number; name one in it, such as {key}.mean")
    return value
