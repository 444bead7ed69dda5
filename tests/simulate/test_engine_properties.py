"""What holds for every cluster, whatever is asked of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.hostlist import expand
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.policies import Backfill, Fcfs, Policy, policy_named
from hpcplan.simulate.profile import choose
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.slurm.records import JobRecord, JobState
from tests.simulate.clusters import job, machine

NODES = 6
MACHINE = machine(NODES, max_time_s=3600)
HORIZON = 100_000


@dataclass(frozen=True)
class Ask:
    """Something that a person does after some time; ``target`` picks one of the jobs submitted so far."""

    after_s: int
    what: str
    nodes: int
    limit_min: int
    run_s: int
    target: int
    options: dict[str, object]


asks = st.builds(
    Ask,
    after_s=st.integers(0, 400),
    what=st.sampled_from(["submit"] * 8 + ["cancel", "hold", "release", "requeue", "drain", "down", "resume"]),
    nodes=st.integers(1, NODES),
    limit_min=st.integers(1, 15),
    run_s=st.integers(1, 900),
    target=st.integers(0, 30),
    options=st.fixed_dictionaries(
        {},
        optional={
            "partition": st.just("half"),
            "hold": st.booleans(),
            "requeue": st.booleans(),
            "kill_on_invalid_dep": st.booleans(),
            "begin": st.sampled_from(["now+5minutes", "now+100"]),
            "depends": st.sampled_from(["afterok", "afterany", "afternotok", "after", "singleton"]),
            "array": st.sampled_from([(0, 1, 2), (3, 7)]),
            "array_limit": st.integers(1, 2),
            "name": st.sampled_from(["one", "two"]),
            "nice": st.integers(-50, 50),
        },
    ),
)
stories = st.lists(asks, max_size=25)
policies = st.sampled_from([Fcfs(), policy_named("easy"), Backfill(), Backfill(0, 1200, 5)])


def submit(cluster: Engine, ask: Ask) -> None:
    options = dict(ask.options)
    kind = options.pop("depends", None)
    target = 1 + ask.target % max(1, cluster.next_id - 1)
    if kind is not None:
        options["dependency"] = "singleton" if kind == "singleton" else f"{kind}:{target}"
    if options.get("partition") == "half":
        options["nodes_min"] = options["nodes_max"] = min(ask.nodes, NODES // 2)
    spec = job(ask.nodes, 60 * ask.limit_min, **options)
    state = ("COMPLETED", "COMPLETED", "FAILED")[ask.run_s % 3]
    cluster.submit(spec, Behaviour(ask.run_s, state), "ana")


def act(cluster: Engine, ask: Ask) -> None:
    """Do what is asked, where it makes sense."""
    target = 1 + ask.target % max(1, cluster.next_id - 1)
    if ask.what == "submit":
        submit(cluster, ask)
    elif ask.what in {"drain", "down", "resume"}:
        cluster.set_node_state([f"n{1 + ask.target % NODES}"], ask.what)
    elif ask.what == "requeue":
        if target in cluster.running:
            cluster.requeue(target)
    elif target in cluster.jobs:
        getattr(cluster, ask.what)(target)


def fresh(policy: Policy, ended: list[JobRecord]) -> Engine:
    """Return an idle cluster that knows what has ended before, as the file of finished jobs does."""

    def history(job_id: int) -> list[tuple[int, int | None, JobState]]:
        return [
            (record.job_id, record.array_task_id, record.state)
            for record in [*ended, *cluster.ended]
            if job_id in (record.job_id, record.array_job_id)
        ]

    cluster = Engine(MACHINE, policy, cluster="tiny", history=history)
    return cluster


def saved_and_loaded(cluster: Engine, policy: Policy, ended: list[JobRecord]) -> Engine:
    """Return a new engine from the JSON of the old one; its finished jobs go to ``ended``, as to a file."""
    ended += cluster.ended
    other = fresh(policy, ended)
    restore(other, json.loads(json.dumps(snapshot(cluster))))
    return other


def played(
    story: list[Ask], policy: Policy, *, pause: Callable[[Engine, list[JobRecord]], Engine] | None = None
) -> list[JobRecord]:
    """Return every attempt that ended in a story and a long time after it, in the order of their ends."""
    ended: list[JobRecord] = []
    cluster = fresh(policy, ended)
    for ask in story:
        to = cluster.now + ask.after_s
        if pause is not None:
            cluster.advance(cluster.now + ask.after_s // 3)
            cluster = pause(cluster, ended)
        cluster.advance(to)
        act(cluster, ask)
        if pause is not None:
            cluster = pause(cluster, ended)
    cluster.advance(HORIZON)
    return ended + cluster.ended


def names(record: JobRecord) -> list[str]:
    assert record.node_list is not None
    return expand(record.node_list)


@settings(max_examples=250, deadline=None)
@given(story=stories, policy=policies)
def test_no_node_ever_holds_two_jobs(story: list[Ask], policy: Policy) -> None:
    for position, one in enumerate(
        held := [record for record in played(story, policy) if record.start_time is not None]
    ):
        mine = MACHINE.mask_of(names(one))
        for other in held[position + 1 :]:
            assert one.start_time is not None
            assert other.start_time is not None
            assert one.end_time is not None
            assert other.end_time is not None
            if one.start_time < other.end_time and other.start_time < one.end_time:
                assert mine & MACHINE.mask_of(names(other)) == 0, (one, other)


@settings(max_examples=250, deadline=None)
@given(story=stories, policy=policies)
def test_no_job_starts_before_it_is_eligible_or_runs_past_its_limit(story: list[Ask], policy: Policy) -> None:
    for record in played(story, policy):
        if record.start_time is not None:
            assert record.submit_time is not None
            assert record.eligible_time is not None
            assert record.end_time is not None
            assert record.time_limit_s is not None
            assert record.submit_time <= record.eligible_time <= record.start_time <= record.end_time
            assert record.end_time - record.start_time <= record.time_limit_s


@settings(max_examples=250, deadline=None)
@given(story=stories, policy=policies)
def test_no_job_starts_before_what_it_depends_on(story: list[Ask], policy: Policy) -> None:
    cluster = fresh(policy, [])
    wanted: dict[int, int] = {}
    for ask in story:
        cluster.advance(cluster.now + ask.after_s)
        before = cluster.next_id
        act(cluster, ask)
        if ask.what == "submit" and ask.options.get("depends") in {"afterok", "afterany", "afternotok"} and before > 1:
            target = 1 + ask.target % (before - 1)
            wanted |= dict.fromkeys(range(before, cluster.next_id), target)
    cluster.advance(HORIZON)
    final = {record.job_id: record for record in cluster.ended if record.state.final}
    for record in cluster.ended:
        target = wanted.get(record.job_id)
        if target is not None and record.start_time is not None and target in final:
            assert final[target].end_time is not None
            attempts = [one for one in cluster.ended if one.job_id == target and one.state.final]
            assert record.start_time >= min(one.end_time or 0 for one in attempts)


@settings(max_examples=150, deadline=None)
@given(story=stories, policy=policies)
def test_saving_and_loading_at_any_moment_changes_nothing(story: list[Ask], policy: Policy) -> None:
    assert played(story, policy, pause=lambda cluster, ended: saved_and_loaded(cluster, policy, ended)) == played(
        story, policy
    )


@settings(max_examples=150, deadline=None)
@given(story=stories, policy=policies)
def test_advancing_in_two_steps_is_the_same_as_in_one(story: list[Ask], policy: Policy) -> None:
    assert played(story, policy, pause=lambda cluster, ended: cluster) == played(story, policy)


@settings(max_examples=200, deadline=None)
@given(story=st.lists(asks.filter(lambda ask: ask.what == "submit" and not ask.options), max_size=25))
def test_under_fcfs_jobs_of_one_partition_start_in_the_order_of_submission(story: list[Ask]) -> None:
    found = sorted(played(story, Fcfs()), key=lambda record: record.job_id)
    began = [record.start_time for record in found]
    assert began == sorted(began, key=lambda time: time or 0)


@settings(max_examples=150, deadline=None)
@given(story=stories, policy=policies)
def test_after_every_event_the_head_of_the_queue_either_runs_or_does_not_fit(story: list[Ask], policy: Policy) -> None:
    cluster = fresh(policy, [])
    for ask in story:
        to = cluster.now + ask.after_s
        while (time := cluster.next_event_time()) is not None and time <= to:
            cluster.step(time)
            candidates = cluster.candidates()
            assert not candidates or not choose(candidates[0].request, cluster.free)
        cluster.advance(to)
        act(cluster, ask)
