"""Sees to it that nothing is left when a controller has gone, however it went: a process of its own, run by its path.

``python -I -S reaper.py MARK PATH…`` reads process groups from its stdin, ``+123`` as one begins and ``-123`` as it has
ended. When stdin closes, which a controller that is killed cannot help, every group that is left, and every process
that carries the mark in its environment, is killed, and the paths are deleted. It knows the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

__all__ = ["MARK", "clear", "main", "marked", "places"]

MARK = "HPCPLAN_MOCK_JOB"
"""The variable by which a job's processes are found that left its process groups."""

_NODE = b"SLURMD_NODENAME="


def marked(mark: str) -> list[int]:
    """Return the processes whose ``HPCPLAN_MOCK_JOB`` is ``mark`` or begins with it and a colon, where /proc tells."""
    return list(places(mark))


def places(mark: str) -> dict[int, str]:
    """Return the same processes, each with the node that it is on: its ``SLURMD_NODENAME``, empty if it has none."""
    exact = f"{MARK}={mark}".encode()
    found = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return {}
    for name in names:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as stream:  # noqa: PTH123
                variables = stream.read().split(b"\0")
        except OSError:
            continue
        if any(variable == exact or variable.startswith(exact + b":") for variable in variables):
            node = next((one[len(_NODE) :] for one in variables if one.startswith(_NODE)), b"")
            found[int(name)] = node.decode(errors="replace")
    return found


def clear(mark: str, patience_s: float = 5.0) -> None:
    """Kill what carries the mark until nothing does: a process may start another while it is looked for."""
    deadline = time.monotonic() + patience_s
    while left := marked(mark):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if time.monotonic() >= deadline:
            return
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    """Wait for the end of stdin, then clear up."""
    mark, *paths = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes when the controller has gone, not before
    groups: set[int] = set()
    for line in sys.stdin:
        sign, number_text = line[:1], line[1:].strip()
        if number_text.isdigit():
            (groups.add if sign == "+" else groups.discard)(int(number_text))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    clear(mark)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
