"""Quantities as people write them (``400 Gb/s``, ``80 GiB``, ``2 us``, ``1-12:00:00``) and as the code keeps them.

Inside hpcplan every quantity is a plain number in a base unit that its name carries: bytes, bytes/s, FLOP/s, seconds,
watts. Decimal prefixes (k M G T P E) are powers of 1,000, binary ones (Ki Mi Gi Ti Pi) powers of 1,024, as IEC 80000-13
has them: links are sold in decimal units, memory in binary ones. ``b`` is a bit and ``B`` a byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = [
    "format_bandwidth",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_flops",
    "format_slurm_time",
    "parse_bandwidth",
    "parse_bytes",
    "parse_count",
    "parse_duration",
    "parse_energy_price",
    "parse_flops",
    "parse_power",
    "parse_slurm_time",
]

_DECIMAL: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY: Final = {f"{p}i": 1024**n for n, p in enumerate("KMGTP", start=1)}
_PREFIX: Final = {**_DECIMAL, **_BINARY}
_TIME: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3,
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip

_NUMBER: Final = re.compile(r"\s*([-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*", re.DOTALL)
_CLOCK: Final = re.compile(r"\s*(?:(\d+)-)?(\d+)(?::(\d{1,2})(?::(\d{1,2}(?:\.\d+)?))?)?\s*")
_MINUTES: Final = re.compile(r"(\d+):(\d{1,2}\.\d+)")  # a fraction is always of the seconds, so this is M:S


def _split(text: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write it like '{example}'")
    value = float(match[1].replace("_", ""))
    if value < 0:
        raise ValueError(f"{text!r} is negative; it must be zero or more")
    if value == float("inf"):
        raise ValueError(f"{text!r} is too large")
    return value, match[2]


def _parse(text: str, units: Mapping[str, float], example: str, kind: str) -> float:
    value, unit = _split(text, example)
    if unit in units:
        return value * units[unit]
    if not unit:
        raise ValueError(f"{text!r} has no unit; write it like '{example}'")
    raise ValueError(f"{unit!r} is not a unit of {kind}; write it like '{example}'")


def _scaled(symbol: str, factor: float = 1.0, prefixes: Mapping[str, float] = _PREFIX) -> dict[str, float]:
    return {f"{prefix}{symbol}": scale * factor for prefix, scale in prefixes.items()}


_BYTES: Final = _scaled("B")
_BANDWIDTH: Final = (
    _scaled("B/s") | _scaled("b/s", 1 / 8) | _scaled("bps", 1 / 8, _DECIMAL) | _scaled("bit/s", 1 / 8, _DECIMAL)
)
_FLOPS: Final = (
    _scaled("FLOP/s", prefixes=_DECIMAL) | _scaled("FLOPS", prefixes=_DECIMAL) | _scaled("OP/s", prefixes=_DECIMAL)
)
_POWER: Final = _scaled("W", prefixes=_DECIMAL)
_COUNT: Final = {**_DECIMAL, "B": 10**9}
_ENERGY_PRICE: Final = {"/kWh": 1.0, "/MWh": 1e-3}


def parse_bytes(text: str) -> int:
    """Return bytes for ``'80 GiB'``, ``'500 GB'`` or ``'512 B'``.

    Raises:
        ValueError: no number, no unit, a unit of something else, or a negative amount.
    """
    return round(_parse(text, _BYTES, "80 GiB", "memory"))


def parse_bandwidth(text: str) -> float:
    """Return bytes/s for ``'400 Gb/s'`` (bits), ``'450 GB/s'`` (bytes) or ``'2 TiB/s'``."""
    return _parse(text, _BANDWIDTH, "400 Gb/s", "bandwidth")


def parse_flops(text: str) -> float:
    """Return FLOP/s for ``'312 TFLOP/s'``."""
    return _parse(text, _FLOPS, "312 TFLOP/s", "arithmetic rate")


def parse_power(text: str) -> float:
    """Return watts for ``'700 W'`` or ``'10.2 kW'``."""
    return _parse(text, _POWER, "700 W", "power")


def parse_energy_price(text: str) -> float:
    """Return the price of one kWh for ``'0.18 /kWh'``; the currency is named once in the site file."""
    return _parse(text, _ENERGY_PRICE, "0.18 /kWh", "energy price")


def parse_count(text: str) -> int:
    """Return a whole number for ``'15T'``, ``'300 B'`` (10**9, as in 'billion tokens'), ``'1.5M'`` or ``'4096'``.

    Raises:
        ValueError: not a number, negative, or not whole after scaling.
    """
    value, unit = _split(text, "15T")
    if unit not in _COUNT:
        raise ValueError(f"{unit!r} is not a multiplier; write k, M, B (or G), T, or the plain number")
    scaled = value * _COUNT[unit]
    if abs(scaled - round(scaled)) > 1e-6 * max(1.0, scaled):
        raise ValueError(f"{text!r} is not a whole number")
    return round(scaled)


def parse_duration(text: str) -> float:
    """Return seconds for ``'2 us'``, ``'30 min'``, ``'36 h'``, ``'12:30:00'`` or Slurm's ``'2-00:00:00'``.

    A clock reading has at least ``HH:MM:SS`` or ``D-HH[:MM[:SS]]``; ``'12:30'`` is refused, since Slurm reads it as
    minutes and people read it as hours.
    """
    clock = _CLOCK.fullmatch(text)
    if clock is not None and (clock[1] is not None or clock[4] is not None):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        if minutes >= 60 or seconds >= 60 or (clock[1] is not None and hours >= 24):
            raise ValueError(f"{text!r} has minutes or seconds above 59, or hours above 23 beside days")
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    if clock is not None and clock[3] is not None:
        raise ValueError(f"{text!r} could be hours:minutes or minutes:seconds; write HH:MM:SS, or like '36 h'")
    return _parse(text, _TIME, "36 h", "time")


def parse_slurm_time(text: str) -> int | None:
    """Return seconds for a time as Slurm writes it, ``None`` for no limit or no value.

    Formats (sbatch(1), ``--time``; sacct(1)): ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``, each with
    optional fractions of a second; ``UNLIMITED``, ``INFINITE``, ``Partition_Limit``, ``NOT_SET``, ``INVALID`` and the
    empty string mean that there is no figure.

    Raises:
        ValueError: none of these.
    """
    word = text.strip()
    if word.lower() in {"", "unlimited", "infinite", "partition_limit", "not_set", "invalid", "n/a", "none", "unknown"}:
        return None
    short = _MINUTES.fullmatch(word)
    if short is not None:
        return round(int(short[1]) * 60 + float(short[2]))
    match = _CLOCK.fullmatch(word)
    if match is None:
        raise ValueError(f"{text!r} is not a time as Slurm writes it (D-HH:MM:SS)")
    days, first, second, third = match.groups()
    if days is not None:
        parts = (int(days) * 86400, int(first) * 3600, int(second or 0) * 60, float(third or 0))
    elif third is not None:
        parts = (0, int(first) * 3600, int(second or 0) * 60, float(third))
    else:
        parts = (0, 0, int(first) * 60, float(second or 0))
    return round(sum(parts))


def format_slurm_time(seconds: float) -> str:
    """Return ``D-HH:MM:SS`` or ``HH:MM:SS``, as sbatch's ``--time`` takes it, rounded up to the second."""
    whole = int(-(-seconds // 1))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    clock = f"{hours:02d}:{minutes:02d}:{secs:02d}"
    return f"{days}-{clock}" if days else clock


def _scale(value: float, steps: list[tuple[float, str]], digits: int) -> str:
    for factor, unit in steps:
        if abs(value) >= factor:
            return f"{value / factor:.{digits}f} {unit}"
    factor, unit = steps[-1]
    return f"{value / factor:.{digits}f} {unit}"


def format_bytes(count: float) -> str:
    """Return bytes in binary units: ``'79.6 GiB'``."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    return _scale(count, [(1024**n, f"{p}iB") for n, p in reversed(list(enumerate("KMGTP", start=1)))], 1)


def format_bandwidth(bytes_per_s: float) -> str:
    """Return bytes/s as links are sold, in decimal bytes: ``'50.0 GB/s'``."""
    return _scale(bytes_per_s, [(1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")], 1)


def format_flops(flop_per_s: float) -> str:
    """Return FLOP/s with its decimal prefix: ``'312.0 TFLOP/s'``."""
    return _scale(flop_per_s, [(1e18, "EFLOP/s"), (1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")], 1)


def format_count(count: float) -> str:
    """Return a count as people say it: ``'15.0 T'``, ``'8.03 B'``, ``'950'``."""
    if abs(count) < 10_000:
        return f"{count:,.0f}"
    return _scale(count, [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")], 2)


def format_duration(seconds: float) -> str:
    """Return a time span as people say it: ``'3 d 4 h'``, ``'2 h 05 min'``, ``'2 min 05 s'``, ``'8.1 ms'``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 99.95:
        return _scale(seconds, [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")], 1) if seconds else "0 s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
