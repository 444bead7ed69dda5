"""``hpcplan simulate`` as people type it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.cli import COMMANDS, main
from hpcplan.cli.simulate import command
from tests.simulate.clusters import write_site

Run = Callable[..., tuple[int, str, str]]
SWF = "; MaxProcs: 8\n" + "".join(
    f"{job} {submit} -1 {run} {procs} -1 -1 {procs} {limit} -1 1 1 1 -1 1 -1 -1 -1\n"
    for job, submit, run, procs, limit in [(1, 0, 100, 6, 100), (2, 1, 50, 8, 50), (3, 2, 98, 2, 98), (4, 3, 70, 2, 60)]
)
CONF = "SelectType=select/linear\nNodeName=n[1-8] CPUs=4\nPartitionName=batch Nodes=n[1-8] Default=YES\n"
TABLE = "job,submit_s,nodes,run_s,time_limit_min\na,0.0,6,100,2\nb,1.0,8,50,1\nc,2.0,1,20,1\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``hpcplan simulate ARGUMENTS`` and returns exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["simulate", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


@pytest.fixture
def swf(tmp_path: Path) -> Path:
    path = tmp_path / "trace.swf"
    path.write_text(SWF)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text(TABLE)
    return path


def schedule(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["simulate"][1]
    code, out, _ = run("--help")
    assert code == 0
    assert "Example" in out


def test_a_trace_becomes_a_schedule_with_the_promised_columns(run: Run, swf: Path, tmp_path: Path) -> None:
    out = tmp_path / "schedule.csv"
    code, _, _ = run(swf, "--policy", "easy", "-o", out)
    assert code == 0
    assert out.read_text().splitlines()[0] == "job_id,submit_s,start_s,end_s,procs,nodes,nodelist,state"
    rows = schedule(out)
    assert [(row["job_id"], row["start_s"], row["end_s"]) for row in rows] == [
        ("1", "0", "100"), ("2", "100", "150"), ("3", "2", "100"), ("4", "150", "210"),
    ]  # fmt: skip
    assert [row["state"] for row in rows] == ["COMPLETED", "COMPLETED", "COMPLETED", "TIMEOUT"]


def test_json_is_one_document_with_the_figures_of_every_policy(run: Run, swf: Path) -> None:
    code, out, _ = run(swf, "--policy", "easy", "--policy", "fcfs", "--policy", "sjf", "--format", "json")
    assert code == 0
    answer = json.loads(out)
    easy, fcfs, _ = answer["results"]
    assert [found["policy"] for found in answer["results"]] == ["easy", "fcfs", "sjf"]
    assert (easy["mean_wait_s"], easy["makespan_s"], easy["backfilled_share"]) == ((0 + 99 + 0 + 147) / 4, 210, 0.25)
    assert fcfs["backfilled_share"] == 0
    assert easy["utilisation"] == pytest.approx((600 + 400 + 196 + 120) / (8 * 210))


def test_the_mean_bounded_slowdown_counts_short_runs_as_ten_seconds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("job,submit_s,nodes,run_s\n1,0,1,40\n2,0,1,1\n")
    _, out, _ = run(path, "--procs", "1", "--policy", "fcfs", "--format", "json")
    assert json.loads(out)["results"][0]["mean_bounded_slowdown"] == (1 + 41 / 10) / 2


def test_the_size_given_counts_more_than_the_traces(run: Run, swf: Path) -> None:
    _, out, _ = run(swf, "--procs", "18", "--policy", "fcfs", "--format", "json")
    assert json.loads(out)["results"][0]["procs"] == 18
    assert json.loads(out)["results"][0]["mean_wait_s"] == 0


def test_gzipped_traces_and_tables_are_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    code, out, _ = run(path, "--procs", "8", "--policy", "conservative", "--format", "json")
    assert code == 0
    assert json.loads(out)["results"][0]["jobs"] == 3


def test_a_dump_of_sacct_is_scheduled_anew_without_its_steps(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sacct.txt"
    path.write_text(
        "JobID|User|Submit|Start|End|Elapsed|Timelimit|NNodes|NCPUS|State\n"
        "7|ana|2024-03-01T10:00:00|2024-03-01T11:00:00|2024-03-01T11:05:00|00:05:00|01:00:00|2|8|COMPLETED\n"
        "7.batch||2024-03-01T11:00:00|2024-03-01T11:00:00|2024-03-01T11:05:00|00:05:00||1|4|COMPLETED\n"
        "8_1|bob|2024-03-01T10:00:10|2024-03-01T11:05:00|2024-03-01T11:06:00|00:01:00|UNLIMITED|1|4|COMPLETED\n"
        "9|bob|2024-03-01T10:00:10|Unknown|Unknown|00:00:00|01:00:00|1|4|CANCELLED\n"
    )
    out = tmp_path / "schedule.csv"
    code, _, err = run(path, "--procs", "8", "--policy", "fcfs", "-o", out)
    assert code == 0
    assert "1 jobs of the trace did not run" in err
    first, second = schedule(out)
    assert (first["job_id"], second["job_id"], first["procs"]) == ("7", "8_1", "8")
    assert int(second["start_s"]) - int(first["start_s"]) == 300


def test_slurms_policy_gives_nodes_by_name(run: Run, table: Path, tmp_path: Path) -> None:
    conf, out = tmp_path / "slurm.conf", tmp_path / "schedule.csv"
    conf.write_text(CONF)
    code, _, _ = run(table, "--slurm-conf", conf, "--policy", "slurm", "-o", out)
    assert code == 0
    rows = schedule(out)
    assert (rows[0]["job_id"], rows[0]["nodes"], rows[0]["nodelist"]) == ("a", "6", "n[1-6]")
    assert rows[0]["procs"] == "24"
    assert int(rows[2]["start_s"]) < int(rows[1]["start_s"])


def test_what_slurm_conf_asks_for_and_the_simulation_does_not_do_is_said(run: Run, table: Path, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        CONF + "PreemptType=preempt/partition_prio\nPreemptMode=SUSPEND,GANG\n"
        "PartitionName=low Nodes=n[1-8] PreemptMode=CANCEL\n"
    )
    code, _, err = run(table, "--slurm-conf", conf, "--policy", "slurm")
    assert code == 0
    assert "PreemptMode=SUSPEND of batch is not simulated" in err
    assert "PreemptMode=GANG is not simulated" in err
    assert "not simulated" not in run(table, "--slurm-conf", conf, "--policy", "easy")[2]
    conf.write_text(CONF)
    assert "not simulated" not in run(table, "--slurm-conf", conf, "--policy", "slurm")[2]


@pytest.mark.parametrize("policy", ["fcfs", "sjf", "priority", "easy", "conservative", "slurm"])
def test_every_policy_runs_on_the_nodes_of_a_site(run: Run, table: Path, tmp_path: Path, policy: str) -> None:
    table.write_text(TABLE.replace(",8,", ",5,"))
    code, out, err = run(table, "--site", write_site(tmp_path), "--policy", policy, "--format", "json")
    assert code == 0, err
    assert json.loads(out)["results"][0]["never_started"] == 0


def test_the_priority_of_a_table_decides_under_the_priority_policy(run: Run, tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.csv", tmp_path / "schedule.csv"
    path.write_text("job,submit_s,nodes,run_s,priority\n1,0,4,10,1\n2,1,4,10,5\n3,2,4,10,9\n")
    run(path, "--procs", "4", "--policy", "priority", "-o", out)
    assert [row["start_s"] for row in schedule(out)] == ["0", "20", "10"]


def test_slurms_policy_runs_on_bare_processors_too(run: Run, swf: Path, tmp_path: Path) -> None:
    out = tmp_path / "schedule.csv"
    assert run(swf, "--policy", "slurm", "-o", out)[0] == 0
    rows = schedule(out)
    assert [row["procs"] for row in rows] == ["6", "8", "2", "2"]
    assert {row["nodelist"] for row in rows} == {""}
    assert int(rows[3]["start_s"]) < 100 <= int(rows[1]["start_s"])


def test_a_picture_is_drawn(run: Run, swf: Path, tmp_path: Path) -> None:
    code, _, _ = run(swf, "--policy", "easy", "--picture", tmp_path / "schedule.svg")
    assert code == 0
    assert "busy" in (tmp_path / "schedule.svg").read_text() or (tmp_path / "schedule.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "eazy"], "no policy is called 'eazy'; did you mean 'easy'?"),
        (["--policy", "easy", "--procs", "4"], "job 1"),
        (["--policy", "slurm"], "does not say how large the machine is"),
        (["--policy", "easy", "--policy", "fcfs", "-o", "x.csv"], "one policy"),
        (["--policy", "easy", "--procs", "8", "--site", "superpod-h100"], "say once"),
        (["--policy", "easy", "--topology", "topology.conf"], "--slurm-conf"),
    ],
)
def test_what_makes_no_sense_is_refused_with_exit_code_2(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("job,submit_s,nodes,run_s\n1,0,8,10\n")
    code, out, err = run(path, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("x.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "is no trace"),
        ("1001|batch|COMPLETED\n", "leaves its header out"),
        ("", "is no trace"),
        ("job,submit_s,run_s\n1,0,5\n", "1: has no column 'nodes'"),
        ("job,submit_s,nodes,run_s\n1,0,two,5\n", "2: nodes: 'two' is not a number"),
        ("job,submit_s,nodes,run_s\n1,,2,5\n", "2: submit_s: is missing"),
        ("job,submit_s,nodes,run_s\n1,0,2,5\n1,0,2,5\n", "3: job: '1' is there twice"),
        ("job,submit_s,nodes,run_s,dependency\n1,0,2,5,after dinner\n", "2: dependency: 'after dinner'"),
        ("job,submit_s,nodes,run_s,gres\n1,0,2,5,fpga:two\n", "2: gres: 'fpga:two'"),
        ("JobID|Submit|State\n", "needs the columns"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused_with_file_line_and_column(
    run: Run, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    code, out, err = run(path, "--procs", "8", "--policy", "easy")
    assert (code, out) == (2, "")
    assert f"{path}" in err
    assert message in err


CASES = [("fcfs", "submit", "fcfs"), ("easy", "submit", "easy"), ("easy", "sjf", "easy-sjf")]


@pytest.mark.parametrize(("policy", "order", "name"), CASES)
@pytest.mark.parametrize("trace", ["sdsc-sp2-first5k", "lublin-256", "nasa-ipsc-1993"])
def test_published_traces_come_out_start_by_start_with_their_figures(
    run: Run, shared_data: Path, tmp_path: Path, trace: str, policy: str, order: str, name: str
) -> None:
    out = tmp_path / "schedule.csv"
    code, text, _ = run(
        shared_data / "swf" / f"{trace}.swf.gz", "--policy", policy, "--order", order, "-o", out, "--format", "json"
    )
    assert code == 0
    packed = (shared_data / "expected_schedules" / f"{trace}.{name}.csv.gz").read_bytes()
    expected = list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))
    columns = ("job_id", "submit_s", "start_s", "procs")
    assert [[row[key] for key in columns] for row in schedule(out)] == [
        [row[key] for key in columns] for row in expected
    ]
    summary = json.loads((shared_data / "expected_schedules" / "summary.json").read_text())
    figures = next(
        one
        for one in summary
        if (one["trace"], one["policy"], one["order"]) == (trace, policy, order.replace("submit", "fcfs"))
    )
    found = json.loads(text)["results"][0]
    assert found["mean_wait_s"] == pytest.approx(figures["avg_wait"], abs=1e-4)
    assert found["mean_bounded_slowdown"] == pytest.approx(figures["avg_bsld"], abs=1e-4)
    assert found["utilisation"] == pytest.approx(figures["util"], abs=1e-4)
    assert found["makespan_s"] == figures["makespan"]


@pytest.mark.parametrize(
    ("pattern", "order", "true_run_times"),
    [("easy_bf_*", "submit", False), ("sjbf.*", "sjf", False), ("perfect.*", "submit", True)],
)
def test_hand_made_schedules_come_out_through_the_command(
    run: Run, shared_data: Path, tmp_path: Path, pattern: str, order: str, true_run_times: bool
) -> None:
    for path in sorted((shared_data / "conformance").glob(pattern)):
        rows = [line.split("#")[0].split() for line in path.read_text().splitlines()]
        trace, out = tmp_path / "trace.swf", tmp_path / "schedule.csv"
        rows = [row for row in rows if row]
        trace.write_text(
            "".join(
                f"{int(float(row[1]))} {row[0]} -1 {row[4]} {row[3]} -1 -1 {row[3]} "
                f"{row[4] if true_run_times else row[2]} -1 1 1 1 -1 1 -1 -1 -1\n"
                for row in rows
            )
        )
        assert run(trace, "--procs", "100", "--policy", "easy", "--order", order, "-o", out)[0] == 0
        assert all(row["end_s"] == row["job_id"] for row in schedule(out)), path.name
