"""Full disks, read-only directories, clocks that step back, two at once: what campaigns meet in real life."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import advance, cancel, status, submit
from hpcplan.campaign.journal import JOURNAL_NAME, JournalWriter, read_journal
from hpcplan.errors import HpcplanError
from hpcplan.slurm import JobState

JOBS = 3


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


def check_once(directory: Path, slurm: Any) -> None:
    steps = submit(directory, slurm, settle_s=0)
    assert {step.job_id for step in steps} == set(slurm.records)
    assert len({record.comment for record in slurm.records.values()}) == len(slurm.records) == JOBS


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("part", [0, 10])
def test_a_disk_that_fills_up_loses_nothing(
    number: int, part: int, directory: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = os.pwrite, 0

    def full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal count
        if not data.startswith(b'{"seq"'):
            return write(descriptor, data, offset)
        count += 1
        if count == number:
            write(descriptor, data[:part], offset)
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HpcplanError, match="No space left on device") as caught:
        submit(directory, slurm)
    assert caught.value.exit_code == 1
    monkeypatch.setattr(os, "pwrite", write)
    assert (directory / JOURNAL_NAME).read_bytes().endswith(b"\n") or number == 1, "the half line was taken back"
    check_once(directory, slurm)


SMALL = """
import os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import fakes
from hpcplan.campaign import submit
from hpcplan.errors import HpcplanError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
try:
    submit(Path(sys.argv[1]), fakes.FakeSlurm(), settle_s=0)
except HpcplanError as error:
    print(error)
    sys.exit(int(error.exit_code))
"""


def test_a_file_that_may_grow_no_more_is_an_error_and_no_torn_journal(directory: Path) -> None:
    code = SMALL.format(tests=str(Path(__file__).parent))
    child = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=False)
    assert (child.returncode, "cannot be written: File too large" in child.stdout) == (1, True), child.stderr
    entries = read_journal(directory)
    assert entries
    assert entries[0].event == "opened"


def readable_only(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Take the right to write away; from root, who needs no right, by taking the calls away."""

    @contextlib.contextmanager
    def guarded() -> Any:
        if os.geteuid() != 0:
            directory.chmod(0o555)
            try:
                yield
            finally:
                directory.chmod(0o755)
            return
        patch, opened = pytest.MonkeyPatch(), os.open

        def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if str(path).startswith(str(directory)) and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
                raise OSError(30, "Read-only file system")
            return opened(path, flags, *arguments, **options)

        patch.setattr(os, "open", refuse)
        try:
            yield
        finally:
            patch.undo()

    return guarded()


def test_a_directory_that_cannot_be_written_is_still_told_of_and_nothing_is_submitted(
    directory: Path, slurm: Any
) -> None:
    with readable_only(directory), pytest.raises(HpcplanError, match="cannot be written"):
        submit(directory, slurm)
    assert slurm.records == {}
    submit(directory, slurm)
    slurm.run(100)
    slurm.end(100)
    with readable_only(directory):
        assert [job.state for job in status(directory, slurm).jobs] == ["COMPLETED", "PENDING", "PENDING"]
        with pytest.raises(HpcplanError, match="cannot be written"):
            cancel(directory, slurm)
    assert all(record.state is not JobState.CANCELLED for record in slurm.records.values())
    assert [entry.event for entry in read_journal(directory)].count("ended") == 0
    status(directory, slurm)
    assert [entry.event for entry in read_journal(directory)].count("ended") == 1


@pytest.mark.parametrize("back_s", [60, 3600, 86400])
@pytest.mark.parametrize("call", range(2, 5))
def test_a_clock_that_steps_back_after_a_crash_loses_nothing(
    back_s: int, call: int, directory: Path, slurm: Any, fakes: ModuleType
) -> None:
    slurm.after = fakes.on_call(call - 1, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.after = lambda name: None
    slurm.clock -= back_s
    check_once(directory, slurm)
    for job_id in sorted(slurm.records):
        slurm.run(job_id)
        slurm.end(job_id)
    assert status(directory, slurm).state.value == "done"


def test_the_journal_stays_in_order_when_the_wall_clock_steps_back(
    directory: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(directory, slurm)
    monkeypatch.setitem(JournalWriter.__init__.__kwdefaults__, "clock", lambda: 1_000_000_000.0)
    slurm.run(100)
    slurm.end(100)
    status(directory, slurm)
    entries = read_journal(directory)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1].time < entries[0].time
    assert entries[-1].event == "ended"


CLIENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import fakes
from hpcplan.campaign import submit
submit(Path(sys.argv[1]), fakes.FakeSlurm(Path(sys.argv[2])), settle_s=0, wait_s=60)
"""


def test_several_processes_that_submit_at_once_submit_each_job_once(
    directory: Path, tmp_path: Path, fakes: ModuleType
) -> None:
    code = CLIENT.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(directory), str(tmp_path / "store")]
    clients = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for client in clients:
        assert client.wait() == 0, client.stderr.read() if client.stderr else ""
        if client.stderr:
            client.stderr.close()
    check_once(directory, fakes.FakeSlurm(tmp_path / "store"))


def test_a_turn_and_a_cancellation_at_once_end_in_a_cancelled_campaign(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    problems: list[Exception] = []

    def turns() -> None:
        for _ in range(20):
            try:
                advance(directory, slurm, settle_s=0)
            except HpcplanError as error:
                problems.append(error)

    thread = threading.Thread(target=turns)
    thread.start()
    cancel(directory, slurm, settle_s=0)
    thread.join()
    assert advance(directory, slurm, settle_s=0).status.state.value == "cancelled"
    assert len(slurm.records) == JOBS
