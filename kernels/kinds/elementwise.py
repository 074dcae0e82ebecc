"""Sums and products of two stages, and what is handed on as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import FLOAT32, Precision


@dataclass(frozen=True, slots=True)
class Add(Kind):
    """What was there before plus what is added to it, times a factor."""

    times: float = 1.0
    roles: ClassVar[tuple[str, ...]] = ("before", "added")

    def evaluate(self, at: At, x: Inputs) -> Array:
        added = x["added"] if self.times == 1 else x["added"] * at.path.dtype(self.times)
        return at.path.elementwise(np.add, x["before"], np.asarray(added))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        added = x["added"] if self.times == 1 else 2 * abs(self.times) * x["added"]
        return kept.unit * (x["before"] + added + size)


@dataclass(frozen=True, slots=True)
class ScaledSum(Kind):
    """The sum of two, times a factor. times : in float32, as engines hold it."""

    times: float
    roles: ClassVar[tuple[str, ...]] = ("before", "added")

    def evaluate(self, at: At, x: Inputs) -> Array:
        return np.asarray(at.path.elementwise(np.add, x["before"], x["added"]) * at.path.dtype(self.times))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        terms = {role: np.asarray(x[role] * at.path.dtype(self.times)) for role in self.roles}
        return rounding_error(at, terms, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return kept.unit * (abs(self.times) * (x["before"] + x["added"]) + 2 * size)


@dataclass(frozen=True, slots=True)
class AddBoth(Kind):
    """What was there before plus what attention and the feed-forward block make of it side by side.

    last : what llama.cpp adds to the sum of the others; transformers has an order of its own for every family.
    """

    last: str = "attended"
    roles: ClassVar[tuple[str, ...]] = ("before", "attended", "added")

    def evaluate(self, at: At, x: Inputs) -> Array:
        first, second = (x[role] for role in self.roles if role != self.last)
        return at.path.elementwise(np.add, at.path.elementwise(np.add, first, second), x[self.last])

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return kept.unit * (2 * (x["before"] + x["attended"] + x["added"]) + size)


@dataclass(frozen=True, slots=True)
class Multiply(Kind):
    """A gate times what it lets through.

    gate_start, up_start, size : the channels of both that count, so many from there on; all of them where size is 0.
    plain_zeros : llama.cpp gives 0, and never -0, where the gate is 0.
    """

    gate_start: int = 0
    up_start: int = 0
    size: int = 0
    plain_zeros: bool = False
    roles: ClassVar[tuple[str, ...]] = ("gate", "up")

    def both(self, x: Inputs) -> tuple[Array, Array]:
        """The channels that count."""
        if not self.size:
            return x["gate"], x["up"]
        starts = ((x["gate"], self.gate_start), (x["up"], self.up_start))
        gate, up = (np.ascontiguousarray(values[:, start : start + self.size]) for values, start in starts)
        return gate, up

    def through(self, up: Array) -> Array:
        """What the gate is multiplied with."""
        return up

    def evaluate(self, at: At, x: Inputs) -> Array:
        gate, up = self.both(x)
        product = at.path.elementwise(np.multiply, gate, self.through(up))
        if self.plain_zeros and at.path.engine == "ggml":
            product[(gate == 0) & ~np.signbit(gate)] = 0
        return product

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Where no engine kept the activation it is computed here, and errs as it does."""
        gate, up = self.both(x)
        return (6 * kept.unit + 2 * FLOAT32.unit * np.log1p(gate)) * size + kept.least * up

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        (gate, up), (d_gate, d_up) = self.both(x), self.both(dx)
        return np.asarray(d_gate * up + gate * d_up)


@dataclass(frozen=True, slots=True)
class Clip(Kind):
    """Values between -bound and bound as they are, others as the bound."""

    bound: float
    roles: ClassVar[tuple[str, ...]] = ("x",)
    exact: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        bound = at.path.dtype(self.bound)
        return np.asarray(np.clip(x["x"], -bound, bound))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        return np.asarray(np.where(np.abs(x["x"]) < self.bound, dx["x"], 0.0))


@dataclass(frozen=True, slots=True)
class Joined(Kind):
    """The channels that every head has of the one beside those that it has of the other."""

    heads: int
    roles: ClassVar[tuple[str, ...]] = ("first", "second")
    exact: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        parts = [x[role].reshape(len(x[role]), self.heads, -1) for role in self.roles]
        return np.concatenate(parts, axis=2).reshape(len(parts[0]), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size


class Scaled(Kind):
    """x times the one value of the tensor of the stage."""

    roles: ClassVar[tuple[str, ...]] = ("x",)

    def evaluate(self, at: At, x: Inputs) -> Array:
        (weight,) = at.weights()
        return np.asarray(x["x"] * at.path.vector(weight))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size


class Copy(Kind):
    """The same values under another name."""

    roles: ClassVar[tuple[str, ...]] = ("x",)
    exact: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        return x["x"]

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size
