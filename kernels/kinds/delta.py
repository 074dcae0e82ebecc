"""The gated delta rule: what layers remember of the tokens before fades, and is corrected by every token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.activation import sigmoid
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision

A_LOG, DT_BIAS = ".A_log", ".dt_bias"


def softplus(x: Values) -> Values:
    """log(1 + exp(x))."""
    return np.asarray(np.logaddexp(0, x))


@dataclass(frozen=True, slots=True)
class Decay(Kind):
    """The logarithm of what is left of the state: A * softplus(x + dt), A below zero.

    The tensors of the stage are A, read as -exp of what was trained, and dt.
    """

    roles: ClassVar[tuple[str, ...]] = ("x",)
    signed: ClassVar[bool] = True

    def terms(self, at: At) -> tuple[Values, Values]:
        """A, and dt."""
        a, dt = (at.path.vector(at.model.weight(name)) for name in at.stage.tensors)
        return a, dt

    def evaluate(self, at: At, x: Inputs) -> Array:
        a, dt = self.terms(at)
        return np.asarray(a * at.path.softplus(np.asarray(x["x"] + dt)))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        if at.path.dtype == np.float64:
            return rounding_error(at, x, output)
        return norm(self.noise(at, {"x": np.asarray(x["x"], np.float64)}, np.abs(output), FLOAT32))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """The sum is rounded, and so is what is made of it."""
        a, dt = self.terms(at)
        slope = np.abs(a) * sigmoid(x["x"] + dt)
        return np.asarray(kept.unit * (6 * size + slope * (np.abs(x["x"]) + np.abs(dt))) + kept.least)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        a, dt = self.terms(at)
        return np.asarray(a * sigmoid(x["x"] + dt) * dx["x"])


@dataclass(frozen=True, slots=True)
class DeltaNet(Kind):
    """Of every head a state S (keys, values): fades by exp(decay), k (v - S^T k) beta is added, S^T q / √keys is read.

    groups : heads of q and k, which several heads of values share: neighbouring ones, or where `tiled` those that are
    `groups` apart. head_dim : channels of a head of values. value_start : v is what is read from this channel on.
    """

    groups: int
    head_dim: int
    value_start: int = 0
    tiled: bool = False
    roles: ClassVar[tuple[str, ...]] = ("q", "k", "v", "beta", "decay")
    over_tokens: ClassVar[bool] = True
    by_position: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.delta(x, self)

    def by_head(self, x: Mapping[str, Values]) -> tuple[Values, ...]:
        """q, k (tokens, heads, keys), v (tokens, heads, values), beta and decay (tokens, heads), float64."""
        heads, count = x["beta"].shape[1], len(x["beta"])
        serving = np.arange(heads) % self.groups if self.tiled else np.arange(heads) // (heads // self.groups)
        q, k = (np.asarray(x[role], np.float64).reshape(count, self.groups, -1)[:, serving] for role in "qk")
        v = x["v"][:, self.value_start : self.value_start + heads * self.head_dim]
        return q, k, np.asarray(v, np.float64).reshape(count, heads, -1), x["beta"], x["decay"]

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        if at.path.dtype == np.float64:
            return rounding_error(at, x, output, cancels=True)
        wide = {role: np.asarray(values, np.float64) for role, values in x.items()}
        return norm(self.noise(at, wide, np.abs(output), FLOAT32))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Roundings of the state add up as squares, fade with it, and are corrected as it is.

        A correction takes a share of the state along k away, so that what was there before grows by no more than that.
        """
        q, k, v, beta, decay = self.by_head(x)
        state = np.zeros((q.shape[1], k.shape[2], v.shape[2]))
        energy = np.zeros(v.shape[1:])  # (heads, values) of what all keys of a value are off by
        out = np.empty_like(v)
        for t in range(len(q)):
            share, rate, square = np.exp(decay[t]), beta[t], np.square(k[t]).sum(axis=1)
            state *= share[:, None, None]
            held = np.einsum("hk,hkv->hv", k[t], state)
            step = (v[t] - held) * rate[:, None]
            length = np.sqrt(square)[:, None]
            kept_size = np.sqrt(np.square(state).sum(axis=1))
            growth = np.maximum(1, np.abs(1 - rate * square))[:, None]
            added = (np.abs(v[t]) + 2 * kept_size * length + np.abs(step)) * np.abs(rate)[:, None] * length
            fresh = kept.unit * (kept_size * (2 + np.abs(decay[t])[:, None]) + 2 * added)
            energy = np.square(share[:, None] * growth) * energy + np.square(fresh)
            state += k[t][:, :, None] * step[:, None, :]
            reach = np.sqrt(np.square(q[t]).sum(axis=1) / q.shape[2])[:, None]
            held_size = np.sqrt(np.square(state).sum(axis=1))
            out[t] = reach * (np.sqrt(energy) + 2 * kept.unit * held_size)
        return np.asarray(2 * out.reshape(size.shape) + 2 * kept.unit * size + kept.least)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """The change of the state goes along with it, token by token."""
        parts, changes = self.by_head(x), self.by_head(dx)
        state = np.zeros((parts[0].shape[1], parts[1].shape[2], parts[2].shape[2]))
        change, out = np.zeros_like(state), np.empty_like(parts[2])
        for t in range(len(out)):
            (q, k, v, beta, decay), (dq, dk, dv, d_beta, d_decay) = (
                [part[t] for part in all] for all in (parts, changes)
            )
            share = np.exp(decay)[:, None, None]
            change = share * (change + d_decay[:, None, None] * state)
            state = share * state
            off = v - np.einsum("hk,hkv->hv", k, state)
            d_off = dv - np.einsum("hk,hkv->hv", dk, state) - np.einsum("hk,hkv->hv", k, change)
            step = off * beta[:, None]
            d_step = d_off * beta[:, None] + off * d_beta[:, None]
            change = change + dk[:, :, None] * step[:, None, :] + k[:, :, None] * d_step[:, None, :]
            state = state + k[:, :, None] * step[:, None, :]
            out[t] = np.einsum("hk,hkv->hv", dq, state) + np.einsum("hk,hkv->hv", q, change)
        return np.asarray(out.reshape(len(out), -1) * parts[0].shape[2] ** -0.5)
