"""The job ids of arrays and their tasks, on a real Slurm 22.05 and on a mock of it."""

from __future__ import annotations

import re

from tests.slurm.twin import Both, wait_until

SHOWN = (
    "squeue -h -S i -n story -o '%i|%A|%F|%K|%t|%l'",
    "squeue -h -r -n story -o '%i|%A|%K|%t' | sort",
    "squeue -h -j $(cat id)_1,$(cat id)_4 -o '%i|%A'",
    "squeue -h -j $(cat id)_4 -o '%i|%A|%K'",
    "scontrol show job $(cat id) | grep -o 'JobId=.*JobName\\|JobState=[A-Z]*\\|StdOut=.*/.*'",
    "scontrol show job $(cat id)_1 | grep -o 'JobId=.*JobName\\|StdOut=.*/.*'",
    "scontrol show job $(cat id)_9; scontrol hold $(cat id)_9; scontrol update jobid=$(cat id)_9 timelimit=3",
    "sacct -nP -j $(cat id)_1 -o JobID",
    "scontrol show config | grep NEXT_JOB_ID",
    "squeue -h -n waits -o %E",
)
RECORDED = ("sacct -nPX -j $(cat id) -o JobID,JobIDRaw,State,TimelimitRaw",)
STORY = (
    "sbatch --parsable -H -J story -a 1-6%2 -N1 -t 5 --exclusive --wrap 'sleep 60' > id",
    "scancel $(cat id)_6",
    "scontrol update jobid=$(cat id)_2 timelimit=7",
    "sbatch -H -J other --wrap true",
    "scontrol release $(cat id)_3",
    "sbatch -H -J waits -d afterany:$(cat id),afterok:$(cat id)_4 --wrap true",
    "scancel $(cat id)_1",
)
WAIT_FOR = {  # what takes its time on the real one
    "--parsable": ("sacct -nX -j $(cat id)",),
    "release": ("squeue -h -t R -n story -o %i", "sacct -nX -j $(cat id) -s R"),
}


def relative(text: str, array: int) -> str:
    """Return a text with job ids counted from the array's."""

    def one(match: re.Match[str]) -> str:
        number = int(match[0])
        return f"+{number - array}" if array <= number < 4_000_000_000 else match[0]

    return re.sub(r"(?<![\d-])\d+(?![\d-])", one, text)


def test_an_array_and_its_tasks_have_the_same_ids(both: Both) -> None:
    both.each("sbatch --parsable -H -J first -a 1-25 --wrap true > first; scontrol hold $(cat first)_[1-24]")
    # from here on ids are no task numbers
    different = {}
    for line in STORY:
        both.each(line)
        for waited in WAIT_FOR.get(line.split()[1], ()):
            for which in ("real", "mock"):
                wait_until(lambda which=which, waited=waited: both.run(which, waited).stdout)  # type: ignore[misc]
        known = line.split()[1] in WAIT_FOR  # slurmdbd hears of the rest when the next task starts
        shown = "; ".join(
            f"echo == {number}; {one}" for number, one in enumerate((*SHOWN, *(RECORDED if known else ())))
        )
        real, mock = (
            relative(f"{answer.stdout}{answer.stderr}".replace(str(both.folders[which]), "DIR"), array)
            for which, answer in zip(("real", "mock"), both.each(shown), strict=True)
            for array in (int((both.folders[which] / "id").read_text()),)
        )
        if mock != real:
            different[line] = {"real": real, "mock": mock}
    assert different == {}
