"""What a framework's launcher is given: the trainer's words, configuration files, and variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcplan.errors import InputError, Problem
from hpcplan.plan import Plan
from hpcplan.render.quoting import option_groups

__all__ = ["Config", "Launch", "groups", "own_words", "refuse", "refuse_decided"]

Config = Mapping[str, Any]
"""Plain data, in the order in which it is written; a template of the file's name turns it into text."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How one framework runs a plan."""

    command: tuple[tuple[str, ...], ...]
    """the trainer: its first element is the program, each further one an option with its values"""
    configs: Mapping[str, Config] = field(default_factory=dict)
    """configuration files by name, which a template of that name writes"""
    variables: Mapping[str, str] = field(default_factory=dict)
    """that the framework insists on"""
    step_file: str | None = None
    """file under the checkpoint folder with the last step saved, where the framework writes one itself"""
    notes: tuple[str, ...] = ()
    """what a person should know who runs this"""


def own_words(plan: Plan) -> list[str]:
    """Return the trainer's own command; without ``python`` where a launcher starts the interpreter itself."""
    words = list(plan.job.command)
    return words[1:] if words and words[0] in {"python", "python3"} and len(words) > 1 else words


def groups(words: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return words as a launcher's command: each ``--option`` with its values."""
    return tuple(option_groups(words))


def refuse(field_name: str, message: str) -> InputError:
    """Return the error that says what of the plan the framework cannot do."""
    return InputError(Problem(message, field=field_name))


def refuse_decided(words: Iterable[str], decided: Iterable[str]) -> None:
    """Check that the trainer's own command sets nothing that the plan decides, for then the plan would not run.

    Raises:
        InputError: it does; with the option.
    """
    names = set(decided)
    for word in words:
        name = word.partition("=")[0]
        if name in names:
            raise refuse("job.command", f"{name} is decided by the plan; take it out of the trainer's own arguments")
