"""What a change would be worth: one more node, twice the network, a lever; each answered by the search itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcplan.cost.shardings import FULL
from hpcplan.errors import HpcplanError
from hpcplan.frameworks import FRAMEWORKS
from hpcplan.partition.adapters import ADAPTED, with_adapters, with_training
from hpcplan.partition.kinds import Kind
from hpcplan.partition.search import Outcome
from hpcplan.workload.model import Workload

__all__ = ["Change", "what_if"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change, and the best that could then be had; ``outcome`` is ``None`` where nothing could, and ``why`` says so.

    ``caveat`` is what the change does beside the price.
    """

    name: str
    outcome: Outcome | None
    why: str
    caveat: str = ""


_CAPACITY = 1.0  # of experts, over the mean load; what Megatron-Bridge's guide on parallelism gives them
Search = Callable[[Workload, Sequence[Kind], tuple[int, int], Mapping[str, int]], Outcome]


def what_if(
    workload: Workload,
    outcome: Outcome,
    fixed: Mapping[str, int],
    search: Search,
    quantized: Sequence[Kind] = (),
) -> list[Change]:
    """Return what changes to the winner's surroundings would bring, the search run anew for each.

    Args:
        workload: what was searched for.
        outcome: what was found.
        fixed: parts of the sharding that are given.
        search: the search itself, with the objective filled in.
        quantized: the winner's kind of node at lower precisions that its accelerator and framework have.
    """
    kind, count = outcome.winner, int(outcome.nodes[0])
    alone = (kind,)
    changes: list[Change] = []

    def attempt(name: str, *question: object, caveat: str = "") -> None:
        try:
            changes.append(Change(name, search(*question), "", caveat))  # type: ignore[arg-type]
        except HpcplanError as error:
            changes.append(Change(name, None, error.message, caveat))

    if count < kind.machine.nodes:
        attempt("one more node", workload, alone, (count + 1, count + 1), fixed)
        better = _next_better(workload, outcome, fixed, search)
        if better is not None and better > count + 1:
            attempt(f"{better - count} more nodes", workload, alone, (better, better), fixed)
    here = (count, count)
    attempt("twice the network between nodes", workload, (kind.with_network(2.0),), here, fixed)
    for name, words in _levers(outcome, fixed):
        attempt(name, workload, alone, here, {**fixed, **words})
    for other in quantized:
        attempt(f"products in {other.precision}", workload, (other,), here, fixed, caveat="changes the numerics")
    if workload.training.pruned == "none" and kind.chip.sparse_speedup > 1:
        training = workload.training.model_copy(update={"pruned": "2:4"})
        attempt("weights pruned 2:4", *with_training(workload, alone, training), here, fixed,
                caveat="needs a pruned model; forward products alone gain")  # fmt: skip
    experts = workload.model.experts
    if experts is not None and experts.capacity_factor is None and FRAMEWORKS[workload.request.framework].capacity:
        capped = experts.model_copy(update={"capacity_factor": _CAPACITY})
        model = workload.model.model_copy(update={"experts": capped})
        attempt(f"experts of capacity factor {_CAPACITY:g}", workload.model_copy(update={"model": model}), alone, here,
                fixed, caveat="drops tokens of experts that more than the mean want")  # fmt: skip
    if workload.training.adapters is None:
        for name, adapters in ADAPTED.items():
            caveat = "fine-tuning of a trained model, not training from scratch"
            attempt(name, *with_adapters(workload, alone, adapters), here, fixed, caveat=caveat)
    return changes


def _levers(outcome: Outcome, fixed: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the levers that the winner does not use, as fixed choices."""
    s = outcome.best
    names = {("recompute", 0): "no recomputation", ("recompute", 1): "selective recomputation",
             ("recompute", 2): "full recomputation", ("offload", 0): "no offload",
             ("offload", 1): "optimizer states on the host"}  # fmt: skip
    for (column, value), name in names.items():
        if column not in fixed and (int(getattr(s, column)[0]) != value or (value == FULL and s.spared_layers[0])):
            whole = {"recompute_layers": 0} if column == "recompute" and value == FULL else {}
            yield name, {column: value, **whole}


def _next_better(workload: Workload, outcome: Outcome, fixed: Mapping[str, int], search: Search) -> int | None:
    """Return the least number of nodes above the winner's, up to an eighth more, that has a better objective."""
    kind, count = outcome.winner, int(outcome.nodes[0])
    for more in range(count + 1, min(kind.machine.nodes, count + max(8, count // 8)) + 1):
        try:
            found = search(workload, (kind,), (more, more), fixed)
        except HpcplanError:
            continue
        if found.value < outcome.value:
            return more
    return None
