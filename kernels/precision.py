"""How finely an engine keeps its numbers: a relative rounding, an absolute one for the smallest, and an end."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """A way of keeping numbers.

    unit : relative rounding of one number. least : half the distance of those that are too small for that, the
    subnormal ones. largest : the largest number; what lies beyond becomes infinite.
    """

    name: str
    unit: float
    least: float
    largest: float

    def coarser(self, other: "Precision") -> "Precision":
        """The one with the larger rounding, which also rounds small numbers as the worse of both does."""
        wider = max(self, other, key=lambda precision: precision.unit)
        return Precision(wider.name, wider.unit, max(self.least, other.least), min(self.largest, other.largest))


def _of_bits(name: str, unit: float, digits: int, lowest: int, largest: float) -> Precision:
    """digits : after the binary point; lowest : the least exponent of a number with all of them."""
    return Precision(name, unit, 2.0 ** (lowest - digits - 1), largest)


FLOAT32 = _of_bits("float32", 2.0**-24, 23, -126, (2 - 2.0**-23) * 2.0**127)
# What tensor cores make of the inputs of a float32 product: the digits of half precision, cut or rounded, and the range
# of float32.
TF32 = _of_bits("TF32", 2.0**-12, 10, -126, FLOAT32.largest)
FLOAT16 = _of_bits("float16", 2.0**-12, 10, -14, 65504.0)
BFLOAT16 = _of_bits("bfloat16", 2.0**-9, 7, -126, (2 - 2.0**-7) * 2.0**127)
