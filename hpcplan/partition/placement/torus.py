"""Placement on toruses: the load of their links, boxes to pack nodes into, and an order that goes from neighbour to
neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.hostlist import compress
from hpcplan.partition.placement.network import TreeNetwork
from hpcplan.plan import Neighbourhood
from hpcplan.site.hierarchy import Hierarchy
from hpcplan.site.torus import Grid

__all__ = ["TorusNetwork", "boxes", "snake"]

_SMALLEST_BOX = 4


class TorusNetwork:
    """Toruses, joined by a tree where there are several. Routing is along one dimension after the other."""

    def __init__(self, tree: TreeNetwork, hierarchy: Hierarchy, grids: Sequence[Grid], efficiency: float) -> None:
        """Take the tree above the toruses, and what share of their rate links reach."""
        self.hosts = tree.hosts
        self._tree = tree
        self._grids = tuple(grids)
        self._grid = np.full(len(self.hosts), -1, dtype=np.int64)
        self._place = np.zeros(len(self.hosts), dtype=np.int64)
        rates = [tree.rate]
        for number, grid in enumerate(self._grids):
            self._grid[grid.hosts] = number
            self._place[grid.hosts] = np.arange(len(grid.hosts))
            rates.append(np.full(grid.coordinates.size * 2, grid.torus.link_bytes_per_s * efficiency))
        self.rate = np.concatenate(rates)
        self.node_rate = tree.node_rate
        self.effort = 1.0 + max(sum(size // 2 for size in grid.torus.dims) for grid in self._grids)

    def loads(self, source: Ints, target: Ints, amount: Floats) -> Floats:
        """Return the bytes on every link, shape (placements, links)."""
        inside = (self._grid[source] == self._grid[target]) & (self._grid[source] >= 0)
        own = np.where(inside, source, target)  # what stays in its torus goes nowhere in the tree
        total = [self._tree.loads(own, target, np.where(inside, 0.0, 1.0) * amount) if not inside.all() else
                 np.zeros((len(source), len(self._tree.rate)))]  # fmt: skip
        for number, grid in enumerate(self._grids):
            here = inside & (self._grid[source] == number)
            total.append(_grid_loads(grid, self._place[source], self._place[target], np.where(here, amount, 0.0)))
        return np.concatenate(total, axis=1)

    def latency(self, source: Ints, target: Ints) -> Floats:
        """Return seconds from host to host: hops on a torus, over the tree between toruses."""
        result = self._tree.latency(source, target)
        for number, grid in enumerate(self._grids):
            inside = (self._grid[source] == number) & (self._grid[target] == number)
            a, b = grid.coordinates[self._place[source]], grid.coordinates[self._place[target]]
            straight = np.abs(a - b)
            hops = np.minimum(straight, np.array(grid.torus.dims) - straight).sum(axis=-1)
            result = np.where(inside, hops * grid.torus.latency_s, result)
        return result

    def nearest_s(self, hosts: Ints) -> float:
        """Return the latency of one hop, or less where hosts are on no torus."""
        hops = [grid.torus.latency_s for grid in self._grids]
        return min([*hops, self._tree.nearest_s(hosts)]) if (self._grid[hosts] < 0).any() else min(hops)

    def link(self, number: int) -> tuple[str, str]:
        """Return the names of the two ends of a link, in the direction of the traffic."""
        if number < len(self._tree.rate):
            return self._tree.link(number)
        number -= len(self._tree.rate)
        for grid in self._grids:
            if number < grid.coordinates.size * 2:
                place, axis, way = np.unravel_index(number, (*grid.coordinates.shape, 2))
                to = grid.coordinates[place].copy()
                to[axis] = (to[axis] + (-1 if way else 1)) % grid.torus.dims[axis]
                end = int(np.ravel_multi_index(tuple(to), grid.torus.dims))
                return self.hosts[grid.hosts[place]], self.hosts[grid.hosts[end]]
            number -= grid.coordinates.size * 2
        raise IndexError(number)


def _grid_loads(grid: Grid, source: Ints, target: Ints, amount: Floats) -> Floats:
    """Return the load of each link by direction, shape (placements, places x dimensions x 2), of flows between places.

    As :meth:`hpcplan.site.torus.Grid.loads`, for many placements in one call: sources, targets and amounts have shape
    (placements, flows).
    """
    dims = grid.torus.dims
    links = grid.coordinates.size * 2
    row = np.broadcast_to(np.arange(len(source))[:, None] * links, source.shape)
    load = np.zeros(len(source) * links)
    at = source.copy()
    for axis, size in enumerate(dims):
        stride = int(np.prod(dims[axis + 1 :]))
        here, goal = at // stride % size, target // stride % size
        ahead = (goal - here) % size
        for way, steps in ((0, ahead), (1, (size - ahead) % size)):
            part = np.where(2 * ahead == size, 0.5, (steps < size - steps) & (ahead > 0)) * amount
            left = np.where(part > 0, steps, 0)
            for step in range(int(left.max(initial=0))):
                moving = left > step
                along = (here[moving] + (step if way == 0 else -step)) % size
                place = at[moving] + (along - here[moving]) * stride
                link = row[moving] + (place * len(dims) + axis) * 2 + way
                load += np.bincount(link, part[moving], minlength=load.size)
        at = at + (goal - here) * stride
    return load.reshape(len(source), links)


def snake(grid: Grid, places: Ints) -> Ints:
    """Return places of a torus in boustrophedon order: the next is a neighbour wherever the places are a box."""
    at = grid.coordinates[places]
    keys: list[Ints] = []
    turned = np.zeros(len(places), dtype=np.int64)
    for axis in range(at.shape[1]):
        column = at[:, axis]
        _, rank = np.unique(column, return_inverse=True)
        keys.append(np.where(turned % 2 == 1, -rank.ravel(), rank.ravel()))
        turned = turned + rank.ravel()
    return places[np.lexsort(keys[::-1])]


def boxes(grid: Grid, hosts: Sequence[str], names: Sequence[str]) -> list[Neighbourhood]:
    """Return a torus as boxes within boxes, each half of the one around it, children before parents.

    Args:
        grid: the torus.
        hosts: those of it that matter.
        names: of all hosts of the site, by number.
    """
    wanted = set(hosts)
    found: list[Neighbourhood] = []

    def split(low: tuple[int, ...], shape: tuple[int, ...], parent: str | None) -> None:
        name = grid.torus.name + (f"[{_label(low, shape)}]" if parent else "")
        axis = max(range(len(shape)), key=lambda a: (shape[a], -a))
        volume = int(np.prod(shape))
        members = [names[grid.hosts[place]] for place in _inside(grid, low, shape)] if volume <= _SMALLEST_BOX else []
        if volume > _SMALLEST_BOX:
            half = shape[axis] // 2
            for start, size in ((0, half), (half, shape[axis] - half)):
                corner = tuple(at + (start if a == axis else 0) for a, at in enumerate(low))
                split(corner, tuple(size if a == axis else k for a, k in enumerate(shape)), name)
        mine = [member for member in members if member in wanted]
        found.append(
            Neighbourhood(
                name=name, parent=parent, nodes=compress(mine) if mine else None, latency_s=grid.torus.latency_s,
                uplink_bytes_per_s=_surface(grid, shape) * grid.torus.link_bytes_per_s if parent else None,
            )
        )  # fmt: skip

    split((0,) * len(grid.torus.dims), grid.torus.dims, None)
    return found


def _label(low: Sequence[int], shape: Sequence[int]) -> str:
    return ",".join(f"{at}-{at + size - 1}" if size > 1 else str(at) for at, size in zip(low, shape, strict=True))


def _inside(grid: Grid, low: Sequence[int], shape: Sequence[int]) -> Ints:
    at = grid.coordinates
    inside = ((at >= np.array(low)) & (at < np.array(low) + np.array(shape))).all(axis=1)
    return np.flatnonzero(inside)


def _surface(grid: Grid, shape: Sequence[int]) -> int:
    """Return how many links leave a box in one direction."""
    volume = int(np.prod(shape))
    sides = [(volume // k) * (2 if full > 2 else 1) for k, full in zip(shape, grid.torus.dims, strict=True) if k < full]
    return max(1, sum(sides))
