"""Work on several processes: in order, the same as on one, and over when nobody wants it any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcplan.schedule import workers
from hpcplan.schedule.workers import Workers, processors

SCRIPT = """
import os, time
from hpcplan.schedule import workers

def piece(context, number):
    if number:
        time.sleep(600)
    return os.getpid()

if __name__ == "__main__":
    workers._ALONE_S = 0.0
    with workers.Workers(None, 2) as work:
        for found in work.each(piece, [(0,), (1,), (2,)]):
            print(found, flush=True)
"""


def power(base: int, exponent: int) -> tuple[int, int]:
    return base**exponent, os.getpid()


def test_pieces_come_in_order_wherever_they_are_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_ALONE_S", 0.0)
    pieces = [(number,) for number in range(20)]
    with Workers(2, 1) as alone, Workers(2, 2) as together:
        here, there = list(alone.each(power, pieces)), list(together.each(power, pieces))
    assert [value for value, _ in there] == [value for value, _ in here] == [2**number for number in range(20)]
    assert {process for _, process in here} == {os.getpid()}
    assert os.getpid() not in {process for _, process in there}
    assert processors() >= 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_started_them_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(workers.__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 120
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
