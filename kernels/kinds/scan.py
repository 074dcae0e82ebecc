"""State spaces with one decay a head (Mamba 2): what layers remember fades, every token adds to it, and it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.activation import Activation, sigmoid
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision


@dataclass(frozen=True, slots=True)
class Softplus(Activation):
    """log(1 + exp(x))."""

    label: ClassVar[str] = "a softplus"

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.softplus(x["x"])

    def of(self, x: Values) -> Values:
        return np.asarray(np.logaddexp(0, x))

    def slope(self, x: Values) -> Values:
        return sigmoid(x)


@dataclass(frozen=True, slots=True)
class Step(Kind):
    """Some channels, from `start` on, plus what the tensor of the stage has for each."""

    start: int
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def _both(self, at: At, x: Array) -> tuple[Array, Array]:
        return x[:, self.start : self.start + at.stage.channels], at.path.vector(at.model.weight(at.stage.tensors[0]))

    def evaluate(self, at: At, x: Inputs) -> Array:
        return np.asarray(np.add(*self._both(at, x["x"])))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, {"x": self._both(at, x["x"])[0]}, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        given, added = self._both(at, x["x"])
        return kept.unit * (2 * given + np.abs(added) + 2 * size) + kept.least


@dataclass(frozen=True, slots=True)
class Part(Kind):
    """Some channels, from `start` on, as they are."""

    start: int
    roles: ClassVar[tuple[str, ...]] = ("x",)
    exact: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        return np.ascontiguousarray(x["x"][:, self.start : self.start + at.stage.channels])

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size


@dataclass(frozen=True, slots=True)
class Scan(Kind):
    """Of every head a state S (channels, state): fades by exp(step A), step x B is added, S C + D x is read.

    x stands in the first channels of what is read as x, then B and C. groups : of heads that share B and C, neighbours.
    head_dim, state : channels of a head, and of B and C. The tensors of the stage are A, read as -exp of what was
    trained, and D.
    """

    groups: int
    head_dim: int
    state: int
    roles: ClassVar[tuple[str, ...]] = ("x", "step")
    over_tokens: ClassVar[bool] = True
    by_position: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    def terms(self, at: At) -> tuple[Array, Array]:
        """A and D."""
        a, d = (at.path.vector(at.model.weight(name)) for name in at.stage.tensors)
        return a, d

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.scan(x, *self.terms(at), self)

    def by_head(self, x: Mapping[str, Values]) -> tuple[Values, Values, Values, Values]:
        """x (tokens, heads, channels), B and C (tokens, heads, state), steps (tokens, heads), float64."""
        heads, count = x["step"].shape[1], len(x["step"])
        inner, keys = heads * self.head_dim, self.groups * self.state
        given, b, c = np.split(np.asarray(x["x"], np.float64), [inner, inner + keys], axis=1)
        serving = np.arange(heads) // (heads // self.groups)
        b, c = (part.reshape(count, self.groups, -1)[:, serving] for part in (b, c))
        return given.reshape(count, heads, -1), b, c, np.asarray(x["step"], np.float64)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        if at.path.dtype == np.float64:
            return rounding_error(at, x, output, cancels=True)
        wide = {role: np.asarray(values, np.float64) for role, values in x.items()}
        return norm(self.noise(at, wide, np.abs(output), FLOAT32))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Roundings of the state add up as squares and fade with it; the exponent is rounded at its own size."""
        (given, b, c, step), (a, d) = self.by_head(x), (values.astype(np.float64) for values in self.terms(at))
        state = np.zeros((*given.shape[1:], self.state))
        energy, out = np.zeros(given.shape[1:]), np.empty_like(given)
        for t in range(len(given)):
            exponent = step[t] * a
            share = np.exp(exponent)[:, None]
            state *= share[:, :, None]
            old = np.sqrt(np.square(state).sum(axis=2))
            added = np.abs(given[t] * step[t][:, None]) * np.sqrt(np.square(b[t]).sum(axis=1))[:, None]
            fresh = kept.unit * (old * (3 + 2 * np.abs(exponent)[:, None]) + 4 * added)
            energy = np.square(share) * energy + np.square(fresh)
            state += given[t][:, :, None] * (step[t][:, None] * b[t])[:, None, :]
            reach = np.sqrt(np.square(c[t]).sum(axis=1))[:, None]
            kept_size = np.sqrt(np.square(state).sum(axis=2))
            skipped = np.abs(d[:, None] * given[t])
            out[t] = reach * (np.sqrt(energy) + 2 * kept.unit * kept_size) + kept.unit * skipped
        return np.asarray(2 * out.reshape(size.shape) + 2 * kept.unit * size + kept.least)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """The change of the state goes along with it, token by token."""
        (given, b, c, step), (d_given, d_b, d_c, d_step) = self.by_head(x), self.by_head(dx)
        a, d = self.terms(at)
        state = np.zeros((*given.shape[1:], self.state))
        change, out = np.zeros_like(state), np.empty_like(given)
        for t in range(len(given)):
            share = np.exp(step[t] * a)[:, None, None]
            change = share * (change + (d_step[t] * a)[:, None, None] * state)
            state = share * state
            put, d_put = step[t][:, None] * b[t], d_step[t][:, None] * b[t] + step[t][:, None] * d_b[t]
            state = state + given[t][:, :, None] * put[:, None, :]
            change = change + d_given[t][:, :, None] * put[:, None, :] + given[t][:, :, None] * d_put[:, None, :]
            out[t] = np.einsum("hpn,hn->hp", change, c[t]) + np.einsum("hpn,hn->hp", state, d_c[t])
            out[t] += d[:, None] * d_given[t]
        return np.asarray(out.reshape(len(out), -1))


@dataclass(frozen=True, slots=True)
class GroupNorm(Kind):
    """x / sqrt(mean(x^2) + eps) of every group of so many channels, times the weight of all of them."""

    eps: float
    size: int
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def _scaled(self, x: Values) -> tuple[Values, Values]:
        """The groups, and one by the size of each."""
        groups = x.reshape(len(x), -1, self.size)
        return groups, 1 / np.sqrt(np.square(groups, dtype=np.float64).mean(axis=2, keepdims=True) + self.eps)

    def evaluate(self, at: At, x: Inputs) -> Array:
        normed = at.path.rms_norm(x["x"].reshape(-1, self.size), None, self.eps)
        return np.asarray(normed.reshape(x["x"].shape) * at.path.vector(at.weights()[0]))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size + kept.least * np.abs(at.path.vector(at.weights()[0]))

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        groups, scale = self._scaled(x["x"])
        change = dx["x"].reshape(groups.shape)
        slope = (groups * change).mean(axis=2, keepdims=True)
        result = (change - groups * slope * np.square(scale)) * scale
        return np.asarray(result.reshape(x["x"].shape) * at.path.vector(at.weights()[0]))
