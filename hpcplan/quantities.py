"""Field types for values that people write with a unit.

At the door (a file) a quantity must carry its unit: ``memory: 80`` is refused, ``memory: 80 GiB`` is 85,899,345,920.
Inside, where the field's name carries the unit, plain numbers are what is kept, dumped and read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from hpcplan import units

__all__ = [
    "Bandwidth",
    "Bytes",
    "Count",
    "Duration",
    "EnergyPrice",
    "Flops",
    "Fraction",
    "NonNegative",
    "PositiveInt",
    "Watts",
]


def _reader(parse: Callable[[str], float], example: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a quantity like '{example}'")
        if info.context and info.context.get("door"):
            raise ValueError(f"{value!r} has no unit; write it like '{example}'")
        return value

    return BeforeValidator(read)


def _read_count(value: Any) -> Any:
    return units.parse_count(value) if isinstance(value, str) else value


Bytes = Annotated[int, _reader(units.parse_bytes, "80 GiB"), Field(gt=0)]
Bandwidth = Annotated[float, _reader(units.parse_bandwidth, "400 Gb/s"), Field(gt=0)]
Flops = Annotated[float, _reader(units.parse_flops, "312 TFLOP/s"), Field(gt=0)]
Watts = Annotated[float, _reader(units.parse_power, "700 W"), Field(ge=0)]
Duration = Annotated[float, _reader(units.parse_duration, "36 h"), Field(gt=0)]
EnergyPrice = Annotated[float, _reader(units.parse_energy_price, "0.18 /kWh"), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_read_count), Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
