"""Node-name lists as Slurm writes them: ``gpu[001-004,007]``, ``r[1-2]n[0-3]``, ``login,n[5-3]``.

Order and duplicates are kept and padding is respected, as ``scontrol show hostnames`` and ``scontrol show hostlist``
do (scontrol(1)). Of two brackets the second varies faster; of more, the last, then the first, then the second and so
on (``_push_range_list`` in Slurm's hostlist.c, 20.11 to 26.05). Text after the last bracket, which Slurm reads since
23.11, is always read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

__all__ = ["MAX_HOSTS", "compress", "expand"]

MAX_HOSTS = 1_000_000  # more than any site has; a list that names more is a mistake or an attack

_PART = re.compile(r"[^\[\],\s]+|\[[^\[\]]*\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand(text: str, *, limit: int = MAX_HOSTS) -> list[str]:
    """Return the names that a hostlist stands for, in its order.

    Raises:
        ValueError: brackets that do not match, a range that is not one, an empty element, or more than ``limit`` names.

    >>> expand("n[08-10],login")
    ['n08', 'n09', 'n10', 'login']
    """
    names: list[str] = []
    for element in _elements(text, limit):
        pieces: list[list[str]] = []
        total = 1
        parts = _PART.findall(element)
        for part in parts:
            choices = _bracket(part[1:-1], element, limit) if part.startswith("[") else [part]
            total *= len(choices)
            if total + len(names) > limit:
                raise ValueError(f"hostlist {_shorten(text)!r} names more than {limit:,} nodes")
            pieces.append(choices)
        names.extend(_combinations(pieces, [n for n, part in enumerate(parts) if part.startswith("[")]))
    return names


def _combinations(pieces: Sequence[Sequence[str]], brackets: Sequence[int]) -> Iterator[str]:
    if len(brackets) <= 2:
        yield from map("".join, product(*pieces))
        return
    slowest_first = [*reversed(range(brackets[-1])), *range(brackets[-1], len(pieces))]
    for values in product(*(pieces[index] for index in slowest_first)):
        yield "".join(value for _, value in sorted(zip(slowest_first, values, strict=True)))


def _elements(text: str, limit: int) -> list[str]:
    """Split at the commas that are outside brackets."""
    elements: list[str] = []
    depth, start = 0, 0
    for position, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        if depth not in (0, 1):
            raise ValueError(f"hostlist {_shorten(text)!r} has brackets that do not match")
        if char == "," and depth == 0:
            elements.append(text[start:position])
            if len(elements) > limit:
                raise ValueError(f"hostlist {_shorten(text)!r} names more than {limit:,} nodes")
            start = position + 1
    if depth:
        raise ValueError(f"hostlist {_shorten(text)!r} has brackets that do not match")
    elements.append(text[start:])
    elements = [element.strip() for element in elements]
    for element in elements:
        if not element or any(char.isspace() or not char.isprintable() for char in element):
            raise ValueError(f"hostlist {_shorten(text)!r} has an empty element or one with a space in it")
    return elements


def _bracket(body: str, element: str, limit: int) -> list[str]:
    values: list[str] = []
    for item in body.split(","):
        match = _RANGE.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{item!r} in {_shorten(element)!r} is neither a number nor a range like 001-004")
        low, high = match[1], match[2] or match[1]
        if max(len(low), len(high)) > 18 or int(high) - int(low) >= limit:
            raise ValueError(f"hostlist {_shorten(element)!r} names more than {limit:,} nodes")
        if int(high) < int(low):
            raise ValueError(f"range {item!r} in {_shorten(element)!r} runs backwards")
        values.extend(f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1))
        if len(values) > limit:
            raise ValueError(f"hostlist {_shorten(element)!r} names more than {limit:,} nodes")
    return values


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def compress(names: Iterable[str]) -> str:
    """Return the shortest hostlist that expands to ``names`` in the same order, joining neighbours alone.

    >>> compress(["n08", "n09", "n10", "login", "n11"])
    'n[08-10],login,n11'
    """
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    for name in names:
        stem = name.rstrip("0123456789")
        number = name[len(stem) :]
        if number and len(number) <= 18:
            if groups and groups[-1][0] == stem and groups[-1][1]:
                _extend(groups[-1][1], number)
            else:
                groups.append((stem, [(number, number)]))
        else:
            groups.append((name, []))
    return ",".join(_written(stem, ranges) for stem, ranges in groups)


def _extend(ranges: list[tuple[str, str]], number: str) -> None:
    low, high = ranges[-1]
    if int(number) == int(high) + 1 and f"{int(number):0{len(low)}d}" == number:  # what expand() would write
        ranges[-1] = (low, number)
    else:
        ranges.append((number, number))


def _written(stem: str, ranges: list[tuple[str, str]]) -> str:
    if not ranges:
        return stem
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return stem + ranges[0][0]
    return stem + "[" + ",".join(low if low == high else f"{low}-{high}" for low, high in ranges) + "]"
