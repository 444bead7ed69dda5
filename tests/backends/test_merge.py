from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from hpcplan.slurm.merge import merge
from hpcplan.slurm.records import JobRecord, JobState

RUNNING = JobRecord(7, JobState.RUNNING, "train", submit_time=100, start_time=110, node_list="n0", restarts=1)
STORED = JobRecord(
    7, JobState.RUNNING, "allocation", submit_time=100, start_time=110, node_list="n0", backfilled=True, work_dir="/w"
)  # fmt: skip


def merged(queue: JobRecord, history: JobRecord) -> JobRecord:
    (record,) = merge([queue], {history.job_id: history}, since=0, job_ids=None)
    return record


def test_the_controllers_word_stands_and_accounting_fills_its_gaps() -> None:
    record = merged(RUNNING, STORED)
    assert (record.name, record.restarts, record.backfilled, record.work_dir) == ("train", 1, True, "/w")


def test_a_job_that_ended_between_the_two_questions_has_ended() -> None:
    ended = dataclasses.replace(
        STORED, state=JobState.FAILED, end_time=150, exit_code=3, signal=0, max_rss_bytes=5, reason=None
    )  # fmt: skip
    record = merged(RUNNING, ended)
    assert (record.state, record.end_time, record.exit_code, record.signal) == (JobState.FAILED, 150, 3, 0)
    assert (record.name, record.max_rss_bytes) == ("train", 5)


def test_a_job_that_still_holds_its_nodes_is_completing_whatever_accounting_says() -> None:
    completing = dataclasses.replace(RUNNING, state=JobState.COMPLETING, end_time=149)
    ended = dataclasses.replace(STORED, state=JobState.COMPLETED, end_time=150, exit_code=0)
    assert merged(completing, ended).state is JobState.COMPLETING


def test_accounting_that_lags_behind_does_not_bring_a_job_back_to_life() -> None:
    ended = dataclasses.replace(RUNNING, state=JobState.COMPLETED, end_time=150, exit_code=0, signal=0)
    record = merged(ended, STORED)
    assert (record.state, record.end_time, record.exit_code) == (JobState.COMPLETED, 150, 0)


def test_a_requeued_job_is_not_given_the_end_of_its_first_attempt() -> None:
    waiting = JobRecord(7, JobState.PENDING, "train", submit_time=160, restarts=1)
    first = dataclasses.replace(STORED, state=JobState.NODE_FAIL, end_time=150, exit_code=1)
    record = merged(waiting, first)
    assert (record.state, record.end_time, record.start_time, record.restarts) == (JobState.PENDING, None, None, 1)


def test_a_reused_id_gives_the_newer_job() -> None:
    old = dataclasses.replace(STORED, submit_time=5, state=JobState.COMPLETED, end_time=9, comment="other")
    assert merged(RUNNING, old).comment is None
    newer = dataclasses.replace(STORED, submit_time=500)
    assert merged(RUNNING, newer) == newer


def test_what_the_controller_forgot_comes_from_accounting() -> None:
    ended = dataclasses.replace(STORED, state=JobState.COMPLETED, end_time=150)
    assert merge([], {7: ended}, since=0, job_ids=[7]) == [ended]
    assert merge([], {7: ended}, since=150, job_ids=[7]) == [ended]
    assert merge([], {7: ended}, since=151, job_ids=[7]) == []


def test_ids_that_were_not_asked_for_are_left_out() -> None:
    assert merge([RUNNING, dataclasses.replace(RUNNING, job_id=8)], {9: STORED}, since=0, job_ids=[8, 10]) == [
        dataclasses.replace(RUNNING, job_id=8)
    ]


records = st.builds(
    JobRecord,
    job_id=st.integers(1, 5),
    state=st.sampled_from([JobState.PENDING, JobState.RUNNING, JobState.COMPLETED, JobState.COMPLETING]),
    submit_time=st.integers(1, 3),
    end_time=st.none() | st.integers(1, 9),
)


@given(st.lists(records, max_size=8, unique_by=lambda record: record.job_id), st.lists(records, max_size=8))
def test_each_job_comes_once_in_the_order_of_ids(queue: list[JobRecord], history: list[JobRecord]) -> None:
    ids = [record.job_id for record in merge(queue, {r.job_id: r for r in history}, since=0, job_ids=None)]
    assert ids == sorted({record.job_id for record in [*queue, *history]})
