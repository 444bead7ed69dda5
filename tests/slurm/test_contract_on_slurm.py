"""The command backend and the REST backend keep the contract of every backend, on a real Slurm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpcplan.errors import SlurmUnreachableError
from hpcplan.slurm import Backend, JobRecord
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.pyslurm import connect as connect_pyslurm
from hpcplan.slurm.rest import RestBackend, connect
from hpcplan.slurm.rest_client import RestClient, Token
from tests.backends.contract import BackendContract, World
from tests.slurm.cluster import SlurmCluster


class RealWorld(World):
    """The real cluster behind one of its faces."""

    def __init__(self, slurm: SlurmCluster, backend: Backend) -> None:
        self.slurm, self.backend = slurm, backend
        self.cluster, self.partition, self.nodes = slurm.name, "batch", len(slurm.nodes)
        self.folder: Path = slurm.job_folder()
        self.is_cut = False

    def until(self, condition: Callable[[], bool], what: str) -> None:
        self.slurm.wait_until(condition, what)

    def cut(self) -> None:
        self.is_cut = True
        self.slurm.stop_daemon("slurmctld")

    def mend(self) -> None:
        if self.is_cut:
            self.slurm.start_daemon("slurmctld")
            self.slurm.wait_until(self.slurm.is_ready, "every node is back")


class TestCommandBackend(BackendContract):
    @pytest.fixture
    def world(self, slurm: SlurmCluster) -> Iterator[RealWorld]:
        world = RealWorld(slurm, CommandBackend())
        yield world
        world.mend()


if find_spec("pyslurm") is not None:  # by hand: it takes minutes to build, and has to fit the Slurm that is installed

    class TestPyslurmBackend(BackendContract):
        @pytest.fixture
        def world(self, slurm: SlurmCluster) -> Iterator[RealWorld]:
            world = RealWorld(slurm, connect_pyslurm())
            yield world
            world.mend()


@pytest.fixture(scope="module")
def rest(slurm_cluster: SlurmCluster) -> Iterator[RestBackend]:
    """The REST backend with a token; slurmrestd runs for the tests of this module."""
    slurm_cluster.start_daemon("slurmrestd")
    yield RestBackend(RestClient(slurm_cluster.rest_url, Token(slurm_cluster.token(), "a test")))
    slurm_cluster.stop_daemon("slurmrestd")


class TestRestBackend(BackendContract):
    @pytest.fixture
    def world(self, slurm: SlurmCluster, rest: RestBackend) -> Iterator[RealWorld]:
        world = RealWorld(slurm, rest)
        world.requeues = world.estimates = False  # slurmrestd can do neither
        world.excludes = slurm.release >= (23, 2)  # API 0.0.38 cannot
        world.submits_components = False  # no version can
        world.stores_exit_codes = slurm.release >= (23, 2)  # slurmrestd 22.05 answers SUCCESS for what failed
        yield world
        world.mend()


def test_both_backends_tell_the_same_of_a_job(slurm: SlurmCluster, rest: RestBackend) -> None:
    command = CommandBackend()
    world = RealWorld(slurm, rest)
    job_id = world.submit(
        2, "--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=2", "--cpus-per-task=3", "--mem=500M", "--exclusive",
        "--signal=USR1@30", "--output=%x-%j.out", "--open-mode=append", "--requeue", "--kill-on-invalid-dep=yes",
        name="both", comment="hpcplan:t:train:2", exit_code=5,
    )  # fmt: skip
    world.ends(job_id)

    def all_of_it() -> bool:
        """Whether accounting knows what steps used and, which it is told up to five seconds later, what was given."""
        (record,) = command.jobs([job_id])
        return None not in (record.total_cpu_s, record.backfilled, record.memory_bytes)

    slurm.wait_until(all_of_it, "accounting has all of it")
    (theirs,) = command.jobs([job_id])
    ours = world.only(job_id)
    assert theirs.total_cpu_s == pytest.approx(ours.total_cpu_s, abs=0.001)  # sacct has milliseconds
    ours = dataclasses.replace(ours, total_cpu_s=theirs.total_cpu_s)
    told = {name: (getattr(ours, name), getattr(theirs, name)) for name in type(ours).__slots__}
    assert {name: pair for name, pair in told.items() if pair[0] != pair[1]} == {}
    assert (world.folder / f"both.sbatch-{job_id}.out").exists()
    shown = slurm.run("scontrol", "show", "job", str(job_id)).stdout
    gres = "gres/gpu:4" if slurm.release >= (23, 11) else "gres:gpu:4"
    for words in ("OverSubscribe=NO", "Requeue=1", f"TresPerNode={gres}", "NtasksPerN:B:S:C=2:0:*:*"):
        assert words in shown
    found: list[JobRecord] = []

    def told_of_the_time() -> bool:
        records = rest.accounting(ours.submit_time or 0, rest.now() + 1)
        found[:] = [one for one in records if one.job_id == job_id]
        return bool(found)

    slurm.wait_until(told_of_the_time, "accounting tells it of the time as well")
    (stored,) = found
    assert (stored.state, stored.start_time, stored.end_time) == (ours.state, ours.start_time, ours.end_time)
    assert (stored.gpus, stored.max_rss_bytes) == (theirs.gpus, theirs.max_rss_bytes)


def test_a_time_without_jobs_is_an_empty_answer(slurm: SlurmCluster, rest: RestBackend) -> None:
    assert rest.accounting(1_000_000_000, 1_000_000_060) == []
    assert CommandBackend().accounting(1_000_000_000, 1_000_000_060) == []


def test_the_socket_needs_no_token_and_acts_as_its_owner(slurm: SlurmCluster, rest: RestBackend) -> None:
    backend = connect({"HPCPLAN_SLURMRESTD": f"unix:{slurm.rest_socket}"})
    world = RealWorld(slurm, backend)
    record = world.ends(world.submit(1))
    assert (record.user, record.exit_code) == ("nobody", 0)
    assert record.job_id in {found.job_id for found in backend.jobs()}
    assert record.job_id not in {found.job_id for found in rest.jobs()}


def test_a_token_that_is_not_good_is_unreachable_and_never_shown(slurm: SlurmCluster, rest: RestBackend) -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEsInN1biI6InJvb3QifQ.c2VjcmV0"
    backend = RestBackend(RestClient(slurm.rest_url, Token(secret, "SLURM_JWT")))
    with pytest.raises(SlurmUnreachableError) as refused:
        backend.jobs([1])
    assert "expired at 1970" in str(refused.value)
    assert secret not in str(refused.value) + repr(backend.client.token)
    with pytest.raises(SlurmUnreachableError, match="wants a token"):
        RestBackend(RestClient(slurm.rest_url, None)).jobs([1])
