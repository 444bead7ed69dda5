"""Launches the tasks of a step on behalf of srun, or the command of salloc; runs in the client, by its path.

Tasks write where srun writes, unless output files or labels are asked for. Each task leads a process group of its own,
which the controller signals; it is told their ids when all have begun.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

__all__ = ["launch"]

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)
_OUTPUT_LOCK = threading.Lock()


def launch(line: Any, plan: dict[str, Any]) -> None:
    """Run what ``plan`` says to its end and tell the controller the wait statuses."""
    step = _Step(plan)
    step.begin()
    if plan["foreground"]:  # what the terminal sends is for the command
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    groups = {rank: process.pid for rank, process in step.processes.items()}
    line.send({"groups": groups, "foreground": plan["foreground"]})
    step.finish()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = {"cpu_s": round(usage.ru_utime + usage.ru_stime, 3), "max_rss_bytes": usage.ru_maxrss * 1024}
    line.send({"exits": step.exits, **used})


class _Step:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.exits: list[int] = [0] * len(plan["tasks"])
        self.threads: list[threading.Thread] = []
        self.feeds: list[Any] = []
        self.files: dict[str, Any] = {}
        self.interrupted = 0.0
        self.aborting = False
        self.kill_at = 0.0

    def begin(self) -> None:
        """Start every task."""
        if not self.plan["foreground"]:
            for number in _FORWARDED:
                signal.signal(number, self._forward)
            signal.signal(signal.SIGINT, self._interrupt)
        for rank, task in enumerate(self.plan["tasks"]):
            try:
                self._begin(rank, task)
            except OSError as error:
                self._say(f"slurmstepd: error: execve(): {task['argv'][0]}: {error.strerror}")
                self.exits[rank] = 2 if isinstance(error, FileNotFoundError) else 13
                self._report({rank: self.exits[rank]})
        if self.feeds:
            threading.Thread(target=self._feed, daemon=True).start()

    def _begin(self, rank: int, task: dict[str, Any]) -> None:
        foreground = self.plan["foreground"]
        process = subprocess.Popen(
            task["argv"], env={**self.plan["env"], **task["env"]}, cwd=task["cwd"], stdin=self._stdin(rank),
            stdout=self._stream(task["stdout"], 1), stderr=self._stream(task["stderr"], 2),
            start_new_session=not foreground,
        )  # fmt: skip
        self.processes[rank] = process
        if process.stdin is not None:
            self.feeds.append(process.stdin)
        for pipe, target in ((process.stdout, 1), (process.stderr, 2)):
            if pipe is not None:
                thread = threading.Thread(target=self._copy, args=(rank, pipe, target), daemon=True)
                thread.start()
                self.threads.append(thread)

    def _stdin(self, rank: int) -> int | None:
        """Return where a task reads: srun's own stdin if it is the only reader, a pipe if several are fed from it."""
        wanted = self.plan["stdin"]
        if wanted == "none" or (isinstance(wanted, int) and wanted != rank):
            return subprocess.DEVNULL
        if isinstance(wanted, str) and wanted != "all":
            return os.open(wanted, os.O_RDONLY)
        return None if len(self.plan["tasks"]) == 1 or isinstance(wanted, int) else subprocess.PIPE

    def _stream(self, path: str | None, target: int) -> Any:
        if path is None:
            return subprocess.PIPE if self.plan["label"] else target
        if path not in self.files:
            if not self.plan["append"]:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
            self.files[path] = open(path, "ab", buffering=0)  # noqa: PTH123, SIM115
        return self.files[path]

    def _copy(self, rank: int, pipe: Any, target: int) -> None:
        width = len(str(len(self.plan["tasks"]) - 1))
        for text in pipe:
            with _OUTPUT_LOCK:
                os.write(target, f"{rank:{width}d}: ".encode() + text)

    def _feed(self) -> None:
        while data := os.read(0, 65536):
            for pipe in list(self.feeds):
                try:
                    pipe.write(data)
                    pipe.flush()
                except OSError:
                    self.feeds.remove(pipe)
        for pipe in self.feeds:
            try:
                pipe.close()
            except OSError:
                continue

    def finish(self) -> None:
        """Wait for all tasks; say which ended badly, and end the rest where that was asked for."""
        left = dict(self.processes)
        while left:
            ended = {rank: process.returncode for rank, process in left.items() if process.poll() is not None}
            for rank, code in ended.items():
                del left[rank]
                self.exits[rank] = code
            self._report({rank: code for rank, code in ended.items() if code != 0})
            if left and self.plan["kill_on_bad_exit"] and any(self.exits):
                self._abort(left)
            if left:
                self._pause(next(iter(left.values())))
        for thread in self.threads:
            thread.join(timeout=2)

    def _pause(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            return

    def _abort(self, left: dict[int, subprocess.Popen[bytes]]) -> None:
        if not self.aborting:
            self.aborting = True
            self._say(f"srun: launch/slurm: _step_signal: Terminating StepId={self.plan['step']}")
            for process in left.values():
                _send(process.pid, signal.SIGTERM)
            self.kill_at = time.monotonic() + self.plan["kill_wait_s"]
        elif time.monotonic() >= self.kill_at:
            for process in left.values():
                _send(process.pid, signal.SIGKILL)

    def _report(self, bad: dict[int, int]) -> None:
        """Say which tasks ended badly, those of one node that ended alike in one line."""
        alike: dict[tuple[str, int], list[int]] = {}
        for rank, code in sorted(bad.items()):
            alike.setdefault((self.plan["tasks"][rank]["node"], code), []).append(rank)
        for (node, code), ranks in alike.items():
            if self.plan["quiet"] or not node:
                continue
            words = f"Exited with exit code {code}" if code > 0 else _description(-code)
            name = f"task {ranks[0]}" if len(ranks) == 1 else f"tasks {_ranges(ranks)}"
            self._say(f"srun: error: {node}: {name}: {words}")

    def _say(self, text: str) -> None:
        with _OUTPUT_LOCK:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _forward(self, number: int, frame: Any) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                _send(process.pid, number)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Do as srun(1) says of Ctrl-C: the first asks for another within a second, which ends the step."""
        now = time.monotonic()
        if now - self.interrupted < 1:
            self._say(f"srun: sending Ctrl-C to StepId={self.plan['step']}")
            self._forward(signal.SIGINT, frame)
        else:
            self._say("srun: interrupt (one more within 1 sec to abort)")
        self.interrupted = now


def _send(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _description(number: int) -> str:
    return (signal.strsignal(number) or f"Signal {number}").partition(":")[0]


def _ranges(ranks: list[int]) -> str:
    text = ""
    for rank in ranks:
        if rank - 1 in ranks and rank + 1 in ranks:
            continue
        joint = "" if not text else "-" if rank - 1 in ranks else ","
        text += f"{joint}{rank}"
    return text
