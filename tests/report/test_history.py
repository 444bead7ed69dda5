"""What was read is kept, each attempt once, and gives the trend."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hpcplan.errors import InputError
from hpcplan.report import build_report, job_table
from hpcplan.report.history import History, default_folder
from hpcplan.report.trends import limit_ratios, over_days, partition_hours
from hpcplan.slurm.records import JobState


def test_adding_the_same_night_again_changes_nothing(tmp_path: Path, made_up: ModuleType) -> None:
    history, table = History(tmp_path / "h"), job_table(made_up.records(300))
    assert history.add(table) == 300
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "h").glob("*.parquet")}
    assert len(files) == 2  # jobs were submitted on two days
    assert history.add(table) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "h").glob("*.parquet")} == files
    assert_frame_equal(history.table(made_up.START - 10 * made_up.DAY, made_up.START + 2 * made_up.DAY), table)


def test_a_job_that_was_seen_running_gives_way_to_its_end(tmp_path: Path, made_up: ModuleType) -> None:
    history = History(tmp_path)
    done = next(one for one in made_up.records(50) if one.state is JobState.COMPLETED)
    running = dataclasses.replace(done, state=JobState.RUNNING, end_time=None)
    assert history.add(job_table([running])) == 1
    assert history.add(job_table([done])) == 0
    assert history.table(0, 2**34)["state"].to_list() == ["COMPLETED"]
    assert history.add(job_table([running])) == 0
    assert history.table(0, 2**34)["state"].to_list() == ["COMPLETED"]


def test_a_window_has_what_overlaps_it(tmp_path: Path, made_up: ModuleType) -> None:
    history, table = History(tmp_path), job_table(made_up.records(400, seed=4))
    history.add(table)
    middle = made_up.START + made_up.DAY // 2
    found = history.table(middle, middle + 3600)
    expected = table.filter(
        (pl.col("submit_time") < middle + 3600) & ((pl.col("end_time") >= middle) | ~pl.col("ended"))
    )
    assert 0 < len(expected) < len(table)
    assert set(found["job_id"]) == set(expected["job_id"])


def test_a_window_has_the_jobs_of_long_ago_that_reach_into_it(tmp_path: Path, made_up: ModuleType) -> None:
    history, later = History(tmp_path), made_up.START + 400 * made_up.DAY
    old = [one for one in made_up.records(300) if one.end_time is not None]
    reaching = [
        dataclasses.replace(old[7], end_time=later + 60),
        dataclasses.replace(old[9], state=JobState.RUNNING, end_time=None),
    ]
    history.add(job_table([*old[:7], reaching[0], old[8], reaching[1], *old[10:]]))
    found = history.table(later, later + made_up.DAY)
    assert sorted(found["job_id"]) == sorted(one.job_id for one in reaching)
    history.add(job_table([dataclasses.replace(reaching[1], state=JobState.COMPLETED, end_time=later - 1)]))
    assert history.table(later, later + made_up.DAY)["job_id"].to_list() == [reaching[0].job_id]


def test_old_days_can_be_forgotten_and_strange_files_are_refused(tmp_path: Path, made_up: ModuleType) -> None:
    history = History(tmp_path)
    history.add(job_table(made_up.records(300)))
    assert history.span() == (made_up.START - made_up.DAY, made_up.START + made_up.DAY)
    assert history.forget_before(made_up.START) == 1
    (tmp_path / "2024-05-01.parquet").write_text("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        history.table(0, 2**34)


def test_a_cluster_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path))
    assert default_folder("a/b") == tmp_path / "report" / "a_b"
    assert default_folder(None) == tmp_path / "report" / "cluster"
    assert default_folder("..").parent == tmp_path / "report"


def test_the_days_of_a_trend_add_up_to_the_whole(made_up: ModuleType) -> None:
    table = job_table(made_up.records(500, seed=2))
    end = made_up.START + made_up.DAY
    days = over_days(table, end, 84)
    whole = build_report(table, start=days[0].start, end=end)
    assert sum(day.ended for day in days) == whole.jobs.ended
    assert sum(day.started for day in days) == whole.jobs.started
    assert sum(day.core_hours for day in days) == pytest.approx(whole.core_hours.value)
    assert sum(day.gpu_hours for day in days) == pytest.approx(whole.gpu_hours.value)


def test_the_hours_of_partitions_add_up_to_the_report(made_up: ModuleType) -> None:
    table, start, end = job_table(made_up.records(500, seed=3)), made_up.START, made_up.START + made_up.DAY
    hours, report = partition_hours(table, start, end), build_report(table, start=start, end=end)
    assert hours["start"].n_unique() == 24
    for row in report.by_partition:
        mine = hours.filter(pl.col("partition") == row.name)
        assert mine["core_hours"].sum() == pytest.approx(row.core_hours)
    assert hours["submitted"].sum() == report.jobs.submitted


def test_run_time_over_limit_by_user(made_up: ModuleType) -> None:
    table, start, end = job_table(made_up.records(500, seed=3)), made_up.START, made_up.START + made_up.DAY
    ratios = limit_ratios(table, start, end)
    row = ratios.filter((pl.col("user") == "alice") & (pl.col("partition") == "batch")).row(0, named=True)
    done = table.filter(
        (pl.col("user") == "alice") & (pl.col("partition") == "batch") & pl.col("state").is_in(["COMPLETED", "TIMEOUT"])
        & (pl.col("end_time") >= start) & (pl.col("end_time") < end) & (pl.col("elapsed_s") > 0)
    )  # fmt: skip
    shares = sorted(min(1.0, run / limit) for run, limit in done.select("elapsed_s", "time_limit_s").iter_rows())
    assert row["jobs"] == len(shares)
    assert row["max"] == pytest.approx(shares[-1])
    assert row["mean"] == pytest.approx(sum(shares) / len(shares))


def test_a_report_with_history_is_compared_with_the_day_and_the_week_before(made_up: ModuleType) -> None:
    day = made_up.DAY
    nights = [
        dataclasses.replace(one, job_id=one.job_id + back * 10_000)
        for back in range(8)
        for one in made_up.records(
            100, seed=back, start=made_up.START - back * day, end=made_up.START - back * day + day
        )
        if one.state.final
    ]
    report = build_report(nights, start=made_up.START, end=made_up.START + day)
    assert [one.name for one in report.compared] == ["the window before", "a week before"]
    before = build_report(nights, start=made_up.START - day, end=made_up.START)
    assert report.compared[0].figures["core_hours"] == pytest.approx((report.core_hours.value, before.core_hours.value))
    assert len(report.trend) == 8  # the day before those is on record from its noon alone


def test_what_only_overlaps_a_window_is_not_compared_with_it(made_up: ModuleType) -> None:
    """A backend asked for one night also gives jobs submitted the day before, which is not the day before."""
    start, end = made_up.START, made_up.START + made_up.DAY
    night = job_table(made_up.records(400)).filter(~pl.col("ended") | (pl.col("end_time") >= start))
    assert night["submit_time"].min() < start - 3600  # type: ignore[operator]
    report = build_report(night, start=start, end=end)
    assert report.compared == ()
    assert len(report.trend) == 1
