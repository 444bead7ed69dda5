"""Rendered scripts on a real Slurm: all are taken, and what a job sees from inside is what the plan says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcplan.plan import Health, Placement, Plan, Pool, Stage, Staging
from hpcplan.render import render_plan
from hpcplan.slurm.command import CommandBackend
from tests.render import plans
from tests.render.sites import FRAMEWORK_NAMES, SITES, framework_plan, pooled_plan, staged_plan
from tests.slurm.cluster import SlurmCluster
from tests.slurm.stand_in import campaign_of, job_ids, logs, notes, own_ends, stand_in_plan, states, wait_until_over


def test_sbatch_takes_every_framework_on_every_site(slurm: SlurmCluster) -> None:
    folder, scripts = slurm.job_folder(), []
    for framework, site in itertools.product(FRAMEWORK_NAMES, SITES):
        name = f"{framework}-{site}.sbatch"
        (folder / name).write_text(render_plan(framework_plan(framework, site))["train-01.sbatch"])
        scripts.append(name)
    for site in SITES:
        for name, text in render_plan(staged_plan(site)).items():
            if name.endswith(".sbatch") and "train" not in name:
                (folder / f"{site}-{name}").write_text(text)
                scripts.append(f"{site}-{name}")
    for framework in ("torchrun", "srun"):
        (folder / f"pools-{framework}.sbatch").write_text(render_plan(pooled_plan(framework))["train-01.sbatch"])
        scripts.append(f"pools-{framework}.sbatch")
    # Debian's sbatch knows no burst buffer and would take its lines for comments, as it should.
    loop = 'for script; do sbatch --test-only "$script" || echo "REFUSED $script"; done'
    answer = slurm.run("bash", "-c", f"cd '{folder}' && {loop}", "loop", *scripts)
    said = answer.stdout + answer.stderr
    assert len(scripts) == 3 * len(FRAMEWORK_NAMES) + 11
    assert "REFUSED" not in said, said
    assert said.count("to start at") == len(scripts), said


def test_a_chain_cut_by_its_time_limits_finishes_the_exact_number_of_steps(
    slurm: SlurmCluster, backend: CommandBackend
) -> None:
    campaign = campaign_of(stand_in_plan((20, 20, 20), job={"sample_every_s": 2}), slurm.job_folder())
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["COMPLETED"] * 3, logs(campaign)
    steps = [int(line) for line in (campaign / "steps.log").read_text().split()]
    assert steps == list(range(1, 61)), "every step once, none twice"
    assert (campaign / "state" / "done").exists()
    assert logs(campaign).count("the time limit is near") == 2
    check_inside(campaign, ids)
    usage = sorted((campaign / "usage" / str(ids[0])).iterdir())
    assert len(usage) == 4, "one file a node"
    header, *lines = usage[0].read_text().splitlines()
    assert header == "time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib"
    assert lines
    assert all(0 <= float(line.split(",")[6]) <= 100 and int(line.split(",")[7]) > 0 for line in lines)
    captured = (campaign / "state" / f"environment-{ids[0]}.txt").read_text()
    assert "HPCPLAN_TP=4" in captured


def check_inside(campaign: Path, ids: Sequence[int]) -> None:
    """World, ranks, groups, addresses and nodes, as the ranks of each job saw them."""
    for segment, job_id in enumerate(ids, start=1):
        seen = notes(campaign, segment)
        assert sorted(seen) == list(range(32))
        hosts = seen[0]["HPCPLAN_HOSTS"].split()
        assert hosts in (["n0", "n1", "n2", "n3"], ["n4", "n5", "n6", "n7"]), "one leaf switch, as the plan asks"
        for rank, note in seen.items():
            assert (note["WORLD_SIZE"], note["LOCAL_WORLD_SIZE"]) == ("32", "8")
            assert (int(note["NODE_RANK"]), int(note["LOCAL_RANK"])) == divmod(rank, 8)
            assert note["SLURMD_NODENAME"] == hosts[rank // 8]
            assert (note["MASTER_ADDR"], note["SLURM_JOB_ID"]) == ("127.0.0.1", str(job_id)), "as in slurm.conf"
            assert note["MASTER_PORT"] == str(10000 + job_id % 20000)
            assert len(note["CUDA_VISIBLE_DEVICES"].split(",")) == 8
            assert note["coordinates"] == {"tp": rank % 4, "cp": 0, "dp": rank // 4 % 4, "pp": rank // 16}
        tensor_groups = {rank // 4: set() for rank in range(32)}  # type: dict[int, set[str]]
        for rank, note in seen.items():
            tensor_groups[rank // 4].add(note["SLURMD_NODENAME"])
        assert all(len(nodes) == 1 for nodes in tensor_groups.values()), "tensor-parallel groups stay inside nodes"


def unequal_plan() -> Plan:
    """Return a plan for two nodes of 8 GPUs and one of 4, with micro-batches of their own."""
    pools = (
        Pool(
            node_group="big", partition="batch", nodes=2, gpus_per_node=8, cpus_per_node=16, gres="gpu:8", micro_batch=2
        ),
        Pool(
            node_group="small", partition="long", nodes=1, gpus_per_node=4, cpus_per_node=8, gres="gpu:4", micro_batch=1
        ),
    )
    sharding = plans.sharding(
        tp=1, pp=1, vpp=1, dp=20, micro_batch=2, micro_batches=2, zero=0, nodes=3, gpus=20, gpus_per_node=8,
        sequence_parallel=False, recompute="none",
    )  # fmt: skip
    placement = Placement(partition="batch", node_group="big", pools=pools, exclude="n7")
    return stand_in_plan(
        (20, 20), plan=sharding, training=plans.training(global_batch=72, steps=40), placement=placement,
        job={"health": Health(gpus=4)},
    )  # fmt: skip


def test_unequal_pools_are_one_job_whose_ranks_know_their_share(slurm: SlurmCluster, backend: CommandBackend) -> None:
    campaign = campaign_of(unequal_plan(), slurm.job_folder())
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["COMPLETED"] * 2, logs(campaign)
    assert [int(line) for line in (campaign / "steps.log").read_text().split()] == list(range(1, 41))
    assert logs(campaign).count("the time limit is near") == 1, "the warning reaches the script of a job in parts"
    assert own_ends(campaign) == {"train-01": "COMPLETED", "train-02": "COMPLETED"}
    for segment in (1, 2):
        seen = notes(campaign, segment)
        hosts = seen[0]["HPCPLAN_HOSTS"].split()
        assert sorted(seen) == list(range(20))
        assert len(set(hosts)) == 3
        assert "n7" not in hosts
        for rank, note in seen.items():
            node = min(rank // 8, 2)
            assert note["SLURMD_NODENAME"] == hosts[node]
            assert (note["WORLD_SIZE"], note["NODE_RANK"], note["LOCAL_RANK"]) == (
                "20",
                str(node),
                str(rank - 8 * node),
            )
            assert (note["LOCAL_WORLD_SIZE"], note["HPCPLAN_MICRO_BATCH"]) == (("8", "2") if node < 2 else ("4", "1"))
            assert len(note["CUDA_VISIBLE_DEVICES"].split(",")) == int(note["LOCAL_WORLD_SIZE"])


def test_a_job_whose_node_dies_is_requeued_and_goes_on(slurm: SlurmCluster, backend: CommandBackend) -> None:
    plan = stand_in_plan((24,), job={"variables": {"TEST_SAVE_EACH": "1"}})
    campaign = campaign_of(plan, slurm.job_folder())
    (job_id,) = job_ids(campaign, backend).values()
    wait_for_step(slurm, campaign, 10)
    node = notes(campaign, 1)[0]["SLURMD_NODENAME"]
    slurm.kill_node(node)
    try:
        slurm.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        slurm.wait_until(lambda: (campaign / "state" / "done").exists(), "training is done", patience_s=180)
    finally:
        slurm.start_daemon(f"slurmd-{node}")
        slurm.wait_until(slurm.is_ready, "every node is idle", patience_s=120)
    assert wait_until_over(slurm, [job_id]) == ["COMPLETED"], logs(campaign)
    assert node not in notes(campaign, 1)[0]["HPCPLAN_HOSTS"].split()
    assert_goes_on(campaign, 24)


def wait_for_step(slurm: SlurmCluster, campaign: Path, step: int) -> None:
    log = campaign / "steps.log"
    slurm.wait_until(lambda: log.exists() and len(log.read_text().split()) >= step, f"step {step}", patience_s=90)


def assert_goes_on(campaign: Path, total: int) -> None:
    """Training went on from a checkpoint: no step is missing, and few were done twice."""
    steps = [int(line) for line in (campaign / "steps.log").read_text().split()]
    assert sorted(set(steps)) == list(range(1, total + 1))
    assert len(steps) <= total + 1, "at most the step that was not saved is done again"


def test_requeued_and_preempted_jobs_go_on(slurm: SlurmCluster, backend: CommandBackend) -> None:
    plan = stand_in_plan((44,), job={"variables": {"TEST_SAVE_EACH": "1"}})
    with preemption(slurm):
        campaign = campaign_of(plan, slurm.job_folder())
        (job_id,) = job_ids(campaign, backend).values()
        wait_for_step(slurm, campaign, 5)
        slurm.run("scontrol", "requeue", str(job_id))
        wait_for_step(slurm, campaign, 22)
        slurm.run("sbatch", "--partition=urgent", "--nodes=8", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
        assert wait_until_over(slurm, [job_id], patience_s=300) == ["COMPLETED"], logs(campaign)
    assert_goes_on(campaign, 44)
    assert (campaign / "state" / "done").exists()
    restarts = re.findall(r"SLURM_RESTART_COUNT=(\d+)", (campaign / "state" / f"environment-{job_id}.txt").read_text())
    assert restarts == ["2"], "once by hand, once preempted"
    assert own_ends(campaign) == {"train-01": "COMPLETED"}


@contextmanager
def preemption(slurm: SlurmCluster) -> Iterator[None]:
    """Let jobs of a partition 'urgent' requeue others."""
    conf = Path(slurm.env["SLURM_CONF"])
    text = conf.read_text()
    added = "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n"
    conf.write_text(f"{text}{added}PartitionName=urgent Nodes=n[0-7] PriorityTier=100 MaxTime=10 State=UP\n")
    slurm.stop_daemon("slurmctld")
    slurm.start_daemon("slurmctld")
    slurm.wait_until(slurm.is_ready, "every node is idle")
    try:
        yield
    finally:
        slurm.drain_queue()
        conf.write_text(text)
        slurm.stop_daemon("slurmctld")
        slurm.start_daemon("slurmctld")
        slurm.wait_until(slurm.is_ready, "every node is idle")


SICK = """\
{% extends "shipped/node/check-node.sh.j2" %}
{% block more %}
[[ $node != n1 ]] || bad "it is the node that this test wants to be bad"
{% endblock %}
"""


@pytest.mark.parametrize("spare", [0, 1])
def test_a_node_that_fails_its_check_is_named_and_left_out(
    slurm: SlurmCluster, backend: CommandBackend, spare: int
) -> None:
    folder = slurm.job_folder()
    (folder / "templates" / "node").mkdir(parents=True)
    (folder / "templates" / "node" / "check-node.sh.j2").write_text(SICK)
    health = Health(gpus=8, interface_bytes_per_s=50e9, all_reduce_bytes_per_s=1e11, spare_nodes=spare)
    placement = Placement(partition="batch", node_group="gpu", exclude="n[5-7]" if spare else "n[6-7]")
    plan = stand_in_plan((20, 20), job={"health": health, "variables": {"TEST_END_EARLY": "1"}}, placement=placement)
    campaign = campaign_of(plan, folder, folder / "templates")
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["COMPLETED"] * 2, logs(campaign)
    said = logs(campaign)
    assert "n1 bad it is the node that this test wants to be bad" in said
    for segment in (1, 2):
        assert notes(campaign, segment)[0]["HPCPLAN_HOSTS"].split() == ["n0", "n2", "n3", "n4"]
    if spare:
        assert "going on without n1" in said
    else:
        assert said.count("going back into the queue, to be started without n1") == 1, "the next job is spared it, too"
    assert (campaign / "state" / "done").exists()


def test_a_chain_without_a_healthy_node_stops_and_says_so(slurm: SlurmCluster, backend: CommandBackend) -> None:
    plan = stand_in_plan((10, 10), job={"health": Health(gpus=9)})
    campaign = campaign_of(plan, slurm.job_folder())
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["FAILED", "FAILED"]
    assert "nodes are not well" in (campaign / "state" / "failed").read_text()
    assert "8 GPUs, 9 expected" in logs(campaign)
    assert not (campaign / "notes").exists()


def test_data_is_staged_once_and_found_by_the_next_segment(slurm: SlurmCluster, backend: CommandBackend) -> None:
    folder = slurm.job_folder()
    data = folder / "data $(x)"
    data.mkdir()
    for index in range(5):
        (data / f"shard {index}\n.bin").write_bytes(b"x" * 1000 * (index + 1))
    staging = Staging(sources=(str(data),), target=str(folder / "fast"), split=True)
    command = ("python3", "trainer.py", "--data", str(data), f"--more={data}/shard 1\n.bin")
    plan = stand_in_plan((20, 20), job={"staging": staging, "command": command, "variables": {"TEST_END_EARLY": "1"}})
    campaign = campaign_of(plan, folder)
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["COMPLETED"] * 2, logs(campaign)
    first, second = (path.read_text() for path in sorted(campaign.glob("*.out")))
    counts = [int(number) for number in re.findall(r": (\d+) files copied", first)]
    assert (len(counts), sum(counts), max(counts)) == (4, 5, 2), "each file by one node, in balance"
    assert sum(int(number) for number in re.findall(r": (\d+) files copied", second)) == 0
    note = notes(campaign, 2)[0]
    copy = note["HPCPLAN_STAGED_DATA"] + str(data)
    assert note["words"] == ["--data", copy, f"--more={copy}/shard 1\n.bin"]
    assert sorted(path.name for path in Path(copy).iterdir()) == sorted(path.name for path in data.iterdir())


def test_stages_run_in_their_order_and_a_failed_one_stops_what_needs_it(
    slurm: SlurmCluster, backend: CommandBackend
) -> None:
    def stage(name: str, code: str, **fields: Any) -> Stage:
        return Stage(name=name, command=("bash", "-c", code), partition="batch", time_limit_s=60, **fields)

    stages = (
        stage(
            "prepare", 'echo "$HPCPLAN_SHARD/$HPCPLAN_SHARDS" >>order', kind="preprocess", nodes=2, tasks_per_node=2,
            cpus_per_task=2,
        ),
        stage(
            "sweep", 'echo "sweep $LR" >>order; [[ $LR != b* ]]', kind="array", after=("train",),
            points=({"LR": "a"}, {"LR": "b $(c)"}),
        ),
        stage("convert", "echo convert >>order", after=("sweep",)),
        stage("clean", "echo clean >>order", after_any=("sweep",)),
    )  # fmt: skip
    plan = stand_in_plan((10,), stages=stages, after=("prepare",))
    campaign = campaign_of(plan, slurm.job_folder())
    ids = job_ids(campaign, backend)
    assert list(ids) == ["prepare", "train-01", "sweep", "convert", "clean"]
    wait_until_over(slurm, list(ids.values()))
    order = (campaign / "order").read_text().splitlines()
    assert sorted(order[:4]) == ["0/4", "1/4", "2/4", "3/4"]
    assert sorted(order[4:6]) == ["sweep a", "sweep b $(c)"]
    assert order[6:] == ["clean"]
    assert states(slurm, [ids["convert"]]) == ["CANCELLED"], "what needs a stage that failed never starts"
    assert own_ends(campaign) == {
        "prepare": "COMPLETED", "train-01": "COMPLETED", "sweep": "FAILED", "clean": "COMPLETED"
    }  # fmt: skip
