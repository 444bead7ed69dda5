"""The controller's process: ``python -m hpcplan.simulate.commands.server DIRECTORY``, one a cluster.

It listens on a socket in a folder that its owner alone can enter, and writes where into ``controller.json``. It leaves
when it is asked to, when the cluster is stopped, and when the last of the shells that hold it has gone.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, Final

from hpcplan.documents import write_text
from hpcplan.errors import HpcplanError
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.dispatch import COMMANDS, answer
from hpcplan.simulate.commands.processes import Guard
from hpcplan.simulate.commands.reply import Call, Reply
from hpcplan.simulate.store import ClusterStore

__all__ = ["Connection", "Server", "main"]

_LONGEST_SOCKET: Final = 100  # bytes; some systems allow 104, Linux 108
_FIRST_HOLD_S: Final = 30.0  # how long a controller waits for the shell that started it


class Connection:
    """One client: a JSON document a line, both ways."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")

    def send(self, **message: Any) -> bool:
        """Send one document; whether somebody is there to read it."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Return the next document, ``None`` once the client has gone."""
        try:
            text = self._file.readline()
        except OSError:
            return None
        return dict(json.loads(text)) if text.endswith(b"\n") else None

    def gone(self, patience_s: float | None) -> bool:
        """Wait, and return whether the client has left meanwhile."""
        ready, _, _ = select.select([self._socket], [], [], patience_s)
        try:
            return bool(ready) and self._socket.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def reply(self, reply: Reply) -> None:
        """Send what a command printed so far."""
        if reply.out or reply.err:
            self.send(out=reply.out, err=reply.err)
            reply.out = reply.err = ""

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class Server:
    """Takes what clients ask to the controller, each in a thread of its own."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._holds = 0
        self._lock = threading.Lock()
        self._first = threading.Timer(_FIRST_HOLD_S, self._nobody_came)
        self._first.daemon = True

    def serve(self, listener: socket.socket) -> None:
        """Answer clients until the controller stops."""
        self._first.start()
        listener.settimeout(0.2)
        while not self.controller.stopped.is_set():
            try:
                connected, _ = listener.accept()
            except TimeoutError:
                continue
            connected.settimeout(None)
            threading.Thread(target=self._talk, args=(Connection(connected),), daemon=True).start()

    def _talk(self, connection: Connection) -> None:
        try:
            asked = connection.receive()
            if asked is None:
                return
            if asked["command"] == "@hold":
                self._hold(connection)
            elif asked["command"] == "@stop":
                self.controller.stop()
                connection.send(exit=0)
            else:
                connection.send(exit=self._run(connection, asked))
        finally:
            connection.close()

    def _hold(self, connection: Connection) -> None:
        """Keep the controller for as long as the client is there; the last one to go ends it."""
        self._first.cancel()
        with self._lock:
            self._holds += 1
        connection.send(pretend=self.controller.pretend)
        connection.receive()  # a word of farewell, or nothing where it was killed
        with self._lock:
            self._holds -= 1
            last = not self._holds
        connection.send(last=last)
        if last:
            self.controller.stop()

    def _nobody_came(self) -> None:
        if not self._holds:
            self.controller.stop()

    def _run(self, connection: Connection, asked: dict[str, Any]) -> int:
        from hpcplan.simulate.backend import login_name

        call = Call(
            command=asked["command"], words=asked["words"], cwd=asked["cwd"], env=asked["env"], user=login_name(),
            uid=asked["uid"], gid=asked["gid"], umask=asked["umask"],
        )  # fmt: skip
        try:
            code = answer(self.controller, connection, call)
        except HpcplanError as error:
            call.reply.complain(error.message, int(getattr(error, "code", 1)))
            code = call.reply.code
        except Exception as error:  # a fault of ours must not look like a controller that is gone
            traceback.print_exc()
            call.reply.complain(f"{call.command}: error: the mock cluster failed: {error!r}", 1)
            code = 1
        connection.reply(call.reply)
        return code


def _write_commands(folder: Path, address: Path) -> None:
    """Write one small script a command, which hands over to the client."""
    folder.mkdir(exist_ok=True)
    client = Path(__file__).with_name("client.py")
    for command in COMMANDS:
        words = " ".join(f"'{word}'" for word in (sys.executable, "-I", "-S", str(client), str(address), command))
        write_text(folder / command, f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / command).chmod(0o755)


def _last_speed(note: Path) -> float | None:
    """Return the speed that a controller which was killed would have given back to the clock."""
    try:
        return float(json.loads(note.read_text(encoding="utf-8"))["speed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _serve(options: argparse.Namespace, store: ClusterStore, private: Path) -> None:
    note = options.directory / "controller.json"
    guard = Guard(str(store.directory), [private, *([store.directory] if options.purge else [])])
    try:
        address, commands = private / "socket", private / "bin"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        listener.listen(128)
        _write_commands(commands, address)
        controller = Controller(
            store, commands, guard, pretend=options.pretend, kill_wait_s=options.kill_wait,
            requeue_delay_s=options.requeue_delay, accounts=options.account,
        )  # fmt: skip
        controller.start(_last_speed(note))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: threading.Thread(target=controller.stop).start())
        said = {"pid": os.getpid(), "socket": str(address), "bin": str(commands), "speed": controller.speed}
        write_text(note, json.dumps(said))
        Server(controller).serve(listener)
        controller.stop()
        note.unlink(missing_ok=True)
    finally:
        guard.close()


def main(arguments: list[str]) -> int:
    """Run a controller until it is stopped; where the cluster has one already, do nothing."""
    parser = argparse.ArgumentParser(prog="controller")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pretend", action="store_true")
    parser.add_argument("--kill-wait", type=float, default=30.0)
    parser.add_argument("--requeue-delay", type=int)
    parser.add_argument("--account", action="append", default=[])
    parser.add_argument("--purge", action="store_true")
    options = parser.parse_args(arguments)
    lock = os.open(options.directory / "controller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    _serve(options, ClusterStore(options.directory), _private_folder())
    return 0


def _private_folder() -> Path:
    """Make a folder for the socket and the commands; a socket's path has to be short (unix(7))."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + len("/hpcplan-12345678/socket") < _LONGEST_SOCKET
    return Path(tempfile.mkdtemp(prefix="hpcplan-", dir=usual if fits else "/tmp"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
