"""Which function answers which of Slurm's commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.diagnostics import sdiag, sshare, sstat
from hpcplan.simulate.commands.formatting import release
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rewording import reworded
from hpcplan.simulate.commands.sacct import sacct
from hpcplan.simulate.commands.sacctmgr import sacctmgr
from hpcplan.simulate.commands.salloc import salloc
from hpcplan.simulate.commands.sattach import sattach
from hpcplan.simulate.commands.sbatch import sbatch
from hpcplan.simulate.commands.sbcast import sbcast
from hpcplan.simulate.commands.scancel import scancel
from hpcplan.simulate.commands.scontrol import scontrol
from hpcplan.simulate.commands.sinfo import sinfo
from hpcplan.simulate.commands.sprio import sprio
from hpcplan.simulate.commands.squeue import squeue
from hpcplan.simulate.commands.sreport import sreport
from hpcplan.simulate.commands.srun import srun

__all__ = ["COMMANDS", "answer"]

COMMANDS: Final[dict[str, Callable[[Controller, Any, Call], int]]] = {
    "sacct": sacct,
    "sacctmgr": sacctmgr,
    "salloc": salloc,
    "sattach": sattach,
    "sbatch": sbatch,
    "sbcast": sbcast,
    "scancel": scancel,
    "scontrol": scontrol,
    "sdiag": sdiag,
    "sinfo": sinfo,
    "sprio": sprio,
    "squeue": squeue,
    "sreport": sreport,
    "srun": srun,
    "sshare": sshare,
    "sstat": sstat,
}


def _wants_version(call: Call) -> bool:
    """Whether ``--version`` is among the options; of a launcher only before all else."""
    words = call.words[:1] if call.command in {"sbatch", "salloc", "srun"} else call.words
    return bool({"-V", "--version"}.intersection(words))


def answer(controller: Controller, connection: Any, call: Call) -> int:
    """Do what a command asks and return its exit code.

    Raises:
        Refusal: it is refused, in the command's words.
    """
    if _wants_version(call):
        call.reply.say(f"slurm {release(controller.store.settings().slurm_version)}")
        return 0
    version = controller.store.settings().slurm_version
    try:
        return COMMANDS[call.command](controller, connection, call) or call.reply.code
    except Refusal as error:
        raise Refusal(reworded(error.message, version), error.code) from None
    finally:
        call.reply.err = reworded(call.reply.err, version)
