"""A real Slurm on one machine, for the tests marked ``slurm``: started as root, private, and gone afterwards.

By hand, from the top of the checkout:

    python -m tests.slurm.cluster up       start it, and print the variables that point Slurm's commands at it
    python -m tests.slurm.cluster shell    start it, open a shell in it, stop it when the shell ends
    python -m tests.slurm.cluster down     stop it, and clear away what a crashed run left

It is the Slurm of PATH, or with ``HPCPLAN_SLURM_PREFIX=/opt/slurm`` the one whose programs are in ``bin`` and ``sbin``
there: any release from 22.05 on, built with ``--enable-multiple-slurmd``.

One such cluster fits on a machine. Everything is in one temporary folder and on ports of its own, but for munge, whose
socket Slurm's clients look for in one place alone: a munged that answers there is used, else one is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.slurm import config

DIRECTORY = Path(tempfile.gettempdir()) / "hpcplan-slurm-test"
LOCK = Path("/run/hpcplan-slurm-test.lock")
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
_PREFIX = os.environ.get("HPCPLAN_SLURM_PREFIX")
_OWN = [f"{_PREFIX}/bin", f"{_PREFIX}/sbin"] if _PREFIX else []
PATH = os.pathsep.join([*_OWN, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
PROGRAMS = {
    "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "sacctmgr": "slurm-wlm",
    "slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server",
    "munged": "munge", "munge": "munge", "slurmrestd": "slurmrestd",
}  # fmt: skip


def release() -> tuple[int, int]:
    """Return the release of the Slurm under test: (22, 5) of 22.05.8."""
    command = (shutil.which("slurmctld", path=PATH) or "slurmctld", "-V")
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    year, month = re.findall(r"\d+", answer)[:2]
    return int(year), int(month)


_PLUGINS = {"slurm-wlm-mysql-plugin", "slurm-wlm-jwt-plugin"}


def why_not() -> str | None:
    """Return why the cluster cannot run here, or ``None`` where it can."""
    if os.geteuid() != 0:
        return "a real Slurm is started as root, and this is another user"
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        packages = " ".join(sorted({PROGRAMS[program] for program in missing} | _PLUGINS))
        return f"not installed: {', '.join(missing)} (Debian: apt-get install {packages})"
    return None


class SlurmCluster:
    """Eight nodes of eight GPUs under two leaf switches, with slurmdbd behind them; ``env`` points commands at it."""

    name = config.CLUSTER
    nodes = config.NODES

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self.release = release()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_SLURM_PREFIXES)},
            "PATH": PATH,
            "SLURM_CONF": str(directory / "etc" / "slurm.conf"),
        }

    # Starting and stopping the whole

    def start(self) -> None:
        """Clear away what an earlier run left, and start every daemon; returns when all nodes are idle."""
        self.stop()
        self.directory.mkdir(mode=0o755)
        for folder in ("state", "spool", "log", "run", "jobs"):
            (self.directory / folder).mkdir()
        ports, password = config.free_ports(), secrets.token_hex(16)
        config.write(self.directory, ports, password, self.release)
        (self.directory / "settings.json").write_text(
            json.dumps({"mariadb_port": ports.mariadb, "slurmrestd_port": ports.slurmrestd})
        )
        self.start_munge()
        self._create_database(password)
        self.start_daemon("slurmdbd")
        self._register()
        if self.release >= (23, 11):  # which does not start again without the file of usage that it writes when it ends
            self.start_daemon("slurmctld")
            self.stop_daemon("slurmctld")
        for daemon in ("slurmctld", *(f"slurmd-{node}" for node in self.nodes)):
            self.start_daemon(daemon)
        self.wait_until(self.is_ready, "every node is idle")

    def stop(self) -> None:
        """Stop every process of this cluster, running or left behind, and delete its folder."""
        if self.directory.exists():
            if self.directory.stat().st_uid != os.geteuid():
                raise RuntimeError(f"{self.directory} belongs to somebody else")
            self._cancel_everything()
        for daemon in _DAEMONS:
            _end([pid for pid in self._processes() if _program(pid) == daemon], patience_s=20)
        _end(self._processes(), patience_s=5)
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_ready(self) -> bool:
        """Return whether every node is idle."""
        answer = self.run("sinfo", "--noheader", "--Node", "--partition=batch", "--Format=StateLong", check=False)
        return answer.stdout.split() == ["idle"] * len(self.nodes)

    # One daemon at a time: what tests of faults need

    def start_daemon(self, daemon: str) -> None:
        """Start ``slurmctld``, ``slurmdbd``, ``mariadbd``, ``slurmrestd`` or ``slurmd-n0``; wait for it."""
        program, _, node = daemon.partition("-")
        if program == "slurmrestd":
            self._start_slurmrestd()
            return
        arguments = {
            "slurmdbd": ["-D"],
            "slurmctld": ["-D", "-f", self.env["SLURM_CONF"]],
            "slurmd": ["-D", "-N", node, "-f", self.env["SLURM_CONF"]],
            "mariadbd": self._mariadbd_options(),
        }[program]
        self._spawn(daemon, [program, *arguments])
        answers: dict[str, Callable[[], bool]] = {
            "slurmdbd": lambda: self._succeeds("sacctmgr", "--noheader", "list", "cluster"),
            "slurmctld": lambda: self._succeeds("scontrol", "show", "partition"),
            "mariadbd": lambda: self._sql("SELECT 1").returncode == 0,
        }
        if program in answers:
            self.wait_until(answers[program], f"{daemon} answers")

    def stop_daemon(self, daemon: str, *, kill: bool = False) -> None:
        """Stop one daemon, politely or with SIGKILL, and wait until it is gone."""
        program, _, node = daemon.partition("-")
        found = [pid for pid in self._processes() if _program(pid) == program and node in ("", *_words(pid))]
        _end(found, patience_s=0 if kill else 30)

    def kill_node(self, node: str) -> None:
        """Kill all that runs on a node: its daemon, what watches over its steps, and the steps."""
        log = str(self.directory / "log" / f"slurmd-{node}.log")
        found = self._processes()
        _end([pid for pid in found if log in _open_files(pid)], patience_s=0)
        _end([pid for pid in found if f"SLURMD_NODENAME={node}" in _environment(pid)], patience_s=0)

    def runs(self, program: str) -> bool:
        """Return whether a daemon of this cluster runs."""
        return any(_program(pid) == program for pid in self._processes())

    @property
    def rest_url(self) -> str:
        """Where slurmrestd listens with a token (see :meth:`token`); start it with ``start_daemon("slurmrestd")``."""
        return f"http://127.0.0.1:{self._settings('slurmrestd_port')}"

    @property
    def rest_socket(self) -> Path:
        """Where slurmrestd listens to whoever may open it; what it is asked for there, ``nobody`` does."""
        return self.directory / "rest" / "slurmrestd.sock"

    def token(self, lifespan_s: int = 3600) -> str:
        """Return a token by which slurmrestd knows this user."""
        return self.run("scontrol", "token", f"lifespan={lifespan_s}").stdout.strip().removeprefix("SLURM_JWT=")

    def _start_slurmrestd(self) -> None:
        """Start two, since it takes either a token or its own user's word; it refuses to run as root."""
        folder = self.rest_socket.parent
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, "nobody", "nogroup")
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        serves = ["-s", "openapi/v0.0.38,openapi/dbv0.0.38"] if self.release < (23, 2) else []
        command = ["slurmrestd", *serves, "-f", self.env["SLURM_CONF"], "-a"]
        self.rest_socket.unlink(missing_ok=True)
        address = self.rest_url.removeprefix("http://")
        self._spawn("slurmrestd-jwt", [*command, "rest_auth/jwt", address], env={"SLURM_JWT": "daemon"}, **user)
        self._spawn("slurmrestd-local", [*command, "rest_auth/local", f"unix:{self.rest_socket}"], **user)
        self.wait_until(lambda: self.rest_socket.exists() and _answers(self.rest_url), "slurmrestd answers")

    # What tests ask of it

    def run(
        self, *command: str, check: bool = True, user: str | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands against this cluster, as this user or another."""
        return subprocess.run(
            command, env={**self.env, **env}, capture_output=True, text=True, check=check, timeout=60, user=user,
            extra_groups=None if user is None else [],
        )  # fmt: skip

    def wait_until(self, condition: Callable[[], bool], what: str, *, patience_s: float = 60) -> None:
        """Return when the condition holds; raise with the ends of the logs when it does not in time. What is waited for
        longer is looked at less often, since most looks cost a command of Slurm's.
        """
        deadline, pause_s = time.monotonic() + patience_s, 0.1
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience_s:.0f} s in vain until {what}\n{self.logs()}")
            time.sleep(pause_s)
            pause_s = min(0.5, 1.1 * pause_s)

    def job_folder(self) -> Path:
        """Return a new folder that jobs of any user can write to."""
        folder = Path(tempfile.mkdtemp(dir=self.directory / "jobs"))
        folder.chmod(0o777)
        return folder

    def drain_queue(self) -> None:
        """Cancel every job, and wait until nothing is left in the queue."""
        self._cancel_everything()
        self.wait_until(lambda: not self.run("squeue", "--noheader").stdout.strip(), "the queue is empty")

    def resume_nodes(self) -> None:
        """Give drained nodes back. Slurm drains one itself ("Duplicate jobid") where a controller that was killed
        starts a job anew that still runs there.
        """
        command = ("sinfo", "--noheader", "--Node", "--partition=batch", "--states=drain", "--Format=NodeList")
        for name in self.run(*command, check=False).stdout.split():
            self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)

    def forget(self, job_id: int) -> None:
        """Make the controller forget a job that has ended, as it does when MinJobAge is over; takes about a minute."""
        conf = Path(self.env["SLURM_CONF"])
        text = conf.read_text()
        conf.write_text(text.replace("MinJobAge=300", "MinJobAge=2"))
        self.run("scontrol", "reconfigure")
        known = ("squeue", "--states=all", "--noheader", f"--jobs={job_id},{job_id}")
        try:
            self.wait_until(lambda: not self.run(*known).stdout.strip(), f"{job_id} is forgotten", patience_s=150)
        finally:
            conf.write_text(text)
            self.run("scontrol", "reconfigure")

    def logs(self, lines: int = 12) -> str:
        """Return how nodes and queue stand, and the last lines of every log."""
        parts = []
        nodes = ("sinfo", "--Node", "--noheader", "--partition=batch", "--Format=NodeList,StateLong")
        for command in (nodes, ("squeue", "--states=all")):
            with contextlib.suppress(subprocess.SubprocessError, OSError):
                parts.append("\n".join([f"--- {command[0]}", self.run(*command, check=False).stdout]))
        for log in sorted((self.directory / "log").glob("*.log")):
            text = log.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {log.name}", *text]))
        return "\n".join(parts)

    def sql(self, statement: str) -> str:
        """Return what MariaDB answers of slurmdbd's tables."""
        answer = self._sql(f"USE slurm_acct_db; {statement};")
        answer.check_returncode()
        return answer.stdout

    # Inside

    def _spawn(self, name: str, command: Sequence[str], *, env: Mapping[str, str] = {}, **options: Any) -> None:
        with (self.directory / "log" / f"{name}.out").open("ab") as log:
            subprocess.Popen(
                command, env={**self.env, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=self.directory, **options,
            )  # fmt: skip

    def start_munge(self) -> None:
        """Start munged where none answers; its key stays the same."""
        if self._succeeds("munge", "--no-input"):
            return
        folder = self.directory / "munge"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            (folder / "munge.key").write_bytes(secrets.token_bytes(128))
            (folder / "munge.key").chmod(0o600)
        MUNGE_SOCKET.parent.mkdir(mode=0o755, exist_ok=True)
        for path in (folder, folder / "munge.key", MUNGE_SOCKET.parent):
            shutil.chown(path, "munge", "munge")
        files = {
            "key-file": "munge.key",
            "log-file": "munged.log",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
        }
        options = [f"--{option}={folder / file}" for option, file in files.items()]
        self._spawn("munged", ["munged", "--foreground", *options], user="munge", group="munge", extra_groups=[])
        self.wait_until(lambda: self._succeeds("munge", "--no-input"), "munged answers")

    def _mariadbd_options(self) -> list[str]:
        port = self._settings("mariadb_port")
        return [
            "--no-defaults", "--user=root", f"--datadir={self.directory}/mariadb", f"--socket={self._socket}",
            f"--pid-file={self.directory}/run/mariadbd.pid", "--bind-address=127.0.0.1", f"--port={port}",
            "--skip-name-resolve", "--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900",
        ]  # fmt: skip

    def _settings(self, name: str) -> int:
        value: int = json.loads((self.directory / "settings.json").read_text())[name]
        return value

    @property
    def _socket(self) -> Path:
        return self.directory / "run" / "mariadbd.sock"

    def _create_database(self, password: str) -> None:
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.directory}/mariadb",
             "--auth-root-authentication-method=socket", "--skip-test-db", "--innodb-log-file-size=16M"],
            env=self.env, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        self.start_daemon("mariadbd")
        self._sql(
            "CREATE DATABASE slurm_acct_db;"
            f"CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{password}';"
            "GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1;"
        ).check_returncode()

    def _sql(self, statements: str) -> subprocess.CompletedProcess[str]:
        command = ("mariadb", "--no-defaults", f"--socket={self._socket}", "--user=root", "--batch")
        return subprocess.run(
            command, env=self.env, input=statements, capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip

    def _register(self) -> None:
        """Make the cluster, an account and two users known, before the controller first connects."""
        self.run("sacctmgr", "--immediate", "add", "cluster", self.name)
        self.run("sacctmgr", "--immediate", "add", "account", "research", f"Cluster={self.name}")
        for user in ("root", "nobody"):
            self.run("sacctmgr", "--immediate", "add", "user", user, "Account=research", "DefaultAccount=research")

    def _succeeds(self, *command: str) -> bool:
        try:
            return self.run(*command, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _cancel_everything(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            if any(_program(pid) == "slurmctld" for pid in self._processes()):
                for state in ("PENDING", "RUNNING", "SUSPENDED"):
                    self.run("scancel", f"--state={state}", check=False)

    def _processes(self) -> list[int]:
        """Return this cluster's daemons and jobs: a shell that merely points at the cluster is not one of them."""
        own = set(_ancestry())
        everyone = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in everyone if pid not in own and self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            command, environment = (Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
        except OSError:
            return False
        if _program(pid) == "slurmstepd":  # which since 23.11 writes what it does over both of these
            return any(file.startswith(str(self.directory)) for file in _open_files(pid))
        is_job = b"\0SLURM_JOB_ID=" in b"\0" + environment
        return str(self.directory).encode() in command + environment and (_program(pid) in _DAEMONS or is_job)


_DAEMONS = (
    "slurmrestd",
    "slurmd",
    "slurmstepd",
    "slurmctld",
    "slurmdbd",
    "mariadbd",
    "munged",
)  # in the order of stopping
_SLURM_PREFIXES = ("SLURM", "SBATCH", "SQUEUE", "SACCT", "SINFO", "SCANCEL", "SCONTROL", "SALLOC")


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def _ancestry() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _words(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found


def _environment(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return []


def _end(pids: Sequence[int], *, patience_s: float) -> None:
    """End processes: SIGTERM, then SIGKILL for those that are still there after ``patience_s``."""
    if patience_s:
        _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(left, signal.SIGKILL)
    while any(_alive(pid) for pid in left):
        time.sleep(0.05)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a daemon that this very process started would stay a zombie
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def exclusive(patience_s: float = 240) -> Iterator[None]:
    """Hold the machine's one place for a test cluster.

    Raises:
        TimeoutError: another run has held it all the time.
    """
    with LOCK.open("a") as lock:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another run has held {LOCK} for {patience_s:.0f} s") from None
                time.sleep(0.5)
        yield


def _exports(env: Mapping[str, str]) -> str:
    return f"export SLURM_CONF={env['SLURM_CONF']} PATH={env['PATH']}"


def main(arguments: Sequence[str]) -> int:
    """Run ``up``, ``down`` or ``shell``."""
    if list(arguments) not in (["up"], ["down"], ["shell"]):
        print(__doc__, file=sys.stderr)
        return 2
    reason = why_not()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    cluster = SlurmCluster()
    with exclusive(patience_s=5):
        if arguments[0] == "down":
            cluster.stop()
            return 0
        cluster.start()
        print(_exports(cluster.env))
        if arguments[0] == "shell":
            try:
                return subprocess.run([os.environ.get("SHELL", "/bin/bash")], env=cluster.env, check=False).returncode
            finally:
                cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
