"""Runs Slurm's own commands: a clean environment, a time limit on every call, and Slurm's words when it refuses.

The user's environment can change what the commands print (``SQUEUE_FORMAT``, ``SACCT_FORMAT``, ``SLURM_TIME_FORMAT``,
the locale, the time zone) and what sbatch submits (``SBATCH_*`` overrides the script). All of that is taken away but
for what says how Slurm is reached: see :data:`KEPT`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcplan.errors import SlurmError, SlurmUnreachableError

__all__ = ["KEPT", "SlurmCommands", "clean_environment", "error_in_words", "refusal"]

KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET"})
"""Where Slurm is and who asks. ``SLURM_CLUSTERS`` is kept only where it names one cluster."""

_SLURM: Final = re.compile(r"(SLURM|SBATCH|SQUEUE|SACCT|SINFO|SCANCEL|SCONTROL|SALLOC|SRUN|SLURMD)_")
_NEUTRAL: Final = {"LC_ALL": "C", "TZ": "UTC0", "SLURM_TIME_FORMAT": "%s"}
_UNREACHABLE: Final = (
    "unable to contact slurm controller", "controller is in standby mode", "backup controller in standby mode",
    "socket timed out", "zero bytes were transmitted", "connection refused", "connection timed out", "no route to host",
    "network is unreachable", "unable to connect to database", "munge encode failed", "protocol authentication error",
    "failed to connect to authentication agent", "could not establish a configuration source",
    "unable to process configuration file", "unexpected message received", "communication connection failure",
)  # fmt: skip
_SPEAKER: Final = re.compile(r"^\w+: (?:(?:error|fatal|warning): )?")


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would change Slurm's answers or a submission.

    Raises:
        SlurmError: ``SLURM_CLUSTERS`` names several clusters, of which one would have to be guessed.
    """
    clusters = environ.get("SLURM_CLUSTERS", "")
    if "," in clusters or clusters == "all":
        raise SlurmError(
            f"SLURM_CLUSTERS names several clusters ({clusters})", hint="Set it to the one that jobs are to run on."
        )
    return {name: value for name, value in environ.items() if name in KEPT or not _SLURM.match(name)}


class SlurmCommands:
    """Slurm's commands as the environment given (default: this process's) reaches them."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = clean_environment(os.environ if environ is None else environ)

    def run(self, *command: str, limit_s: float, neutral: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command and return what it answered, whether or not it refused.

        ``neutral`` fixes locale, time zone and time format; submissions go without, since jobs inherit the environment.

        Raises:
            SlurmUnreachableError: the command is not installed, slurm.conf is not where SLURM_CONF says, or no answer
                came within ``limit_s`` seconds (a submission may have been taken all the same).
        """
        self._check_configuration()
        try:
            return subprocess.run(
                command, env={**self.environ, **(_NEUTRAL if neutral else {})}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=limit_s, check=False,
            )  # fmt: skip
        except (FileNotFoundError, PermissionError):
            raise SlurmUnreachableError(
                f"{command[0]}: command not found", hint="Run this on a node that has Slurm's commands."
            ) from None
        except subprocess.TimeoutExpired:
            raise SlurmUnreachableError(f"{command[0]}: no answer within {limit_s:.0f} s") from None

    def answer(self, *command: str, limit_s: float, neutral: bool = True) -> str:
        """Return what the command printed.

        Raises:
            SlurmUnreachableError: as for :meth:`run`, or the command could not reach the controller or the database.
            SlurmError: it refused; the message has Slurm's own words.
        """
        result = self.run(*command, limit_s=limit_s, neutral=neutral)
        if result.returncode != 0:
            raise refusal(result)
        return result.stdout

    def _check_configuration(self) -> None:
        # Slurm's commands would retry for 60 s before they say so.
        named = self.environ.get("SLURM_CONF")
        if named and not Path(named).is_file():
            raise SlurmUnreachableError(f"SLURM_CONF names {named}, which is not a file")


def refusal(result: subprocess.CompletedProcess[str]) -> SlurmError:
    """Return the error that a failed command stands for, in Slurm's own words."""
    lines = [_SPEAKER.sub("", line.strip()) for line in result.stderr.splitlines()]
    words = "; ".join(dict.fromkeys(line.rstrip(".") for line in lines if line)) or f"exit code {result.returncode}"
    return error_in_words(f"{result.args[0]}: {words}")


def error_in_words(message: str) -> SlurmError:
    """Return the error for what Slurm said: unreachable where the words say so, else a refusal."""
    if any(phrase in message.lower() for phrase in _UNREACHABLE):
        return SlurmUnreachableError(message)
    return SlurmError(message)
