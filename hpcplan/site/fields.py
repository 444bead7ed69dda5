"""Field types of site files that are no quantities: lists of words, hostlists."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from hpcplan.hostlist import expand

__all__ = ["Hostlist", "Words"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _hostlist(value: Any) -> Any:
    if isinstance(value, str):
        expand(value, limit=1_000_000)  # refuses bad syntax and hostile sizes here, where the line is known
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Hostlist = Annotated[str, BeforeValidator(_hostlist)]
