"""Attention over the tokens, before the output projection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm, numbers
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class Attention(Kind):
    """softmax(q k^T scale + mask) v, heads sharing keys and values in groups.

    heads, kv_heads, head_dim : of q, and of k and v. scale : of the scores. causal : a token sees itself and those
    before it only. chunk : of these none before its own run of so many tokens; None for all. window : of these the last
    so many only; None for all. cap : scores are cap * tanh(score / cap); None for as they are. value_start : v is what
    is read from this channel on. value_dim : channels of a head of v; None for as many as those of k. A tensor of the
    stage, if it has one, holds a sink of every head: one more score, whose share of the softmax goes to nothing.
    scaled_first, adjacent : llama.cpp scales the queries instead of the scores; it has the halves of a head of q and k
    by turns, and adds up their products so.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    value_start: int
    causal: bool = True
    window: int | None = None
    cap: float | None = None
    value_dim: int | None = None
    chunk: int | None = None
    scaled_first: bool = False
    adjacent: bool = False
    roles: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    over_tokens: ClassVar[bool] = True
    by_position: ClassVar[bool] = True

    @property
    def value_size(self) -> int:
        """Channels of a head of v, and of what comes out."""
        return self.value_dim or self.head_dim

    def values(self, v: Array) -> Array:
        """The channels of v."""
        return v[:, self.value_start : self.value_start + self.kv_heads * self.value_size]

    def mask(self, queries: NDArray[np.int64], keys: int) -> NDArray[np.bool_]:
        """Which of the keys some tokens see, (queries, keys)."""
        back = queries[:, None] - np.arange(keys)
        seen = back >= 0 if self.causal else np.ones_like(back, dtype=bool)
        if self.chunk is not None:
            seen = seen & (np.arange(keys) >= queries[:, None] // self.chunk * self.chunk)
        return seen if self.window is None else np.asarray(seen & (back < self.window))

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.attention(x["q"], x["k"], self.values(x["v"]), self, self.sinks(at))

    def sinks(self, at: At) -> Array | None:
        """The score of the sink of every head, (heads,); None where there are none."""
        return at.path.vector(at.model.weight(at.stage.weights[0])) if at.stage.weights else None

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """Where the path keeps halves, what they make of it in float64, and sums or shares that are halves too."""
        error = rounding_error(at, x, output, cancels=True)
        lost = at.path.attention_lost(x["q"], x["k"], self.values(x["v"]), self, self.sinks(at))
        if lost is None:
            return error
        sums = norm(at.path.attention_units(len(output))[:, None] * numbers(output))
        return float(np.sqrt(error**2 + norm(lost) ** 2 + sums**2))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """A score that is off by d changes its weight by the share d; scores err by what their products round.

        The weights add up to 1, so that many of them are small: each is kept, and each product with a value is added
        up.
        """
        value, d = self.values(x["v"]), self.head_dim
        group = self.heads // self.kv_heads
        lengths = [np.linalg.norm(z.reshape(len(z), -1, d), axis=2) for z in (x["q"], x["k"])]
        keys = self._largest_seen(np.repeat(lengths[1], group, axis=1))
        scores = lengths[0] * keys * self.scale  # (tokens, heads), the largest that any of them can be
        values = self._largest_seen(value).reshape(len(value), -1, self.value_size)
        reach = np.repeat(values, group, axis=1)
        sums = np.square(value).cumsum(axis=0)
        counts = np.arange(1, len(value) + 1)
        if not self.causal:
            sums, counts = np.broadcast_to(sums[-1], sums.shape), np.full(len(value), len(value))
        all_values = np.repeat(np.sqrt(sums).reshape(values.shape), group, axis=1)
        noise = (kept.unit * (4 + scores) + kept.least * (lengths[0] + keys))[:, :, None] * reach
        noise = noise + kept.least * (all_values + np.sqrt(counts)[:, None, None])
        return np.asarray(noise.reshape(size.shape) + 2 * kept.unit * size)

    def _largest_seen(self, values: Values) -> Values:
        """The largest among the tokens that each token attends to, or more of them, (tokens, channels)."""
        if self.causal:
            return np.asarray(np.maximum.accumulate(values, axis=0))
        return np.broadcast_to(values.max(axis=0), values.shape)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """Per head p = softmax(s): dp = p (ds - sum p ds), and the output changes by dp v + p dv.

        The score of a sink is a constant.
        """
        d, group = self.head_dim, self.heads // self.kv_heads
        query, key, value = x["q"], x["k"], self.values(x["v"])
        d_query, d_key, d_value = dx["q"], dx["k"], self.values(dx["v"])
        seen, sinks, size = self.mask(np.arange(len(query)), len(key)), self.sinks(at), self.value_size
        out = np.empty((len(query), self.heads * size))
        for head in range(self.heads):
            own, shared = (slice(n * d, n * d + d) for n in (head, head // group))
            mine, theirs = (slice(n * size, n * size + size) for n in (head, head // group))
            plain = query[:, own] @ key[:, shared].T * self.scale
            bent = plain if self.cap is None else self.cap * np.tanh(plain / self.cap)
            scores = np.where(seen, bent, -np.inf)
            share = softmax(scores, None if sinks is None else float(sinks[head]))
            slope = (d_query[:, own] @ key[:, shared].T + query[:, own] @ d_key[:, shared].T) * self.scale
            if self.cap is not None:
                slope = slope * (1 - np.square(bent / self.cap))
            d_share = share * (slope - (share * slope).sum(axis=1, keepdims=True))
            out[:, mine] = d_share @ value[:, theirs] + share @ d_value[:, theirs]
        return np.asarray(out)


def softmax(scores: Values, sink: float | None = None) -> Values:
    """Shares of scores (rows, keys) in float64, beside that of a sink if there is one."""
    least = -np.inf if sink is None else sink
    largest = np.maximum(scores.max(axis=1, keepdims=True), least)
    powers = np.exp(scores - largest)
    return np.asarray(powers / (powers.sum(axis=1, keepdims=True) + np.exp(least - largest)))
