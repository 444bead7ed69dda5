"""A client that dies at any instruction that matters: after the next submit, every job was submitted exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import cancel, status, submit
from hpcplan.campaign.journal import JOURNAL_NAME, JournalWriter, read_journal

JOBS = 3
CALLS = 1 + JOBS  # ping, then each submit
ENTRIES = 1 + 2 * JOBS  # opened, then intent and result of each job


def check_once(directory: Path, slurm: Any) -> None:
    """Submit until nothing is left, and see that each job exists once and the journal knows it."""
    steps = submit(directory, slurm, settle_s=0)
    records = slurm.records.values()
    assert len(records) == JOBS
    assert len({record.comment for record in records}) == JOBS
    assert {step.job_id for step in steps} == set(slurm.records)
    assert [step.action for step in submit(directory, slurm, settle_s=0)] == ["already"] * JOBS
    assert status(directory, slurm).state == "waiting"


@pytest.mark.parametrize("call", range(1, CALLS + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_dying_at_a_call(call: int, moment: str, directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    if moment == "before":
        slurm.before = fakes.on_call(call, fakes.die)
    else:
        slurm.after = fakes.on_call(min(call, JOBS), fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.before = slurm.after = lambda call: None
    check_once(directory, slurm)


@pytest.mark.parametrize("entry", range(1, ENTRIES + 1))
@pytest.mark.parametrize("part", ["nothing", "a third", "all but the end", "everything"])
def test_dying_while_writing_the_journal(
    entry: int, part: str, directory: Path, fakes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = fakes.FakeSlurm()
    write = os.pwrite
    count = 0

    def dying(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal count
        if not data.startswith(b'{"seq"'):
            return write(descriptor, data, offset)
        count += 1
        if count < entry:
            return write(descriptor, data, offset)
        shares = {"nothing": 0, "a third": len(data) // 3, "all but the end": len(data) - 1, "everything": len(data)}
        if shares[part]:
            write(descriptor, data[: shares[part]], offset)
        raise fakes.Died

    monkeypatch.setattr(os, "pwrite", dying)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    monkeypatch.setattr(os, "pwrite", write)
    check_once(directory, slurm)


VICTIM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import fakes
from hpcplan.campaign import submit
directory, store, moment, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
slurm = fakes.FakeSlurm(store)
if moment == "before":
    slurm.before = fakes.on_call(number, fakes.kill)
elif moment == "after":
    slurm.after = fakes.on_call(number, fakes.kill)
else:
    write, count = os.pwrite, 0
    def dying(descriptor, data, offset):
        global count
        count += data.startswith(b'{{"seq"')
        if count == number:
            write(descriptor, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data, offset)
    os.pwrite = dying
submit(directory, slurm, settle_s=0)
"""


@pytest.mark.parametrize(
    ("moment", "number"),
    [("before", 1), ("before", 2), ("before", 3), ("after", 1), ("after", 3), *[("write", n) for n in (1, 2, 3, 5, 7)]],
)
def test_a_killed_process_leaves_nothing_submitted_twice(
    moment: str, number: int, directory: Path, tmp_path: Path, fakes: ModuleType
) -> None:
    code = VICTIM.format(tests=str(Path(__file__).parent))
    arguments = [str(directory), str(tmp_path / "store"), moment, str(number)]
    victim = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    check_once(directory, fakes.FakeSlurm(tmp_path / "store"))


def test_a_torn_last_line_and_a_lost_answer_together(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    submit(directory, slurm)
    path = directory / JOURNAL_NAME
    path.write_bytes(path.read_bytes()[:-5])  # the last 'submitted' never got to disk whole
    assert read_journal(directory)[-1].event == "submit"
    check_once(directory, slurm)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 4))
def test_cancelling_can_be_repeated_after_dying_anywhere(
    moment: str, call: int, directory: Path, fakes: ModuleType
) -> None:
    slurm = fakes.FakeSlurm()
    submit(directory, slurm)
    if moment == "before":
        slurm.before = fakes.on_call(call, fakes.die)  # ping, jobs, cancel
    else:
        slurm.after = fakes.on_call(1, fakes.die)
    with pytest.raises(fakes.Died):
        cancel(directory, slurm, settle_s=0)
    slurm.before = slurm.after = lambda call: None
    cancel(directory, slurm, settle_s=0)
    assert all(record.state.final for record in slurm.records.values())
    assert status(directory, slurm).state == "cancelled"


def test_the_journal_is_closed_and_unlocked_after_an_error(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.before = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    with JournalWriter(directory) as journal:
        assert len(journal.entries) == 2
