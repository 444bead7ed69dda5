from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm.process import SlurmCommands, clean_environment


def test_what_would_change_slurms_answers_is_taken_away() -> None:
    hostile = {
        "SQUEUE_FORMAT": "%i", "SQUEUE_FORMAT2": "x", "SACCT_FORMAT": "x", "SBATCH_PARTITION": "debug",
        "SLURM_TIME_FORMAT": "relative", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SINFO_FORMAT": "x",
        "SCONTROL_ALL": "1", "SALLOC_ACCOUNT": "x", "SLURMD_NODENAME": "n0", "SACCT_LOCAL": "1",
    }  # fmt: skip
    kept = {"PATH": "/bin", "HOME": "/root", "SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "secret", "SLURMFAN": "yes"}
    assert clean_environment({**hostile, **kept}) == kept


def test_one_cluster_may_be_named_and_several_may_not() -> None:
    assert clean_environment({"SLURM_CLUSTERS": "alps"}) == {"SLURM_CLUSTERS": "alps"}
    for several in ("alps,daint", "all"):
        with pytest.raises(SlurmError, match="names several clusters"):
            clean_environment({"SLURM_CLUSTERS": several})


def test_the_users_environment_itself_is_not_touched() -> None:
    environ = {"SQUEUE_FORMAT": "%i"}
    SlurmCommands(environ)
    assert environ == {"SQUEUE_FORMAT": "%i"}


def test_questions_are_asked_in_english_in_utc_and_in_unix_seconds(
    made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    SlurmCommands().answer("squeue", limit_s=10)
    env = made_up.calls()[0]["env"]
    assert (env["LC_ALL"], env["TZ"], env["SLURM_TIME_FORMAT"]) == ("C", "UTC0", "%s")


def test_submissions_leave_locale_and_time_zone_to_the_job(made_up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    SlurmCommands().answer("sbatch", limit_s=10, neutral=False)
    env = made_up.calls()[0]["env"]
    assert (env["LC_ALL"], env["TZ"], env.get("SLURM_TIME_FORMAT")) == ("de_DE.UTF-8", "Europe/Berlin", None)


def test_a_command_that_is_missing_is_slurm_unreachable(made_up: Any) -> None:
    made_up.remove("sacct")
    with pytest.raises(SlurmUnreachableError, match="sacct: command not found") as caught:
        SlurmCommands().run("sacct", limit_s=10)
    assert caught.value.exit_code == 4


def test_a_command_that_does_not_answer_is_given_up(made_up: Any) -> None:
    made_up.answer("squeue", sleep_s=60)
    with pytest.raises(SlurmUnreachableError, match="squeue: no answer within 1 s"):
        SlurmCommands().run("squeue", limit_s=1)


def test_a_configuration_that_is_not_there_is_said_at_once(
    made_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(SlurmUnreachableError, match="SLURM_CONF names"):
        SlurmCommands().run("squeue", limit_s=10)
    assert made_up.calls() == []


@pytest.mark.parametrize(
    "words",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sacct: error: Problem talking to the database: Connection refused",
        'squeue: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"',
        "sinfo: fatal: Could not establish a configuration source",
        "scontrol: error: Slurm backup controller in standby mode",
        "slurm_suspend error: Unexpected message received",
    ],
)
def test_no_answer_is_told_from_a_refusal(made_up: Any, words: str) -> None:
    made_up.answer("squeue", rc=1, stderr=f"{words}\n")
    with pytest.raises(SlurmUnreachableError):
        SlurmCommands().answer("squeue", limit_s=10)


def test_a_refusal_has_slurms_words_once_and_without_its_prefixes(made_up: Any) -> None:
    made_up.answer(
        "sbatch",
        rc=1,
        stderr="sbatch: error: invalid partition specified: nope\nsbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
    )
    with pytest.raises(SlurmError) as caught:
        SlurmCommands().answer("sbatch", limit_s=10)
    assert not isinstance(caught.value, SlurmUnreachableError)
    assert caught.value.message == (
        "sbatch: invalid partition specified: nope; Batch job submission failed: Invalid partition name specified"
    )


def test_a_refusal_without_words_has_its_exit_code(made_up: Any) -> None:
    made_up.answer("squeue", rc=3)
    with pytest.raises(SlurmError, match="squeue: exit code 3"):
        SlurmCommands().answer("squeue", limit_s=10)


def test_bytes_that_are_no_text_do_not_break_an_answer(made_up: Any) -> None:
    program = made_up.programs / "squeue"
    program.write_text("#!/bin/sh\nprintf 'a\\377b'\n")
    assert SlurmCommands().answer("squeue", limit_s=10) == "a�b"
