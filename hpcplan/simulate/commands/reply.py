"""What a command answers: text for its two streams and an exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcplan.errors import HpcplanError

__all__ = ["Call", "Refusal", "Reply"]


class Refusal(HpcplanError):
    """The command says no: words for stderr and an exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Reply:
    """What the command prints, and how it leaves."""

    out: str = ""
    err: str = ""
    code: int = 0

    def say(self, line: str) -> None:
        """Add a line to stdout."""
        self.out += line + "\n"

    def complain(self, line: str, code: int | None = None) -> None:
        """Add a line to stderr."""
        self.err += line + "\n"
        if code is not None:
            self.code = code


@dataclass(slots=True)
class Call:
    """Who typed what, where: ``words`` without the command's own name."""

    command: str
    words: list[str]
    cwd: str
    env: dict[str, str]
    user: str
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    stdin: str | None = None
    reply: Reply = field(default_factory=Reply)

    @property
    def job_id(self) -> int | None:
        """The job that the command was typed in."""
        text = self.env.get("SLURM_JOB_ID") or self.env.get("SLURM_JOBID") or ""
        return int(text) if text.isdecimal() else None
