"""Closed forms on toruses: hops, neighbourhoods, bisection and the most compact free box.

A torus of dimensions k1 x k2 x ... has two links a node and dimension, one where k is 2, none where k is 1; routing is
along one dimension after the other (Dally and Towles, Principles and Practices of Interconnection Networks, chapters
3 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from hpcplan.site.fabric import Torus
from hpcplan.site.hierarchy import Floats, Ints, Levels

__all__ = ["Grid", "links_of"]

_MAX_LEVEL = 126


def links_of(dims: Sequence[int]) -> int:
    """Return how many links a node has."""
    return sum(0 if size == 1 else 1 if size == 2 else 2 for size in dims)


@dataclass(frozen=True, eq=False)
class Grid:
    """One torus: ``hosts`` are the numbers of its nodes in the order of the file, last dimension fastest."""

    torus: Torus
    hosts: Ints

    @cached_property
    def coordinates(self) -> Ints:
        """The place of each node: shape (nodes, dimensions)."""
        places = np.unravel_index(np.arange(len(self.hosts)), self.torus.dims)
        return np.stack(places, axis=1)

    def pairs(self, places: Ints) -> tuple[Levels, Floats, Floats]:
        """Return hops, bandwidth (of all shortest paths together) and latency of all pairs of nodes, by their index."""
        hops: Ints = np.zeros((len(places), len(places)), dtype=np.int64)
        ways: Ints = np.zeros_like(hops)
        for axis, size in enumerate(self.torus.dims):
            here = self.coordinates[places, axis]
            straight = np.abs(here[:, None] - here[None, :])
            steps = np.minimum(straight, size - straight)
            hops += steps
            ways += (steps > 0).astype(np.int64) + ((2 * steps == size) & (size > 2))
        level = np.minimum(hops, _MAX_LEVEL).astype(np.int8)
        bandwidth: Floats = ways.astype(float) * self.torus.link_bytes_per_s
        return level, bandwidth, hops.astype(float) * self.torus.latency_s

    def boxes(self) -> list[tuple[int, ...]]:
        """Return box shapes of growing volume up to the whole, each about as compact as its volume allows."""
        shape = [1] * len(self.torus.dims)
        found = [tuple(shape)]
        while tuple(shape) != self.torus.dims:
            axis = min((a for a, k in enumerate(self.torus.dims) if shape[a] < k), key=lambda a: (shape[a], -a))
            shape[axis] = min(self.torus.dims[axis], shape[axis] * 2)
            found.append(tuple(shape))
        return found

    def share_bytes_per_s(self, shape: Sequence[int]) -> float:
        """Return what each node of a box can send when all of them talk to all others at once.

        Half of what a node sends crosses the middle of the box; its cut has the links of one cross-section, twice where
        the box spans the whole ring and so closes on itself.
        """
        nodes = math.prod(shape)
        if nodes == 1:
            return math.inf
        cut = self.cut_links(shape)
        crossing = (nodes // 2) * math.ceil(nodes / 2) / (nodes - 1)  # pairs across, over the partners of each node
        degree = sum(min(2, k - 1) if k == full else 1 for k, full in zip(shape, self.torus.dims, strict=True) if k > 1)
        return self.torus.link_bytes_per_s * min(degree, cut / crossing)

    def cut_links(self, shape: Sequence[int]) -> int:
        """Return the links that cross the middle of a box, across its longest side (an even one where there is)."""
        sides = [axis for axis, k in enumerate(shape) if k > 1]
        axis = max(sides, key=lambda a: (shape[a] % 2 == 0, shape[a]))
        section = math.prod(shape) // shape[axis]
        closed = shape[axis] == self.torus.dims[axis] and shape[axis] > 2
        return section * (2 if closed else 1)

    def diameter(self, shape: Sequence[int]) -> int:
        """Return the most hops between two nodes of a box."""
        return sum(k // 2 if k == full else k - 1 for k, full in zip(shape, self.torus.dims, strict=True))

    def choose(self, count: int, free: Ints) -> Ints | None:
        """Return ``count`` of the ``free`` places (indices into the torus) in the smallest box that has them, or None.

        Boxes are tried by volume, then by surface, at every place; where no box is free as a whole, the nodes nearest
        to the one with the most free neighbours are taken.
        """
        if len(free) < count:
            return None
        is_free = np.zeros(self.torus.dims, dtype=bool)
        is_free.ravel()[free] = True
        for shape in _shapes(self.torus.dims, count):
            if math.prod(shape) > 2 * count:
                break
            windows = _windows(is_free, shape)
            full = np.flatnonzero(windows.ravel() == math.prod(shape))
            if len(full):
                start = [int(axis) for axis in np.unravel_index(int(full[0]), self.torus.dims)]
                return _places(start, shape, self.torus.dims)[:count]
        return self._around(count, free, is_free)

    def _around(self, count: int, free: Ints, is_free: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Ints:
        shape = tuple(min(k, max(1, round(count ** (1 / len(self.torus.dims))))) for k in self.torus.dims)
        crowd = _windows(is_free, shape)
        start = np.unravel_index(int(np.argmax(crowd)), self.torus.dims)
        centre = np.array([(int(s) + k // 2) % full for s, k, full in zip(start, shape, self.torus.dims, strict=True)])
        straight = np.abs(self.coordinates[free] - centre)
        hops = np.minimum(straight, np.array(self.torus.dims) - straight).sum(axis=1)
        return np.sort(free[np.argsort(hops, kind="stable")[:count]])

    def loads(self, sources: Ints, targets: Ints, amounts: Floats) -> Floats:
        """Return the load of each link, by direction, when flows take one dimension after the other, the shorter way.

        Args:
            sources: indices of nodes, shape (flows,).
            targets: the same for the other end.
            amounts: of each flow; where both ways round are as long, half goes each way.

        Returns:
            Shape (nodes, dimensions, 2): what leaves each node upwards and downwards along each dimension.
        """
        load = np.zeros((len(self.hosts), len(self.torus.dims), 2))
        at = self.coordinates[sources].copy()
        goal = self.coordinates[targets]
        for axis, size in enumerate(self.torus.dims):
            ahead = (goal[:, axis] - at[:, axis]) % size
            for way, steps in ((0, ahead), (1, (size - ahead) % size)):
                part = np.where(2 * ahead == size, 0.5, (steps < size - steps) & (ahead > 0)) * amounts
                self._walk(load, at, axis, way, np.where(part > 0, steps, 0), part)
            at[:, axis] = goal[:, axis]
        return load

    def _walk(self, load: Floats, start: Ints, axis: int, way: int, steps: Ints, amount: Floats) -> None:
        at = start.copy()
        size = self.torus.dims[axis]
        for step in range(int(steps.max(initial=0))):
            moving = np.flatnonzero(steps > step)
            places = np.ravel_multi_index(tuple(at[moving].T), self.torus.dims)
            np.add.at(load, (places, axis, way), amount[moving])
            at[moving, axis] = (at[moving, axis] + (1 if way == 0 else -1)) % size


def _shapes(dims: Sequence[int], count: int) -> Iterator[tuple[int, ...]]:
    """Yield the boxes that hold ``count``, the smallest volume first, of equal ones the least surface."""
    found: list[tuple[int, ...]] = []
    for head in product(*(range(1, min(size, count) + 1) for size in dims[:-1])):
        last = math.ceil(count / math.prod(head))
        if last <= dims[-1]:
            found.append((*head, last))
    yield from sorted(found, key=lambda shape: (math.prod(shape), sum(math.prod(shape) // k for k in shape)))


def _windows(is_free: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], shape: Sequence[int]) -> Ints:
    """Return how many free places the box of that shape holds that begins at each place, wrapping round."""
    total: Ints = is_free.astype(np.int64)
    for axis, width in enumerate(shape):
        size = total.shape[axis]
        wrapped = np.concatenate([total, np.take(total, range(width - 1), axis=axis)], axis=axis)
        sums = np.concatenate(
            [np.zeros_like(np.take(wrapped, [0], axis=axis)), np.cumsum(wrapped, axis=axis)], axis=axis
        )
        total = np.take(sums, range(width, width + size), axis=axis) - np.take(sums, range(size), axis=axis)
    return total


def _places(start: Sequence[int], shape: Sequence[int], dims: Sequence[int]) -> Ints:
    axes = [(int(s) + np.arange(k)) % full for s, k, full in zip(start, shape, dims, strict=True)]
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.ravel_multi_index(tuple(axis.ravel() for axis in mesh), tuple(dims)).astype(np.int64)
