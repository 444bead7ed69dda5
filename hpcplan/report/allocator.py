"""What the C library does with memory that is freed: kept for the next block of a dump, or given back at once.

Of glibc alone (mallopt(3)); elsewhere nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["freed_memory_kept"]

_TRIM_THRESHOLD: Final = -1  # malloc.h
_MMAP_THRESHOLD: Final = -3
_KEPT: Final = {_TRIM_THRESHOLD: 256 * 1024**2, _MMAP_THRESHOLD: 32 * 1024**2}
_AFTER: Final = 64 * 1024**2  # as far as glibc raises it by itself, which it no longer does once it was set


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed meanwhile: a page that is asked for anew costs as much as reading what is on it."""
    import ctypes

    try:
        known = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        known = None
    if not known:
        yield
        return
    library = ctypes.CDLL(None)
    for which, size in _KEPT.items():
        library.mallopt(which, size)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, _AFTER)
        library.malloc_trim(0)
