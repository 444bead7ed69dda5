"""The kinds of node that a search may use: each a machine, with the constants and the recipe that hold on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.constants import Constants
from hpcplan.cost.machine import Machine, machine_of
from hpcplan.cost.money import energy_kwh, money
from hpcplan.cost.recipe import Recipe, recipe_of
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Floats, Shardings
from hpcplan.cost.step import Costs, price
from hpcplan.errors import InfeasibleError
from hpcplan.frameworks import FRAMEWORKS, with_capacity
from hpcplan.plan import Precision
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Accelerator, Site, rate_of
from hpcplan.site.topology import Topology
from hpcplan.workload.model import Workload

__all__ = ["Kind", "kinds_of"]

_NARROW = frozenset({"fp8", "int8", "fp4", "int4"})


@dataclass(frozen=True, slots=True)
class Kind:
    """Equal nodes at one precision. Prices and energy are of one node and hour, ``None`` where the site has none."""

    site: str
    group: str
    precision: Precision
    machine: Machine
    chip: Accelerator
    constants: Constants
    recipe: Recipe
    node_hour_price: float | None
    node_hour_kwh: float | None
    currency: str

    @property
    def coefficients(self) -> Coefficients:
        """The cost model's constants on this kind of node."""
        return self.constants.coefficients

    @property
    def gpus_per_node(self) -> int:
        """Accelerators a node."""
        return int(self.machine.gpus_per_node)

    def with_network(self, factor: float) -> Kind:
        """Return this kind with all links between nodes faster by a factor."""
        faster = dataclasses.replace(self.machine, tier_bytes_per_s=self.machine.tier_bytes_per_s * factor)
        return dataclasses.replace(self, machine=faster)

    def price(self, workload: Workload, shardings: Shardings) -> Costs:
        """Return the costs of shardings of a workload, term by term."""
        run = workload.training
        return price(
            Shape.of(workload.model), run.sequence_length, run.global_batch, self.machine, self.coefficients,
            shardings, self.recipe, self.constants.corrected,
        )  # fmt: skip

    def correction(self, workload: Workload, shardings: Shardings) -> Floats | None:
        """Return what measured runs of the site multiply step times by, ``None`` where there are none."""
        near = self.constants.corrected
        if near is None:
            return None
        return near.factor(Shape.of(workload.model), workload.training.sequence_length, shardings)

    def half_width(self, workload: Workload, shardings: Shardings) -> Floats:
        """Return half-widths of 90 % intervals of step times, as shares; broad where no run like it was measured."""
        near = self.constants.corrected
        if near is None:
            return np.broadcast_to(self.constants.half_width(1.0), (len(shardings),))
        shape, sequence = Shape.of(workload.model), workload.training.sequence_length
        return self.constants.half_width(near.nearest(shape, sequence, shardings))

    def free_bytes(self, headroom: float) -> float:
        """Return what an accelerator has for the job when a share of its memory stays free."""
        return float(self.machine.memory_bytes) * (1 - headroom)

    def free_host_bytes(self, headroom: float) -> float:
        """Return what a node's main memory has for the job; infinite where it is not known."""
        return float(np.asarray(self.machine.host_memory_bytes)) * (1 - headroom)


def kinds_of(
    workload: Workload,
    site: Site,
    topology: Topology,
    groups: Sequence[str],
    constants: Callable[[str, Precision], Constants],
    precisions: Sequence[Precision] = (),
) -> list[Kind]:
    """Return the kinds of node of some groups, at the workload's precision or at each of several.

    Args:
        workload: what is trained.
        site: where.
        topology: the site's graph.
        groups: node groups with accelerators.
        constants: returns the constants of a group at a precision.
        precisions: of the products; the workload's if empty.

    Raises:
        InputError: a group without accelerators.
        InfeasibleError: no group's accelerators have any of the precisions, or the framework has none of them.
    """
    asked = precisions or (workload.training.precision,)
    framework = workload.request.framework
    can = FRAMEWORKS[framework].precision
    if not can.intersection(asked):
        raise InfeasibleError(
            f"the framework binds: {framework} does not train in {' or '.join(asked)}",
            hint=f"what would do: --precision {' or '.join(sorted(can))}",
        )
    experts = workload.model.experts
    if experts is not None and experts.capacity_factor is not None and not FRAMEWORKS[framework].capacity:
        raise InfeasibleError(
            f"the framework binds: {framework} gives experts no capacity, but the model's have a factor of "
            f"{experts.capacity_factor:g}",
            hint=f"what would do: --framework {' or '.join(with_capacity())}, or experts without capacity_factor",
        )
    found: list[Kind] = []
    for group in groups:
        chip = accelerator_of(site, group)
        for precision in asked:
            if precision not in can or (chip is not None and not _has(chip, precision)):
                continue
            machine = machine_of(site, topology, group, precision)
            assert chip is not None  # machine_of has seen to it
            machine = dataclasses.replace(machine, host_memory_bytes=float(site.node_groups[group].memory_bytes))
            found.append(
                Kind(
                    site=site.name,
                    group=group,
                    precision=precision,
                    machine=machine,
                    chip=chip,
                    constants=constants(group, precision),
                    recipe=recipe_of(workload.training, chip, site.storage),
                    node_hour_price=money(site, group, 1.0),
                    node_hour_kwh=energy_kwh(site, group, 1.0),
                    currency=site.prices.currency,
                )
            )
    if not found:
        chips = {group: accelerator_of(site, group) for group in groups}
        known = sorted({name for chip in chips.values() if chip is not None for name in chip.peak_flops} & can)
        raise InfeasibleError(
            f"the precision binds: the accelerators of {' and '.join(groups)} at {site.name!r} have no products in "
            f"{' or '.join(asked)}",
            hint=f"what would do: --precision {' or '.join(known)}",
        )
    return found


def _has(chip: Accelerator, precision: Precision) -> bool:
    """Whether a chip has products in a precision; in place of 16 or 32 bits it may have others as wide or wider."""
    return chip.multiplies(precision) or rate_of(precision) not in _NARROW
