"""Has the nights reported by cron, by Slurm's scrontab, or by a systemd timer: what to write, and where."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcplan.documents import write_text
from hpcplan.errors import HpcplanError, InputError

__all__ = ["Action", "Kind", "actions", "carry_out", "clock_time"]

Kind = Literal["cron", "scrontab", "systemd"]
_BEGIN: Final = "# hpcplan report: begin"
_END: Final = "# hpcplan report: end"
_OF_JOB: Final = tuple(  # one file for what a night says, where each would leave one of its own
    f"#SCRON --{option}"
    for option in ("job-name=hpcplan-report", "time=01:00:00", "output=hpcplan-report.out", "open-mode=append")
)
_WAIT_S: Final = 60.0
_CARRIED: Final = ("SLURM_CONF", "SLURM_CLUSTERS", "XDG_CONFIG_HOME", "XDG_DATA_HOME")  # and HPCPLAN_…; no secrets
_USUAL_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_LONGEST: Final = 998  # cron(8) of Debian and of Red Hat cuts longer commands off


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: ``text`` goes to ``path``, or into the command's standard input."""

    what: str
    text: str = ""
    path: Path | None = None
    command: tuple[str, ...] = ()


def clock_time(text: str) -> tuple[int, int]:
    """Return hour and minute of ``01:30``.

    Raises:
        InputError: it is no time of day.
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if match is None:
        raise InputError(f"--at: {text!r} is no time of day; write it like 01:30")
    return int(match[1]), int(match[2])


def actions(kind: Kind, at: str, arguments: Sequence[str], *, remove: bool = False) -> list[Action]:
    """Return what is to be done so that ``hpcplan report nightly ARGUMENTS`` runs every day at a time of day.

    Raises:
        InputError: no time of day.
        HpcplanError: the present table cannot be read.
    """
    hour, minute = clock_time(at)
    words = [sys.executable, "-m", "hpcplan", "report", "nightly", *arguments]
    if any(character in word for word in words for character in "\n\r\0"):
        raise InputError("an option has a line break in it, which no table can hold")
    if kind == "systemd":
        return _systemd(hour, minute, words, remove=remove)
    program = "crontab" if kind == "cron" else "scrontab"
    settings = [f"{name}={value}" for name, value in _environment().items()]
    command = shlex.join(["env", *settings, *words] if settings else words)
    # cron takes % for the end of the line
    escaped = command.replace("%", "\\%") if kind == "cron" else command
    if kind == "cron" and len(escaped) > _LONGEST:
        raise InputError(
            f"the line for cron has {len(escaped)} characters, and cron takes {_LONGEST}",
            hint="put the command into a script, or use --systemd",
        )
    options = _OF_JOB if kind == "scrontab" else ()
    block = [] if remove else [_BEGIN, *options, f"{minute} {hour} * * * {escaped}", _END]
    text = _with_block(_present(program), block)
    what = f"{'remove it from' if remove else 'write into'} your {program}"
    return [Action(what, text, command=(program, "-"))]


def _environment() -> dict[str, str]:
    """Return what of this shell's environment the night needs too: cron and systemd start with next to none.

    Of ``PATH`` only where Slurm's commands are, if that is not where all programs are.
    """
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in _CARRIED or (name.startswith("HPCPLAN_") and name != "HPCPLAN_MOCK_COMMANDS")
    }
    sacct = shutil.which("sacct")
    folder = None if sacct is None else str(Path(sacct).absolute().parent)
    if folder is not None and folder not in _USUAL_PATH.split(":"):
        found["PATH"] = f"{folder}:{_USUAL_PATH}"
    return {name: value for name, value in found.items() if value and value.isprintable()}


def _with_block(present: str, block: list[str]) -> str:
    kept, inside = [], False
    for line in present.splitlines():
        inside = inside or line == _BEGIN
        if not inside:
            kept.append(line)
        if line == _END:
            inside = False
    return "\n".join([*kept, *block]) + "\n" if kept or block else ""


def _present(program: str) -> str:
    try:
        found = subprocess.run([program, "-l"], capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise HpcplanError(f"{program} cannot be run here: {error}") from None
    if found.returncode != 0 and "no crontab" not in found.stderr.lower() + found.stdout.lower():
        raise HpcplanError(f"{program} -l: {found.stderr.strip() or found.stdout.strip()}")
    return found.stdout if found.returncode == 0 else ""


def _quoted(word: str) -> str:
    """Return a word as systemd.syntax(7) quotes it; ``%`` begins a specifier (systemd.unit(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", escaped) else f'"{escaped}"'


def _systemd(hour: int, minute: int, words: Sequence[str], *, remove: bool) -> list[Action]:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    unit, timer = folder / "hpcplan-report.service", folder / "hpcplan-report.timer"
    if remove:
        return [
            Action("stop the timer", command=("systemctl", "--user", "disable", "--now", timer.name)),
            Action(f"remove {unit}", path=unit),
            Action(f"remove {timer}", path=timer),
        ]
    command = " ".join(_quoted(word.replace("$", "$$")) for word in words)  # systemd.service(5), COMMAND LINES
    settings = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in _environment().items())
    service = (
        f"[Unit]\nDescription=Queue report of the night\n\n[Service]\nType=oneshot\n{settings}ExecStart={command}\n"
    )
    when = f"[Timer]\nOnCalendar=*-*-* {hour:02}:{minute:02}:00\nPersistent=true\n"  # a missed run is made up for
    about = "[Unit]\nDescription=Queue report every night\n\n"
    return [
        Action(f"write {unit}", service, path=unit),
        Action(f"write {timer}", about + when + "\n[Install]\nWantedBy=timers.target\n", path=timer),
        Action("let systemd read them", command=("systemctl", "--user", "daemon-reload")),
        Action("start the timer", command=("systemctl", "--user", "enable", "--now", timer.name)),
        Action("let it run while you are not logged in", command=("loginctl", "enable-linger")),
    ]  # fmt: skip


def carry_out(action: Action) -> None:
    """Do it.

    Raises:
        HpcplanError: the file cannot be written, or the command refuses.
    """
    if action.path is not None:
        if action.text:
            action.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(action.path, action.text)
        else:
            action.path.unlink(missing_ok=True)
        return
    try:
        found = subprocess.run(
            action.command, input=action.text, capture_output=True, text=True, timeout=_WAIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HpcplanError(f"{action.command[0]} cannot be run here: {error}") from None
    if found.returncode != 0:
        raise HpcplanError(f"{shlex.join(action.command)}: {found.stderr.strip() or found.stdout.strip()}")
