"""Entering a mock cluster: its controller is started if it has none, and stays for as long as somebody holds it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import HpcplanError
from hpcplan.simulate.commands.client import Line
from hpcplan.simulate.store import ClusterStore

__all__ = ["EnterOptions", "Entered", "enter", "run_command", "stop_controller"]

_START_S: Final = 30.0
_STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class EnterOptions:
    """How a controller is started: ``pretend`` times jobs only; ``purge`` deletes the cluster with it.

    ``accounts`` are those that sacctmgr knows beside the site's. ``kill_wait_s`` and ``requeue_delay_s`` are what
    slurm.conf's KillWait and AuthInfo's ``cred_expire`` set.
    """

    pretend: bool = False
    purge: bool = False
    kill_wait_s: float = 30.0
    requeue_delay_s: int | None = None
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entered:
    """A cluster whose commands answer: where they are, and whether jobs are pretended."""

    store: ClusterStore
    bin_directory: Path
    pretend: bool

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which Slurm's commands are the mock cluster's."""
        kept = {name: value for name, value in env.items() if not name.startswith(("SLURM_", "SLURMD_"))}
        path = os.pathsep.join([str(self.bin_directory), env.get("PATH") or os.defpath])
        return {**kept, "PATH": path, "HPCPLAN_MOCK": str(self.store.directory), "HPCPLAN_MOCK_COMMANDS": "1"}

    def shell(self, program: str) -> tuple[list[str], dict[str, str]]:
        """Return the words that start a shell in which the commands come first, and the variables that it needs.

        Without that, a ``PATH`` that ``~/.bashrc`` or ``~/.zshrc`` makes anew could put a real Slurm first.
        """
        first = f"export PATH={shlex.quote(str(self.bin_directory))}:$PATH\n"
        folder = self.bin_directory.parent / "shell"
        folder.mkdir(exist_ok=True)
        match Path(program).name:
            case "bash":
                (folder / "bashrc").write_text(f'[ -f ~/.bashrc ] && . ~/.bashrc\n{first}PS1="(mock) $PS1"\n')
                return [program, "--rcfile", str(folder / "bashrc")], {}
            case "zsh":
                lines = 'ZDOTDIR="$MOCK_ZDOTDIR"\n[ -f "$ZDOTDIR/.zshrc" ] && . "$ZDOTDIR/.zshrc"\n'
                (folder / ".zshrc").write_text(f'{lines}{first}PS1="(mock) $PS1"\n')
                home = os.environ.get("ZDOTDIR") or str(Path.home())
                return [program], {"ZDOTDIR": str(folder), "MOCK_ZDOTDIR": home}
        return [program], {}


@contextmanager
def enter(store: ClusterStore, options: EnterOptions = EnterOptions()) -> Iterator[Entered]:
    """Hold the controller of a cluster that runs; the last holder to leave ends it, with the jobs that really run.

    Raises:
        HpcplanError: it cannot be started, or one with other options is there.
    """
    note, line = _hold(store, options)
    try:
        yield Entered(store, Path(note["bin"]), bool(note["pretend"]))
    finally:
        _leave(line, int(note["pid"]))


def _leave(line: Line, pid: int) -> None:
    """Let go; whoever is the last waits until everything is cleared away."""
    try:
        line.send({"command": "@leave"})
        answer = line.receive()
    except (OSError, ValueError):
        answer = None
    line.close()
    if answer is None or answer["last"]:
        _await_end(pid)


def _hold(store: ClusterStore, options: EnterOptions) -> tuple[dict[str, Any], Line]:
    process: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + _START_S
    log = store.directory / "controller.log"
    while time.monotonic() < deadline:
        note = _note(store)
        if note is not None and (held := _try_hold(note)) is not None:
            line, answer = held
            if options.pretend and not answer["pretend"]:
                line.close()
                raise HpcplanError("the jobs of this mock cluster really run in another shell; leave that one first")
            return {**note, **answer}, line
        if process is None:
            process = _start(store, options, log)
        elif process.poll() not in (None, 0):
            break
        time.sleep(0.02)
    raise HpcplanError(f"the mock cluster's controller does not start:\n{_tail(log)}")


def _start(store: ClusterStore, options: EnterOptions, log: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "hpcplan.simulate.commands.server", str(store.directory)]
    words += ["--kill-wait", str(options.kill_wait_s)]
    words += ["--pretend"] if options.pretend else []
    words += ["--purge"] if options.purge else []
    words += [] if options.requeue_delay_s is None else ["--requeue-delay", str(options.requeue_delay_s)]
    for account in options.accounts:
        words += ["--account", account]
    with log.open("wb") as stream:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd="/"
        )


def _note(store: ClusterStore) -> dict[str, Any] | None:
    try:
        return dict(json.loads((store.directory / "controller.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _try_hold(note: Mapping[str, Any]) -> tuple[Line, dict[str, Any]] | None:
    try:
        line = Line(str(note["socket"]))
        line.send({"command": "@hold"})
        answer = line.receive()
    except (OSError, KeyError):
        return None
    return None if answer is None else (line, answer)


def _tail(log: Path) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    except OSError:
        return ""


def _await_end(pid: int) -> None:
    """Wait until a controller is gone."""
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline and _lives(pid):
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return not done


def stop_controller(store: ClusterStore) -> None:
    """End the controller of a cluster, with the jobs that really run; one that has none is left alone."""
    note = _note(store)
    if note is None:
        return
    try:
        line = Line(str(note["socket"]))
        line.send({"command": "@stop"})
        line.receive()
    except (OSError, KeyError):
        return
    line.close()
    _await_end(int(note["pid"]))


def run_command(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command in the foreground and return its exit code as a shell would; Ctrl-C is its own business.

    Raises:
        HpcplanError: it cannot be run.
    """
    try:
        process = subprocess.Popen(list(words), env=dict(env))
    except OSError as error:
        raise HpcplanError(f"{words[0]}: cannot be run: {error.strerror or error}") from None
    handlers = {}
    for number in (signal.SIGINT, signal.SIGQUIT):
        handlers[number] = signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        handlers[number] = signal.signal(number, lambda number, frame: process.send_signal(number))
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
