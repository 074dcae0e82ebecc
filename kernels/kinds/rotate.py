"""Rotary position embeddings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import UNIT, rounding_error
from kernels.numbers import numbers
from kernels.precision import FLOAT32, Precision

Pairs = Literal["neox", "norm"]
_PER_ANGLE = 1.0


def yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    """What YaRN multiplies rotated queries and keys by for a context stretched by `factor`."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def yarn_factors(factor: float, low: float, width: float, pairs: int) -> tuple[float, ...]:
    """YaRN's divisors in float32: 1 up to pair `low`, `factor` from low + width on, blended in between."""
    shares = (min(max((pair - low) / width, 0.0), 1.0) for pair in range(pairs))
    return tuple(float(np.float32(1 / (share / factor + (1 - share)))) for share in shares)


@dataclass(frozen=True, slots=True)
class Rotation:
    """How the channels of a head turn: pair n by position / theta^(2n/d) / factors[n], of the first d channels.

    rotary_dim : d, None for all channels; the others stay as they are. pairs : "neox" turns channel i with i + d/2,
    "norm" 2i with 2i+1. factors : divisors of the frequencies (d/2), or None for none. magnitude : what turned channels
    are multiplied by. ramp : what `yarn_factors` made the divisors of, by which llama.cpp blends angles; None where
    they came otherwise.
    """

    head_dim: int
    theta: float
    pairs: Pairs = "neox"
    factors: tuple[float, ...] | None = None
    magnitude: float = 1.0
    rotary_dim: int | None = None
    ramp: tuple[float, ...] | None = None

    @property
    def width(self) -> int:
        """How many channels of a head turn."""
        return self.rotary_dim or self.head_dim

    def frequencies(self) -> Values:
        """Angle per position of every pair, float64."""
        divisors = np.array(self.factors or (1.0,) * (self.width // 2))
        return np.asarray(self.theta ** -(np.arange(0, self.width, 2) / self.width) / divisors)


@dataclass(frozen=True, slots=True)
class Unrotated(Kind):
    """The heads in `size` channels from `start` on as they are, in layers that do not know of positions."""

    start: int
    size: int
    roles: ClassVar[tuple[str, ...]] = ("x",)
    exact: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        return np.ascontiguousarray(x["x"][:, self.start : self.start + self.size])

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size


@dataclass(frozen=True, slots=True)
class Rotate(Kind):
    """The heads in `size` channels from `start` on, turned by the positions of the tokens.

    last_of : the heads there have so many channels, of which the last ones are turned and handed on; None for all.
    """

    rotation: Rotation
    start: int
    size: int
    last_of: int | None = None
    roles: ClassVar[tuple[str, ...]] = ("x",)
    by_position: ClassVar[bool] = True

    @property
    def columns(self) -> slice:
        """The channels that are turned."""
        return slice(self.start, self.start + self.size)

    def turning(self, x: Array) -> Array:
        """The channels that are handed on, before they are turned."""
        if self.last_of is None:
            return x[:, self.columns]
        heads = x[:, self.columns].reshape(len(x), -1, self.last_of)
        return np.ascontiguousarray(heads[:, :, -self.rotation.head_dim :]).reshape(len(x), -1)

    def evaluate(self, at: At, x: Inputs) -> Array:
        if self.last_of is not None:
            return at.path.rotate(self.turning(x["x"]), at.positions(), self.rotation, slice(None))
        return at.path.rotate(x["x"], at.positions(), self.rotation, self.columns)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        error = rounding_error(at, x, output, cancels=True)
        if at.path.dtype == np.float64:
            return error
        return math.hypot(error, UNIT * _PER_ANGLE * self._turned(at, output))

    def _turned(self, at: At, output: Array) -> float:
        """‖output‖ with every token weighted by the root mean square of its angles: they are rounded to their own size.

        Whole numbers, which the fastest pair has, are not rounded.
        """
        angles = at.positions()[:, None] * self.rotation.frequencies()
        squares = np.square(np.where(angles == np.round(angles), 0, angles)).mean(axis=1)
        heads = numbers(output).reshape(len(output), -1, self.rotation.head_dim)[..., : self.rotation.width]
        return float(np.sqrt(np.square(heads).sum(axis=(1, 2)) @ squares))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Angles are products of a position and a frequency that are rounded to float32 even by a float64 engine."""
        angles = np.abs(at.path.rope_angles(at.positions(), self.rotation)).astype(np.float64)
        pair = np.sqrt(self._pair_squares(size))
        neox, still = self.rotation.pairs == "neox", self.rotation.head_dim - self.rotation.width
        turned = np.concatenate([angles, angles], axis=1) if neox else np.repeat(angles, 2, axis=1)
        every = np.pad(turned, ((0, 0), (0, still)))
        per_head = 4 * max(kept.unit, FLOAT32.unit) + 4 * FLOAT32.unit * every + kept.least
        return np.asarray(pair * np.tile(per_head, size.shape[1] // self.rotation.head_dim) + 2 * kept.least)

    def _pair_squares(self, size: Values) -> Values:
        """Squared length of the pair that every channel turns in; a rotation keeps it, so it is taken of the output."""
        d = self.rotation.width
        heads = np.square(size).reshape(len(size), -1, self.rotation.head_dim)
        if self.rotation.pairs == "neox":
            pairs = heads[..., : d // 2] + heads[..., d // 2 : d]
            turned = np.concatenate([pairs, pairs], axis=2)
        else:
            turned = np.repeat(heads[..., 0:d:2] + heads[..., 1:d:2], 2, axis=2)
        return np.concatenate([turned, heads[..., d:]], axis=2).reshape(size.shape)
