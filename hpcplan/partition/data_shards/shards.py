"""How the training data is divided: lanes, and where each of them is at every step.

Files (or pieces of them) are divided over *lanes*. A step takes as many sequences from every lane, and each
data-parallel rank reads ``lanes / dp`` whole lanes. Which sequences a step trains on therefore does not depend on the
number of ranks: a chain of jobs may go on with another data-parallel size at any step, as long as it divides the lanes.

A lane is an endless stream of tokens: its pieces one after the other, in every pass (epoch) in another order, that of
the SHA-256 of ``SEED:EPOCH:FILE:START``, the file by its number. All lanes are at the same place of their streams at
every step, so that a step is all there is to remember.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import gcd

from hpcplan.errors import InputError
from hpcplan.partition.data_shards.balance import Division, divide, division_of
from hpcplan.partition.data_shards.inputs import DataFile
from hpcplan.rank_map import divisors

__all__ = ["Piece", "Range", "Shards", "choose_lanes", "lanes_of_rank", "make_shards", "usable_sizes"]

_PIECES_A_LANE = 8  # longest first leaves next to nothing uneven beyond
_WORTH_CUTTING = 0.01  # of unevenness
_ORDERS_KEPT = 4096  # of lanes and passes, in memory


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``start`` to ``stop`` (not included) of a file, by its number."""

    file: int
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Range:
    """Tokens ``start`` to ``stop`` (not included) of a file, read in one go, in a pass that counts from 0."""

    lane: int
    epoch: int
    path: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Shards:
    """The division: files, pieces by lane, and the figures of a step."""

    files: tuple[DataFile, ...]
    lanes: tuple[tuple[Piece, ...], ...]
    sequence_length: int
    global_batch: int
    seed: int
    division: Division
    _orders: dict[tuple[int, int], tuple[tuple[Piece, ...], tuple[int, ...]]] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        """Of one pass over all files."""
        return sum(self.division.load)

    @property
    def tokens_a_step(self) -> int:
        """What each lane gives a step."""
        return self.global_batch // len(self.lanes) * self.sequence_length

    def lane_token(self, step: int) -> int:
        """Return where every lane is in its stream when ``step`` (from 1) begins, in tokens.

        Raises:
            InputError: no such step.
        """
        if step < 1:
            raise InputError(f"step {step}: steps count from 1")
        return (step - 1) * self.tokens_a_step

    def epoch_order(self, lane: int, epoch: int) -> tuple[tuple[Piece, ...], tuple[int, ...]]:
        """Return the pieces of a lane in the order of one pass, and where each begins in it, in tokens."""
        if (lane, epoch) not in self._orders:
            if len(self._orders) >= _ORDERS_KEPT:
                self._orders.clear()
            order = tuple(sorted(self.lanes[lane], key=lambda piece: self._key(piece, epoch)))
            begins = tuple(accumulate((piece.tokens for piece in order[:-1]), initial=0))
            self._orders[lane, epoch] = order, begins
        return self._orders[lane, epoch]

    def _key(self, piece: Piece, epoch: int) -> bytes:
        return hashlib.sha256(f"{self.seed}:{epoch}:{piece.file}:{piece.start}".encode()).digest()

    def ranges(self, lane: int, first_token: int, count: int) -> Iterator[Range]:
        """Yield what a lane's stream has from ``first_token`` on, ``count`` tokens in all."""
        length = self.division.load[lane]
        while count > 0:
            epoch, inside = divmod(first_token, length)
            pieces, begins = self.epoch_order(lane, epoch)
            at = bisect_right(begins, inside) - 1
            piece = pieces[at]
            start = piece.start + inside - begins[at]
            stop = min(piece.stop, start + count)
            yield Range(lane, epoch, self.files[piece.file].path, start, stop)
            first_token += stop - start
            count -= stop - start

    def of_rank(self, rank: int, dp: int, first_step: int, last_step: int) -> Iterator[Range]:
        """Yield what a data-parallel rank reads in steps ``first_step`` to ``last_step``, lane by lane.

        Raises:
            InputError: no such step or rank, or ``dp`` does not divide the lanes.
        """
        first, end = self.lane_token(first_step), self.lane_token(last_step + 1)
        for lane in lanes_of_rank(len(self.lanes), rank, dp):
            yield from self.ranges(lane, first, end - first)


def lanes_of_rank(lanes: int, rank: int, dp: int, shares: Sequence[int] = ()) -> range:
    """Return the lanes that a data-parallel rank reads: as many as any other, or by ``shares``, one a rank.

    Raises:
        InputError: no such rank, or the lanes cannot be divided so.
    """
    if not 0 <= rank < dp:
        raise InputError(f"rank {rank}: with dp {dp}, ranks are 0 to {dp - 1}")
    parts = list(shares) or [1] * dp
    if len(parts) != dp or min(parts) < 1:
        raise InputError(f"shares: {len(parts)} are given for {dp} ranks; each rank has one, of 1 or more")
    if lanes % sum(parts):
        fitting = divisors(lanes)
        what = f"shares that add up to {sum(parts)}" if shares else f"dp {dp}"
        raise InputError(
            f"{lanes} lanes cannot be divided by {what}; what divides them: {', '.join(map(str, fitting))}"
        )
    each = lanes // sum(parts)
    first = each * sum(parts[:rank])
    return range(first, first + each * parts[rank])


def choose_lanes(files: int, global_batch: int, dp: int) -> int:
    """Return how many lanes: as many as the batch can be divided over, ``dp`` divides, and 8 files can be had for each.

    The more lanes, the more data-parallel sizes can go on with them.

    Raises:
        InputError: ``dp`` does not divide the batch.
    """
    if global_batch % dp:
        raise InputError(f"dp {dp} does not divide the global batch of {global_batch} sequences")
    most = max(dp, files // _PIECES_A_LANE)
    share = global_batch // dp
    return dp * max(d for d in divisors(share) if dp * d <= most)


def _cut_evenly(files: Sequence[DataFile], lanes: int) -> list[list[Piece]]:
    """Return lanes of the same length, to a token: the files one after the other, cut where a lane is full.

    McNaughton's wrap-around rule (1959, Scheduling with deadlines and loss functions, theorem 3.1): at most a cut less
    than there are lanes.
    """
    total = sum(file.tokens for file in files)
    found: list[list[Piece]] = [[] for _ in range(lanes)]
    lane = begin = 0
    for number, file in enumerate(files):
        start = 0
        while start < file.tokens:
            end = total * (lane + 1) // lanes
            stop = min(file.tokens, end - begin)
            if stop > start:
                found[lane].append(Piece(number, start, stop))
            lane += stop < file.tokens or begin + stop == end
            start = stop
        begin += file.tokens
    return found


def make_shards(
    files: Sequence[DataFile], *, sequence_length: int, global_batch: int, lanes: int, seed: int = 0, cut: bool = True
) -> Shards:
    """Return the division of files over ``lanes``.

    Files stay whole where that leaves the longest lane within 1 % of the mean; otherwise some are cut (unless ``cut``
    is false), fewer than there are lanes, and lanes are equal to a token.

    Raises:
        InputError: the lanes do not divide the batch, or there are fewer tokens than lanes or, uncut, fewer files.
    """
    if global_batch % lanes:
        raise InputError(f"{lanes} lanes do not divide the global batch of {global_batch} sequences")
    total = sum(file.tokens for file in files)
    if total < lanes * sequence_length:
        raise InputError(f"{total:,} tokens do not fill {lanes} lanes with a sequence of {sequence_length:,} each")
    division = divide([file.tokens for file in files], lanes)
    members: list[list[Piece]] = [[] for _ in range(lanes)]
    for number, (file, lane) in enumerate(zip(files, division.lane, strict=True)):
        members[lane].append(Piece(number, 0, file.tokens))
    if cut and division.imbalance > _WORTH_CUTTING:
        members = _cut_evenly(files, lanes)
        division = division_of([[piece.tokens for piece in lane] for lane in members], -(-total // lanes), "cut")
    if not min(division.load):
        raise InputError(f"{len(files)} files do not fill {lanes} lanes; cut them, or ask for fewer lanes")
    return Shards(tuple(files), tuple(tuple(lane) for lane in members), sequence_length, global_batch, seed, division)


def usable_sizes(lanes: int, global_batch: int) -> list[int]:
    """Return the data-parallel sizes that can read the lanes."""
    return divisors(gcd(lanes, global_batch))
