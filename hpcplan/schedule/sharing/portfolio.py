"""``PORTFOLIO.yaml``: the workloads that share a site, and what each is promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from hpcplan.documents import Document, Loc, read_document
from hpcplan.errors import InputError
from hpcplan.frameworks import Framework
from hpcplan.quantities import Count, Duration, NonNegative
from hpcplan.validation import Value, validate
from hpcplan.workload.load import LoadedWorkload, load_workload
from hpcplan.workload.model import NodeRange, Workload

__all__ = ["Entry", "Portfolio", "Wanted", "read_portfolio"]

Positive = Annotated[float, Field(gt=0)]


class Entry(Value):
    """One workload of a portfolio; what is absent is as the workload itself says."""

    workload: str = Field(description="a name, a workload file, or a Hugging Face `config.json`; beside this file")
    name: str | None = Field(None, description="that of the workload if absent; each must have its own")
    priority: Positive = Field(1.0, description="its claim under the `priority` policy")
    weight: Positive | None = Field(None, description="in weighted completion and throughput; the priority if absent")
    arrival_s: Duration | None = Field(None, alias="arrival", description="when it may start, from now")
    deadline_s: Duration | None = Field(None, alias="deadline", description="when it must be done, from now")
    budget: NonNegative | None = Field(None, description="most that it may cost, in the site's currency")
    tokens: Count | None = None
    global_batch: Count | None = None
    sequence_length: Count | None = None
    nodes: NodeRange | None = Field(None, description="a number, or the least and the most")
    framework: Framework | None = None
    partition: str | None = None
    node_group: str | None = None


class Portfolio(Value):
    """Workloads that share one site."""

    name: str = "portfolio"
    partition: str | None = Field(None, description="for all workloads that name none; all that are up if absent")
    budget: NonNegative | None = Field(None, description="most that all may cost together")
    horizon_s: Duration | None = Field(None, alias="horizon", description="when throughput is counted")
    workloads: tuple[Entry, ...] = Field(min_length=1)

    def inconsistencies(self) -> Iterable[tuple[Loc, str]]:
        """Yield deadlines that are over before their workload may start."""
        for index, entry in enumerate(self.workloads):
            if entry.deadline_s is not None and entry.deadline_s <= (entry.arrival_s or 0.0):
                yield ("workloads", index, "deadline"), "must be after 'arrival'; both are counted from now"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One workload of a portfolio, loaded; deadline and budget are taken out of it, for the allocation sees to them."""

    name: str
    loaded: LoadedWorkload
    priority: float
    weight: float
    arrival_s: float
    deadline_s: float | None
    budget: float | None


def read_portfolio(path: Path, document: Document | None = None) -> tuple[Portfolio, list[Wanted]]:
    """Read a portfolio and the workloads that it names.

    Raises:
        InputError: the file or a workload is not valid, or two workloads have one name; with file, line and field.
    """
    document = document or read_document(path)
    portfolio = validate(document, Portfolio)
    wanted = [_wanted(document, portfolio, index, path.parent) for index in range(len(portfolio.workloads))]
    problems = [document.problem(loc, message) for loc, message in _same_names(wanted)]
    if problems:
        raise InputError(problems)
    return portfolio, wanted


def _same_names(wanted: list[Wanted]) -> Iterator[tuple[Loc, str]]:
    for name, count in Counter(each.name for each in wanted).items():
        if count > 1:
            second = [i for i, each in enumerate(wanted) if each.name == name][1]
            yield ("workloads", second), f"{count} workloads are called {name!r}; give each a 'name' of its own"


def _wanted(document: Document, portfolio: Portfolio, index: int, folder: Path) -> Wanted:
    entry = portfolio.workloads[index]
    beside = folder / entry.workload
    try:
        loaded = load_workload(beside if beside.is_file() else entry.workload)
    except InputError as error:
        place = document.problem(("workloads", index, "workload"), "cannot be used")
        raise InputError([place, *error.problems], hint=error.hint) from None
    data = loaded.workload.model_dump()
    request = data["request"]
    deadline_s = entry.deadline_s if entry.deadline_s is not None else request["deadline_s"]
    budget = entry.budget if entry.budget is not None else request["budget"]
    given: dict[str, Any] = entry.model_dump()
    data["training"] |= {key: given[key] for key in ("tokens", "global_batch", "sequence_length") if given[key]}
    request |= {key: given[key] for key in ("nodes", "framework", "node_group") if given[key] is not None}
    request["partition"] = entry.partition or request["partition"] or portfolio.partition
    request |= {"deadline_s": None, "budget": None}
    data["name"] = entry.name or data["name"]
    try:
        workload = Workload.model_validate(data)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise InputError(document.problem(("workloads", index), message)) from None
    return Wanted(
        name=workload.name,
        loaded=LoadedWorkload(workload, loaded.path, loaded.origin, loaded.assumed),
        priority=entry.priority,
        weight=entry.priority if entry.weight is None else entry.weight,
        arrival_s=entry.arrival_s or 0.0,
        deadline_s=deadline_s,
        budget=budget,
    )
