"""Figures read from the bytes of many cells at once: eight characters to a machine word, one operation for all rows.

Only what is written the usual way is read; ``ok`` says of each cell whether it was. The others are left to the parsers
of :mod:`hpcplan.report.sacct_cells`, whose value each figure here is equal to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PAD",
    "Bytes",
    "begins_with",
    "ends_with",
    "has_byte",
    "job_ids",
    "memory_bytes",
    "numbers",
    "same",
    "spans_s",
]

PAD: Final = 40  # of zeros before and behind, so that words may be taken at any cell
_ONES: Final = 0x0101010101010101
_HIGH: Final = np.uint64(0x80 * _ONES)
_SHIFTS: Final = np.zeros(256, dtype=np.int64)
_SHIFTS[[ord("K"), ord("M"), ord("G")]] = 10, 20, 30
_MOST_BYTES: Final = 2**59  # the parser knows the limit


def word(text: str) -> np.uint64:
    """Return up to eight characters as the word that they are in memory."""
    return np.uint64(int.from_bytes(text.encode(), "little"))


_LOW: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)  # keeps the first n characters
_LAST: Final = np.array([(2**64 - 1) ^ ((1 << 8 * (8 - n)) - 1) for n in range(9)], dtype=np.uint64)
_ZEROS_WHOLE: Final = word("0" * 8)
_ZEROS: Final = np.array([int(word("0" * 8)) & ((1 << 8 * (8 - n)) - 1) for n in range(9)], dtype=np.uint64)


class Bytes:
    """A text with room around it: ``raw`` are its bytes, of which the first stands at :data:`PAD`."""

    def __init__(self, text: bytes) -> None:
        body = text if text.endswith(b"\n") else text + b"\n"
        padded = b"".join((bytes(PAD), body, bytes(PAD)))
        self.end = PAD + len(body)
        self.raw: NDArray[np.uint8] = np.frombuffer(padded, np.uint8)
        # the words that begin at each byte
        self._words: NDArray[np.uint64] = np.ndarray((len(padded) - 7,), np.dtype("<u8"), padded, strides=(1,))
        self._padded = padded

    def eight(self, at: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the eight bytes from each place on as one number."""
        found: NDArray[np.uint64] = self._words[at]
        return found

    def piece(self, begins: NDArray[np.int64], stops: NDArray[np.int64]) -> bytes:
        """Return what stands between these places, one after the other."""
        return b"".join(map(self._padded.__getitem__, map(slice, begins.tolist(), stops.tolist())))

    def text(self, first: int, end: int) -> str:
        """Return what stands between two places."""
        return self._padded[first:end].decode()


def _form(text: str) -> tuple[np.uint64, np.uint64]:
    """Return what takes a text of the form ``00:00`` to its digits, and what makes the top bit of others set."""
    over = sum((0x76 if letter == "0" else 0x7F) << 8 * place for place, letter in enumerate(text))
    return word(text), np.uint64(over)


_DIGITS: Final = _form("0" * 8)
_TIME: Final = _form("00:00:00")


def _digits(words: NDArray[np.uint64], form: tuple[np.uint64, np.uint64]) -> tuple[Any, Any]:
    """Return digits as small numbers, and whether the words are of that form."""
    found = words ^ form[0]  # a digit becomes its value, any other character ten or more
    return found, ((found | (found + form[1])) & _HIGH) == 0


def _pair(pairs: NDArray[np.uint64], place: int) -> NDArray[np.int64]:
    """Return the number of the two digits at a place."""
    return ((pairs >> np.uint64(8 * place)) & np.uint64(0xFF)).astype(np.int64)


def numbers(text: Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return whole numbers of one to fifteen digits."""
    length = end - first
    value, good = _eight_digits(text, end, np.clip(length, 0, 8))
    good &= length >= 1
    long = np.flatnonzero(good & (length > 8))
    if len(long):
        fits = length[long] <= 15
        lead, fine = _eight_digits(text, end[long] - 8, np.where(fits, length[long] - 8, 1))
        value[long] += lead * 10**8
        good[long] = fits & fine
    return value, good


def _eight_digits(text: Bytes, end: NDArray[np.int64], length: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return the number of the last digits before each end, up to eight, and whether they are digits."""
    found, good = _digits((text.eight(end - 8) & _LAST[length]) | _ZEROS[length], _DIGITS)
    found = found * np.uint64(10) + (found >> np.uint64(8))  # the digits in pairs, which become fours and then eight
    mask = np.uint64(0x000000FF000000FF)
    left = (found & mask) * np.uint64(0x000F424000000064)
    right = ((found >> np.uint64(16)) & mask) * np.uint64(0x0000271000000001)
    return ((left + right) >> np.uint64(32)).astype(np.int64), good


def spans_s(text: Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return seconds of ``[D-]HH:MM:SS[.mmm]``, ``MM:SS[.mmm]`` and plain seconds."""
    tail = text.eight(end - 8)
    fine = (((tail >> np.uint64(32)) & np.uint64(0xFF)) == ord(".")) & (end - first >= 9)
    stop = end - 4 * fine
    length = stop - first
    short = length == 5
    words = text.eight(stop - 8) if fine.any() else tail
    if short.any():
        words = np.where(short, (words & _LAST[5]) | word("00:"), words)
    found, good = _digits(words, _TIME)
    pairs = found * np.uint64(10) + (found >> np.uint64(8))
    whole = _pair(pairs, 0) * 3600 + _pair(pairs, 3) * 60
    seconds = _pair(pairs, 6).astype(np.float64)
    of_days = np.flatnonzero(good & (length >= 10) & (length <= 14))
    good &= short | (length == 8)
    if len(of_days):
        before = stop[of_days] - 9
        days, fit = numbers(text, first[of_days], before)
        good[of_days] = fit & (text.raw[before] == ord("-"))
        whole[of_days] += days * 86400
    at = np.flatnonzero(fine & good)
    if len(at):
        digits, fit = _digits((tail[at] & _LAST[3]) | _ZEROS[3], _DIGITS)
        thousandths = sum((_pair(digits, place) * worth for place, worth in ((5, 100), (6, 10), (7, 1))), 0)
        seconds[at] = (seconds[at] * 1000 + thousandths) / 1000.0  # rounds once, as reading the text does
        good[at] = fit
    value = whole.astype(np.float64) + seconds
    at = np.flatnonzero(~good & ~fine & (length > 0))
    if len(at):
        plain, fit = numbers(text, first[at], end[at])
        value[at] = plain
        good[at] = fit
    return value, good & (value <= 1e9)


def memory_bytes(text: Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return bytes of amounts such as ``39156K``."""
    shift = _SHIFTS[text.raw[end - 1]]
    number, good = numbers(text, first, end - (shift > 0))
    return number << shift, good & (number <= _MOST_BYTES >> shift)


def begins_with(words: NDArray[np.uint64], text: str) -> NDArray[np.bool_]:
    """Return which words begin with these characters, eight at most."""
    found: NDArray[np.bool_] = words & _LOW[len(text)] == word(text)
    return found


def ends_with(text: Bytes, last: NDArray[np.int64], written: bytes) -> NDArray[np.bool_]:
    """Return at which places the last character of these stands, forty at most, with the others before it."""
    found = np.ones(len(last), dtype=bool)
    for left in range(len(written), max(0, len(written) - PAD), -8):
        piece = written[max(0, left - 8) : left]
        words = text.eight(last - 7 - (len(written) - left)) & _LAST[len(piece)]
        found &= words == np.uint64(int.from_bytes(piece.rjust(8, b"\0"), "little"))
    return found


def job_ids(text: Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which cells are surely ids of jobs: ``7``, ``7_3`` or ``7+1``, of sixteen characters at most."""
    good: NDArray[np.bool_] = numbers(text, first, end)[1]
    at = np.flatnonzero(~good & (end - first >= 3) & (end - first <= 16))
    if len(at):
        length, begin = (end - first)[at], first[at]
        one, one_sign = _no_digits(text.eight(begin), np.minimum(length, 8))
        two, two_sign = _no_digits(text.eight(begin + 8), np.maximum(length - 8, 0))
        single = ((one == 0) != (two == 0)) & ((one & (one - np.uint64(1))) == 0) & ((two & (two - np.uint64(1))) == 0)
        inner = (text.raw[begin] <= ord("9")) & (text.raw[begin + length - 1] <= ord("9"))
        inner &= (text.raw[begin] >= ord("0")) & (text.raw[begin + length - 1] >= ord("0"))
        good[at] = single & inner & (one_sign | two_sign)
    return good


def _no_digits(words: NDArray[np.uint64], length: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return the top bits of the characters that are no digits, and whether one of them is ``_`` or ``+``."""
    words = (words & _LOW[length]) | (_ZEROS_WHOLE & ~_LOW[length])
    found = words ^ _ZEROS_WHOLE
    bits = (((found & ~_HIGH) + np.uint64(0x76 * _ONES)) | found) & _HIGH
    sign = np.zeros(len(words), dtype=bool)
    for letter in "_+":
        other = words ^ np.uint64(ord(letter) * _ONES)
        sign |= ((other - np.uint64(_ONES)) & ~other & _HIGH) != 0
    return bits, sign


def has_byte(text: Bytes, first: NDArray[np.int64], end: NDArray[np.int64], letter: str) -> NDArray[np.bool_]:
    """Return whether a letter is in each cell; it is looked for from the end."""
    length = end - first
    pattern, one = np.uint64(ord(letter) * _ONES), np.uint64(_ONES)

    def within(at: NDArray[np.int64], kept: NDArray[np.uint64]) -> NDArray[np.bool_]:
        other = (text.eight(at) ^ pattern) | ~kept
        zero: NDArray[np.bool_] = ((other - one) & ~other & _HIGH) != 0  # some byte of it is
        return zero

    found = within(end - 8, _LAST[np.minimum(length, 8)])
    at, offset = np.flatnonzero(~found & (length > 8)), 0
    while len(at):
        found[at] |= within(first[at] + offset, _LOW[np.minimum(length[at] - offset, 8)])
        offset += 8
        at = at[length[at] > offset]
    return found


def same(
    text: Bytes, first: NDArray[np.int64], other: NDArray[np.int64], length: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the texts of a length at two places are the same."""
    equal = np.ones(len(first), dtype=bool)
    at, offset = np.flatnonzero(length > 0), 0
    while len(at):
        kept = _LOW[np.minimum(length[at] - offset, 8)]
        equal[at] &= ((text.eight(first[at] + offset) ^ text.eight(other[at] + offset)) & kept) == 0
        offset += 8
        at = at[length[at] > offset]
    return equal
