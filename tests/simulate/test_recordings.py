"""What real controllers decided, decided again: see :mod:`tests.simulate.recordings`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.simulate.moments import read_moments
from hpcplan.simulate.slurm_cluster import read_slurm_cluster
from hpcplan.simulate.table_trace import TableJobs, read_table
from tests.simulate import recordings

# Where a thread looked while the nodes of a job were cleaned up, and when they were clean is not recorded.
COMPLETING = {
    "blocks": (0.95, 0.91, 0.005),  # a look 195 ms after the end of a job; with its end 202 ms later all are the same
    "builtin": (1.0, 0.97, 0.005),
    "preempt-requeue": (0.57, 0.71, 0.06),  # load 30: nodes were clean after 200 to 1,000 ms
}
PAIRS = [name for name in recordings.names() if f"{name}{recordings.AGAIN}" in recordings.names()]


@pytest.mark.parametrize("name", recordings.names())
def test_at_the_moments_when_a_real_controller_looked_the_same_jobs_start_on_the_same_nodes(name: str) -> None:
    found = recordings.compare(name, moments=True)
    starts, nodes, wait = COMPLETING.get(name, (1, 1, 0.005))
    assert found.within_2_s >= starts
    assert found.same_nodes >= nodes
    assert abs(found.mean_wait) < wait


@pytest.mark.parametrize(
    "name", [
        "complete-wait", "cpus-epilog", "cpus-epilog.again", "defaults.again", "favour-small-epilog",
        "grace-requeue.again", "memory", "memory-epilog", "partitions", "partitions-epilog", "preempt-cancel",
        "preempt-requeue-epilog", "reservations", "tiers-epilog", "tree-epilog", "tree-epilog.again",
    ],
)  # fmt: skip
def test_with_the_controllers_clock_modelled_too_jobs_start_within_seconds(name: str) -> None:
    found = recordings.compare(name, moments=False)
    assert found.within_5_s == 1
    assert found.same_nodes >= 0.9
    assert abs(found.mean_wait) < 0.005


@pytest.mark.parametrize("name", ["grace", "minutes-end", "minutes-end-2", "preempt-cancel", "preempt-qos", "timeouts"])
def test_jobs_that_start_as_in_a_recording_end_as_they_did_there(name: str) -> None:
    for row, real in recordings.both(name):
        if real["start_s"] and row.start_s == float(real["start_s"]):
            assert row.end_s is not None
            assert (row.state, abs(row.end_s - float(real["end_s"])) <= 1) == (real["state"], True), real["job"]


@pytest.mark.parametrize("name", PAIRS)
def test_a_simulated_run_is_as_near_to_a_real_one_as_two_real_ones_are_to_each_other(name: str) -> None:
    ours = max(recordings.compare(one, moments=False).within_5_s for one in (name, f"{name}{recordings.AGAIN}"))
    assert ours >= recordings.compare_again(name).within_5_s


@pytest.mark.xfail(
    strict=True, reason="two calm runs are alike; the main loop fell back 2.9 ms a second, 2 is modelled"
)
def test_a_simulated_run_is_as_near_to_a_run_recorded_again_as_its_second_one() -> None:
    ours = [recordings.compare(f"preempt-requeue{end}", moments=False).within_5_s for end in ("-2", recordings.AGAIN)]
    second = recordings.compare_again("preempt-requeue", first="preempt-requeue-2").within_5_s
    assert max(ours) >= second


def test_what_is_no_record_of_moments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "moments.json").write_text('{"clock_s": 0}')
    with pytest.raises(InputError, match="moments"):
        read_moments(tmp_path / "moments.json")


def test_a_topology_that_is_named_after_its_slurm_conf_is_found_beside_it(tmp_path: Path) -> None:
    for file in ("slurm.conf", "topology.conf"):
        (tmp_path / f"run.{file}").write_text((recordings.FOLDER / "tree" / file).read_text())
    assert len(read_slurm_cluster(tmp_path / "run.slurm.conf").switches) == 5


def test_tables_may_use_sbatchs_words(tmp_path: Path) -> None:
    table = tmp_path / "jobs.csv"
    table.write_text("job,submit_s,nodes,run_s,cpus_per_task,constraint,nice,reservation\n1,0,1,5,2,fast,30,mine\n")
    ask = read_table(table).jobs[0].ask
    assert ask is not None
    assert (ask.cpus_per_task, ask.constraint, ask.nice, ask.reservation) == (2, "fast", 30, "mine")


def test_tables_may_say_all_that_sbatch_is_told_and_what_is_not_read_is_named(tmp_path: Path) -> None:
    table = tmp_path / "jobs.csv"
    table.write_text(
        "job,submit_s,nodes,run_s,begin,exclude,req_nodes,exclusive,ntasks,mem_per_cpu,licenses,nodelist,colour\n"
        "1,0,1,5,now+60,n1,n2,no,3,100,matlab:2,n7,red\n2,0,1,5,,,,yes,,,,n7,\n3,0,1,5,,,,,,,,n7,\n"
    )
    source = TableJobs(table)
    one, two, three = (job.ask for job in source)
    assert one is not None
    assert (one.begin, one.exclude, one.nodelist, one.exclusive) == ("now+60", "n1", "n2", False)
    assert (one.ntasks, one.memory_per_cpu_bytes, one.licenses) == (3, 100 * 1024**2, "matlab:2")
    assert two == replace(three, name="2")  # whole nodes, said or not
    assert source.notes == ("the columns colour of the table are not read",)
    table.write_text("job,submit_s,nodes,run_s,begin\n1,0,1,5,soon\n")
    with pytest.raises(InputError, match=r"jobs.csv:2: begin: 'soon' is not like now\+60"):
        list(TableJobs(table))
    table.write_text("job,submit_s,nodes,run_s,exclusive\n1,0,1,5,perhaps\n")
    with pytest.raises(InputError, match=r"jobs.csv:2: exclusive: 'perhaps' is neither yes nor no"):
        list(TableJobs(table))
