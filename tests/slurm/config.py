"""The configuration files of the test cluster: 8 nodes of 8 GPUs under two leaf switches, with accounting."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "hpcplan"
NODES = tuple(f"n{index}" for index in range(8))
GPUS_PER_NODE = 8
CPUS_PER_NODE = 16
MEMORY_MIB = 2000


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1; the nodes' daemons take one each from ``slurmd`` upwards."""

    mariadb: int
    slurmdbd: int
    slurmctld: int
    slurmrestd: int
    slurmd: int


def free_ports() -> Ports:
    """Return a run of free ports below the range that the kernel hands out to clients."""
    wanted = 4 + len(NODES)
    first, run = 0, 0
    for port in range(17000, 30000):
        first = port if run == 0 else first
        run = run + 1 if _is_free(port) else 0
        if run == wanted:
            return Ports(first, first + 1, first + 2, first + 3, slurmd=first + 4)
    raise RuntimeError(f"no {wanted} free ports in a row between 17000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def write(directory: Path, ports: Ports, password: str, release: tuple[int, int]) -> None:
    """Write slurm.conf and its companions into ``directory/etc``, for a release of Slurm."""
    etc = directory / "etc"
    etc.mkdir()
    (etc / "slurm.conf").write_text(_slurm_conf(directory, ports))
    devices = directory / "devices"
    devices.mkdir()  # for a GPU Slurm wants a character device, but opens it only where cgroups guard it
    for gpu in range(GPUS_PER_NODE):
        (devices / f"gpu{gpu}").symlink_to("/dev/null")
    (etc / "gres.conf").write_text(f"NodeName=n[0-7] Name=gpu Count={GPUS_PER_NODE} File={devices}/gpu[0-7]\n")
    (etc / "topology.conf").write_text(
        "SwitchName=leaf0 Nodes=n[0-3]\nSwitchName=leaf1 Nodes=n[4-7]\nSwitchName=spine Switches=leaf[0-1]\n"
    )
    if release >= (23, 11):  # before, nothing asks for cgroups that the plugins of this slurm.conf do not ask for
        (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (etc / "jwt.key").touch(mode=0o600)
    (etc / "jwt.key").write_bytes(secrets.token_bytes(32))
    slurmdbd = etc / "slurmdbd.conf"
    slurmdbd.touch(mode=0o600)
    slurmdbd.write_text(_slurmdbd_conf(directory, ports, password))


def _slurm_conf(directory: Path, ports: Ports) -> str:
    # cred_expire also sets how long a requeued job waits (120 s as shipped); it and KillWait are short for the tests.
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={ports.slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={directory}/etc/jwt.key
StateSaveLocation={directory}/state
SlurmctldPidFile={directory}/run/slurmctld.pid
SlurmdPidFile={directory}/run/slurmd-%n.pid
SlurmdSpoolDir={directory}/spool/%n
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
MessageTimeout=10
MinJobAge=300
JobRequeue=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
TopologyPlugin=topology/tree
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,sched_min_interval=100000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports.slurmdbd}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
NodeName=n[0-7] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{ports.slurmd}-{ports.slurmd + len(NODES) - 1}] \
CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MIB} Gres=gpu:{GPUS_PER_NODE} Feature=h100,sim State=UNKNOWN
PartitionName=batch Nodes=n[0-7] Default=YES DefaultTime=01:00:00 MaxTime=1-00:00:00 State=UP
PartitionName=debug Nodes=n[0-1] MaxTime=10 MaxNodes=2 State=UP
PartitionName=long Nodes=n[0-7] MaxTime=INFINITE State=UP
"""


def _slurmdbd_conf(directory: Path, ports: Ports, password: str) -> str:
    return f"""\
AuthType=auth/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={directory}/etc/jwt.key
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.slurmdbd}
SlurmUser=root
PidFile={directory}/run/slurmdbd.pid
LogFile={directory}/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.mariadb}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""
