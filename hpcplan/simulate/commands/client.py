"""What runs when somebody types one of Slurm's commands in the mock cluster's shell.

Started by its path, as ``python -I -S client.py SOCKET COMMAND WORD…``: it knows the standard library alone, so that it
starts in some hundredths of a second. The words, the folder and the environment go to the controller as one line of
JSON; what comes back is text to print, a question for stdin, a plan of tasks to launch, or an exit code.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

__all__ = ["Line", "main"]

_UNREACHABLE = {
    "sbatch": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "squeue": "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "sinfo": "slurm_load_partitions: Unable to contact slurm controller (connect failure)",
}


class Line:
    """One connection to the controller: a JSON document a line, both ways."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def send(self, message: dict[str, Any]) -> None:
        """Send one document."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Return the next document, ``None`` at the end."""
        text = self._file.readline()
        return json.loads(text) if text.endswith(b"\n") else None

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    path, command, *words = arguments
    try:
        line = Line(path)
        mask = os.umask(0o022)
        os.umask(mask)
        line.send(
            {
                "command": command, "words": words, "cwd": os.getcwd(), "env": dict(os.environ), "umask": mask,  # noqa: PTH109
                "uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(),
            }
        )  # fmt: skip
        return _converse(line, command)
    except (OSError, ValueError):
        said = _UNREACHABLE.get(command, f"{command}: error: Unable to contact slurm controller (connect failure)")
        print(said, file=sys.stderr)
        return 1


def _converse(line: Line, command: str) -> int:
    while (message := line.receive()) is not None:
        if "out" in message:
            _write(sys.stdout, message["out"])
        if "err" in message:
            _write(sys.stderr, message["err"])
        if message.get("want") == "stdin":
            line.send({"stdin": sys.stdin.buffer.read().decode("utf-8", "surrogateescape")})
        if "launch" in message:
            sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
            import launcher  # type: ignore[import-not-found]

            launcher.launch(line, message["launch"])
        if "exit" in message:
            return int(message["exit"])
    print(f"{command}: error: the mock cluster has stopped", file=sys.stderr)
    return 1


def _write(stream: Any, text: str) -> None:
    try:
        stream.buffer.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
    except BrokenPipeError:  # 'squeue | head' has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
