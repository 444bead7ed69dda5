"""pyslurm's API as 22.5.3 had it on a real Slurm 22.05.8 (names, units, errors), over jobs that a test makes up.

``MADE_UP_PYSLURM`` names a JSON file: ``{"jobs": […], "stored": […], "fail": {"what": "words"}, "as_of": "22.5"}``.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

__version__ = "22.5.3"

STATE = json.loads(Path(os.environ["MADE_UP_PYSLURM"]).read_text())
if "import_sleeps_s" in STATE:
    time.sleep(STATE["import_sleeps_s"])
if "import_exits" in STATE:  # what libslurm does where it finds no configuration
    sys.stderr.write("fatal: Could not establish a configuration source\n")
    os._exit(STATE["import_exits"])
if "import_raises" in STATE:
    raise ImportError(STATE["import_raises"])
CALLS = []


class PyslurmError(Exception):
    pass


class RPCError(PyslurmError):
    def __init__(self, errno=-1, msg=None):
        self.errno, self.msg = errno, msg
        super().__init__(msg)


def _rpc(what):
    CALLS.append(what)
    if what in STATE.get("fail", {}):
        raise RPCError(errno=2017, msg=STATE["fail"][what])


JOB = {
    "id": 0, "name": "wrap", "account": "research", "user_name": "ada", "user_id": os.getuid(), "partition": "batch",
    "qos": "normal", "state": "RUNNING", "state_reason": "None", "requeue_count": 0, "dependencies": None,
    "time_limit": 60, "submit_time": 1000, "eligible_time": 1000, "start_time": 1010, "end_time": 4610, "exit_code": 0,
    "exit_code_signal": 0, "priority": 12, "num_nodes": 2, "allocated_nodes": "n[0-1]", "cpus": 32, "memory": None,
    "gres_per_node": {"gpu": 4}, "array_id": None, "array_task_id": None, "array_tasks_waiting": None,
    "cluster": "lab", "working_directory": "/w", "comment": "token-1",
}  # fmt: skip
STORED = {
    "id": 0, "name": "wrap", "account": "research", "user_name": "ada", "user_id": os.getuid(), "partition": "batch",
    "qos": "normal", "state": "FAILED", "state_reason": "None", "time_limit": 60, "submit_time": 1000,
    "eligible_time": 1000, "start_time": 1010, "end_time": 1110, "exit_code": 3, "exit_code_signal": 0, "priority": 12,
    "num_nodes": 2, "nodelist": "n[0-1]", "cpus": 32, "memory": 4000, "array_id": None, "array_task_id": None,
    "array_tasks_waiting": None, "cluster": "lab", "working_directory": "/w", "comment": "token-1",
}  # fmt: skip


class Job:
    def __init__(self, job_id, **attributes):
        self.__dict__.update(JOB | {"id": job_id} | attributes)

    def get_resource_layout_per_node(self):
        if not self.allocated_nodes:
            return {}
        layout = {"gpu": {"count": "4", "indexes": "0-3"}} if self.gres_per_node else {}
        return {node: {"cpu_ids": "0", "gres": layout, "memory": None} for node in ("n0", "n1")}

    def cancel(self):
        _rpc(f"cancel {self.id}")

    def release(self):
        _rpc(f"release {self.id}")

    def requeue(self, hold=False):
        _rpc(f"requeue {self.id}")

    def hold(self, mode=None):
        os._exit(139)  # mode="user" follows a null pointer in every release


class Jobs(dict):
    @staticmethod
    def load(preload_passwd_info=False, frozen=False):
        _rpc("jobs")
        return Jobs({job["id"]: Job(job["id"], **_typed(job)) for job in STATE.get("jobs", [])})


def _typed(job):
    """25.11 gives GPUs as objects with a count, by name."""
    if "gpus" not in job:
        return {key: value for key, value in job.items() if key != "id"}
    gpus = {name: SimpleNamespace(count=count, type=None) for name, count in job["gpus"].items()}
    return {key: value for key, value in job.items() if key != "id"} | {"gpus": gpus}


class Nodes(dict):
    @staticmethod
    def load():
        _rpc("nodes")
        usual = {
            "active_features": ["h100"], "allocated_cpus": 0, "configured_gres": {"gpu": 8}, "effective_cpus": 16,
            "partitions": ["batch"], "real_memory": 2000, "reason": None, "state": "IDLE", "total_cpus": 16,
        }  # fmt: skip
        return Nodes({node["name"]: SimpleNamespace(**usual | node) for node in STATE.get("nodes", [])})


class Partitions(dict):
    @staticmethod
    def load():
        _rpc("partitions")
        usual = {
            "default_time": None, "is_default": False, "max_nodes": "UNLIMITED", "max_time": "UNLIMITED",
            "nodes": "n[0-7]", "state": "UP", "total_nodes": 8,
        }  # fmt: skip
        return Partitions({part["name"]: SimpleNamespace(**usual | part) for part in STATE.get("partitions", [])})


class _Config:
    @staticmethod
    def load():
        _rpc("config")
        return SimpleNamespace(cluster="lab")


class _Filter:
    def __init__(self, **conditions):
        self.conditions = conditions


class _Stored(dict):
    @staticmethod
    def load(db_filter=None, db_connection=None):
        _rpc("stored")
        conditions = db_filter.conditions
        chosen = [job for job in STATE.get("stored", []) if job["id"] in conditions.get("ids", [job["id"]])]
        stats = {"total_cpu_time": 40, "max_resident_memory": 4096}
        return _Stored(
            {
                job["id"]: SimpleNamespace(
                    **STORED | _typed(job) | {"id": job["id"], "stats": SimpleNamespace(**stats)}
                )
                for job in chosen
            }
        )


class _Connection:
    @staticmethod
    def open():
        _rpc("connection")
        return _Connection()

    def close(self):
        CALLS.append("closed")


slurmctld = SimpleNamespace(Config=_Config)
db = SimpleNamespace(Jobs=_Stored, JobFilter=_Filter, Connection=_Connection)
if STATE.get("as_of") == "before 22.5":
    del Jobs, Nodes
