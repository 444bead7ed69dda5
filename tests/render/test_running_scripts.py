"""Rendered scripts, run by bash: the chain, the signals, and what the trainer is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.render import render_plan

WAIT_S = 30


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def srun_script(plans: ModuleType, code: str, segment: int = 1, **changes: Any) -> str:
    """Return a segment's script whose trainer is a line of bash."""
    plan = plans.srun_plan(job=plans.srun_plan().job.model_copy(update={"command": ("bash", "-c", code), **changes}))
    return render_plan(plan)[f"train-{segment:02d}.sbatch"]


def test_trainer_is_told_what_the_plan_decided(plans: ModuleType, stage: Any) -> None:
    status, _ = stage.run(srun_script(plans, 'env -0 >"$STAGE/env"'), FAKE_NTASKS="4")
    told = dict(line.split("=", 1) for line in (stage.directory / "env").read_text().split("\0") if "=" in line)
    assert status == 0
    assert (told["HPCPLAN_FIRST_STEP"], told["HPCPLAN_LAST_STEP"], told["HPCPLAN_TOTAL_STEPS"]) == ("1", "20", "30")
    assert [told[f"HPCPLAN_{axis}"] for axis in ("TP", "PP", "DP", "CP", "EP")] == ["1", "1", "4", "1", "1"]
    assert (told["HPCPLAN_MICRO_BATCH"], told["HPCPLAN_GLOBAL_BATCH"]) == ("1", "32")
    assert told["HPCPLAN_CHECKPOINT_DIR"] == f"{stage.directory}/checkpoints"
    assert (told["RANK"], told["LOCAL_RANK"], told["WORLD_SIZE"]) == ("0", "0", "4")
    assert told["MASTER_ADDR"] == "n1"
    assert told["MASTER_PORT"] == str(10000 + 70123 % 20000)


@pytest.mark.parametrize(("known", "address"), [(True, "n1"), (False, "10.9.8.1")])
def test_ranks_meet_at_the_address_that_slurm_has_where_names_mean_nothing(
    plans: ModuleType, stage: Any, known: bool, address: str
) -> None:
    stage.executable(stage.bin / "getent", f"#!/bin/sh\nexit {0 if known else 2}\n")
    real = (stage.bin / "scontrol").rename(stage.bin / "scontrol-hostnames")
    answer = "NodeName=n1 Arch=x86_64\n   NodeAddr=10.9.8.1 NodeHostName=n1"
    stage.executable(stage.bin / "scontrol", f'#!/bin/sh\n[ "$2" != node ] || exec echo "{answer}"\nexec {real} "$@"\n')
    assert stage.run(srun_script(plans, 'echo "$MASTER_ADDR" >"$STAGE/address"'))[0] == 0
    assert (stage.directory / "address").read_text() == f"{address}\n"


def test_setup_that_reads_unset_variables_is_stood_but_one_that_fails_is_not(plans: ModuleType, stage: Any) -> None:
    script = srun_script(plans, 'touch "$STAGE/ran"', setup=('export GREETING="hello$CONDA_UNSET"',))
    assert stage.run(script)[0] == 0
    assert (stage.directory / "ran").exists()
    (stage.directory / "ran").unlink()
    assert stage.run(srun_script(plans, 'touch "$STAGE/ran"', setup=("false",)))[0] == 1
    assert not (stage.directory / "ran").exists()


def test_modules_are_loaded_where_the_shell_knows_them_and_missing_ones_stop_the_job(
    plans: ModuleType, stage: Any
) -> None:
    environment = type(plans.H100_ENVIRONMENT)(modules=("cuda/12.4", "a $(b)"))
    script = srun_script(plans, 'touch "$STAGE/ran"', environment=environment)
    stage.executable(stage.bin / "module", '#!/bin/bash\nprintf "%s\\n" "$@" >"$STAGE/modules"\n')
    assert stage.run(script)[0] == 0
    assert (stage.directory / "modules").read_text().splitlines() == ["load", "cuda/12.4", "a $(b)"]
    stage.executable(stage.bin / "module", "#!/bin/bash\nexit 1\n")
    (stage.directory / "ran").unlink()
    (stage.directory / "state" / "done").unlink(missing_ok=True)
    assert stage.run(script)[0] == 1
    assert not (stage.directory / "ran").exists()


def test_master_port_is_below_the_ephemeral_range_for_any_job_id(plans: ModuleType, stage: Any) -> None:
    script = srun_script(plans, 'echo "$MASTER_PORT" >"$STAGE/port"')
    for job_id in ("1", "19999", "20000", "67108863"):
        stage.run(script, SLURM_JOB_ID=job_id)
        assert 10000 <= int((stage.directory / "port").read_text()) < 32768


def test_segment_that_ends_early_hands_over_to_the_next(plans: ModuleType, stage: Any) -> None:
    status, output = stage.run(srun_script(plans, 'echo 20 >"$HPCPLAN_STEP_FILE"'))
    assert (status, stage.state("done"), stage.state("failed")) == (0, None, None)
    assert "goes on from step 21 of 30" in output


def test_reaching_the_last_step_marks_training_done(plans: ModuleType, stage: Any) -> None:
    status, _ = stage.run(srun_script(plans, 'echo 30 >"$HPCPLAN_STEP_FILE"'))
    assert status == 0
    assert stage.state("done") == "30 steps, job 70123"


def test_later_segments_do_nothing_once_training_is_done(plans: ModuleType, stage: Any) -> None:
    stage.run(srun_script(plans, 'echo 30 >"$HPCPLAN_STEP_FILE"'))
    status, output = stage.run(srun_script(plans, 'touch "$STAGE/ran"', segment=2))
    assert status == 0
    assert "nothing is left to do" in output
    assert not (stage.directory / "ran").exists()


def test_trainer_that_counts_no_steps_is_done_when_it_ends_the_last_segment(plans: ModuleType, stage: Any) -> None:
    assert stage.run(srun_script(plans, "true"))[0] == 0
    assert stage.state("done") is None
    assert stage.run(srun_script(plans, "true", segment=2))[0] == 0
    assert stage.state("done") is not None


def test_last_segment_that_stops_short_says_so_and_fails(plans: ModuleType, stage: Any) -> None:
    status, output = stage.run(srun_script(plans, 'echo 25 >"$HPCPLAN_STEP_FILE"', segment=2))
    assert status == 1
    assert "training stands at step 25 of 30" in output
    assert "sbatch train-02.sbatch" in output


def test_application_error_stops_the_chain(plans: ModuleType, stage: Any) -> None:
    status, _ = stage.run(srun_script(plans, "exit 7"))
    assert status == 7
    assert "job 70123" in str(stage.state("failed"))
    assert "status 7" in str(stage.state("failed"))
    status, output = stage.run(srun_script(plans, 'touch "$STAGE/ran"', segment=2))
    assert status == 1
    assert "the chain was stopped by train 1" in output
    assert not (stage.directory / "ran").exists()


def test_job_requeued_too_often_stops_the_chain(plans: ModuleType, stage: Any) -> None:
    script = srun_script(plans, 'touch "$STAGE/ran"')
    assert stage.run(script, SLURM_RESTART_COUNT="3")[0] == 0
    (stage.directory / "ran").unlink()
    assert stage.run(script, SLURM_RESTART_COUNT="4")[0] == 1
    assert "requeued 4 times" in str(stage.state("failed"))
    assert not (stage.directory / "ran").exists()


COUNTING_TRAINER = """
trap 'echo told >>"$STAGE/told"' USR1
echo $$ $PPID >"$STAGE/pids.new"; mv "$STAGE/pids.new" "$STAGE/pids"
while [[ ! -e $STAGE/stop ]]; do sleep 0.02; done
"""


def pids(stage: Any) -> list[int]:
    """Return the process ids of the trainer and of its task's shell."""
    wait_for(stage.directory / "pids")
    return [int(word) for word in (stage.directory / "pids").read_text().split()]


SAVING_TRAINER = """
trap 'echo 12 >"$HPCPLAN_STEP_FILE"; exit 0' USR1
touch "$STAGE/up"
while true; do sleep 0.02; done
"""


def test_warning_lets_the_trainer_save_and_the_chain_go_on(plans: ModuleType, stage: Any) -> None:
    process = stage.start(srun_script(plans, SAVING_TRAINER))
    wait_for(stage.directory / "up")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, stage.state("failed")) == (0, None)
    assert "goes on from step 13 of 30" in output


def test_trainer_that_dies_of_the_warning_does_not_stop_the_chain(plans: ModuleType, stage: Any) -> None:
    process = stage.start(srun_script(plans, 'echo 5 >"$HPCPLAN_STEP_FILE"; touch "$STAGE/up"; exec sleep 60'))
    wait_for(stage.directory / "up")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, stage.state("failed")) == (0, None)
    assert "goes on from step 6 of 30" in output


def test_cancelled_job_is_not_taken_for_a_failed_trainer(plans: ModuleType, stage: Any) -> None:
    process = stage.start(srun_script(plans, 'trap "exit 9" TERM\n' + COUNTING_TRAINER))
    trainer, _ = pids(stage)
    process.send_signal(signal.SIGTERM)  # Slurm signals the batch shell and the tasks
    os.kill(trainer, signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert (process.returncode, stage.state("failed"), stage.state("done")) == (143, None, None)


def test_trainer_is_told_once_even_where_slurm_signals_every_process_of_the_step(plans: ModuleType, stage: Any) -> None:
    process = stage.start(srun_script(plans, COUNTING_TRAINER))
    trainer, task = pids(stage)
    process.send_signal(signal.SIGUSR1)  # the warning, to the batch shell
    wait_for(stage.directory / "told")
    for process_id in (trainer, task):
        os.kill(process_id, signal.SIGUSR2)  # what srun's signal becomes with proctrack/linuxproc
    time.sleep(0.2)
    (stage.directory / "stop").touch()
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert (stage.directory / "told").read_text() == "told\n"


def test_preempted_trainer_is_told_where_slurm_signals_the_task_alone(plans: ModuleType, stage: Any) -> None:
    process = stage.start(srun_script(plans, COUNTING_TRAINER))
    _, task = pids(stage)
    process.send_signal(signal.SIGTERM)
    os.kill(task, signal.SIGTERM)
    wait_for(stage.directory / "told")
    (stage.directory / "stop").touch()
    process.communicate(timeout=WAIT_S)
    assert (process.returncode, stage.state("failed")) == (143, None)


WORKER = """#!/bin/bash
trap 'echo {steps} >"$HPCPLAN_STEP_FILE"; exit 0' {signal}
touch "$STAGE/up"
while true; do sleep 0.02; done
"""


def test_torchrun_workers_are_told_though_the_agent_is_deaf(plans: ModuleType, stage: Any) -> None:
    stage.executable(stage.directory / "worker", WORKER.format(steps=400, signal="USR1"))
    job = plans.torchrun_plan().job
    bare = job.model_copy(update={"environment": type(job.environment)(), "setup": ()})
    script = render_plan(plans.torchrun_plan().model_copy(update={"job": bare}))["train-01.sbatch"]
    process = stage.start(script)
    wait_for(stage.directory / "up")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=WAIT_S)
    assert "training stands at step 400 of 1000" in output
    assert (process.returncode, stage.state("failed")) == (1, None)  # the only segment, cut short


@pytest.fixture
def megatron_script(plans: ModuleType, tmp_path: Path) -> str:
    job = plans.job(environment=type(plans.H100_ENVIRONMENT)(), checkpoint_dir="ckpt dir")
    return render_plan(plans.plan(job=job))["train-01.sbatch"]


def test_megatron_workers_get_sigterm_which_its_handler_waits_for(megatron_script: str, stage: Any) -> None:
    stage.executable(stage.directory / "worker", WORKER.format(steps=740, signal="TERM"))
    process = stage.start(megatron_script)
    wait_for(stage.directory / "up")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert "goes on from step 741 of 2500" in output


def test_megatron_is_done_when_its_tracker_file_says_so(megatron_script: str, stage: Any) -> None:
    stage.executable(stage.directory / "worker", '#!/bin/bash\necho 2500 >"$HPCPLAN_STEP_FILE"\n')
    assert stage.run(megatron_script)[0] == 0
    assert stage.state("done") == "2500 steps, job 70123"
    assert (stage.directory / "ckpt dir" / "latest_checkpointed_iteration.txt").read_text() == "2500\n"


def test_torchrun_is_started_once_a_node_with_the_ranks_of_the_plan(megatron_script: str, stage: Any) -> None:
    stage.run(megatron_script)
    words = (stage.directory / "torchrun.words").read_text().split("\0")
    assert words[:11] == [
        "--nnodes", "16", "--nproc-per-node", "8", "--node-rank", "0", "--master-addr", "n1", "--master-port", "20123",
        "/opt/megatron-lm/pretrain_gpt.py",
    ]  # fmt: skip
    assert words[words.index("--load") + 1] == f"{stage.directory}/ckpt dir"
    srun = (stage.directory / "srun.args").read_text()
    assert "--kill-on-bad-exit=1 --nodes=16 --ntasks=16 --ntasks-per-node=1" in srun


def test_step_file_that_is_no_number_counts_as_no_step(megatron_script: str, stage: Any) -> None:
    stage.executable(stage.directory / "worker", '#!/bin/bash\necho release >"$HPCPLAN_STEP_FILE"\n')
    status, output = stage.run(megatron_script)
    assert status == 0
    assert "goes on from step 1 of 2500" in output


def test_a_plan_that_took_over_finds_its_own_files(plans: ModuleType, stage: Any) -> None:
    """Its jobs run in the campaign's directory, where the files of the plan before still are."""
    from tests.render.sites import framework_plan

    files = render_plan(framework_plan("deepspeed", "lab"), folder="plan-02")
    script = files["train-01.sbatch"].replace("source ~/venv/bin/activate", ":")
    script = script.replace("module load cuda/12.4 nccl/2.21", ":")
    stage.run(script)
    words = (stage.directory / "torchrun.words").read_text().split("\0")
    assert words[words.index("--deepspeed_config") + 1] == f"{stage.directory}/plan-02/deepspeed.json"
    assert "run: sbatch plan-02/train-01.sbatch" in script
    assert "hpcplan replan wrote it" in script
    assert "hpcplan render plan.json" not in script
