"""What a rendered script leaves of its begin and its end: in every case true, and never the cause of another end."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.render import render_plan

TOKEN = "hpcplan:c0ffee:train:1"
LINE = '''printf '%s\\n' "$own_start${SLURM_RESTART_COUNT:-0}" "$@"'''


def script_of(plans: ModuleType, code: str, **changes: Any) -> str:
    job = plans.srun_plan().job.model_copy(update={"command": ("bash", "-c", code), **changes})
    return render_plan(plans.srun_plan(job=job))["train-01.sbatch"]


def words(stage: Any, what: str = "ended", name: str = "train-01-70123") -> dict[str, str] | None:
    text = stage.state(f"jobs/{name}.{what}")
    return None if text is None else dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("code", "changes", "status"),
    [("true", {}, 0), ("exit 7", {}, 7), ("true", {"setup": ("false",)}, 1), ("kill -9 $$", {}, 137)],
)
def test_the_end_is_told_as_slurm_sees_it(
    code: str, changes: dict[str, Any], status: int, plans: ModuleType, stage: Any
) -> None:
    before = int(time.time())
    assert stage.run(script_of(plans, code, **changes), TOKEN)[0] == status
    found = words(stage)
    assert found is not None
    assert (found["token"], found["job_id"], found["restarts"], found["node"]) == (TOKEN, "70123", "0", "n1")
    assert (found["exit_code"], found["how"]) == (str(status), "ended")
    assert before <= int(found["began"]) <= int(found["ended"]) <= time.time()
    begin = words(stage, "began")
    assert begin is not None
    assert begin.items() <= found.items()
    assert {path.suffix for path in (stage.directory / "state" / "jobs").iterdir()} == {".began", ".ended"}


@pytest.mark.parametrize("line", ["echo $NOT_SET", "false", "exit 4", "nonsense_command", "cd /nowhere"])
def test_an_error_of_the_script_itself_is_told_with_its_code(line: str, plans: ModuleType, stage: Any) -> None:
    script = script_of(plans, "true").replace("# What this job ran with", f"{line}\n# What this job ran with", 1)
    status, _ = stage.run(script, TOKEN)
    assert status != 0
    found = words(stage)
    assert found is not None
    assert (found["exit_code"], found["how"]) == (str(status), "ended")


@pytest.mark.parametrize(("number", "status", "how"), [(signal.SIGTERM, 143, "stopped"), (signal.SIGHUP, 129, "ended")])
def test_a_signal_before_training_is_told(
    number: signal.Signals, status: int, how: str, plans: ModuleType, stage: Any
) -> None:
    wait = 'touch "$STAGE/early"; while [[ ! -e $STAGE/go ]]; do sleep 0.02; done'
    script = script_of(plans, "true").replace("# What this job ran with", f"{wait}\n# What this job ran with", 1)
    process = stage.start(script, TOKEN)
    deadline = time.monotonic() + 30
    while not (stage.directory / "early").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == status
    found = words(stage)
    assert found is not None
    assert (found["exit_code"], found["how"]) == (str(status), how)


def test_being_stopped_by_slurm_is_told(plans: ModuleType, stage: Any) -> None:
    process = stage.start(
        script_of(plans, 'touch "$STAGE/up"; while [[ ! -e $STAGE/stop ]]; do sleep 0.02; done'), TOKEN
    )
    deadline = time.monotonic() + 30
    while not (stage.directory / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (stage.directory / "stop").touch()
    process.communicate(timeout=30)
    assert process.returncode == 143
    found = words(stage)
    assert found is not None
    assert (found["exit_code"], found["how"]) == ("143", "stopped")


def test_who_is_killed_says_nothing(plans: ModuleType, stage: Any) -> None:
    assert stage.run(script_of(plans, "kill -9 $(ps -o ppid= $PPID)"), TOKEN)[0] == -signal.SIGKILL
    assert words(stage) is None
    assert words(stage, "began") is not None


@pytest.mark.parametrize("status", [0, 7])
def test_where_nothing_can_be_written_the_job_ends_as_it_would(status: int, plans: ModuleType, stage: Any) -> None:
    (stage.directory / "state").mkdir()
    (stage.directory / "state" / "jobs").write_text("in the way")
    result, output = stage.run(script_of(plans, f"exit {status}"), TOKEN)
    assert result == status
    assert "jobs" not in output


def test_a_full_disk_leaves_no_half_word_and_does_not_change_the_end(plans: ModuleType, stage: Any) -> None:
    jobs = stage.directory / "state" / "jobs"
    jobs.mkdir(parents=True)
    script = script_of(plans, "exit 7")
    full = script.replace(LINE, "{ printf half; false; }")
    assert full != script
    status, _ = stage.run(full, TOKEN)
    assert status == 7
    assert list(jobs.iterdir()) == []


@pytest.mark.parametrize(("status", "restarts"), [(0, "0"), (7, "0"), (0, "1")])
def test_a_job_that_slurm_starts_again_having_forgotten_its_first_start_does_nothing_twice(
    status: int, restarts: str, plans: ModuleType, stage: Any
) -> None:
    script = script_of(plans, f'echo ran >>"$STAGE/ran"; exit {status}')
    assert stage.run(script, TOKEN)[0] == status
    before = words(stage)
    (stage.directory / "state" / "failed").unlink(missing_ok=True)
    again, output = stage.run(script, TOKEN, SLURM_RESTART_COUNT=restarts)
    assert again == status
    assert "nothing is done twice" in output
    assert words(stage) == before
    assert (stage.directory / "ran").read_text() == "ran\n"


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [((TOKEN + "r2",), {}), ((), {}), ((TOKEN,), {"SLURM_JOB_ID": "70124"})],
    ids=["another attempt", "by hand", "another job"],
)
def test_whatever_is_asked_for_anew_runs(
    arguments: tuple[str, ...], extra: dict[str, str], plans: ModuleType, stage: Any
) -> None:
    script = script_of(plans, 'echo ran >>"$STAGE/ran"')
    stage.run(script, TOKEN)
    assert stage.run(script, *arguments, **extra)[0] == 0
    assert (stage.directory / "ran").read_text() == "ran\nran\n"
    found = words(stage, name=f"train-01-{extra.get('SLURM_JOB_ID', '70123')}")
    assert found is not None
    assert (found["token"], found["restarts"]) == (
        arguments[0] if arguments else "", extra.get("SLURM_RESTART_COUNT", "0")
    )  # fmt: skip


def test_by_hand_the_same_id_runs_again(plans: ModuleType, stage: Any) -> None:
    script = script_of(plans, 'echo ran >>"$STAGE/ran"')
    stage.run(script)
    stage.run(script)
    assert (stage.directory / "ran").read_text() == "ran\nran\n"


@pytest.mark.parametrize(
    ("code", "how"), [(143, "stopped"), (0, "requeued"), (7, "ended"), (0, "warned")],
)  # fmt: skip
def test_a_requeued_job_runs_again_unless_it_had_ended_well_on_its_own(
    code: int, how: str, plans: ModuleType, stage: Any
) -> None:
    folder = Path(stage.directory) / "state" / "jobs"
    folder.mkdir(parents=True)
    (folder / "train-01-70123.ended").write_text(
        f"token={TOKEN}\njob_id=70123\nrestarts=0\nnode=n1\nbegan=1\nended=2\nexit_code={code}\nhow={how}\n"
    )
    assert stage.run(script_of(plans, 'touch "$STAGE/ran"'), TOKEN, SLURM_RESTART_COUNT="1")[0] == 0
    assert (stage.directory / "ran").exists()
    found = words(stage)
    assert found is not None
    assert (found["restarts"], found["how"]) == ("1", "ended")


def test_what_ends_well_after_its_warning_says_so(plans: ModuleType, stage: Any) -> None:
    trainer = 'trap "echo 12 >$HPCPLAN_STEP_FILE; exit 0" USR1; touch "$STAGE/up"; while true; do sleep 0.02; done'
    process = stage.start(script_of(plans, trainer), TOKEN)
    deadline = time.monotonic() + 30
    while not (stage.directory / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    found = words(stage)
    assert found is not None
    assert (found["exit_code"], found["how"]) == ("0", "warned")
