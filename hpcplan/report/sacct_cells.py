"""One cell of sacct's output at a time: times, amounts, job ids, TRES strings, as sacct(1) writes them.

Every function returns ``None`` for the words that mean *no figure* and raises ``ValueError`` for text that is none of
the documented forms. Nothing here turns unknown into zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

__all__ = [
    "MAX_BYTES",
    "MAX_COUNT",
    "MAX_TIME",
    "Clock",
    "JobName",
    "amount",
    "backfilled",
    "campaign_token",
    "count",
    "duration_s",
    "energy_j",
    "exit_code",
    "gpu_type",
    "gpus_of_gres",
    "job_name",
    "memory_bytes",
    "node_name",
    "requested_memory",
    "tres",
]

MAX_COUNT: Final = 10**9  # CPUs, nodes, tasks or GPUs of one job: more than any machine has
_MAX_SECONDS: Final = 10**10  # 317 years, also of CPU time: a million cores for two hours
MAX_BYTES: Final = 2**60
MAX_TIME: Final = 2**35
_MAX_ENERGY_J: Final = 1e15  # a gigawatt for eleven days

_NO_FIGURE: Final = frozenset(
    {
        "", "unknown", "none", "none assigned", "invalid", "unlimited", "infinite", "partition_limit", "not_set",
        "n/a", "(null)", "null", "nan",
    }
)  # fmt: skip
_DURATION: Final = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)")
_SUFFIX: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_JOB: Final = re.compile(
    r"(?P<base>\d+)(?:_(?P<task>\d+|\[[^\]]*\]?))?(?:\+(?P<component>\d+))?(?:\.(?P<step>[\w.+\-\[\]]+))?"
)


def _blank(text: str) -> bool:
    return text.strip().lower() in _NO_FIGURE


def duration_s(text: str) -> float | None:
    """Return seconds for ``[D-][HH:]MM:SS[.mmm]`` (sacct(1), Elapsed, TotalCPU, Timelimit) or plain seconds.

    Plain numbers are seconds, as in ElapsedRaw and CPUTimeRAW.
    """
    word = text.strip()
    if _blank(word):
        return None
    match = _DURATION.fullmatch(word)
    if match is not None:
        days, hours, minutes, seconds = match.groups()
        value = int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    elif word.isascii() and word.isdigit():
        value = float(word)
    else:
        raise ValueError(f"{_short(text)} is not a time span like 1-02:03:04")
    if value > _MAX_SECONDS:
        raise ValueError(f"{_short(text)} is a longer time than can be")
    return value


def count(text: str) -> int | None:
    """Return a whole number such as AllocCPUS or NNodes, also when sacct has abbreviated it (``2K`` is 2,000)."""
    value = amount(text, step=1000)
    if value is None:
        return None
    if value > MAX_COUNT:
        raise ValueError(f"{_short(text)} is more than any machine has")
    return round(value)


def amount(text: str, *, step: int) -> float | None:
    """Return a number with an optional suffix K, M, G, T, P or E, each worth ``step`` times the one before."""
    word = text.strip()
    if _blank(word):
        return None
    match = _AMOUNT.fullmatch(word.upper())
    if match is None:
        raise ValueError(f"{_short(text)} is not a number")
    return float(match[1]) * float(step) ** _SUFFIX[match[2]]


def memory_bytes(text: str) -> int | None:
    """Return bytes for ``39156K``, ``1.5G``, ``0`` (sacct(1): suffixes are powers of 1,024)."""
    word = text.strip()
    value = amount(word[:-1] if word[-1:] in "Bb" and word[-2:-1].isalpha() else word, step=1024)
    if value is None:
        return None
    if value > MAX_BYTES:
        raise ValueError(f"{_short(text)} is more memory than any machine has")
    return round(value)


def requested_memory(text: str) -> tuple[int, str] | None:
    """Return bytes and ``"cpu"``, ``"node"`` or ``"job"``: what the amount is counted per.

    ``4Gc`` is per CPU and ``4Gn`` per node (sacct before 21.08); without a letter it is the whole job's. ``0n`` and
    ``0`` mean all memory of each node, which the figure itself does not tell: ``None``.
    """
    word = text.strip()
    if _blank(word):
        return None
    per = {"c": "cpu", "n": "node"}.get(word[-1:], "job")
    value = memory_bytes(word if per == "job" else (word[:-1] or "?"))  # a letter alone is no amount
    return (value, per) if value else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


@dataclass(frozen=True, slots=True)
class JobName:
    """A job id as sacct shows it: ``label`` names the job (``7_3``, ``7+1``), ``step`` its step, if it is one."""

    label: str
    base: int
    task: int | None
    step: str | None


def job_name(text: str) -> JobName:
    """Return the parts of ``7``, ``7_3``, ``7_[4-9%2]``, ``7+1``, ``7.batch``, ``7_3.0``."""
    match = _JOB.fullmatch(text.strip())
    if match is None or len(match["base"]) > 18:
        raise ValueError(f"{_short(text)} is not a job id")
    label = text.strip() if match["step"] is None else text.strip()[: match.start("step") - 1]
    task = match["task"]
    number = int(task) if task is not None and task.isdigit() and len(task) <= 18 else None
    return JobName(label, int(match["base"]), number, match["step"])


def tres(text: str) -> dict[str, str]:
    """Return the parts of ``cpu=8,mem=32G,gres/gpu:a100=1``, the first of each; a part without ``=`` is refused."""
    parts: dict[str, str] = {}
    word = text.strip()
    if _blank(word):
        return parts
    for part in word.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise ValueError(f"{_short(text)} is not a list of trackable resources like cpu=8,mem=32G")
        parts.setdefault(name.strip().lower(), value.strip())
    return parts


def gpus_of_gres(text: str) -> int:
    """Return the GPUs of one node in a GRES list: ``gpu:2``, ``gpu:a100:4(S:0-1)``, ``gres:gpu:2,license:1``."""
    total = 0
    for part in re.sub(r"\([^()]*\)", "", text.strip().lower()).split(","):
        words = re.split(r"[:/=]", part.strip().removeprefix("gres:").removeprefix("gres/"))
        if words[0] == "gpu":
            total += int(words[-1]) if words[-1].isdecimal() and len(words[-1]) <= 9 else 1
    return total


def gpu_type(held: Mapping[str, str]) -> str | None:
    """Return what kinds of GPU are among trackable resources, as Slurm calls them: ``a100``, or ``a100,h100``."""
    kinds = sorted(name.removeprefix("gres/gpu:") for name in held if name.startswith("gres/gpu:"))
    return ",".join(kinds) or None


def exit_code(text: str) -> int | None:
    """Return the code of ``1:0``: exit code, then signal (sacct(1), ExitCode)."""
    return count(text.partition(":")[0])


def energy_j(text: str) -> float | None:
    """Return joules of ConsumedEnergyRaw, or of ConsumedEnergy (``1.50M``); zero was not measured, nor is 2⁶⁴ − 2."""
    value = amount(text, step=1000)
    return value if value and value < _MAX_ENERGY_J else None


def backfilled(flags: str) -> bool | None:
    """Return whether the backfill scheduler started a job, by sacct's Flags (since 19.05)."""
    words = {word.strip().lower() for word in flags.split(",")}
    return True if "schedbackfill" in words else False if words & {"schedmain", "schedsubmit"} else None


def node_name(text: str) -> str | None:
    """Return a node's name, ``None`` for the words that mean that there is none."""
    return None if _blank(text) else text.strip()


def campaign_token(comment: str) -> str | None:
    """Return what hpcplan writes into the comments of its own jobs, ``None`` for other comments."""
    found = re.search(r"hpcplan:[^\s|,;]+", comment)
    return found[0] if found is not None else None


class Clock:
    """Turns sacct's local times into unix seconds: ``zone`` is where sacct ran, the machine's own zone if ``None``.

    sacct writes local time without saying which (sacct(1), SLURM_TIME_FORMAT), so an hour that occurs twice in autumn
    is told apart only by the elapsed time: see :meth:`interval`.
    """

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self._known: dict[str, tuple[int, int] | None] = {}
        self._naive: dict[int, tuple[int, int]] = {}

    def read(self, text: str) -> int | None:
        """Return unix seconds; of an hour that occurs twice, the first."""
        both = self._both(text)
        return None if both is None else both[0]

    def interval(self, start: str, end: str, elapsed_s: float | None) -> tuple[int | None, int | None]:
        """Return start and end; where either could be one of two hours, the pair that fits the elapsed time."""
        starts, ends = self._both(start), self._both(end)
        if starts is None or ends is None:
            return (starts[0] if starts else None), (ends[0] if ends else None)
        if elapsed_s is not None and (starts[0] != starts[1] or ends[0] != ends[1]):
            for first in starts:
                for last in ends:
                    if abs(last - first - elapsed_s) <= 2:
                        return first, last
        return starts[0], ends[0]

    def _both(self, text: str) -> tuple[int, int] | None:
        if text in self._known:
            return self._known[text]
        value = self._parse(text)
        if len(self._known) < 1_000_000:
            self._known[text] = value
        return value

    def _parse(self, text: str) -> tuple[int, int] | None:
        word = text.strip()
        if _blank(word) or word == "0":
            return None
        if word.isascii() and word.isdigit() and len(word) <= 12:
            return _plausible(int(word), text), int(word)
        moment = _moment(word)
        if moment.tzinfo is not None:
            stamp = round(moment.timestamp())
            return _plausible(stamp, text), stamp
        first, second = self._stamps(moment)
        return _plausible(first, text), second

    def both_of(self, naive_s: int) -> tuple[int, int]:
        """Return the two unix times that a local time can be, given as seconds since 1970 by the clock on the wall."""
        found = self._naive.get(naive_s)
        if found is None:
            found = self._naive[naive_s] = self._stamps(datetime.fromtimestamp(naive_s, UTC).replace(tzinfo=None))
        return found

    def _stamps(self, moment: datetime) -> tuple[int, int]:
        if self.zone is None:  # .astimezone() of a naive time asks the machine's own zone
            first, second = (round(moment.replace(fold=fold).astimezone(UTC).timestamp()) for fold in (0, 1))
        else:
            first, second = (round(moment.replace(tzinfo=self.zone, fold=fold).timestamp()) for fold in (0, 1))
        return first, second


def _plausible(stamp: int, text: str) -> int:
    if not 0 <= stamp < MAX_TIME:
        raise ValueError(f"{_short(text)} is not a time at which Slurm existed")
    return stamp


def _moment(word: str) -> datetime:
    try:
        moment = datetime.fromisoformat(word)
        if moment.year < 1970 or moment.year > 3000:
            raise ValueError
    except ValueError:
        raise ValueError(f"{_short(word)} is not a point in time like 2024-05-01T12:00:00") from None
    return moment
