"""A script's options as properties of slurmrestd's job description; none is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.errors import SlurmError
from hpcplan.render import render_plan
from hpcplan.slurm import Submission
from hpcplan.slurm.rest import API_VERSIONS
from hpcplan.slurm.rest_submission import directives, request_body

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=run-train-01
#SBATCH --partition=batch
#SBATCH --nodes=4
#SBATCH --ntasks-per-node 8
#SBATCH --gres=gpu:h100:8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=1-00:00:30 # a day
#SBATCH --output=%x-%j.out
#SBATCH -C "h100&nvme"
#SBATCH --requeue
true
#SBATCH --partition=late
"""

Body = Callable[..., dict[str, Any]]


@pytest.fixture
def body(tmp_path: Path) -> Body:
    def make(text: str = SCRIPT, version: int = 41, **options: Any) -> dict[str, Any]:
        path = tmp_path / "a.sbatch"
        path.write_text(text)
        return request_body(Submission(str(path), "/w", **options), version)

    return make


def number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


def test_the_options_of_a_script_become_properties(body: Body) -> None:
    made = body(comment="hpcplan:c:train:1", dependency="afterany:5", exclude="n[3-4]", hold=True)
    job = made["job"]
    assert job["script"] == SCRIPT
    assert (job["name"], job["partition"], job["constraints"]) == ("run-train-01", "batch", "h100&nvme")
    assert (job["minimum_nodes"], job["maximum_nodes"], job["tasks_per_node"]) == (4, 4, 8)
    assert (job["tres_per_node"], job["memory_per_node"], job["shared"]) == ("gres/gpu:h100:8", number(0), ["none"])
    assert (job["time_limit"], job["requeue"], job["hold"]) == (number(1441), True, True)
    assert (job["comment"], job["dependency"], job["excluded_nodes"]) == (
        "hpcplan:c:train:1", "afterany:5", ["n3", "n4"]
    )  # fmt: skip
    assert (job["current_working_directory"], job["standard_output"]) == ("/w", "/w/%x-%j.out")
    assert [entry.partition("=")[0] for entry in job["environment"]] == ["PATH"]


def test_the_oldest_version_has_other_names(body: Body) -> None:
    made = body(version=38)
    job = made["job"]
    assert made["script"] == SCRIPT
    assert (job["nodes"], job["time_limit"], job["gres"], job["exclusive"]) == ("4-4", 1441, "gpu:h100:8", "exclusive")
    assert job["memory_per_node"] == 0
    assert list(job["environment"]) == ["PATH"]


def test_the_token_travels_in_the_environment(body: Body) -> None:
    assert body(token="hpcplan:c:train:1", version=38)["job"]["environment"]["HPCPLAN_TOKEN"] == "hpcplan:c:train:1"
    job = body(token="hpcplan:c:train:1")["job"]
    assert job["environment"][-1] == "HPCPLAN_TOKEN=hpcplan:c:train:1"
    assert "argv" not in job


@pytest.mark.parametrize(
    "option", ["--switches=1", "--nodelist=n[1-2]", "--exclude=n1", "--signal=B:USR1@60", "--time=UNLIMITED"]
)
def test_what_a_version_cannot_say_is_refused(body: Body, option: str) -> None:
    text = f"#!/bin/bash\n#SBATCH {option}\ntrue\n"
    with pytest.raises(SlurmError, match=r"v0\.0\.38 of slurmrestd has no property"):
        body(text, version=38)
    assert body(text, version=44)["job"]


@pytest.mark.parametrize("option", ["--no-such=1", "--wrap=true", "-Z 3", "--mem=lots", "--nodes=two", "--time=soon"])
def test_what_nobody_can_say_is_refused(body: Body, option: str) -> None:
    with pytest.raises(SlurmError):
        body(f"#!/bin/bash\n#SBATCH {option}\ntrue\n")


def test_flags_and_signals(body: Body) -> None:
    text = "#!/bin/bash\n#SBATCH --kill-on-invalid-dep=yes --signal=B:USR1@120\n#SBATCH --open-mode=append\n"
    job = body(text)["job"]
    assert job["flags"] == ["KILL_INVALID_DEPENDENCY"]
    assert (job["kill_warning_signal"], job["kill_warning_delay"]) == ("USR1", number(120))
    assert (job["kill_warning_flags"], job["open_mode"]) == (["BATCH_JOB"], ["APPEND"])


def test_directives_end_at_the_first_command() -> None:
    assert list(directives("#!/bin/sh\n#SBATCH -N2 -t 5\n# a comment\n\n#SBATCH --exclusive\ntrue\n#SBATCH -N9\n")) == [
        ("nodes", "2"), ("time", "5"), ("exclusive", "")
    ]  # fmt: skip


@pytest.mark.parametrize("version", [int(name.rpartition(".")[2]) for name in API_VERSIONS if not name.endswith("38")])
def test_every_rendered_script_can_be_sent_from_0_0_39_on(body: Body, version: int, plans: ModuleType) -> None:
    for name, text in render_plan(plans.plan()).items():
        if name.endswith(".sbatch"):
            assert body(text, version=version)["job"]
