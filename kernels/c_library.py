"""Functions of float32 as the C library of GNU (2.28 and later) computes them, bit for bit, on any machine.

Each is a polynomial in float64, with fused products where the processor has them, rounded to float32 once: the
algorithms and constants of Arm's optimized routines (sinf.c, cosf.c, expf.c, logf.c), which that library took over.
"""

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from kernels.machine.compiler import helper
from kernels.machine.operations import bits, fma, from_bits

# Of sine and cosine: x^3, x^5 and x^7; 1, x^2, x^4, x^6 and x^8.
_SIN = tuple(map(float.fromhex, ("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13")))
_COS = tuple(
    map(
        float.fromhex,
        (
            "0x1p0",
            "-0x1.ffffffd0c621cp-2",
            "0x1.55553e1068f19p-5",
            "-0x1.6c087e89a359dp-10",
            "0x1.99343027bf8c3p-16",
        ),
    )
)
_QUARTERS = float.fromhex("0x1.45f306dc9c883p+23")  # 2^24 quarters of a turn per radian
_QUARTER = float.fromhex("0x1.921fb54442d18p0")
_OF_62_BITS = math.ldexp(_QUARTER, -62)
_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041  # its first 192 bits
# Of these, 32 at every eighth place, from the first eight on.
_WINDOWS = np.array([_TWO_OVER_PI >> (184 - 8 * i) & 0xFFFFFFFF for i in range(24)], dtype=np.uint64)
_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
_LARGE, _SMALL, _TINY = (np.uint32(np.float32(x).view(np.uint32) >> 20) for x in (120.0, math.pi / 4, 2.0**-12))


def _powers_of_two() -> list[int]:
    """The bits of 2^(i/32), less those of its exponent that `expf` adds."""
    with localcontext() as context:
        context.prec = 40
        powers = [float((Decimal(2).ln() * i / 32).exp()) for i in range(32)]
    return [int(np.float64(power).view(np.uint64)) - (i << 47) for i, power in enumerate(powers)]


_POWERS = np.array(_powers_of_two(), dtype=np.uint64)
_STEPS = float.fromhex("0x1.71547652b82fep+0") * 32  # 32 / ln 2
_ROUND = float.fromhex("0x1.8p+52")  # added, it leaves a whole number in the last places
_EXP = tuple(
    float.fromhex(factor) / 32**power
    for factor, power in (("0x1.c6af84b912394p-5", 3), ("0x1.ebfce50fac4f3p-3", 2), ("0x1.62e42ff0c52d6p-1", 1))
)
_INVERSES = tuple(  # about one by the middle of each of 16 parts of an octave
    map(
        float.fromhex,
        (
            *("0x1.661ec79f8f3bep+0", "0x1.571ed4aaf883dp+0", "0x1.49539f0f010bp+0", "0x1.3c995b0b80385p+0"),
            *("0x1.30d190c8864a5p+0", "0x1.25e227b0b8eap+0", "0x1.1bb4a4a1a343fp+0", "0x1.12358f08ae5bap+0"),
            *("0x1.0953f419900a7p+0", "0x1p+0", "0x1.e608cfd9a47acp-1", "0x1.ca4b31f026aap-1"),
            *("0x1.b2036576afce6p-1", "0x1.9c2d163a1aa2dp-1", "0x1.886e6037841edp-1", "0x1.767dcf5534862p-1"),
        ),
    )
)
_LOGS = tuple(  # less their logarithms
    map(
        float.fromhex,
        (
            *("-0x1.57bf7808caadep-2", "-0x1.2bef0a7c06ddbp-2", "-0x1.01eae7f513a67p-2", "-0x1.b31d8a68224e9p-3"),
            *("-0x1.6574f0ac07758p-3", "-0x1.1aa2bc79c81p-3", "-0x1.a4e76ce8c0e5ep-4", "-0x1.1973c5a611cccp-4"),
            *("-0x1.252f438e10c1ep-5", "0x0p+0", "0x1.aa5aa5df25984p-5", "0x1.c5e53aa362eb4p-4"),
            *("0x1.526e57720db08p-3", "0x1.bc2860d22477p-3", "0x1.1058bc8a07ee1p-2", "0x1.4043057b6ee09p-2"),
        ),
    )
)
_PARTS = np.array([_INVERSES, _LOGS])
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_LOG = tuple(map(float.fromhex, ("-0x1.00ea348b88334p-2", "0x1.5575b0be00b6ap-2", "-0x1.ffffef20a4123p-2")))
_FIRST = np.uint32(0x3F330000)  # the bits of 0.7: an octave from there on has a power of two
_NORMAL = np.float32(2.0**-126)
_MOST, _LEAST = np.float32(float.fromhex("0x1.62e42ep6")), np.float32(float.fromhex("-0x1.9fe368p6"))


@helper()
def _sine(x: float, square: float) -> np.float32:
    """Sine of x within an eighth of a turn."""
    cube = x * square
    return np.float32(fma(cube * square, fma(square, _SIN[2], _SIN[1]), fma(cube, _SIN[0], x)))


@helper()
def _cosine(square: float, sign: float) -> np.float32:
    """Cosine of the root of `square` within an eighth of a turn, times a sign."""
    fourth = square * square
    low = fma(fourth, sign * _COS[2], fma(square, sign * _COS[1], sign * _COS[0]))
    return np.float32(fma(fourth * square, fma(square, sign * _COS[4], sign * _COS[3]), low))


@helper()
def _within_eighth(x: np.float32) -> tuple[Any, Any]:
    """Where x lies from the nearest quarter of a turn, and the number of that, of |x| when it is large."""
    size = bits(x) & np.uint32(0x7FFFFFFF)
    if size >> np.uint32(20) < _LARGE:
        wide = np.float64(x)
        quarter = (np.int64(wide * _QUARTERS) + 0x800000) >> 24
        return fma(-np.float64(quarter), _QUARTER, wide), quarter
    # 96 bits of the product with 2 / pi, of which whole turns need not be known
    at, shift = np.int64(size >> np.uint32(26)) & 15, np.uint64(size >> np.uint32(23)) & np.uint64(7)
    low = np.uint64(0xFFFFFFFF)
    number = (((np.uint64(size) & np.uint64(0xFFFFFF)) | np.uint64(0x800000)) << shift) & low
    high = (number * _WINDOWS[at]) & low
    product = ((number * _WINDOWS[at + 8]) >> np.uint64(32) | high << np.uint64(32)) + number * _WINDOWS[at + 4]
    quarters = (product + np.uint64(1 << 61)) >> np.uint64(62)
    return np.float64(np.int64(product - (quarters << np.uint64(62)))) * _OF_62_BITS, np.int64(quarters)


@helper()
def _quarter_turned(x: np.float32, turned: int) -> np.float32:
    """Sine of x for `turned` 0, cosine for 1."""
    size = bits(x) & np.uint32(0x7FFFFFFF)
    if size >= np.uint32(0x7F800000):
        return np.float32(np.nan)
    if size >> np.uint32(20) < _SMALL:
        if size >> np.uint32(20) < _TINY:
            return np.float32(1) if turned else x
        wide = np.float64(x)
        return _cosine(wide * wide, 1.0) if turned else _sine(wide, wide * wide)
    rest, quarter = _within_eighth(x)
    signed = quarter
    if size >> np.uint32(20) >= _LARGE:
        signed += np.int64(bits(x) >> np.uint32(31))
    if (quarter + turned) & 1:
        return _cosine(rest * rest, -1.0 if signed & 2 else 1.0)
    return _sine(rest * _SIGNS[signed & 3], rest * rest)


@helper()
def sinf(x: np.float32) -> np.float32:
    """Sine."""
    return _quarter_turned(x, 0)


@helper()
def cosf(x: np.float32) -> np.float32:
    """Cosine."""
    return _quarter_turned(x, 1)


@helper()
def expf(x: np.float32) -> np.float32:
    """Exponential."""
    if x > _MOST:
        return np.float32(np.inf)
    if x < _LEAST:
        return np.float32(0)
    wide = np.float64(x)
    shifted = fma(_STEPS, wide, _ROUND)
    step = bits(shifted)
    rest = fma(_STEPS, wide, _ROUND - shifted)
    power = from_bits(_POWERS[step & np.uint64(31)] + (step << np.uint64(47)))
    near = fma(fma(_EXP[0], rest, _EXP[1]), rest * rest, fma(_EXP[2], rest, 1.0))
    return np.float32(near * power)


@helper()
def logf(x: np.float32) -> np.float32:
    """Natural logarithm."""
    if x == np.float32(1):
        return np.float32(0)
    if not x > np.float32(0):
        return np.float32(-np.inf) if x == np.float32(0) else np.float32(np.nan)
    if x == np.float32(np.inf):
        return x
    tiny = x < _NORMAL
    number = bits(x * np.float32(8388608)) - np.uint32(23 << 23) if tiny else bits(x)
    above = np.uint32(number - _FIRST)
    part, power = (above >> np.uint32(19)) & np.uint32(15), np.int32(above) >> 23
    within = from_bits(np.uint32(number - (above & np.uint32(0xFF800000))))
    rest = fma(np.float64(within), _PARTS[0, part], -1.0)
    start = fma(np.float64(power), _LN2, _PARTS[1, part])
    square = rest * rest
    near = fma(_LOG[0], square, fma(_LOG[1], rest, _LOG[2]))
    return np.float32(fma(near, square, start + rest))
