"""``hpcplan mock exec`` and ``hpcplan mock shell`` as people type them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulate.clusters import write_site


def hpcplan(*words: str, cwd: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``hpcplan mock WORDS`` in a home of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HPCPLAN_", "SLURM_"))}
    temporary = cwd / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "hpcplan", "mock", *words], cwd=cwd, input=stdin, capture_output=True, text=True,
        timeout=100, check=False, env={**kept, "HPCPLAN_DATA_DIR": str(cwd / "data"), "TMPDIR": str(temporary), **env},
    )  # fmt: skip


def test_a_command_finds_a_slurm_that_really_runs_jobs(tmp_path: Path) -> None:
    answer = hpcplan("exec", "--", "sbatch", "-W", "-o", "out", "--wrap", "srun -n2 echo hello", cwd=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "Submitted batch job 1\n", "")
    assert (tmp_path / "out").read_text() == "hello\nhello\n"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "data").exists()


def test_the_exit_code_is_the_commands(tmp_path: Path) -> None:
    assert hpcplan("exec", "sh", "-c", "exit 7", cwd=tmp_path).returncode == 7


def test_a_site_and_the_options_of_the_cluster(tmp_path: Path) -> None:
    site = str(write_site(tmp_path))
    answer = hpcplan(
        "exec", "--site", site, "--kill-wait", "3s", "--account", "ours", "--", "sh", "-c",
        "sinfo -h -o '%P %D'; scontrol show config | grep KillWait; sacctmgr -nP list account format=account",
        cwd=tmp_path,
    )  # fmt: skip
    assert answer.stdout.split("\n")[:2] == ["batch* 6", "debug 8"]
    assert "KillWait                = 3 sec" in answer.stdout
    assert answer.stdout.endswith("ours\nroot\n")


def test_pretended_jobs_go_as_fast_as_wanted(tmp_path: Path) -> None:
    ended = 'until [ -z "$(squeue -h)" ]; do sleep 0.05; done'
    script = f"sbatch -t 60 --wrap 'touch ran'; {ended}; sacct -X -n -j 1 -o elapsed"
    answer = hpcplan("exec", "--pretend", "--speed", "36000", "--", "sh", "-c", script, cwd=tmp_path)
    assert answer.stdout.split() == ["Submitted", "batch", "job", "1", "00:30:00"]
    assert not (tmp_path / "ran").exists()


def test_a_shell_is_opened(tmp_path: Path) -> None:
    answer = hpcplan("shell", cwd=tmp_path, stdin="sbatch --wrap true\nexit 3\n", SHELL="/bin/sh")
    assert answer.returncode == 3
    assert answer.stdout == "Submitted batch job 1\n"


def test_a_cluster_that_runs_is_entered_and_keeps_its_accounting(tmp_path: Path) -> None:
    assert hpcplan("start", str(write_site(tmp_path)), cwd=tmp_path).returncode == 0
    assert hpcplan("exec", "--", "sbatch", "-W", "--wrap", "true", cwd=tmp_path).returncode == 0
    answer = hpcplan("exec", "--", "sacct", "-X", "-n", "-P", "-o", "JobID,State", cwd=tmp_path)
    assert answer.stdout == "1|COMPLETED\n"
    assert '"speed": 60.0' in hpcplan("status", "--format", "json", cwd=tmp_path).stdout
    assert hpcplan("stop", "--purge", cwd=tmp_path).returncode == 0


def test_hpcplan_itself_takes_the_commands_in_there(tmp_path: Path) -> None:
    code = "from hpcplan.cli.backends import open_backend; print(open_backend().name, open_backend().ping().version)"
    answer = hpcplan("exec", "--", sys.executable, "-c", code, cwd=tmp_path)
    assert answer.stdout.split()[0] == "command"
    assert answer.stdout.split()[1].startswith("22.05")


@pytest.mark.parametrize(("words", "said"), [
    (("exec", "--speed", "10", "true"), "--speed needs --pretend"),
    (("exec",), "Missing argument"),
    (("exec", "no-such-command-anywhere"), "no-such-command-anywhere: cannot be run"),
    (("exec", "--site", "no-such-site", "true"), "no-such-site"),
    (("exec", "--name", "no-such-cluster", "true"), "no-such-cluster"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    answer = hpcplan(*words, cwd=tmp_path)
    assert answer.returncode != 0
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
