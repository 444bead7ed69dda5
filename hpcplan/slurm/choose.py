"""Which real backend to talk to Slurm with: the one that was asked for, or the best that works here."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from hpcplan.errors import HpcplanError, InputError, SlurmError, nearest
from hpcplan.slurm import rest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.pyslurm import connect, probe
from hpcplan.slurm.rest_client import ADDRESS_VARIABLE

__all__ = ["KINDS", "Availability", "available", "open_backend"]

KINDS: Final = ("auto", "pyslurm", "command", "rest")
_DOCTOR_S: Final = 15.0


class Availability(NamedTuple):
    """A backend, whether it answers here, and in words who answers or why nobody does."""

    name: str
    ok: bool
    detail: str


def open_backend(kind: str = "auto") -> Backend:
    """Return the backend of that kind; ``auto`` is pyslurm where it works, else Slurm's commands; where these are not
    installed and the environment names a slurmrestd, that.

    Raises:
        InputError: no such kind, or the address or token of slurmrestd is wrong.
        SlurmUnreachableError: pyslurm or slurmrestd was asked for and does not work here.
    """
    if kind not in KINDS:
        raise InputError(f"no backend is called {kind!r}" + nearest(kind, KINDS))
    if kind == "rest":
        return rest.connect()
    if kind == "command":
        return CommandBackend()
    if kind == "auto" and os.environ.get(ADDRESS_VARIABLE) and not CommandBackend().has("sbatch"):
        return rest.connect()
    found = probe()
    return connect(found) if found.works or kind == "pyslurm" else CommandBackend()


def available() -> list[Availability]:
    """Return how each real backend stands here; each is given at most about 15 seconds."""
    found = probe(limit_s=_DOCTOR_S)
    return [Availability("pyslurm", found.works, found.detail), _commands(), _rest()]


def _rest() -> Availability:
    try:
        info = rest.connect().ping()
    except HpcplanError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Availability("rest", False, f"{error.message}{hint}")
    history = "with accounting" if info.accounting else "without accounting: what has ended is soon forgotten"
    return Availability("rest", True, f"Slurm {info.version}, cluster {info.cluster}, {history}")


def _commands() -> Availability:
    try:
        backend = CommandBackend()
        missing = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if not backend.has(name)]
        if missing:
            return Availability("command", False, f"Slurm's commands are not installed here: no {', '.join(missing)}")
        info = backend.ping(limit_s=_DOCTOR_S)
    except SlurmError as error:
        return Availability("command", False, error.message)
    history = "with accounting" if info.accounting else "without accounting: what has ended is soon forgotten"
    return Availability("command", True, f"Slurm {info.version}, cluster {info.cluster}, {history}")
