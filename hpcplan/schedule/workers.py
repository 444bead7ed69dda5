"""Independent pieces of work on all processors, in processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

__all__ = ["Workers", "processors"]

C = TypeVar("C")
R = TypeVar("R")
_ALONE_S: Final = 1.5  # work is done here for so long before other processes are started
_context: Any = None  # in a worker: what its work is about


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[C]):
    """Applies functions to a ``context``, which is sent to each process once, and to the arguments of each piece."""

    def __init__(self, context: C, count: int) -> None:
        self._context = context
        self._count = count
        self._spent_s = 0.0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def each(self, function: Callable[..., R], pieces: Sequence[tuple[Any, ...]]) -> Iterator[R]:
        """Yield ``function(context, *piece)`` of each piece, in their order, however many processes there are."""
        left = iter(pieces)
        while self._count < 2 or self._spent_s < _ALONE_S:
            piece = next(left, None)
            if piece is None:
                return
            began = time.monotonic()
            found = function(self._context, *piece)
            self._spent_s += time.monotonic() - began
            yield found
        yield from self._elsewhere(function, left)

    def _elsewhere(self, function: Callable[..., R], pieces: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        if self._pool is None:
            # A server that was started without threads makes the processes: this one may have some, as those of a
            # progress bar, and a copy of it might wait for their locks for ever.
            methods = multiprocessing.get_all_start_methods()
            method = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=method, initializer=_begin, initargs=(self._context,)
            )
        open_ = [self._pool.submit(_apply, function, piece) for piece in pieces]
        for future in open_:
            yield future.result()


def _begin(context: Any) -> None:
    global _context
    _context = context
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End when the process that wants the results is no more, whatever is under way."""
    wait([sentinel])
    os._exit(1)


def _apply(function: Callable[..., R], piece: tuple[Any, ...]) -> R:
    return function(_context, *piece)
