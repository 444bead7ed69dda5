"""Runs the commands that the pages show, and keeps what they print, so that the pages show what hpcplan says now.

The commands of a page run one after another in one folder, with an empty home and no Slurm in sight. A page shows a
command itself and includes its output; ``tests/docs`` holds that the two belong together.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SESSIONS", "Shot", "record"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shot:
    """One command and what to keep of its output: the first ``lines``, or the ``blocks`` between blank lines."""

    name: str
    command: str
    lines: int | None = None
    blocks: tuple[int, ...] | None = None


_PLAN = "hpcplan plan llama3-8b --site superpod-h100 --nodes 16 --tokens 300B -o plan.json"
_START = "hpcplan mock start superpod-h100 --load 0.9 --speed 0"
_POOL = "hpcplan plan llama3-8b --site mixed-lab --tokens 20B --global-batch 128 --pool h100 --pool a100=4"
_EXPLAIN = "hpcplan plan llama3-70b --site superpod-h100 --nodes 16 --tokens 300B"
_PARETO = "hpcplan plan llama3-8b --site superpod-h100 --nodes 1:16 --tokens 20B --pareto --plot front.svg"
_VALIDATE = "hpcplan validate korthikanti2022_table5.csv -o predicted.csv"
_405B = "hpcplan plan llama3-405b --site grand-teton-h100-700w --nodes 2048 -o plan.json"
_EXPERTS = "hpcplan plan deepseek-v3 --site gb200-nvl72 --nodes 64 --fix ep=64 -o experts.json"
_WHEN = "hpcplan when --backend mock --nodes 4,16,64 --time 12:00:00 --samples 20 --back-tests 25"
_FINISH = "hpcplan plan llama3-8b --site superpod-h100 --partition batch --nodes 4:32 --tokens 20B --objective finish"
_8B = "hpcplan plan llama3-8b --site superpod-h100 --nodes 4 --tokens 200B -o plan.json"
_SHARD = "hpcplan data shard files.csv --plan plan.json -o shards.jsonl --plan-output with-data.json"

SESSIONS: dict[str, tuple[Shot, ...]] = {
    "tutorial": (
        Shot("site-show", "hpcplan site show superpod-h100", blocks=(0, 1, 2, 3)),
        Shot("plan", _PLAN, blocks=(0, 1)),
        Shot("plan-breakdown", _PLAN, blocks=(2, 3, 4)),
        Shot("render", "hpcplan render plan.json -o campaign"),
        Shot("directives", "grep '^#SBATCH' campaign/train-01.sbatch"),
        Shot("mock-start", _START),
        Shot("dry-run", "hpcplan submit campaign --dry-run", lines=4),
        Shot("submit", "hpcplan submit campaign --backend mock"),
        Shot("status", "hpcplan status campaign"),
        Shot("advance", "hpcplan mock advance 21h"),
        Shot("status-later", "hpcplan status campaign"),
        Shot("advance-to-end", "hpcplan mock advance --until-idle"),
        Shot("status-done", "hpcplan status campaign"),
        Shot("journal", "cut -c 1-120 campaign/journal.jsonl", lines=3),
        Shot("report", "hpcplan report --backend mock --since 5d", lines=24),
        Shot("report-page", "hpcplan report --backend mock --since 5d --site superpod-h100 -o report.html"),
        Shot("list", "hpcplan list"),
        Shot("stop", "hpcplan mock stop --purge"),
    ),
    "unequal-nodes": (
        Shot("share", "hpcplan share three-nodes.yaml"),
        Shot("pool", _POOL, blocks=(0, 1, 2, 3)),
        Shot("pool-own-trainer", f"{_POOL} --framework torchrun", blocks=(0, 1, 2, 3)),
    ),
    "share-a-site": (
        Shot("allocate", "hpcplan allocate portfolio.yaml --site mixed-lab"),
        Shot("allocate-divisible", "hpcplan allocate three-nodes.yaml"),
    ),
    "search": (
        Shot("explain", f"{_EXPLAIN} --explain", blocks=(4, 5, 6, 7)),
        Shot("pareto", _PARETO, blocks=(4, 5)),
    ),
    "infeasible": (Shot("infeasible", "hpcplan plan llama3-70b --site mixed-lab --nodes 1"),),
    "placement": (
        Shot("place-plan", f"{_405B} >/dev/null"),
        Shot("place", "hpcplan place plan.json"),
        Shot("place-experts-plan", f"{_EXPERTS} >/dev/null"),
        Shot("place-experts", "hpcplan place experts.json --drained nvl01n03 --ask nodelist", blocks=(0, 1, 4)),
    ),
    "data": (
        Shot("data-plan", f"{_8B} >/dev/null"),
        Shot("data-shard", _SHARD),
        Shot("data-where", "hpcplan data where shards.jsonl --step 1200 --dp 32 --rank 3"),
        Shot("data-manifest", "head -n 2 shards.jsonl; tail -n 2 shards.jsonl"),
    ),
    "when": (
        Shot("when-mock", "hpcplan mock start superpod-h100 --load 0.7 --history 48h --seed 1 --speed 0"),
        Shot("when", _WHEN),
        Shot("when-stop", "hpcplan mock stop --purge"),
    ),
    "finish": (Shot("finish", _FINISH, blocks=(4, 5)),),
    "check-predictions": (
        Shot("validate", _VALIDATE),
        Shot("predicted", "cut -d , -f 2,19-24 predicted.csv"),
    ),
}
_EXPECTED_CODES = {"infeasible": 3}


def record(folder: Path, scratch: Path) -> None:
    """Run every session under ``scratch``, and write what each command printed to ``folder``.

    Raises:
        RuntimeError: a command did not end as it should.
    """
    folder.mkdir(exist_ok=True)
    for name, shots in SESSIONS.items():
        home = scratch / name
        here = home / "try"
        here.mkdir(parents=True)
        for file in (*HERE.glob("howto/*.csv"), *HERE.glob("howto/*.yaml")):
            shutil.copy(file, here)
        for shot in shots:
            text = _trim(_run(shot, here, home), shot)
            (folder / f"{shot.name}.txt").write_text(text + "\n", encoding="utf-8")


def _run(shot: Shot, here: Path, home: Path) -> str:
    """Return what the command printed, both streams, with the folders' names as a reader would have them."""
    hidden = ("SLURM", "SBATCH", "HPCPLAN_", "XDG_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env |= {"HOME": str(home), "TZ": "UTC", "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])}
    done = subprocess.run(
        ["bash", "-c", shot.command], cwd=here, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode != _EXPECTED_CODES.get(shot.name, 0):
        raise RuntimeError(f"{shot.command}: exit code {done.returncode}\n{done.stdout}")
    text = done.stdout.replace(str(here), "~/try").replace(str(home), "~")
    return re.sub(r"\S*/(site_configs|hpcplan/site_configs)/", ".../site_configs/", text)


def _trim(text: str, shot: Shot) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    indent = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    blocks = re.split(r"\n{2,}", "\n".join(line[indent:] for line in lines).strip("\n"))
    if shot.blocks is not None:
        blocks = [blocks[position] for position in shot.blocks]
    return _first("\n\n".join(blocks).splitlines(), shot.lines)


def _first(lines: Sequence[str], most: int | None) -> str:
    shown = lines if most is None or len(lines) <= most else [*lines[:most], "…"]
    return "\n".join(shown)
