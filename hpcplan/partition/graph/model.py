"""A graph of layers or operators, the machine to split it over, and what a split is.

The model is that of Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph Operators" (NeurIPS
2020), section 3: samples stream through the devices, so throughput is set by the busiest one. An accelerator's load is
the time of its nodes, and the transfer time of every output that crosses its border, once, in or out; a CPU's load is
the time of its nodes. Times are in the unit of the input (milliseconds in the published graphs), sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerGraph", "Node", "Split"]


@dataclass(frozen=True, slots=True)
class Node:
    """A layer or operator. ``transfer`` is the time to move its output between an accelerator and host memory."""

    id: int
    name: str
    on_accelerator: bool
    cpu_time: float
    accelerator_time: float
    size_bytes: float
    backward: bool
    color: int | None
    transfer: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """Nodes, the edges between them as pairs of indices into ``nodes``, and the devices to split them over."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    accelerators: int
    cpus: int
    memory_bytes: float

    @property
    def training(self) -> bool:
        """Whether any node belongs to the backward pass."""
        return any(node.backward for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Split:
    """Which device has which node, the load of each, and how good that is.

    ``objective`` is the load of the busiest device and ``bound`` a proven lower bound on what any split can reach;
    they are equal when the split is proven optimal. Devices are called ``acc0``, ``acc1``, ... and ``cpu0``, ... in
    the order in which data flows through them.
    """

    objective: float
    bound: float
    assignment: dict[int, str]
    loads: dict[str, float]

    @property
    def gap(self) -> float:
        """How much lower the optimum might be, as a fraction of the objective; 0 is a proof of optimality."""
        return 0.0 if self.objective <= self.bound else (self.objective - self.bound) / self.objective

    def as_dict(self) -> dict[str, object]:
        """Return what ``hpcplan partition --format json`` prints."""
        return {
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "assignment": {str(node): device for node, device in self.assignment.items()},
            "loads": self.loads,
        }
