"""The error family of hpcplan: every error that a user can cause or meet, and the exit code it ends with.

A function raises the most telling of these; the command line prints the message and leaves with ``exit_code``.
Nothing else may reach a user: a traceback is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ConflictError",
    "ExitCode",
    "HpcplanError",
    "InfeasibleError",
    "InputError",
    "Problem",
    "SlurmError",
    "SlurmUnreachableError",
    "nearest",
]


class ExitCode(IntEnum):
    """Exit codes of every ``hpcplan`` command."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    INFEASIBLE = 3
    SLURM_UNREACHABLE = 4


class HpcplanError(Exception):
    """Base of all errors that hpcplan raises on purpose. ``hint`` says what to do next, where that is known."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: where (file, line from 1, field path) and what would be right."""

    message: str
    file: str | None = None
    line: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return ": ".join(part for part in (place, self.field, self.message) if part)


class InputError(HpcplanError):
    """A file, option or value from outside is wrong. Nothing was written. Carries every problem found."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, problems: Problem | str | Sequence[Problem], *, hint: str | None = None) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class InfeasibleError(HpcplanError):
    """The request is well formed, but nothing satisfies it. The message names the constraint that binds."""

    exit_code = ExitCode.INFEASIBLE


class SlurmError(HpcplanError):
    """Slurm was reached and refused, or answered something that cannot be understood."""


class SlurmUnreachableError(SlurmError):
    """No answer from Slurm: its commands are missing, or the controller does not reply."""

    exit_code = ExitCode.SLURM_UNREACHABLE


class ConflictError(HpcplanError):
    """Something is already there, or held by somebody else, and would be lost by going on."""


def nearest(word: str, candidates: Iterable[str], *, limit: int = 3) -> str:
    """Return ``"; did you mean 'x'?"`` for the candidates closest to ``word``, or what the choices are, or ``""``.

    Where none is spelt like it, those that have it among their words are: ``price`` is near ``price_per_hour``.
    """
    choices = sorted(set(candidates))
    close = difflib.get_close_matches(word, choices, n=limit, cutoff=0.6)
    close = close or [name for name in choices if word and word in name.split("_")][:limit]
    if close:
        return "; did you mean " + " or ".join(repr(name) for name in close) + "?"
    if 0 < len(choices) <= 12:
        return "; known: " + ", ".join(choices)
    return ""
