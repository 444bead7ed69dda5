"""``hpcplan report nightly`` and ``report install`` as cron and people run them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpcplan.cli import main, report_source
from hpcplan.errors import SlurmUnreachableError
from hpcplan.slurm.records import ClusterInfo, JobRecord, JobState, NodeRecord

DAY = 86_400
NIGHT = 1_714_521_600  # 2024-05-01T00:00:00 UTC
JOB = JobRecord(
    job_id=7, state=JobState.COMPLETED, user="alice", submit_time=NIGHT + 3600, start_time=NIGHT + 7200,
    end_time=NIGHT + 10_800, time_limit_s=14_400, nodes=1, node_list="n1", cpus=16, gpus=0, memory_bytes=2**34,
    total_cpu_s=28_800.0, max_rss_bytes=2**33,
)  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


class Cluster:
    """Has one job a day; ``now`` is moved by the test."""

    def __init__(self) -> None:
        self.time = NIGHT + DAY + 5400
        self.asked: list[tuple[int, int]] = []
        self.down = False

    def now(self) -> int:
        return self.time

    def ping(self) -> ClusterInfo:
        return ClusterInfo("fake", "testbed", "23.11.1", True)

    def nodes(self) -> list[NodeRecord]:
        return [NodeRecord("n1", "idle", cpus=16, gpus=0)]

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        if self.down:
            raise SlurmUnreachableError("slurmdbd does not answer")
        self.asked.append((start, end))
        days = range((start - NIGHT) // DAY, (end - NIGHT + DAY - 1) // DAY)
        return [
            dataclasses.replace(
                JOB, job_id=100 + day, submit_time=JOB.submit_time + day * DAY,  # type: ignore[operator]
                start_time=JOB.start_time + day * DAY, end_time=JOB.end_time + day * DAY,  # type: ignore[operator]
            )
            for day in days
        ]  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(report_source, "opened", lambda name: made)
    monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path / "data"))
    return made


@pytest.fixture
def nightly(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["report", "nightly", "--out", tmp_path / "out", "--timezone", "UTC", *arguments]
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


def pages(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("20*.html"))


def test_a_night_is_reported_once_from_midnight_to_midnight(cluster: Cluster, nightly: Run, tmp_path: Path) -> None:
    assert nightly()[0] == 0
    assert cluster.asked == [(NIGHT, NIGHT + DAY)]
    out = tmp_path / "out"
    assert pages(out) == ["2024-05-01.html"]
    assert (out / "latest.html").read_bytes() == (out / "2024-05-01.html").read_bytes()
    figures = json.loads((out / "2024-05-01.json").read_text())
    assert (figures["jobs"]["ended"], figures["core_hours"]["value"]) == (1, 16.0)
    assert "2024-05-01 reported" in (out / "nightly.log").read_text()
    code, _, err = nightly()
    assert (code, "no night is due" in err) == (0, True)
    assert len(cluster.asked) == 1


def test_missed_nights_are_caught_up_each_with_its_own_jobs(cluster: Cluster, nightly: Run, tmp_path: Path) -> None:
    nightly()
    cluster.time += 3 * DAY
    assert nightly()[0] == 0
    assert pages(tmp_path / "out") == [f"2024-05-0{day}.html" for day in (1, 2, 3, 4)]
    last = json.loads((tmp_path / "out" / "2024-05-04.json").read_text())
    assert last["jobs"]["ended"] == 1
    assert last["compared"][0]["figures"]["core_hours"] == [16.0, 16.0]  # from the history
    assert len(last["trend"]) >= 4
    assert last["end"] == datetime(2024, 5, 5, tzinfo=UTC).timestamp()
    cluster.time += 9 * DAY
    assert nightly("--catch-up", 2)[0] == 0
    assert pages(tmp_path / "out")[-2:] == ["2024-05-12.html", "2024-05-13.html"]


def test_a_night_without_slurm_is_left_to_the_next_run(cluster: Cluster, nightly: Run, tmp_path: Path) -> None:
    cluster.down = True
    code, _, err = nightly()
    assert (code, "does not answer" in err) == (4, True)
    assert "does not answer" in (tmp_path / "out" / "nightly.log").read_text()
    assert pages(tmp_path / "out") == []
    cluster.down = False
    assert nightly()[0] == 0
    assert pages(tmp_path / "out") == ["2024-05-01.html"]


def test_monitoring_hears_of_a_bad_night_whose_pages_are_written(
    cluster: Cluster, nightly: Run, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "none" / "queue.prom")
    bad = ["--webhook", "http://127.0.0.1:9/none", "--prometheus", nowhere]
    code, _, err = nightly("--fail-if", "cpu_efficiency<60%", *bad)
    assert code == 1
    assert nowhere in err
    assert "cpu_efficiency is 0.5" in err
    assert "webhook" in err
    assert pages(tmp_path / "out") == ["2024-05-01.html"]
    assert nightly("--fail-if", "cpu_efficiency<60%")[0] == 0  # nothing was due


def test_users_pages_and_prometheus_text_are_written_beside_it(cluster: Cluster, nightly: Run, tmp_path: Path) -> None:
    text = tmp_path / "queue.prom"
    assert nightly("--per-user", "--anonymize", "--prometheus", text)[0] == 0
    assert 'hpcplan_report_core_hours{cluster="testbed"} 16' in text.read_text()
    (page,) = (tmp_path / "out" / "users" / "2024-05-01").iterdir()
    assert page.name.startswith("user-")
    everything = [path.read_text() for path in (tmp_path / "out").rglob("*.html")]
    assert not [one for one in everything if "alice" in one]


def test_install_says_what_it_will_do_and_refuses_options_that_nightly_would(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for words, code, said in (
        (["--systemd", "--dry-run", "--", "--out", str(tmp_path / "o")], 0, "OnCalendar=*-*-* 01:30:00"),
        (["--systemd", "--dry-run", "--", "--outt", "x"], 2, "--outt"),
        (["--systemd", "--dry-run"], 2, "--out"),
        (["--", "--out", "x"], 2, "--cron"),
        (["--cron", "--at", "26:00", "--", "--out", "x"], 2, "no time of day"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["report", "install", *words])
        captured = capsys.readouterr()
        assert left.value.code == code
        assert said in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_does_not_depend_on_where_it_was_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    words = ["--out", "queue", "--prometheus=text/queue.prom", "--site", "mine.yaml", "--mail", "mine.yaml"]
    with pytest.raises(SystemExit):
        main(["report", "install", "--systemd", "--dry-run", "--", *words])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "ExecStart" in line]
    options = f"--out {tmp_path}/queue --prometheus={tmp_path}/text/queue.prom --site {tmp_path}/mine.yaml"
    assert line.endswith(f"report nightly {options} --mail mine.yaml")
