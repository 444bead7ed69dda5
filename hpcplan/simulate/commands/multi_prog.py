"""``srun --multi-prog``: a file says which task runs which program (srun(1), MULTIPLE PROGRAM CONFIGURATION)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hpcplan.simulate.commands.reply import Refusal

__all__ = ["programs_of", "read_programs"]


def read_programs(path: Path, shown: str) -> list[tuple[int, str, str]]:
    """Return (line number, tasks, command line) of each line of a configuration file.

    Raises:
        Refusal: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        raise Refusal(f"srun: error: Could not open multi_prog config file {shown}") from None
    found = []
    number = 0
    lines = text.split("\n")
    while number < len(lines):
        first, line = number + 1, lines[number]
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + lines[number]
        number += 1
        words = line.split("#", 1)[0].strip() if line.lstrip().startswith("#") else line.strip()
        if words:
            tasks, _, command = words.partition(" ") if " " in words else words.partition("\t")
            found.append((first, tasks, command.strip()))
    return found


def programs_of(lines: list[tuple[int, str, str]], ntasks: int, shown: str) -> list[list[str]]:
    """Return the words that each task runs; ``%t`` is its number, ``%o`` its place among those of its line.

    Raises:
        Refusal: a task has no line or several, or a line names what is no task.
    """
    chosen: dict[int, list[str]] = {}
    rest: str | None = None
    for number, tasks, command in lines:
        bad = f"srun: error: Line {number} of configuration file {shown} invalid"
        if tasks == "*":
            rest = command
            continue
        for offset, task in enumerate(_numbers(tasks, bad)):
            if task >= ntasks:
                raise Refusal(f"srun: error: Invalid task id, {task} >= ntasks\n{bad}")
            if task in chosen:
                raise Refusal(f"srun: error: Duplicate record for task {task}\n{bad}")
            chosen[task] = _words(command, task, offset)
    left = [task for task in range(ntasks) if task not in chosen]
    if left and rest is None:
        raise Refusal(f"srun: error: Configuration file {shown} invalid, no record for task id {left[0]}")
    for offset, task in enumerate(left):
        chosen[task] = _words(rest or "", task, offset)
    return [chosen[task] for task in range(ntasks)]


def _numbers(text: str, bad: str) -> list[int]:
    found: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", item)
        if match is None:
            raise Refusal(f"srun: error: Invalid task range specification ({text})\n{bad}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _words(command: str, task: int, offset: int) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [word.replace("%t", str(task)).replace("%o", str(offset)) for word in words]
