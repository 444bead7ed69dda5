"""The mock cluster in motion: ends, holds, dependencies, limits, requeues, nodes that fail."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hpcplan.errors import SlurmError
from hpcplan.simulate.engine import REQUEUE_DELAY_S, Engine
from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.pending import progressing, reasons
from hpcplan.simulate.policies import policy_named
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.slurm.records import JobRecord, JobState
from tests.simulate.clusters import engine, job, machine, starts, submit


def last(cluster: Engine, job_id: int) -> JobRecord:
    return next(record for record in reversed(cluster.ended) if record.job_id == job_id)


def run_out(cluster: Engine) -> None:
    while (time := cluster.next_event_time()) is not None:
        cluster.step(time)


def test_a_job_runs_on_the_lowest_nodes_and_completes() -> None:
    cluster = engine(4)
    assert submit(cluster, nodes=2, run_s=300) == 1
    cluster.advance(299)
    assert cluster.running[1].node_list == "n[1-2]"
    cluster.advance(300)
    record = last(cluster, 1)
    assert (record.state, record.start_time, record.end_time, record.exit_code) == (JobState.COMPLETED, 0, 300, 0)
    assert (record.nodes, record.cpus, record.gpus, record.node_list) == (2, 32, 16, "n[1-2]")
    assert (record.total_cpu_s, record.max_rss_bytes, record.gpu_utilisation) == (None, None, None)


def test_a_job_that_would_run_longer_than_its_limit_ends_as_timeout_at_the_limit() -> None:
    cluster = engine()
    submit(cluster, limit_s=600, run_s=601)
    submit(cluster, limit_s=600, run_s=600)
    run_out(cluster)
    assert (last(cluster, 1).state, last(cluster, 1).end_time) == (JobState.TIMEOUT, 600)
    assert (last(cluster, 2).state, last(cluster, 2).end_time) == (JobState.COMPLETED, 600)


def test_a_behaviour_says_how_a_job_fails_and_what_it_used() -> None:
    cluster = engine()
    cluster.submit(
        job(), Behaviour(100, "FAILED", exit_code=3, cpu_fraction=0.5, max_rss_bytes=7, gpu_utilisation=0.25), "ana"
    )
    run_out(cluster)
    record = last(cluster, 1)
    assert (record.state, record.exit_code, record.total_cpu_s) == (JobState.FAILED, 3, 0.5 * 100 * 16)
    assert (record.max_rss_bytes, record.gpu_utilisation) == (7, 0.25)


def test_waiting_jobs_say_why_in_squeues_words() -> None:
    cluster = engine(4, max_time_s=3600, max_nodes=3)
    running = submit(cluster, nodes=3)
    head, behind = submit(cluster, nodes=2), submit(cluster, nodes=3)
    others = {
        "JobHeldUser": submit(cluster, hold=True),
        "Dependency": submit(cluster, dependency=f"afterok:{running}"),
        "BeginTime": submit(cluster, begin="now+1hour"),
        "PartitionTimeLimit": submit(cluster, limit_s=7200),
        "PartitionNodeLimit": submit(cluster, nodes=4),
    }
    assert reasons(cluster) == {head: "Resources", behind: "Priority"} | {
        number: word for word, number in others.items()
    }


def test_a_job_for_nodes_that_are_down_names_them() -> None:
    cluster = engine(4)
    cluster.set_node_state(["n1", "n3"], "drain", "fan")
    number = submit(cluster, nodes=3)
    small = submit(cluster, nodes=1)
    assert reasons(cluster) == {number: "ReqNodeNotAvail, UnavailableNodes:n[1,3]"}
    assert small in cluster.running


def test_a_partition_that_is_down_takes_jobs_and_starts_none() -> None:
    shape = machine(4)
    down = replace(shape.partitions["half"], up=False)
    cluster = Engine(Machine(shape.names, shape.groups, {**shape.partitions, "half": down}), policy_named("easy"))
    number, other = submit(cluster, partition="half"), submit(cluster)
    assert reasons(cluster) == {number: "PartitionDown"}
    assert list(cluster.running) == [other]


def test_a_held_job_waits_until_it_is_released() -> None:
    cluster = engine()
    number = submit(cluster, hold=True)
    cluster.advance(1000)
    assert cluster.jobs[number].start_time is None
    cluster.release(number)
    assert cluster.jobs[number].start_time == 1000
    cluster.hold(number)  # a running job goes on, and is held if it comes back
    cluster.requeue(number)
    cluster.advance(5000)
    assert reasons(cluster) == {number: "JobHeldUser"}


def test_a_job_begins_no_sooner_than_it_asked() -> None:
    cluster = engine(now=100)
    number = submit(cluster, begin="now+10minutes")
    cluster.advance(699)
    assert not cluster.running
    cluster.advance(700)
    assert cluster.jobs[number].start_time == 700


def test_a_cancelled_job_frees_its_nodes_for_the_next() -> None:
    cluster = engine(2)
    first, second = submit(cluster, nodes=2), submit(cluster, nodes=2)
    cluster.advance(50)
    cluster.cancel(first)
    assert (last(cluster, first).state, last(cluster, first).end_time) == (JobState.CANCELLED, 50)
    assert cluster.jobs[second].start_time == 50
    third = submit(cluster)
    cluster.cancel(third)
    assert (last(cluster, third).start_time, last(cluster, third).nodes) == (None, 1)


def test_a_requeued_job_starts_again_after_the_delay_and_leaves_its_first_attempt_in_accounting() -> None:
    cluster = engine()
    number = submit(cluster, run_s=300)
    cluster.advance(100)
    cluster.requeue(number)
    attempt = last(cluster, number)
    assert (attempt.state, attempt.start_time, attempt.end_time, attempt.submit_time) == (JobState.REQUEUED, 0, 100, 0)
    assert reasons(cluster) == {number: "BeginTime"}
    run_out(cluster)
    record = last(cluster, number)
    assert (record.state, record.start_time, record.restarts) == (JobState.COMPLETED, 100 + REQUEUE_DELAY_S, 1)
    assert (record.submit_time, record.end_time) == (101, 100 + REQUEUE_DELAY_S + 300)


def test_a_node_that_goes_down_requeues_its_job_or_ends_it() -> None:
    cluster = engine(2)
    stays, goes = submit(cluster), submit(cluster, requeue=False)
    cluster.advance(10)
    cluster.set_node_state(["n1", "n2"], "down", "power")
    assert last(cluster, stays).state is JobState.NODE_FAIL
    assert last(cluster, goes).state is JobState.NODE_FAIL
    assert list(cluster.jobs) == [stays]
    cluster.advance(1000)
    assert reasons(cluster) == {stays: "ReqNodeNotAvail, UnavailableNodes:n[1-2]"}
    cluster.set_node_state(["n1"], "resume")
    assert cluster.jobs[stays].start_time == 1000


def test_a_draining_node_lets_its_job_finish_and_takes_no_other() -> None:
    cluster = engine(1)
    submit(cluster, run_s=100)
    second = submit(cluster)
    cluster.set_node_state(["n1"], "drain")
    run_out(cluster)
    assert last(cluster, 1).state is JobState.COMPLETED
    assert cluster.jobs[second].start_time is None


def test_a_node_can_only_be_set_to_a_known_state() -> None:
    with pytest.raises(ValueError, match="drain, down or resume"):
        engine().set_node_state(["n1"], "idle")


@pytest.mark.parametrize(
    ("kind", "outcome", "then"),
    [
        ("afterok", "COMPLETED", "starts"),
        ("afterok", "FAILED", "never"),
        ("afternotok", "FAILED", "starts"),
        ("afternotok", "TIMEOUT", "starts"),
        ("afternotok", "COMPLETED", "never"),
        ("afterany", "FAILED", "starts"),
        ("afterany", "COMPLETED", "starts"),
    ],
)
def test_a_dependent_job_starts_or_never_can(kind: str, outcome: str, then: str) -> None:
    cluster = engine()
    run_s = 700 if outcome == "TIMEOUT" else 300
    behaviour = Behaviour(run_s, "COMPLETED" if outcome == "TIMEOUT" else outcome)
    first = cluster.submit(job(limit_s=600), behaviour, "ana")
    second = submit(cluster, dependency=f"{kind}:{first}")
    run_out(cluster)
    if then == "starts":
        assert last(cluster, second).start_time == last(cluster, first).end_time
    else:
        assert reasons(cluster) == {second: "DependencyNeverSatisfied"}


def test_a_job_may_ask_to_be_cancelled_when_its_dependency_fails_and_a_long_chain_falls_with_it() -> None:
    cluster = engine()
    previous = cluster.submit(job(), Behaviour(10, "FAILED", exit_code=1), "ana")
    for _ in range(1500):
        previous = submit(cluster, dependency=f"afterok:{previous}", kill_on_invalid_dep=True)
    run_out(cluster)
    assert not cluster.jobs
    assert {record.state for record in cluster.ended} == {JobState.FAILED, JobState.CANCELLED}
    assert last(cluster, previous).reason == "DependencyNeverSatisfied"


def test_dependencies_are_all_needed_with_a_comma_and_any_with_a_question_mark() -> None:
    cluster = engine()
    short, long = submit(cluster, run_s=100), submit(cluster, run_s=200)
    both = submit(cluster, dependency=f"afterok:{short}:{long}")
    either = submit(cluster, dependency=f"afterok:{long}?afterok:{short}")
    run_out(cluster)
    assert (starts(cluster)[both], starts(cluster)[either]) == (200, 100)


def test_a_singleton_waits_for_all_earlier_jobs_of_its_name_and_user() -> None:
    cluster = engine()
    submit(cluster, run_s=100, name="train")
    submit(cluster, run_s=300, name="train", user="bo")
    second = submit(cluster, run_s=50, name="train", dependency="singleton")
    third = submit(cluster, run_s=50, name="train", dependency="singleton")
    run_out(cluster)
    assert (starts(cluster)[second], starts(cluster)[third]) == (100, 150)


def test_after_counts_from_the_start_and_may_wait_some_minutes_more() -> None:
    cluster = engine(1)
    first = submit(cluster, run_s=100)
    held_up = submit(cluster, run_s=500)
    after = submit(cluster, dependency=f"after:{held_up}")
    later = submit(cluster, dependency=f"after:{first}+20")
    cluster.advance(100)
    assert reasons(cluster)[after] == "Resources"
    assert reasons(cluster)[later] == "BeginTime"
    run_out(cluster)
    assert (starts(cluster)[after], starts(cluster)[later]) == (600, 1200)


def test_a_dependency_on_a_job_that_nobody_knows_holds_up_nobody_as_in_slurm() -> None:
    cluster = engine()
    number = submit(cluster, dependency="afterok:999")
    assert cluster.jobs[number].start_time == 0


def test_a_dependency_that_cannot_be_read_is_refused_and_queues_nothing() -> None:
    cluster = engine()
    for text in ("frob:1", "afterok", "afterok:x", "afterok:1?afterany:2,afterany:3", " "):
        with pytest.raises(SlurmError, match="Job dependency problem"):
            submit(cluster, dependency=text)
    assert (cluster.jobs, cluster.next_id) == ({}, 1)


def numbers(cluster: Engine, array: int) -> dict[int, int]:
    """Return the job id of each task of an array, live or ended."""
    live = {job.array_task_id: job.number for job in cluster.jobs.values() if job.array_job_id == array}
    ended = {one.array_task_id: one.job_id for one in cluster.ended if one.array_job_id == array}
    return {task or 0: number for task, number in {**ended, **live}.items()}


def test_an_array_is_a_job_for_each_index_and_no_more_run_at_once_than_allowed() -> None:
    cluster = engine(4)
    first = submit(cluster, array=(0, 2, 4), array_limit=2, run_s=100)
    assert sorted(cluster.running) == [first + 1, first + 2]
    assert list(reasons(cluster).values()) == ["JobArrayTaskLimit"]
    after = submit(cluster, dependency=f"afterok:{first}")
    corresponding = submit(cluster, array=(2, 4), dependency=f"aftercorr:{first}")
    run_out(cluster)
    tasks, later = numbers(cluster, first), numbers(cluster, corresponding)
    assert tasks == {0: first + 1, 2: first + 2, 4: first}
    found = starts(cluster)
    assert (found[tasks[4]], found[after], found[later[2]], found[later[4]]) == (100, 200, 100, 200)


def test_a_submission_takes_one_job_id_and_a_task_gets_its_own_when_it_starts_or_is_changed() -> None:
    cluster = engine(1)
    array, following = submit(cluster, array=(0, 1, 2, 3), run_s=10), submit(cluster, run_s=10)
    assert (array, following) == (1, 3)
    assert numbers(cluster, array) == {0: 2, 1: 1, 2: 1, 3: 1}
    waiting = next(job for job in cluster.jobs.values() if job.array_task_id == 2)
    cluster.split(waiting)
    cluster.hold(waiting.id)
    assert numbers(cluster, array) == {0: 2, 1: 1, 2: 4, 3: 1}
    cluster.advance(10)
    assert numbers(cluster, array) == {0: 2, 1: 5, 2: 4, 3: 1}
    after = submit(cluster, dependency=f"afterany:{array}_3")
    assert str(cluster.jobs[after].dependency) == "afterany:1_3(unfulfilled)"
    cluster.release(4)
    run_out(cluster)
    assert [number for number, _ in sorted(starts(cluster).items(), key=lambda one: one[1] or 0)] == [2, 5, 1, 3, 6, 4]


def test_what_is_left_of_an_array_that_is_saved_gets_the_ids_that_it_would_have_got() -> None:
    cluster = engine(1)
    array = submit(cluster, array=(0, 1, 2), run_s=10)
    cluster.cancel(next(job.id for job in cluster.jobs.values() if job.array_task_id == 1))
    loaded = engine(1)
    restore(loaded, json.loads(json.dumps(snapshot(cluster))))
    run_out(loaded)
    assert numbers(loaded, array) == {0: 2, 2: 1}


def test_a_higher_priority_goes_first_and_nice_lowers_it() -> None:
    cluster = engine(1)
    submit(cluster, run_s=10)
    normal, nice = submit(cluster, run_s=10), submit(cluster, run_s=10, nice=100)
    urgent = submit(cluster, run_s=10, priority=4_294_967_000)
    later = submit(cluster, run_s=10)
    run_out(cluster)
    assert sorted((normal, nice, urgent, later), key=lambda number: starts(cluster)[number] or 0) == [
        urgent,
        normal,
        later,
        nice,
    ]


def test_nothing_that_needs_a_hand_counts_as_progressing() -> None:
    cluster = engine(4)
    running = submit(cluster, nodes=4)
    waiting = submit(cluster)
    held = submit(cluster, hold=True)
    submit(cluster, dependency=f"afterok:{held}:{running}")
    either = submit(cluster, dependency=f"afterok:{held}?afterok:{running}")
    later = submit(cluster, begin="now+1hour")
    assert progressing(cluster) == {running, waiting, either, later}
    cluster.set_node_state(["n1", "n2", "n3", "n4"], "drain")
    assert progressing(cluster) == {running}
