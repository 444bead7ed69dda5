"""What a stopped job still holds: the nodes on which processes of it are left, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.simulate.clusters import write_site
from tests.simulate.commands.conftest import MockSlurm

STUBBORN = """#!/bin/bash
trap '' TERM
srun -N1 -n1 -w b3 {program} -c 'touch up; trap "" TERM; until [ -e go ]; do sleep 0.05; done' &
srun -N1 -n1 -w b2 true
touch ran
until [ -e go ]; do sleep 0.05; done
"""


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[MockSlurm]:
    """Six nodes, b1 to b6, whose controller waits for a minute before it kills."""
    store = start_cluster(load_site(str(write_site(tmp_path))), StartOptions(speed=1.0), directory=tmp_path / "cluster")
    folder = tmp_path / "here"
    folder.mkdir()
    with enter(store, EnterOptions(purge=True, kill_wait_s=60.0)) as entered:
        yield MockSlurm(entered, folder)


@pytest.mark.parametrize("program", ["sh", "env -i sh"])
def test_nodes_without_processes_are_given_out_while_a_stopped_job_goes_on_elsewhere(
    patient: MockSlurm, program: str
) -> None:
    stopped = patient.submit("-N6", "-o", "out", script=STUBBORN.format(program=program))
    for sign in ("up", "ran"):
        patient.until(lambda sign=sign: sign if (patient.folder / sign).exists() else "")
    waiting = patient.submit("-N4", "sleep 60")
    patient.run("scancel", stopped)
    patient.until(lambda: patient.out("squeue", "-h", "-t", "R", "-o", "%N", "-j", waiting))
    assert patient.out("squeue", "-h", "-o", "%i %t %N").splitlines() == [
        f"{stopped} CG b[1,3]",
        f"{waiting} R b[2,4-6]",
    ]
    assert patient.out("sinfo", "-h", "-p", "batch", "-t", "completing", "-o", "%N") == "b[1,3]"
    (patient.folder / "go").touch()
    patient.wait_for(stopped, "CANCELLED")
    assert patient.out("sacct", "-X", "-n", "-P", "-j", stopped, "-o", "NNodes,NodeList") == "6|b[1-6]"
    assert patient.out("squeue", "-h", "-o", "%i %t %N") == f"{waiting} R b[2,4-6]"
