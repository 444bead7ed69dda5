"""A slurmdbd of its own for a recording: QOS, accounts and users as a file of sacctmgr's commands says."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Spawn", "dump", "start"]

Spawn = Callable[..., None]
CLUSTER = "recording"


def start(folder: Path, env: Mapping[str, str], spawn: Spawn, ports: tuple[int, int], commands: Path) -> None:
    """Start mariadbd and slurmdbd on their ports, and run the commands (one a line, without ``sacctmgr``)."""
    password = secrets.token_hex(16)
    data, sock = folder / "mariadb", folder / "mariadb.sock"
    _run(env, "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=socket", "--innodb-log-file-size=16M")  # fmt: skip
    spawn("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}",
          f"--pid-file={folder}/mariadb.pid", "--bind-address=127.0.0.1", f"--port={ports[0]}", "--skip-name-resolve",
          "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0",
          "--innodb-lock-wait-timeout=900")  # fmt: skip
    client = ("mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "--batch", "-e")
    _wait(lambda: _run(env, *client, "SELECT 1").returncode == 0, "mariadbd")
    _run(env, *client, f"CREATE DATABASE slurm_acct_db; CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{password}';"
         "GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1;").check_returncode()  # fmt: skip
    conf = folder / "etc" / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(
        f"AuthType=auth/munge\nDbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={ports[1]}\nSlurmUser=root\n"
        f"PidFile={folder}/slurmdbd.pid\nLogFile={folder}/slurmdbd.log\nStorageType=accounting_storage/mysql\n"
        f"StorageHost=127.0.0.1\nStoragePort={ports[0]}\nStorageUser=slurm\nStoragePass={password}\n"
        "StorageLoc=slurm_acct_db\n"
    )
    spawn("slurmdbd", "-D")
    _wait(lambda: _run(env, "sacctmgr", "-n", "list", "cluster").returncode == 0, "slurmdbd")
    for line in ("add cluster " + CLUSTER, *commands.read_text().splitlines()):
        if line.strip():
            answer = _run(env, "sacctmgr", "-i", *line.split())
            if answer.returncode:
                raise SystemExit(f"sacctmgr {line}: {answer.stdout}{answer.stderr}")


def dump(env: Mapping[str, str], folder: Path) -> None:
    """Write what the simulator reads: ``accounts.cfg`` and ``qos.txt``."""
    accounts = folder / "accounts.cfg"
    accounts.unlink(missing_ok=True)
    _run(env, "sacctmgr", "-i", "dump", CLUSTER, f"file={accounts}")
    (folder / "qos.txt").write_text(_run(env, "sacctmgr", "-P", "show", "qos").stdout)


def _run(env: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} does not answer")
        time.sleep(0.3)
