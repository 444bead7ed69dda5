"""How a job ends for slurmctld: it is over, then its nodes are clean, and who tells of that decides when it looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.simulate.completing import Completing
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import Behaviour, JobSpec
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.slurm_backfill import BackfillPass
from hpcplan.simulate.slurm_settings import scheduling
from tests.simulate.test_slurm_controller import NODES, cluster, job, run

FULL, LATER = "SelectType=select/linear\nSchedulerParameters=bf_interval=600,sched_interval=600", ",defer"


def second_start(rows: tuple[Row, ...]) -> int | None:
    return rows[1].start_s


@pytest.mark.parametrize(
    ("lines", "look_s"),
    [
        ("", 21),  # the loop is asked, three seconds after its last pass, at 18 s
        ("Epilog=/etc/slurm/epilog.sh\n", 20),
        ("PrologFlags=Alloc,Contain\n", 20),
        ("PrologFlags=Alloc\n", 21),
        ("Epilog=/etc/slurm/epilog.sh\nCompleteWait=30\n", 20),  # all its nodes are clean
    ],
)
def test_slurmctld_looks_at_once_after_an_end_that_the_nodes_tell_of(tmp_path: Path, lines: str, look_s: int) -> None:
    machine = cluster(tmp_path, f"{FULL}\n{lines}{NODES}")
    later = job(3, 18, 8, 5, 1)  # that it is submitted has the loop look at 18 s
    assert second_start(run(machine, job(1, 0, 8, 20, 1), job(2, 1, 8, 5, 1), later)) == look_s


def test_with_defer_it_does_not(tmp_path: Path) -> None:
    machine = cluster(tmp_path, f"{FULL}{LATER}\nEpilog=/etc/slurm/epilog.sh\n{NODES}")
    later = job(3, 18, 8, 5, 1)
    assert second_start(run(machine, job(1, 0, 8, 20, 1), job(2, 1, 8, 5, 1), later)) == 21


def test_what_happens_at_the_end_of_a_job_is_read_from_slurm_conf() -> None:
    plain, told = scheduling({}), scheduling({"epilog": "/e", "epilogmsgtime": "500", "completewait": "32"})
    assert (plain.nodes_tell, plain.epilog_msg_us, plain.complete_wait_s) == (False, 2000, 0)
    assert (told.nodes_tell, told.epilog_msg_us, told.complete_wait_s) == (True, 500, 32)
    assert scheduling({"completewait": "32", "schedulerparameters": "reduce_completing_frag"}).complete_wait_s == 0


def test_nodes_of_a_big_job_come_free_one_by_one() -> None:
    completing, nodes = Completing(message_us=2000), (1 << 1000) - 1
    completing.add(10_000, 2_000, (60, 1, nodes))
    assert completing.hear(9_999) is None
    assert completing.hear(11_000) == ((60, 1, nodes), False)
    assert completing.hear(11_000) is None
    completing.look(11_000)
    assert completing.nodes == nodes & ~((1 << 490) - 1)  # half of them have told, the last 10 a moment ago
    assert completing.hear(12_000) == ((60, 1, nodes), True)
    completing.look(12_000)
    assert (completing.nodes, completing.next_ms) == (0, None)


def test_jobs_that_are_completing_are_saved_with_the_rest() -> None:
    before, after = Completing(), Completing()
    before.add(10_000, 10, (60, 1, 0b11))
    before.add(10_500, 10, (70, 2, 0b100))
    before.hear(10_000)
    assert after.restore(before.saved()) == [(70, 2, 0b100)]
    assert after.job_ids == {1, 2}
    assert after.hear(10_010) == ((60, 1, 0b11), True)


def test_backfill_promises_nodes_that_are_not_clean_for_the_next_second(tmp_path: Path) -> None:
    machine = cluster(tmp_path)
    controller = Controller(machine)
    number = controller.submit(JobSpec(nodes_min=4, nodes_max=4, time_limit_s=60), Behaviour(20), "user")
    pass_ = BackfillPass(machine.settings, controller.placement, 0, 0b1111, 0b1111, [])
    pass_.completing = 0b1000
    started: list[int] = []
    assert not pass_.run([controller.jobs[number]], lambda one, nodes: started.append(nodes))
    assert (started, pass_.promises[number].start, pass_.promises[number].nodes) == ([], 1, 0b1111)


def test_a_job_whose_begin_has_come_is_found_by_the_next_pass_over_the_whole_queue(tmp_path: Path) -> None:
    """Neither thread is told of it; a submission would be looked at three seconds later."""
    machine = cluster(tmp_path, FULL.replace("sched_interval=600", "sched_interval=40") + "\n" + NODES)
    assert run(machine, job(1, 0, 1, 5, 1, begin="now+50"))[0].start_s == 77


def test_a_submission_is_looked_at_though_the_job_may_not_start_yet(tmp_path: Path) -> None:
    """So that the end of another one, just after, is looked at three seconds later."""
    machine = cluster(tmp_path, f"{FULL}\n{NODES}")
    first, second = job(1, 0, 8, 20, 1), job(2, 1, 8, 5, 1)
    assert second_start(run(machine, first, second)) == 21
    assert second_start(run(machine, first, second, job(3, 20, 1, 5, 1, begin="now+3000"))) == 23
