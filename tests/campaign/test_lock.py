"""The lock: one holder at a time, and none once it is dead."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcplan.campaign.lock import LOCK_NAME, campaign_lock
from hpcplan.errors import ConflictError, HpcplanError

HOLDER = """
import sys, time
from pathlib import Path
from hpcplan.campaign.lock import campaign_lock
with campaign_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        message = rf"another hpcplan is working on this campaign: process {holder.pid} on "
        with pytest.raises(ConflictError, match=message), campaign_lock(tmp_path, wait_s=0):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_a_killed_holder_leaves_nothing_behind(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    holder.kill()
    holder.communicate()
    with campaign_lock(tmp_path, wait_s=0):
        assert (tmp_path / LOCK_NAME).exists()


def test_a_waiter_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    holder = hold(tmp_path)

    def release(_seconds: float) -> None:
        holder.kill()
        holder.communicate()

    with campaign_lock(tmp_path, wait_s=60, sleep=release):
        pass


def test_two_holders_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with campaign_lock(tmp_path), pytest.raises(ConflictError), campaign_lock(tmp_path, wait_s=0):
        pass
    with campaign_lock(tmp_path, wait_s=0):
        pass


def test_a_file_system_without_locks_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HpcplanError, match="no locks") as caught, campaign_lock(tmp_path):
        pass
    assert "mount option" in str(caught.value.hint)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HpcplanError, match="cannot be written"), campaign_lock(tmp_path / "none"):
        pass
