"""What is left of nodes that jobs share: CPUs, GPUs and memory of each, and who has them whole (select/cons_tres)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from hpcplan.simulate.shared_choice import Offer

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Request
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.placement import Placement

__all__ = ["Capacity", "Holding", "Resources", "indices", "mask_of"]

_MIB: Final = 1024**2
_CPUS, _GPUS, _MEMORY, _JOBS, _WHOLE, _OTHERS = range(6)  # rows; from the last on, one for each other GRES
_MANY: Final = 8  # jobs whose amounts are added up before they are given back
Vector = NDArray[np.int32]
Table = NDArray[np.int32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


def indices(mask: int, count: int) -> Indices:
    """Return the positions of the bits of ``mask``, of ``count`` nodes."""
    packed = np.frombuffer(mask.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(packed, count=count, bitorder="little"))


def mask_of(chosen: Flags) -> int:
    """Return the mask of the positions that are true."""
    return int.from_bytes(np.packbits(chosen, bitorder="little").tobytes(), "little")


class Holding:
    """What one job has: a column for each of its nodes, in their order."""

    __slots__ = ("amounts", "nodes")

    def __init__(self, nodes: Indices, amounts: Table) -> None:
        self.nodes = nodes
        self.amounts = amounts

    def saved(self) -> list[Any]:
        """Return plain data for JSON; :meth:`from_saved` is its inverse."""
        return [self.nodes.tolist(), self.amounts.tolist()]

    @classmethod
    def from_saved(cls, data: Sequence[Any]) -> Holding:
        """Return the holding of :meth:`saved`."""
        return cls(np.array(data[0], np.intp), np.array(data[1], np.int32).reshape(len(data[1]), len(data[0])))

    def split(self, mask: int) -> tuple[Holding, Holding]:
        """Return what is on other nodes than those of ``mask``, and what is on those."""
        inside = np.array([mask >> node & 1 for node in self.nodes.tolist()], bool)
        return (
            Holding(self.nodes[~inside], self.amounts[:, ~inside]),
            Holding(self.nodes[inside], self.amounts[:, inside]),
        )

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs of each node."""
        return tuple(int(count) for count in self.amounts[_CPUS])


class Capacity:
    """What the nodes have when nobody uses them, and what requests come to on each."""

    def __init__(self, machine: Machine) -> None:
        self.count = len(machine.names)
        self.others = sorted({name for group in machine.groups for name, _ in group.other_gres})
        self.rows = _OTHERS + len(self.others)
        self.full = np.zeros((self.rows, self.count), np.int32)
        self.threads = np.ones(self.count, np.int32)
        self.units = np.ones(self.count, np.int32)  # CPUs that go to one job together
        whole_sockets = self.whole_sockets = machine.sharing is not None and machine.sharing.sockets
        self.weights = np.zeros(self.count, np.int64)
        self.near = np.zeros(self.count, np.int64)  # see Resources.weigh
        self.consumable = machine.sharing is not None and machine.sharing.cpus
        for group in machine.groups:
            where = indices(group.mask, self.count)
            self.full[_CPUS, where] = group.cpus
            self.full[_GPUS, where] = group.gpus
            self.full[_MEMORY, where] = group.memory_bytes // _MIB
            self.threads[where] = group.threads_per_core
            self.units[where] = (whole_sockets and group.cpus_per_socket) or group.threads_per_core
            for name, count in group.other_gres:
                self.full[_OTHERS + self.others.index(name), where] = count
            self.weights[where] = group.weight << 8
        self._needs: dict[object, Table] = {}

    @property
    def countable(self) -> tuple[Vector, Vector, list[Vector]]:
        """CPUs and memory (MiB) of each node; GPUs, and whatever other GRES there are, in the order of ``others``."""
        return self.full[_CPUS], self.full[_MEMORY], [self.full[_GPUS], *self.full[_OTHERS:]]

    def need(self, request: Request) -> Table:
        """Return the CPUs (in whole cores or sockets), GPUs, memory (MiB) and other GRES that the request takes of each
        node at least, in the rows of :attr:`full`.
        """
        key = (
            request.node_cpus, request.node_gpus, request.node_memory_bytes, request.memory_per_cpu_bytes,
            request.node_gres,
        )  # fmt: skip
        found = self._needs.get(key)
        if found is None:
            found = np.zeros((self.rows, self.count), np.int32)
            found[_CPUS] = -(-request.node_cpus // self.units) * self.units
            for name, count in request.node_gres:
                found[_OTHERS + self.others.index(name)] = count
            found[_GPUS] = request.node_gpus
            memory = request.node_memory_bytes
            if request.memory_per_cpu_bytes:
                found[_MEMORY] = -(-found[_CPUS].astype(np.int64) * request.memory_per_cpu_bytes // _MIB)
            else:
                found[_MEMORY] = self.full[_MEMORY] if memory is None else -(-memory // _MIB)
            self._needs[key] = found
        return found


class Resources:
    """What is free now, or will be at some time: rows of CPUs, GPUs, memory, and minus the jobs and those that are
    alone.
    """

    def __init__(self, capacity: Capacity, free: Table | None = None) -> None:
        self.capacity = capacity
        self.free = capacity.full.copy() if free is None else free

    def copy(self) -> Self:
        """Return the same, to be changed apart."""
        return type(self)(self.capacity, self.free.copy())

    def room(self, request: Request, times: int = 1) -> int:
        """Return the nodes that have what the request takes of a node, if CPUs may be given out ``times`` times."""
        return mask_of(self._fitting(request, times))

    def idle(self) -> int:
        """Return the nodes without a job."""
        return mask_of(self.free[_JOBS] == 0)

    def full(self) -> int:
        """Return the nodes whose CPUs are all given out."""
        return mask_of((self.free[_CPUS] <= 0) | (self.free[_WHOLE] < 0))

    def _fitting(self, request: Request, times: int) -> Flags:
        free = self.free
        if request.whole:
            idle: Flags = (free[_JOBS] > -times) & (free[_WHOLE] == 0)
            return idle
        need = self.capacity.need(request)
        cpus = free[_CPUS] if times == 1 else free[_CPUS] + (times - 1) * self.capacity.full[_CPUS]
        fits: Flags = (
            (cpus >= need[_CPUS])
            & (free[_GPUS] >= need[_GPUS])
            & (free[_MEMORY] >= need[_MEMORY])
            & (free[_WHOLE] == 0)
        )
        if request.node_gres:
            fits &= (free[_OTHERS:] >= need[_OTHERS:]).all(axis=0)
        return fits

    def usable_cpus(self, request: Request, times: int = 1, *, near_gpus: bool = True) -> Vector:
        """Return how many CPUs of each node the request could use, whole cores, if CPUs may be given ``times`` times.

        It takes all that are free, but no more than there is memory for where memory goes by the CPU; of a job with
        GPUs only those that a node has to give are looked for, ``near_gpus``.
        """
        capacity = self.capacity
        full: Vector = capacity.full[_CPUS]
        if request.whole:
            return full
        cpus: Vector = self.free[_CPUS] + (times - 1) * full
        if request.memory_per_cpu_bytes:
            with_memory = self.free[_MEMORY] // max(1, request.memory_per_cpu_bytes // _MIB)
            units = np.maximum(0, -(-(cpus - with_memory) // capacity.units))
            cpus = np.maximum(0, cpus - units * capacity.units)
            cpus = cpus // request.node_cpus * request.node_cpus
        if near_gpus and request.gres_a_node and not request.spread:
            cpus = np.minimum(cpus, capacity.need(request)[_CPUS])
        return cpus

    def weigh(self, request: Request, mask: int, *, ever: bool = False) -> None:
        """Note that a job is looked at on these nodes, or where it could run ``ever``.

        A node that a job with GRES is looked at on counts as lighter by as many as it asks for, for the plans of all
        jobs, until it is weighed anew (:meth:`level`). So does slurmctld, so that such jobs go where GPUs are near.
        """
        count = request.gres_a_node
        if count:
            need = self.capacity.need(request)
            there = self.capacity.full if ever else self.free
            fits: Flags = there[_GPUS] >= need[_GPUS]
            if request.node_gres:
                fits &= (there[_OTHERS:] >= need[_OTHERS:]).all(axis=0)
            if not ever:
                fits &= self.free[_MEMORY] >= need[_MEMORY]
            self.capacity.near[indices(mask & request.eligible & mask_of(fits), self.capacity.count)] = count

    def level(self, request: Request, mask: int) -> None:
        """Give these nodes of a job their own weights again, as before a job is started."""
        if self.capacity.near.any():
            self.capacity.near[indices(mask & request.eligible, self.capacity.count)] = 0

    def choose(self, request: Request, placement: Placement, mask: int) -> int:
        """Return the nodes of ``mask`` that the request would be given, 0 if it does not fit: idle CPUs first."""
        capacity = self.capacity
        self.weigh(request, mask)
        for times in range(1, request.jobs_per_resource + 1):
            usable = self.room(request, times) & mask & request.eligible
            if usable.bit_count() < request.minimum:
                continue
            if not capacity.consumable:
                nodes = placement.choose(request, usable)
            else:
                offer = Offer(
                    self.usable_cpus(request, times),
                    capacity.threads,
                    self.free[_GPUS],
                    capacity.weights - capacity.near,
                )
                nodes = placement.choose_shared(request, usable, indices(usable, capacity.count), offer)
            if nodes:
                return nodes
        return 0

    def holding(self, request: Request, nodes: int, cpus: Sequence[int] | None = None) -> Holding:
        """Return what the request takes of these nodes; ``cpus`` of each, where that is settled already."""
        capacity = self.capacity
        where = indices(nodes, capacity.count)
        if request.whole:
            amounts = capacity.full[:, where].copy()
            amounts[_JOBS] = 1
            amounts[_WHOLE] = request.jobs_per_resource == 1
            return Holding(where, amounts)
        amounts = capacity.need(request)[:, where].copy()
        amounts[_JOBS] = 1
        if cpus is not None:
            amounts[_CPUS] = cpus
            return Holding(where, amounts)
        if capacity.whole_sockets:
            amounts[_CPUS] = self._of_sockets(request, where, amounts[_CPUS])
        left = request.cpus - request.node_cpus * len(where)
        if left > 0:
            more = self.usable_cpus(request, near_gpus=False)[where]
            units = capacity.units[where]
            for position in range(len(where)):
                extra = max(0, min(left, int(more[position]) - request.node_cpus))
                amounts[_CPUS, position] = -(-(request.node_cpus + extra) // units[position]) * units[position]
                left -= extra
        return Holding(where, amounts)

    def _of_sockets(self, request: Request, where: Indices, cpus: Vector) -> Vector:
        """Return the CPUs of the sockets that a job gets: where one is not enough, it is given a core of each in turn,
        and of whatever it has one core, all are its own.
        """
        units, threads = self.capacity.units[where], self.capacity.threads[where]
        cores = -(-request.node_cpus // threads)
        sockets = np.minimum(cores, self.free[_CPUS, where] // units)
        return np.where(cpus > units, np.maximum(cpus, sockets * units), cpus)

    def take(self, holding: Holding) -> None:
        """Give out what a job gets."""
        self.free[:, holding.nodes] -= holding.amounts

    def give_back(self, *holdings: Holding) -> None:
        """Take back what jobs had."""
        if len(holdings) < _MANY:
            for one in holdings:
                self.free[:, one.nodes] += one.amounts
            return
        nodes = np.concatenate([one.nodes for one in holdings])
        amounts = np.concatenate([one.amounts for one in holdings], axis=1)
        order = nodes.argsort(kind="stable")
        nodes = nodes[order]
        firsts = np.flatnonzero(np.diff(nodes, prepend=-1))
        self.free[:, nodes[firsts]] += np.add.reduceat(amounts[:, order], firsts, axis=1)
