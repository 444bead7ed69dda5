"""scontrol's reservations and partitions on the mock cluster, in the words of Slurm 22.05."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulate.commands.conftest import MockSlurm

NEEDS_NODES = "CoreCnt, Nodes, NodeCnt, BurstBuffer, Licenses or Watts"


@pytest.fixture(autouse=True)
def as_it_was(slurm: MockSlurm) -> Iterator[None]:
    yield
    slurm.run("scancel", "--me")
    slurm.until(lambda: "" if slurm.out("squeue", "-h") else "empty")
    for line in slurm.out("sinfo", "-h", "-T").splitlines():
        if not line.startswith("No "):
            slurm.run("scontrol", "delete", f"reservation={line.split()[0]}")
    slurm.run("scontrol", "update", "partition=debug", "state=up", "maxnodes=2", "default=no")
    slurm.run("scontrol", "update", "partition=batch", "default=yes")


@pytest.fixture
def me(slurm: MockSlurm) -> str:
    return "user=" + slurm.out("sh", "-c", "id -un")


def test_a_reservation_is_its_users_alone(slurm: MockSlurm, me: str) -> None:
    made = slurm.out("scontrol", "create", "reservationname=r1", "start=now", "duration=30", me, "nodes=b[1-2]")
    assert made == "Reservation created: r1"
    block = slurm.out("scontrol", "show", "reservation", "r1").splitlines()
    assert block[0].startswith("ReservationName=r1 StartTime=")
    assert block[0].endswith("Duration=00:30:00")
    assert block[1] == "   Nodes=b[1-2] NodeCnt=2 CoreCnt=128 Features=(null) PartitionName=(null) Flags=SPEC_NODES"
    assert slurm.out("sinfo", "-h", "-p", "batch", "-o", "%t %N").splitlines() == ["resv b[1-2]", "idle b[3-6]"]
    outside = slurm.submit("-N1", "-t", "5", "sleep 60")
    inside = slurm.submit("-N1", "-t", "5", "--reservation=r1", "sleep 60")
    for job, nodes in ((outside, "(null) b3"), (inside, "r1 b1")):
        slurm.wait_for(job, "RUNNING")
        assert slurm.out("squeue", "-h", "-j", job, "-o", "%v %N") == nodes
    answer = slurm.run("scontrol", "delete", "reservation=r1")
    assert answer.stderr == "delete_reservation reservation=r1: Requested reservation is in use\n"
    slurm.run("scancel", inside)
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-j", outside, "-t", "R") == "" else "there")
    slurm.until(lambda: "gone" if slurm.run("scontrol", "delete", "reservation=r1").returncode == 0 else "")
    assert slurm.out("scontrol", "show", "reservation") == "No reservations in the system"


REFUSED = [
    ("res=x {me} nodes=b1 duration=10", "scontrol: error: A start time must be given.  No reservation created."),
    (
        "res=x start=now duration=10 nodes=b1",
        "scontrol: error: Either Users/Groups and/or Accounts must be specified.  No reservation created.",
    ),
    (
        "res=x start=now duration=10 {me}",
        f"scontrol: error: {NEEDS_NODES} must be specified.  No reservation created.",
    ),
    ("res=x start=now duration=10 {me} nodes=n99", "Error creating the reservation: Invalid node name specified"),
    ("res=x start=now duration=10 user=nosuch nodes=b1", "Error creating the reservation: Invalid user id"),
    (
        "res=x start=now duration=xx {me} nodes=b1",
        "scontrol: error: Invalid duration duration=xx.  No reservation created.",
    ),
    ("res=x foo=1", "scontrol: error: Unknown parameter foo=1.  No reservation created."),
    ("foo=1", "scontrol: error: Invalid creation entity: foo=1"),
    ("", "too few arguments for create keyword"),
]  # fmt: skip


def test_what_cannot_be_reserved_is_refused(slurm: MockSlurm, me: str) -> None:
    for words, said in REFUSED:
        answer = slurm.run("scontrol", "create", *words.format(me=me).split())
        assert (answer.returncode, answer.stderr) == (1, f"{said}\n"), words


def test_a_reservation_is_changed_and_jobs_end_before_it(slurm: MockSlurm, me: str) -> None:
    slurm.out("scontrol", "create", "res=later", "start=now+1hour", "duration=60", me, "nodes=ALL", "flags=maint")
    assert "Flags=MAINT,SPEC_NODES,ALL_NODES" in slurm.out("scontrol", "-o", "show", "res", "later")
    long = slurm.submit("-N1", "-t", "90", "true")
    short = slurm.submit("-N1", "-t", "30", "true")
    slurm.wait_for(short, "COMPLETED")
    assert slurm.out("squeue", "-h", "-j", long, "-o", "%R") == "(ReqNodeNotAvail, Reserved for maintenance)"
    assert slurm.out("scontrol", "update", "reservation=later", "start=now+3hours") == "Reservation updated."
    slurm.wait_for(long, "COMPLETED")
    assert slurm.run("scontrol", "update", "reservation=nosuch", "duration=5").stderr == (
        "Error updating the reservation: Requested reservation is invalid\n"
        "slurm_update error: Requested reservation is invalid\n"
    )


def test_a_partition_that_is_down_starts_nothing_and_one_that_drains_takes_nothing(slurm: MockSlurm) -> None:
    slurm.out("scontrol", "update", "partition=debug", "state=down")
    job = slurm.submit("-p", "debug", "true")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%r") == "PartitionDown"
    assert slurm.out("sinfo", "-h", "-p", "debug", "-o", "%a") == "down"
    slurm.out("scontrol", "update", "partitionname=debug", "state=up")
    slurm.wait_for(job, "COMPLETED")
    slurm.out("scontrol", "update", "partitionname=debug", "state=drain")
    answer = slurm.run("sbatch", "-p", "debug", "--wrap", "true")
    said = "sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)\n"
    assert (answer.returncode, answer.stderr) == (1, said)


def test_limits_of_a_partition_are_changed_and_shown(slurm: MockSlurm) -> None:
    waits = slurm.submit("-p", "debug", "-N3", "true")
    assert slurm.out("squeue", "-h", "-j", waits, "-o", "%r") == "PartitionNodeLimit"
    slurm.out("scontrol", "update", "partition=debug", "maxnodes=4", "default=yes")
    slurm.wait_for(waits, "COMPLETED")
    assert "MaxNodes=4 MaxTime=00:30:00" in slurm.out("scontrol", "show", "partition", "debug")
    assert "Default=NO" in slurm.out("scontrol", "show", "partition", "batch")
    answer = slurm.run("scontrol", "update", "partition=debug", "state=foo")
    assert answer.stderr == (
        "scontrol: error: Invalid input: state=foo\n"
        "scontrol: error: Acceptable State values are UP, DOWN, DRAIN and INACTIVE\nslurm_update error: No error\n"
    )
    assert slurm.run("scontrol", "update", "partition=nosuch", "state=up").stderr == (
        "slurm_update error: Invalid partition name specified\n"
    )


def test_a_partition_is_made_and_deleted(slurm: MockSlurm) -> None:
    slurm.out("scontrol", "create", "partitionname=new", "nodes=b[5-6]", "maxtime=10")
    job = slurm.submit("-p", "new", "-N2", "true")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "Partition,NodeList") == "new|b[5-6]"
    slurm.out("scontrol", "delete", "partitionname=new")
    assert slurm.run("scontrol", "delete", "partitionname=new").stderr == (
        "delete_partition partitionname=new: Invalid partition name specified\n"
    )
