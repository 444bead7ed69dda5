"""What is left of a mock cluster when it is left, however that happens: nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.simulate.backend import MockBackend
from hpcplan.simulate.commands.attach import Entered, EnterOptions, enter, run_command, stop_controller
from hpcplan.simulate.commands.reaper import marked
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.simulate.store import ClusterStore
from hpcplan.site.load import load_site
from tests.simulate.clusters import write_site

OPTIONS = EnterOptions(kill_wait_s=1.0, requeue_delay_s=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterStore:
    """A cluster without a controller; what its controller makes in the folder for temporary files can be seen."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return start_cluster(load_site(str(write_site(tmp_path))), StartOptions(speed=1.0), directory=tmp_path / "cluster")


def call(entered: Entered, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(words),
        env=entered.environment(os.environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def until(found: Callable[[], object], patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def controller_pid(store: ClusterStore) -> int:
    return int(json.loads((store.directory / "controller.json").read_text())["pid"])


def temporary(store: ClusterStore) -> list[Path]:
    return list((store.directory.parent / "tmp").iterdir())


def processes(store: ClusterStore) -> list[int]:
    return marked(str(store.directory))


def test_leaving_ends_jobs_and_takes_away_all_but_the_cluster(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, OPTIONS) as entered:
        call(entered, "sbatch", "--wrap", "touch up; srun sleep 300", cwd=tmp_path)
        until((tmp_path / "up").exists)
        until(lambda: len(processes(store)) >= 3)
    assert processes(store) == []
    assert temporary(store) == []
    assert not (store.directory / "controller.json").exists()
    assert [record.state.value for record in MockBackend(store).jobs()] == ["CANCELLED"]


def test_a_cluster_of_its_own_is_gone_with_its_last_shell(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, EnterOptions(purge=True, kill_wait_s=1.0)):
        assert store.directory.exists()
    assert not store.directory.exists()
    assert temporary(store) == []


def test_a_second_shell_keeps_the_controller_when_the_first_leaves(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, OPTIONS) as second:
        with enter(store, OPTIONS) as first:
            call(first, "sbatch", "--wrap", "sleep 300", cwd=tmp_path)
        assert call(second, "squeue", "-h", "-o", "%T", cwd=tmp_path).stdout == "RUNNING\n"
    assert processes(store) == []


def test_a_killed_controller_leaves_nothing_running(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, OPTIONS) as entered:
        call(entered, "sbatch", "--wrap", "touch up; setsid sleep 300 & srun sleep 300", cwd=tmp_path)
        until((tmp_path / "up").exists)
        until(lambda: len(processes(store)) >= 4)
        os.kill(controller_pid(store), signal.SIGKILL)
        until(lambda: not processes(store))
        until(lambda: not temporary(store))
        answer = subprocess.run(
            [sys.executable, "-m", "hpcplan.simulate.commands.client", "/nowhere/socket", "squeue"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert answer.returncode == 1
        assert answer.stderr == "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


def test_the_jobs_of_a_killed_controller_run_again_under_the_next(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, OPTIONS) as entered:
        script = 'echo run $SLURM_RESTART_COUNT >> out; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300'
        call(entered, "sbatch", "--wrap", script, cwd=tmp_path)
        until((tmp_path / "out").exists)
        os.kill(controller_pid(store), signal.SIGKILL)
        until(lambda: not processes(store))
    with enter(store, OPTIONS) as entered:
        until(lambda: (tmp_path / "out").read_text() == "run\nrun 1\n")
        until(lambda: not call(entered, "squeue", "-h", cwd=tmp_path).stdout)
        states = call(entered, "sacct", "-D", "-X", "-n", "-P", "-o", "State", cwd=tmp_path).stdout.split()
    assert states == ["NODE_FAIL", "COMPLETED"]


def test_a_killed_shell_takes_everything_with_it(store: ClusterStore, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from hpcplan.simulate.commands.attach import *;"
        "from hpcplan.simulate.store import ClusterStore;\n"
        "with enter(ClusterStore(Path(sys.argv[1]))) as entered:\n"
        "    job = f'touch {sys.argv[2]}; sleep 300'\n"
        "    run_command(['sbatch', '--wrap', job], entered.environment({'PATH': '/bin'}))\n"
        "    time.sleep(300)\n"
    )
    shell = subprocess.Popen([sys.executable, "-c", code, str(store.directory), str(tmp_path / "up")], cwd=tmp_path)
    until((tmp_path / "up").exists)
    shell.kill()
    shell.wait()
    until(lambda: not processes(store))
    until(lambda: not temporary(store))


def test_stopping_the_cluster_from_outside_ends_its_jobs(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, OPTIONS) as entered:
        call(entered, "sbatch", "--wrap", "sleep 300", cwd=tmp_path)
        until(lambda: processes(store))
        stop_controller(store)
        assert processes(store) == []
        answer = call(entered, "sbatch", "--wrap", "true", cwd=tmp_path)
        assert answer.returncode != 0


def test_a_cluster_that_is_deleted_under_its_controller_leaves_nothing_running(
    store: ClusterStore, tmp_path: Path
) -> None:
    with enter(store, OPTIONS) as entered:
        call(entered, "sbatch", "--wrap", "sleep 300", cwd=tmp_path)
        until(lambda: processes(store))
        store.purge()
        until(lambda: not processes(store))
        until(lambda: not temporary(store))


def test_the_exit_code_of_a_command_is_passed_on(tmp_path: Path) -> None:
    assert run_command(["sh", "-c", "exit 7"], os.environ) == 7
    assert run_command(["sh", "-c", "kill -15 $$"], os.environ) == 143


def test_pretended_jobs_are_timed_and_not_run(store: ClusterStore, tmp_path: Path) -> None:
    with enter(store, EnterOptions(pretend=True)) as entered:
        script = "#!/bin/sh\n# hpcplan: expected-runtime-s=100\ntouch ran\n"
        (tmp_path / "job.sh").write_text(script)
        call(entered, "sbatch", "-t", "10", "job.sh", cwd=tmp_path)
        MockBackend(store).advance(120)
        states = call(entered, "sacct", "-X", "-n", "-P", "-o", "State,Elapsed", cwd=tmp_path).stdout.split()
    assert states == ["COMPLETED|00:01:40"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("program", "start_up"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_a_shells_start_up_files_do_not_hide_the_commands(
    store: ClusterStore, tmp_path: Path, program: str, start_up: str
) -> None:
    shell = shutil.which(program)
    if shell is None:
        pytest.skip(f"{program} is not installed")
    (tmp_path / start_up).write_text("export PATH=/usr/bin:/bin SEEN=yes\n")
    with enter(store, OPTIONS) as entered:
        words, more = entered.shell(shell)
        env = {**entered.environment({**os.environ, "HOME": str(tmp_path)}), **more}
        if "ZDOTDIR" in more:
            env["MOCK_ZDOTDIR"] = str(tmp_path)
        answer = subprocess.run(
            [*words, "-i", "-c", "command -v sbatch; echo $SEEN"], env=env, cwd=tmp_path, capture_output=True,
            text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert answer.stdout.split() == [str(entered.bin_directory / "sbatch"), "yes"]
