from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import click.testing
import pytest

from hpcplan.cli import COMMANDS, main, report_source
from hpcplan.cli import report as report_file
from hpcplan.errors import SlurmUnreachableError
from hpcplan.slurm.records import ClusterInfo, JobRecord, JobState, NodeRecord

NOW = 1_714_608_000  # 2024-05-02T00:00:00 UTC
DUMP = """\
JobID|JobIDRaw|User|Account|Partition|State|Submit|Start|End|Elapsed|Timelimit|NNodes|AllocCPUS|ReqMem|TotalCPU|MaxRSS|\
NTasks
7|7|alice|physics|batch|COMPLETED|2024-05-01T00:00:00|2024-05-01T01:00:00|2024-05-01T03:00:00|02:00:00|04:00:00|1|8|16G|08:00:00||
7.batch|7.batch||||COMPLETED|2024-05-01T01:00:00|2024-05-01T01:00:00|2024-05-01T03:00:00|02:00:00||1|8||08:00:00|4G|1
8_2|9|bob|chemistry|batch|FAILED|2024-05-01T00:00:00|2024-05-01T02:00:00|2024-05-01T02:30:00|00:30:00|UNLIMITED|1|4|4Gc|00:00:00||
"""


class FakeBackend:
    """Answers what a report asks for."""

    name = "fake"

    def __init__(self, records: Sequence[JobRecord]) -> None:
        self.records = records
        self.asked: list[tuple[int, int]] = []

    def now(self) -> int:
        return NOW

    def ping(self) -> ClusterInfo:
        return ClusterInfo("fake", "testbed", "23.11.1", True)

    def nodes(self) -> list[NodeRecord]:
        return [NodeRecord("n1", "idle", cpus=16, gpus=0), NodeRecord("n2", "idle", cpus=16, gpus=0)]

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        self.asked.append((start, end))
        return list(self.records)


JOB = JobRecord(
    job_id=7, state=JobState.COMPLETED, user="alice", submit_time=NOW - 9000, start_time=NOW - 7200, end_time=NOW,
    time_limit_s=14_400, nodes=1, node_list="n1", cpus=16, gpus=0, memory_bytes=2**34, total_cpu_s=57_600.0,
    max_rss_bytes=2**33,
)  # fmt: skip


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend([JOB, dataclasses.replace(JOB, job_id=8, user="bob", end_time=NOW - 3600)])
    monkeypatch.setattr(report_source, "opened", lambda name: fake)
    return fake


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "sacct.txt"
    path.write_text(DUMP)
    return path


@pytest.fixture
def hpcplan(capsys: pytest.CaptureFixture[str]) -> object:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def test_help_says_what_the_table_of_commands_says() -> None:
    text = click.testing.CliRunner().invoke(report_file.command, ["--help"]).output
    assert COMMANDS["report"][1] in text
    assert "Example" in text
    assert "Example" in click.testing.CliRunner().invoke(report_file.command, ["jobs", "--help"]).output


def test_json_is_all_that_stdout_gets(hpcplan, dump: Path) -> None:
    code, out, _ = hpcplan("report", "--sacct", dump, "--timezone", "UTC", "--format", "json")
    data = json.loads(out)
    assert code == 0
    assert data["jobs"]["total"] == 2
    assert data["core_hours"]["value"] == pytest.approx(8 * 2 + 4 * 0.5)
    assert data["cpu_efficiency"]["value"] == pytest.approx(0.5)
    assert data["cpu_efficiency"]["coverage"] == pytest.approx(16 / 18)


def test_the_format_follows_the_file_s_ending(hpcplan, dump: Path, tmp_path: Path) -> None:
    for ending, mark in (("html", "<!DOCTYPE html>"), ("md", "# Queue report"), ("json", "{"), ("csv", "job_id,")):
        path = tmp_path / f"night.{ending}"
        code, out, err = hpcplan("report", "--sacct", dump, "-o", path)
        assert (code, out) == (0, "")
        assert "night" in err
        assert path.read_text().startswith(mark)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "night.csv").read_text())))
    assert [row["job_id"] for row in rows] == ["7", "8_2"]


def test_without_a_file_there_is_a_table_to_read(hpcplan, dump: Path) -> None:
    code, out, _ = hpcplan("report", "--sacct", dump)
    assert code == 0
    assert "CPU efficiency" in out
    assert "alice" in out


def test_several_files_follow_one_option(hpcplan, dump: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(DUMP.replace("\n7", "\n17").replace("|7", "|17").replace("8_2|9", "18_2|19"))
    code, out, _ = hpcplan("report", "--sacct", dump, other, "--format", "json")
    assert code == 0
    assert json.loads(out)["jobs"]["total"] == 4
    code, out, _ = hpcplan("report", "jobs", "17", "--sacct", dump, other, "--format", "json")
    assert [job["job_id"] for job in json.loads(out)] == ["17"]
    code, out, _ = hpcplan("report", "--sacct", dump, other, "jobs", "17", "7", "--format", "json")
    assert [job["job_id"] for job in json.loads(out)] == ["7", "17"]


def test_jobs_gives_fractions_and_null_where_unknown(hpcplan, dump: Path) -> None:
    code, out, _ = hpcplan("report", "jobs", "--sacct", dump, "--timezone", "UTC", "--format", "json")
    first, second = json.loads(out)
    assert code == 0
    assert (first["job_id"], first["state"]) == ("7", "COMPLETED")
    assert (first["cpu_efficiency"], first["memory_efficiency"], first["time_efficiency"]) == (0.5, 0.25, 0.5)
    assert (first["wait_s"], first["elapsed_s"], first["gpu_efficiency"]) == (3600, 7200, None)
    assert second["job_id"] == "8_2"
    assert [second[f"{name}_efficiency"] for name in ("cpu", "memory", "gpu", "time")] == [None] * 4


def test_jobs_can_be_picked_by_id_array_and_user(hpcplan, dump: Path) -> None:
    for arguments, expected in ((["8"], ["8_2"]), (["8_2"], ["8_2"]), (["9"], ["8_2"]), (["--user", "alice"], ["7"])):
        code, out, _ = hpcplan("report", "jobs", *arguments, "--sacct", dump, "--format", "json")
        assert code == 0
        assert [job["job_id"] for job in json.loads(out)] == expected


def test_a_job_that_accounting_does_not_know_is_a_failure(hpcplan, dump: Path) -> None:
    code, out, err = hpcplan("report", "jobs", "4711", "--sacct", dump, "--format", "json")
    assert (code, out) == (1, "")
    assert "4711" in err


def test_the_window_is_the_last_day_by_the_cluster_s_clock(hpcplan, backend: FakeBackend) -> None:
    code, out, _ = hpcplan("report", "--format", "json")
    data = json.loads(out)
    assert code == 0
    assert backend.asked == [(NOW + 1 - 86_400, NOW + 1)]
    assert data["cluster"] == "testbed"
    assert data["jobs"]["by_status"] == {"COMPLETED": 2}  # what ended at this very moment has ended
    assert data["capacity"] == {"nodes": 2, "usable_nodes": 2, "cpus": 32, "gpus": 0}
    assert data["cpu_utilisation"]["value"] == pytest.approx(16 * 3 / (32 * 24), rel=1e-3)


@pytest.mark.parametrize(
    ("since", "seconds"), [("7d", 7 * 86_400), ("90 min", 5400), ("12h", 43_200), ("2024-05-01", 86_401)]
)
def test_since_takes_spans_and_dates(hpcplan, backend: FakeBackend, since: str, seconds: int) -> None:
    assert hpcplan("report", "--since", since, "--timezone", "UTC", "--format", "json")[0] == 0
    assert backend.asked == [(NOW + 1 - seconds, NOW + 1)]


def test_live_jobs_are_looked_for_a_year_back(hpcplan, backend: FakeBackend) -> None:
    code, out, _ = hpcplan("report", "jobs", "7", "--format", "json")
    assert code == 0
    assert json.loads(out)[0]["memory_efficiency"] == 0.5
    assert backend.asked == [(NOW - 365 * 86_400, NOW + 1)]


def test_slurm_that_does_not_answer_is_exit_code_4(hpcplan, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> FakeBackend:
        raise SlurmUnreachableError("no slurmctld answers")

    monkeypatch.setattr(report_source, "opened", unreachable)
    code, out, err = hpcplan("report", "--format", "json")
    assert (code, out) == (4, "")
    assert "no slurmctld answers" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "neither a time span nor a date"),
        (["--since", "2024-05-03", "--timezone", "UTC"], "window is empty"),
        (["--since", "-3d"], "neither a time span nor a date"),
        (["--timezone", "Mars/Olympus"], "not a time zone"),
        (["--timezone", "../../etc/passwd"], "not a time zone"),
        (["-o", "night.pdf"], "cannot be told from its ending"),
        (["-o", "night.txt", "--format", "table"], "for the terminal"),
        (["--columns", "JobID,Stat"], "sacct has no field 'stat'"),
        (["--templates", "absent", "--format", "md"], "no such directory"),
        (["--site", "absent-site"], "absent-site"),
        (["--format", "xml"], "xml"),
        (["--colour"], "--colour"),
        (["job"], "job"),
    ],
)
def test_wrong_usage_is_one_clear_error(hpcplan, dump: Path, arguments: list[str], message: str) -> None:
    code, out, err = hpcplan("report", "--sacct", dump, *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"", "empty"), (b"\0\0", "binary"), (b"7|alice\n", "no header")]
)
def test_a_file_that_is_no_accounting_is_exit_code_2(
    hpcplan, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "input.txt"
    if content is not None:
        path.write_bytes(content)
    target = tmp_path / "night.html"
    code, out, err = hpcplan("report", "--sacct", path, "-o", target)
    assert (code, out) == (2, "")
    assert message in err
    assert "input.txt" in err
    assert not target.exists()


def test_rows_that_cannot_be_read_are_said_on_stderr_and_quoted(hpcplan, tmp_path: Path) -> None:
    path = tmp_path / "sacct.txt"
    path.write_text(DUMP + "nonsense\n")
    code, out, err = hpcplan("report", "--sacct", path, "--format", "json")
    assert code == 0
    assert "1 × row skipped" in err
    assert json.loads(out)["problems"]["quoted"][0]["quote"] == "nonsense"


def test_standard_input_is_a_file_too(hpcplan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(DUMP.encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    code, out, _ = hpcplan("report", "--sacct", "-", "--format", "json")
    assert code == 0
    assert json.loads(out)["jobs"]["total"] == 2


def test_columns_name_a_file_without_a_header(hpcplan, tmp_path: Path) -> None:
    path = tmp_path / "sacct.txt"
    path.write_text(DUMP.split("\n", 1)[1].replace("|", "☃"))
    columns = DUMP.split("\n", 1)[0].replace("|", ",")
    code, out, _ = hpcplan("report", "jobs", "--sacct", path, "--columns", columns, "--format", "json")
    assert code == 0
    assert len(json.loads(out)) == 2


def test_prices_come_from_a_site(hpcplan, dump: Path, tmp_path: Path) -> None:
    code, out, err = hpcplan("report", "--sacct", dump, "--site", "superpod-h100", "--format", "json")
    if code == 2:
        assert "price_per_hour" in err
    else:
        assert json.loads(out)["currency"]


def test_what_hpcplans_own_jobs_sampled_stands_in_for_what_accounting_lacks(
    hpcplan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path / "data"))
    listed = tmp_path / "data" / "campaigns"
    listed.mkdir(parents=True)
    entry = {"campaign_id": "c1", "name": "a", "directory": str(tmp_path / "campaign"), "backend": "slurm",
             "cluster": None, "created_at": 1}  # fmt: skip
    (listed / "c1.json").write_text(json.dumps(entry))
    samples = tmp_path / "campaign" / "usage" / "7"
    samples.mkdir(parents=True)
    rows = [f"{t},n1,{gpu},60,1000,300,,\n" for t in range(1_714_521_630, 1_714_525_200, 30) for gpu in (0, 1)]
    (samples / "n1.csv").write_text(
        "time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib\n" + "".join(rows)
    )
    (tmp_path / "sacct.txt").write_text(
        "JobID|User|State|Submit|Start|End|Elapsed|NNodes|AllocTRES|Comment\n"
        "7|alice|COMPLETED|2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00|1|"
        "cpu=8,gres/gpu=2,node=1|hpcplan:c1:train:1\n"
        "8|alice|COMPLETED|2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00|1|"
        "cpu=8,gres/gpu=2,node=1|\n"
    )
    files = ["--sacct", str(tmp_path / "sacct.txt"), "--timezone", "UTC", "--format", "json"]
    rows_ = json.loads(hpcplan("report", "jobs", *files)[1])
    assert [(row["gpu_efficiency"], row["gpu_sampled"]) for row in rows_] == [(0.6, True), (None, False)]
    found = json.loads(hpcplan("report", *files)[1])
    assert (found["gpu_efficiency"]["value"], found["gpu_efficiency"]["coverage"]) == (0.6, 0.5)
    assert "samples" in found["gpu_efficiency"]["note"]
    assert found["energy_kwh"]["value"] == 0.6
