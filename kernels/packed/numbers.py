"""The numbers that parts of a weight are stored in, as float32, and what codes stand for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# bitsandbytes' NF4 (quantiles of the normal distribution) and FP4, csrc/kernels.cu.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)  # OCP MX


@cache
def levels(kind: str) -> Floats:
    """What every code stands for: "E2M1", "NF4", "F8_E4M3", "F8_E5M2", "I8", or "U4" for integers of 4 bits ..."""
    if kind in ("E2M1", "NF4"):
        return np.array(E2M1 if kind == "E2M1" else NF4, np.float32)
    every = np.arange(256, dtype=np.uint8)
    if kind in _READ:
        return _READ[kind](every)
    return every.view(np.int8).astype(np.float32) if kind == "I8" else np.arange(1 << int(kind[1:]), dtype=np.float32)


def _e5m2(stored: NDArray[np.uint8]) -> Floats:
    return (stored.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _e4m3(stored: NDArray[np.uint8]) -> Floats:
    """As the upper bits of a float32 the exponent is off by 120, which a product sets right."""
    bits = stored.astype(np.uint32)
    values = ((bits & 0x80) << 24 | (bits & 0x7F) << 20).view(np.float32) * np.float32(2.0**120)
    values[(bits & 0x7F) == 0x7F] = np.nan
    return values


def _e8m0(stored: NDArray[np.uint8]) -> Floats:
    """2^(e - 127); 255 is NaN."""
    values = np.ldexp(np.float32(1), np.minimum(stored, 254).astype(np.int32) - 127)
    values[stored == 255] = np.nan
    return values


def _bf16(stored: NDArray[np.uint16]) -> Floats:
    return (stored.astype(np.uint32) << 16).view(np.float32)


_READ: dict[str, Callable[[NDArray[np.uint8]], Floats]] = {"F8_E4M3": _e4m3, "F8_E5M2": _e5m2, "F8_E8M0": _e8m0}
STORED = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F8_E4M3": np.uint8},
    **{"F8_E5M2": np.uint8, "F8_E8M0": np.uint8, "U8": np.uint8, "I8": np.int8, "I32": np.int32, "I64": np.int64},
    "U32": np.uint32,
}  # the NumPy type of each
MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}  # bits, of types that scales are rounded to


def as_floats(stored: NDArray[np.generic], type: str) -> Floats:
    """Stored numbers of a type by SafeTensors' name, as float32."""
    if type == "BF16":
        return _bf16(stored.view(np.uint16))
    if type in _READ:
        return _READ[type](stored.view(np.uint8))
    return stored.astype(np.float32)


def rounded(values: Floats, type: str) -> Floats:
    """float32 values as a type of 16 bits keeps them, ties to even; the same in F32 and wider ones."""
    if type == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if type != "BF16":
        return values
    bits = values.view(np.uint32)
    even = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, even.view(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A number for every group of columns of every `tall` rows, (rows / tall, groups), as stored.

    type : of the stored numbers. divisor, factor : what all are divided by, or multiplied with.
    """

    stored: NDArray[np.generic]
    type: str
    tall: int = 1
    divisor: np.float32 | None = None
    factor: np.float32 | None = None

    def of(self, rows: NDArray[np.intp]) -> Floats:
        """float32 (rows, groups)."""
        found = as_floats(np.ascontiguousarray(self.stored[rows // self.tall]), self.type)
        with np.errstate(all="ignore"):
            found = found if self.divisor is None else found / self.divisor
            return found if self.factor is None else found * self.factor
