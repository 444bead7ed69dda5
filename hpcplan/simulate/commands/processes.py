"""The processes of one job: started as a session of their own, signalled, and ended without a rest."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Batch", "Ended", "Guard", "send"]


class Guard:
    """The controller's line to its reaper (:mod:`.reaper`), which ends what is left if the controller goes."""

    def __init__(self, mark: str, paths: Sequence[Path]) -> None:
        program = str(Path(__file__).with_name("reaper.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", program, mark, *map(str, paths)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()

    def began(self, group: int) -> None:
        """Take note of a process group."""
        self._write(f"+{group}\n")

    def ended(self, group: int) -> None:
        """Forget a process group, whose number somebody else may get."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """Let everything be cleared away, and wait for it."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.close()
        self._process.wait()

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a batch script ended: exit code or signal, CPU seconds and largest resident set of it and its children."""

    exit_code: int
    signal: int
    cpu_s: float
    max_rss_bytes: int


class Batch:
    """A batch script that runs; ``ended`` is set, and ``wake`` called, when it has ended."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: str,
        stdout: str,
        stderr: str | None,
        append: bool,
        umask: int,
        make_folders: bool,
        wake: Callable[[], None],
        guard: Guard,
    ) -> None:
        """Start it.

        Raises:
            OSError: a file cannot be opened, or the script cannot be run.
        """
        self.ended: Ended | None = None
        self._wake, self._guard = wake, guard
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if append else os.O_TRUNC)
        opened: list[int] = []
        try:
            opened.append(os.open(stdin, os.O_RDONLY))
            for path in (stdout, stderr) if make_folders else ():
                if path is not None:
                    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
            opened.append(os.open(stdout, flags, 0o666 & ~umask))
            opened.append(os.dup(opened[1]) if stderr is None else os.open(stderr, flags, 0o666 & ~umask))
            process = subprocess.Popen(
                argv, env=dict(env), cwd=cwd, stdin=opened[0], stdout=opened[1], stderr=opened[2],
                start_new_session=True, umask=umask,
            )  # fmt: skip
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.pid = process.pid
        guard.began(self.pid)
        threading.Thread(target=self._wait, args=(process,), daemon=True).start()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        cpu_s = usage.ru_utime + usage.ru_stime
        self.ended = Ended(max(code, 0), max(-code, 0), round(cpu_s, 3), usage.ru_maxrss * 1024)
        self._wake()


def send(groups: Sequence[int], number: int) -> None:
    """Signal process groups; those that are gone are gone."""
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue
