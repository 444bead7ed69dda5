"""What the number format of matrix products costs beside the products: bytes of an operand, and casts to it.

The casts are those of Transformer Engine. An operand is read in 16 bits and written once for the forward and once for
the backward pass, whose products take it along the other dimension. A scale for a whole tensor is the same along both;
Hopper multiplies 8-bit operands in one layout only and needs the copy transposed, later chips do not. Scales of blocks
belong to a direction, so that both copies are written everywhere. A scale that is taken from the values themselves
(current scaling) takes one more pass over them before; delayed scaling takes it from earlier steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcplan.plan import Precision

__all__ = ["Format", "format_of"]


@dataclass(frozen=True, slots=True)
class Format:
    """Bytes an element: of an operand with its share of the scales, and read and written by a cast of it (0: none)."""

    operand_bytes: float
    cast_bytes: float


_SCALED_BLOCKS = {  # bytes of an element and its share of the scale, and passes over 16 bits before the cast
    "mxfp8": (1 + 1 / 32, 0),
    "fp8-blockwise": (1 + 4 / 128, 0),
    "fp4": (0.5 + 1 / 16, 1),  # NVFP4 has a scale for the whole tensor beside those of its blocks
}
_SCALED_TENSORS = {"fp8": 1, "fp8-delayed": 0, "int8": 1, "int4": 1}
_PLAIN = {"fp32": 4.0, "tf32": 4.0}


def format_of(precision: Precision, *, transposes: bool) -> Format:
    """Return the format of a precision; ``transposes`` where the chip needs 8-bit operands in one layout."""
    if precision in _SCALED_BLOCKS:
        size, passes = _SCALED_BLOCKS[precision]
        return Format(size, 2.0 * (1 + passes) + 2 * size)
    if precision in _SCALED_TENSORS:
        size = 0.5 if precision == "int4" else 1.0
        return Format(size, 2.0 * (1 + _SCALED_TENSORS[precision]) + size * (2 if transposes else 1))
    return Format(_PLAIN.get(precision, 2.0), 0.0)
