"""``hpcplan mock`` as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcplan.cli import COMMANDS, main
from hpcplan.cli.mock import command
from hpcplan.simulate.backend import MockBackend
from hpcplan.slurm.records import Submission
from tests.simulate.clusters import write_script, write_site


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``hpcplan mock ARGUMENTS`` and returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["mock", *arguments])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path) -> str:
    return str(write_site(tmp_path))


def answer(result: tuple[int, str, str]) -> Any:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["mock"][1]
    for words in ([], ["start"], ["stop"], ["status"], ["advance"]):
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert "Example" in out


def test_a_cluster_is_started_looked_at_moved_on_and_stopped(run: Run, site: str, tmp_path: Path) -> None:
    started = answer(run("start", site, "--speed", "0", "--format", "json"))
    assert started["name"] == "tiny"
    assert started["nodes"] == {"idle": 8}
    MockBackend().submit(Submission(str(write_script(tmp_path, "#SBATCH -N 3 -t 60")), str(tmp_path)))
    status = answer(run("status", "--format", "json"))
    assert status["nodes"] == {"allocated": 3, "idle": 5}
    assert (status["jobs"], status["own_jobs"]) == ({"RUNNING": 1}, {"RUNNING": 1})
    assert status["utilisation"] == 3 / 8
    moved = answer(run("advance", "10m", "--format", "json"))
    assert moved == {"now": status["now"] + 600, "advanced_s": 600, "ended": {}, "pending": 0, "running": 1}
    moved = answer(run("advance", "--until-idle", "--format", "json"))
    assert (moved["advanced_s"], moved["ended"]) == (1200, {"COMPLETED": 1})
    code, out, err = run("stop")
    assert (code, out) == (0, "")
    assert "its accounting is kept" in err
    assert answer(run("status", "--format", "json"))["running"] is False
    code, _, err = run("stop", "--purge")
    assert code == 0
    code, _, err = run("status")
    assert code == 4
    assert "hpcplan mock start" in err


def test_others_jobs_have_a_history_from_the_start(run: Run, site: str) -> None:
    started = answer(run("start", site, "--load", "0.8", "--seed", "3", "--history", "2d", "--format", "json"))
    assert started["jobs"]["COMPLETED"] > 20
    assert started["now"] - started["started"] >= 2 * 86400
    assert started["load"] == 0.8


def test_people_get_tables_and_scripts_get_json_only(run: Run, site: str) -> None:
    code, out, err = run("start", site)
    assert code == 0
    assert "tinycluster, Slurm 23.11" in out
    assert "its files are in" in err
    for words in (["status"], ["advance", "1h"]):
        code, out, _ = run(*words)
        assert code == 0
        assert "clock" in out


def test_starting_a_running_cluster_is_a_conflict(run: Run, site: str) -> None:
    assert run("start", site)[0] == 0
    code, out, err = run("start", site)
    assert (code, out) == (1, "")
    assert "is running already" in err
    assert "hpcplan mock stop" in err


def test_several_clusters_are_told_apart_by_name(run: Run, site: str) -> None:
    for name in ("one", "two"):
        assert run("start", site, "--name", name)[0] == 0
    code, _, err = run("status")
    assert code == 2
    assert "one, two" in err
    assert answer(run("status", "--name", "two", "--format", "json"))["name"] == "two"
    assert run("stop", "--name", "one")[0] == 0
    assert answer(run("status", "--format", "json"))["name"] == "two"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["start", "no-such-site"], "no site is called 'no-such-site'"),
        (["start", "missing.yaml"], "missing.yaml: no such file"),
        (["start", "SITE", "--load", "lots"], "'lots' is not a valid float"),
        (["start", "SITE", "--load", "7"], "the load must be above 0"),
        (["start", "SITE", "--history", "10"], "write it like '36 h'"),
        (["start", "SITE", "--history", "10h"], "give a load too"),
        (["start", "SITE", "--policy", "esay"], "did you mean 'easy'?"),
        (["start"], "Missing argument 'SITE'"),
        (["advance"], "give either a DURATION"),
        (["advance", "2h", "--until-idle"], "give either a DURATION"),
        (["advance", "soon"], "is not a quantity"),
    ],
)
def test_bad_input_is_said_to_be_bad_and_starts_nothing(run: Run, site: str, words: list[str], message: str) -> None:
    code, out, err = run(*(site if word == "SITE" else word for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert run("status")[0] == 4


def test_moving_or_stopping_what_does_not_run_says_that_it_does_not(run: Run) -> None:
    for words in (["advance", "1h"], ["stop"], ["status"], ["status", "--name", "x"]):
        code, out, err = run(*words)
        assert (code, out) == (4, "")
        assert "hpcplan mock start" in err
