"""Activation codes that differ between two runs, and how near they were to being the same.

A value that lies next to the boundary between two codes flips by any difference at all; that is chance and no mistake.
One that had to cross a large part of a step was moved by something.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError

if TYPE_CHECKING:
    from kernels.matmul.activations import Codes  # which loads the compiler

_STEPS = 127  # codes between 0 and the largest value of a block, by every rule


class Flips(NamedTuple):
    """8-bit codes of two runs' inputs to the same matmul.

    flipped, of : codes that differ, and all. median, largest : how far a flipped value lies from the rounding boundary
    behind which it would have the other side's code, for the further of the two, in steps; None where none is flipped.
    """

    flipped: int
    of: int
    median: float | None = None
    largest: float | None = None

    @property
    def distance(self) -> str:
        """The distances in words; empty where none is flipped."""
        if self.median is None or self.largest is None:
            return ""
        return f"{self.median:.2g} of a step from a boundary (median), {self.largest:.2g} at most"

    def to_json(self) -> dict[str, Any]:
        """JSON values, for all tokens together."""
        return {
            "flipped": self.flipped,
            "of": self.of,
            "tokens": "all",
            "median_distance": self.median,
            "largest_distance": self.largest,
        }

    @classmethod
    def from_json(cls, record: object) -> "Flips":
        """Rebuild the counts; StoreError if nobody can have written them."""
        match record:
            case {
                "flipped": int(flipped),
                "of": int(of),
                "median_distance": float() | None as median,
                "largest_distance": float() | None as largest,
            }:
                return cls(flipped, of, median, largest)
        raise StoreError("The record of flipped codes is not one.")


def flips(a: "Codes | None", b: "Codes | None", x_a: NDArray[Any], x_b: NDArray[Any]) -> Flips | None:
    """Compare the codes of x_a and x_b, (tokens, channels); None where a side has none or in blocks of another size."""
    if a is None or b is None or a.scales.shape != b.scales.shape:
        return None
    codes = _upright(a), _upright(b)
    token, channel = np.nonzero(codes[0] != codes[1])
    if not token.size:
        return Flips(0, a.codes.size)
    own, other = (side[token, channel] for side in codes)
    towards = np.sign(other - own)
    apart = [
        np.abs(_in_steps(x, a.scales.shape[1], token, channel) - (code + half))
        for x, code, half in ((x_a, other, -towards / 2), (x_b, own, towards / 2))
    ]
    distances = np.maximum(*apart)
    distances = distances[np.isfinite(distances)]
    known = (float(np.median(distances)), float(distances.max())) if distances.size else (None, None)
    return Flips(token.size, a.codes.size, *known)


def _upright(rounded: "Codes") -> NDArray[np.int16]:
    """Codes as if every scale were positive: Q8_K of ggml takes the sign of the largest value into it."""
    signs = np.where(rounded.scales < 0, -1, 1).astype(np.int16)
    block = rounded.codes.shape[1] // rounded.scales.shape[1]
    return np.asarray(rounded.codes * np.repeat(signs, block, axis=1), np.int16)


def _in_steps(
    x: NDArray[Any], blocks: int, token: NDArray[np.int64], channel: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Chosen values in steps of their block, before they are rounded."""
    largest = np.abs(x.reshape(len(x), blocks, -1)).max(axis=2).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = _STEPS * x[token, channel] / largest[token, channel // (x.shape[1] // blocks)]
    return result
