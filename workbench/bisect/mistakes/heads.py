"""Attention in float64 over the recorded queries, keys and values, in whatever way a mistake would attend."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Values
from kernels.kinds.attention import Attention, softmax
from workbench.bisect.mistakes.mistake import NAMED, Flags, Question
from workbench.bisect.verdict import Factor, Setting


@dataclass(frozen=True, eq=False)
class Heads:
    """What attention works on, float64: q (tokens, heads, d), k and v (tokens, groups, d); the rows it is asked for.

    sinks : a score of every head beside those of its keys; None for none.
    """

    q: Values
    k: Values
    v: Values
    rows: NDArray[np.int64]
    kind: Attention
    sinks: Values | None = None

    @classmethod
    def of(cls, question: Question) -> "Heads":
        """The recorded queries, keys and values of a layer."""
        kind, x = question.kind(Attention), question.x
        parts = (x["q"], kind.head_dim), (x["k"], kind.head_dim), (kind.values(x["v"]), kind.value_size)
        q, k, v = (part.reshape(len(part), -1, size) for part, size in parts)
        sinks = kind.sinks(question.at)
        return cls(q, k, v, np.arange(len(q)), kind, None if sinks is None else sinks.astype(np.float64))

    def owners(self) -> NDArray[np.int64]:
        """The key and value head of every head."""
        heads, groups = self.q.shape[1], self.k.shape[1]
        return np.asarray(np.arange(heads) // (heads // groups))

    def attend(
        self, scale: float, mask: Flags | None = None, owner: NDArray[np.int64] | None = None, cap: float | None = None
    ) -> Values:
        """softmax(q k^T scale + mask) v, (rows, heads * d).

        mask : (rows, tokens), the model's own if None. cap : of the scores, the model's own if None, infinite for none.
        """
        cap = self.kind.cap if cap is None else cap
        owner = self.owners() if owner is None else owner
        if mask is None:
            mask = self.kind.mask(self.rows, len(self.k))
        mask = mask | ~mask.any(axis=1, keepdims=True)
        out = np.empty((len(self.rows), self.q.shape[1], self.v.shape[2]))
        for head, shared in enumerate(owner.tolist()):
            scores = self.q[self.rows, head] @ self.k[:, shared].T * scale
            if cap is not None and np.isfinite(cap):
                scores = cap * np.tanh(scores / cap)
            sink = None if self.sinks is None else float(self.sinks[head])
            out[:, head] = softmax(np.where(mask, scores, -np.inf), sink) @ self.v[:, shared]
        return out.reshape(len(out), -1)


@dataclass(frozen=True, slots=True)
class Try:
    """A way of attending that some mistake would take: what it makes of any rows."""

    cause: str
    factor: Factor
    explanation: str
    attend: Callable[[Heads], Values]
    rank: int = NAMED
    setting: Setting = ()
