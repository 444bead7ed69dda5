"""``--json`` in the shape of the release that the cluster pretends to be, held against what real ones answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcplan.report import jobs_of, read_sacct
from hpcplan.slurm import rest_records
from hpcplan.slurm.records import JobRecord, JobState
from tests.simulate.commands.conftest import MockSlurm

RECORDED = Path(__file__).parents[1] / "data" / "json_shapes" / "slurm-25.11.7.txt"
RELEASES = ("22.05.8", "23.02.7", "23.11.5", "24.05.3", "24.11.2", "25.05.1", "25.11.7", "26.05.2")
DOCUMENTS = {
    "squeue": "squeue --json", "sacct": "sacct --json", "sinfo": "sinfo --json",
    "scontrol-nodes": "scontrol show nodes --json", "scontrol-partitions": "scontrol show partitions --json",
    "scontrol-steps": "scontrol show steps --json", "scontrol-ping": "scontrol ping --json",
}  # fmt: skip
Shape = dict[str, set[str]]


def shape(value: Any, path: str = "", found: Shape | None = None) -> Shape:
    """Return the types at each path of a document; a number that says whether it is set is one."""
    found = {} if found is None else found
    if isinstance(value, dict) and set(value) == {"set", "infinite", "number"}:
        found.setdefault(path, set()).add("number." if isinstance(value["number"], float) else "number")
    elif isinstance(value, dict):
        found.setdefault(path, set()).add("{}")
        for key, inner in value.items():
            shape(inner, f"{path}.{'N' if key.isdecimal() else key}", found)
    elif isinstance(value, list):
        found.setdefault(path, set()).add("[]")
        for inner in value:
            shape(inner, f"{path}[]", found)
    else:
        found.setdefault(path, set()).add(type(value).__name__)
    return found


def differences(real: Mapping[str, set[str]], mock: Mapping[str, set[str]]) -> list[str]:
    """Return what differs; of a list that one of them has empty nothing is known."""

    def known(path: str, other: Mapping[str, set[str]]) -> bool:
        parts = path.split("[]")
        return all("[]".join(parts[:end]) + "[]" in other for end in range(1, len(parts)))

    found = []
    for path in sorted(real.keys() | mock.keys()):
        seldom = path in real and path in mock and mock[path] < real[path]  # what it can be, not all of it met here
        if known(path, real) and known(path, mock) and real.get(path) != mock.get(path) and not seldom:
            found.append(f"{path}: {real.get(path)} and here {mock.get(path)}")
    return found


def recorded(document: str, parser: int) -> Shape:
    """Return the shape that a real 25.11.7 gave a document with a data parser."""
    rows = (line.split(" ") for line in RECORDED.read_text().splitlines())
    return {
        path: set(types.split(","))
        for name, path, types, span in rows
        if name == document and int(span.partition("-")[0]) <= parser <= int(span.partition("-")[2])
    }


@pytest.fixture(scope="module")
def scene(mock_cluster: MockSlurm) -> Iterator[MockSlurm]:
    """Jobs that have ended, run, and wait; an array, and a heterogeneous one."""
    mock_cluster.submit("-J", "done", "exit 3")
    mock_cluster.submit("-J", "array", "-a", "1-2", "true")
    mock_cluster.submit("-J", "runs", "-N2", "-c2", "--gres=gpu:2", "-t", "30", "srun sleep 60")
    mock_cluster.submit("-J", "holds", "-H", "-a", "3-7%2", "--comment", "a word", "true")
    mock_cluster.run("sbatch", "-J", "het", "-H", "-N1", ":", "-N2", "--wrap", "true")
    gone = mock_cluster.submit("-J", "gone", "-H", "true")
    mock_cluster.out("scancel", gone)
    mock_cluster.until(lambda: mock_cluster.out("squeue", "-h", "-s", "-o", "%i").partition(".0")[1])
    mock_cluster.until(lambda: mock_cluster.out("sacct", "-nPX", "-o", "state").partition("FAILED")[1])
    yield mock_cluster
    pretend(mock_cluster, "22.05.8")


def pretend(mock: MockSlurm, version: str) -> None:
    """Make the cluster another release's."""
    path = mock.entered.store.directory / "cluster.json"
    data = json.loads(path.read_text())
    data["settings"]["slurm_version"] = version
    path.write_text(json.dumps(data))


def answer(mock: MockSlurm, line: str) -> Any:
    return json.loads(mock.out(*line.split()))


@pytest.mark.parametrize("parser", [41, 42, 43, 44])
def test_documents_have_the_shape_of_a_real_25_11(scene: MockSlurm, parser: int) -> None:
    pretend(scene, "25.11.7")
    for name, line in DOCUMENTS.items():
        if (real := recorded(name, parser)) and (parser == 44 or name in ("squeue", "sacct", "sinfo")):
            mock = shape(answer(scene, line.replace("--json", f"--json=v0.0.{parser}")))
            assert differences(real, {path: types for path, types in mock.items() if "warnings[" not in path}) == [], (
                name
            )


@pytest.mark.parametrize("release", ["23.02", "24.05", "25.11"])
@pytest.mark.parametrize(
    ("files", "line", "key"),
    [("slurm-job*", "scontrol show jobs --json", "jobs"), ("slurmdb-job*", "sacct --json", "jobs"),
     ("slurm-node*", "scontrol show nodes --json", "nodes"),
     ("slurm-partitions", "scontrol show partitions --json", "partitions")],
)  # fmt: skip
def test_rows_have_the_shape_of_slurmrestd_s(
    scene: MockSlurm, shared_data: Path, release: str, files: str, line: str, key: str
) -> None:
    folder = shared_data / "slurmrestd_json" / release
    real: Shape = {}
    for path in folder.glob(f"{files}.json"):
        for row in json.loads(path.read_text()).get(key, ()):
            shape(row, key, real)
    pretend(scene, next(version for version in RELEASES if version.startswith(release)))
    mock: Shape = {}
    for row in answer(scene, line)[key]:
        shape(row, key, mock)
    assert differences(real, mock) == []


def comparable(job: JobRecord) -> JobRecord:
    """Return a job without what one release tells and another does not, or what goes on."""
    return replace(job, end_time=None, total_cpu_s=None, max_rss_bytes=None)


def test_every_release_s_json_is_read_alike(scene: MockSlurm, tmp_path: Path) -> None:
    found = {}
    for release in RELEASES:
        pretend(scene, release)
        lines = {"jobs": "squeue --json -t all", "nodes": "scontrol show nodes --json"}
        if release.startswith("22.05"):
            lines["nodes"] = "sinfo --json"
        stored = scene.out("sacct", "--json")
        (tmp_path / "sacct.json").write_text(stored)
        found[release] = (
            [comparable(job) for job in rest_records.queued(answer(scene, lines["jobs"]))],
            [comparable(job) for job in rest_records.stored(json.loads(stored))],
            rest_records.nodes(answer(scene, lines["nodes"])),
            [(job["job_id"], job["state"], job["wait_s"]) for job in jobs_of(read_sacct([tmp_path / "sacct.json"])[0])],
        )
    first = found[RELEASES[0]]
    assert {job.name: job.state for job in first[0] if job.name != "array"} == {
        "done": JobState.FAILED, "runs": JobState.RUNNING, "holds": JobState.PENDING, "het": JobState.PENDING,
        "gone": JobState.CANCELLED,
    }  # fmt: skip
    for release, one in found.items():
        assert one[0] == first[0], release
        assert one[1] == first[1], release
        assert one[2] == first[2], release
        assert one[3] == first[3], release


def test_a_parser_is_chosen_or_refused_by_name(scene: MockSlurm) -> None:
    pretend(scene, "24.05.3")
    listed = scene.run("squeue", "--json=list")
    assert listed.stdout.split() == [f"data_parser/v0.0.{number}" for number in (39, 40, 41)]
    assert listed.stderr == "Possible data_parser plugins:\n"
    refused = scene.run("squeue", "--json=v0.0.44")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[0] == "squeue: error: load_plugins: unable to find plugin: data_parser/v0.0.44"
    assert scene.run("sacct", "--json=nosuch").returncode == 0  # so it is
    bare = answer(scene, "squeue --json=v0.0.41+complex")["jobs"][0]
    assert (bare["array_task_id"], bare["time_limit"], bare["tasks_per_core"]) == (None, 30, "Infinity")
    pretend(scene, "22.05.8")
    assert scene.run("squeue", "--json=list").stderr.startswith("squeue: option '--json' doesn't allow an argument")


def test_yaml_says_the_same_with_tags(scene: MockSlurm) -> None:
    import yaml

    pretend(scene, "25.11.7")
    text = scene.out("sinfo", "--yaml")
    assert text.startswith("%YAML 1.1\n---")
    assert yaml.safe_load(text)["sinfo"] == answer(scene, "sinfo --json")["sinfo"]
