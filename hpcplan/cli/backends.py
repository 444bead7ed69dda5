"""Which Slurm a command talks to: the ``--backend`` option, and what ``auto`` means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from hpcplan.cli.output import narrate

if TYPE_CHECKING:
    from hpcplan.slurm.backend import Backend

__all__ = ["KINDS", "backend_option", "open_backend", "settle_s"]

F = TypeVar("F", bound=Callable[..., Any])

KINDS: Final = ("auto", "pyslurm", "command", "rest", "mock")
# Where Slurm's clients look for their configuration (slurm.conf(5), sackd(8)), as packages are built.
_CONFIGURATION: Final = (
    "/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf", "/run/slurm/conf/slurm.conf",
)  # fmt: skip
_ELSEWHERE: Final = "go to a login node of the cluster, or try it here first: hpcplan mock start SITE"

backend_option = click.option(
    "--backend",
    "backend_name",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="How to reach Slurm; auto takes the real one where it is set up, else a running mock cluster.",
)


def open_backend(name: str = "auto") -> Backend:
    """Return the backend called ``name``.

    ``auto`` is the real Slurm where its commands are installed and know their cluster; else a mock cluster that runs,
    which is said on stderr; else the real one after all, in case it is found in some other way.

    Raises:
        SlurmUnreachableError: there is neither.
    """
    from hpcplan.slurm import choose

    if name == "mock":
        return _mock()
    if name != "auto":
        return choose.open_backend(name)
    if os.environ.get("HPCPLAN_MOCK_COMMANDS"):  # in the mock cluster's shell, where its commands really run jobs
        return choose.open_backend("command")
    installed = shutil.which("sbatch") is not None
    if installed and _is_configured():
        return choose.open_backend("auto")
    if not installed and os.environ.get("HPCPLAN_SLURMRESTD"):
        return choose.open_backend("rest")
    mock = _running_mock()
    if mock is not None:
        return mock
    return _unconfigured(choose.open_backend("command")) if installed else _nothing()


def _is_configured() -> bool:
    return bool(os.environ.get("SLURM_CONF")) or any(Path(path).is_file() for path in _CONFIGURATION)


def _mock() -> Backend:
    from hpcplan.simulate.backend import MockBackend

    return MockBackend()


def _running_mock() -> Backend | None:
    from hpcplan.errors import SlurmUnreachableError

    backend = _mock()
    try:
        cluster = backend.ping().cluster
    except SlurmUnreachableError:
        return None
    narrate(f"no real Slurm is set up here; using the mock cluster {cluster}")
    return backend


def _unconfigured(backend: Backend) -> Backend:
    """Return the backend if its cluster is found all the same, as by a DNS record (slurm.conf(5), "configless")."""
    from hpcplan.errors import SlurmUnreachableError

    try:
        backend.ping()
    except SlurmUnreachableError as error:
        message = f"Slurm's commands are here, but find no cluster, and no mock cluster runs ({error.message})"
        raise SlurmUnreachableError(message, hint=_ELSEWHERE) from None
    return backend


def _nothing() -> Backend:
    from hpcplan.errors import SlurmUnreachableError

    raise SlurmUnreachableError("no Slurm is installed here and no mock cluster runs", hint=_ELSEWHERE)


def settle_s(backend: Backend) -> float:
    """Return how many seconds a request may be under way before it has either arrived or is lost."""
    return 0.0 if backend.name == "mock" else 5.0
