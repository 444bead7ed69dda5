"""``hpcplan status --watch`` on a real pseudo-terminal: windows change their size, and connections break."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from hpcplan.campaign.journal import read_journal
from hpcplan.simulate.backend import MockBackend
from tests.campaign.kill import mock_world

WATCH = [sys.executable, "-m", "hpcplan", "status", "c1", "--watch", "--interval", "0.2"]


def size(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))


def read_until(master: int, words: str, *, patience_s: float = 30) -> str:
    seen, deadline = b"", time.monotonic() + patience_s
    while words.encode() not in seen:
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {words!r} in {seen[-2000:]!r}")
        if select.select([master], [], [], 0.2)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
    return seen.decode("utf-8", "replace")


@pytest.fixture
def watched(tmp_path: Path) -> object:
    """A campaign on a mock cluster, and a watcher of it on a terminal of 120 columns."""
    from hpcplan.campaign import submit

    with mock_world(tmp_path) as world:
        directory = world.campaign(6)
        submit(directory, world.backend, settle_s=0)
        master, slave = pty.openpty()
        size(slave, 120)
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        environ.pop("COLUMNS")
        environ.pop("LINES")
        watcher = subprocess.Popen(
            WATCH, cwd=tmp_path, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        yield directory, world.backend, master, watcher
        if watcher.poll() is None:
            watcher.kill()
        watcher.wait()
        if watcher.stderr:
            watcher.stderr.close()


def test_it_follows_the_windows_size_and_ends_with_the_campaign(watched: tuple[Path, MockBackend, int, object]) -> None:
    directory, mock, master, watcher = watched
    assert isinstance(watcher, subprocess.Popen)
    read_until(master, "train-0001")
    for columns in (40, 200, 81):
        size(master, columns)
        os.killpg(watcher.pid, signal.SIGWINCH)
        read_until(master, "train-0001")
    mock.advance(until_idle=True)
    assert "done" in read_until(master, "k1: done")
    assert watcher.wait(30) == 0
    os.close(master)
    assert [entry.event for entry in read_journal(directory)].count("ended") == 6


def test_a_connection_that_breaks_ends_it_cleanly_and_another_goes_on(
    watched: tuple[Path, MockBackend, int, object], tmp_path: Path
) -> None:
    directory, mock, master, watcher = watched
    assert isinstance(watcher, subprocess.Popen)
    read_until(master, "train-0001")
    os.close(master)
    assert watcher.wait(30) in (1, -signal.SIGHUP)
    assert watcher.stderr is not None
    assert b"Traceback" not in watcher.stderr.read()
    mock.advance(until_idle=True)
    again = subprocess.run(WATCH, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, "k1: done" in again.stdout) == (0, True)
    assert [entry.event for entry in read_journal(directory)].count("ended") == 6
