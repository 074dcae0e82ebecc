"""How far the output of a run is from that of A: the KL divergence of every token, its tail, and flips."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.divergence import log_sums_and_gaps

Logits = NDArray[np.floating[Any]]
Values = NDArray[np.float64]

TAIL = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_BINS = 16  # for every factor of two: a figure read from bins is at most 2.2 % off
ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Reference:
    """Logits of A (tokens, vocabulary), and what is needed of them again and again. sums : log Σ exp of each token."""

    logits: Logits
    sums: Values
    best: NDArray[np.intp]

    @classmethod
    def of(cls, logits: Logits) -> "Reference":
        """Keep logits to measure others against."""
        return cls(logits, log_sums_and_gaps(logits, logits)[0], logits.argmax(axis=1))


@dataclass(frozen=True, slots=True)
class Figures:
    """KL(run‖A) of every token in nats, and how many tokens have another most likely successor."""

    kl: Values
    flips: int

    @classmethod
    def of(cls, run: Logits, reference: Reference) -> "Figures":
        """Measure logits of the shape of the reference."""
        sums, gaps = log_sums_and_gaps(run, reference.logits)
        kl = gaps - (sums - reference.sums)
        return cls(np.maximum(kl, 0.0), int((run.argmax(axis=1) != reference.best).sum()))

    @classmethod
    def none(cls, tokens: int) -> "Figures":
        """Of a run whose output is that of A, bit for bit."""
        return cls(np.zeros(tokens), 0)

    def to_json(self) -> dict[str, Any]:
        """Mean, tail, worst token, flips, and how often KL had which size; null where it is no number."""
        tokens = len(self.kl)
        found: dict[str, Any] = {"kl": None, **dict.fromkeys(TAIL), "max": None, "worst_token": None}
        if np.isfinite(self.kl).all():
            found["kl"] = float(self.kl.mean())
            found |= {name: float(np.quantile(self.kl, share)) for name, share in TAIL.items()}
            found |= {"max": float(self.kl.max()), "worst_token": int(self.kl.argmax())}
        found |= {"top1": 1 - self.flips / tokens, "flips": self.flips, "tokens": tokens}
        return found | {"bins": dict(Counter(map(bin_of, self.kl[np.isfinite(self.kl)].tolist())))}


def bin_of(kl: float) -> str:
    """The bin that a KL divergence falls into."""
    return ZERO if kl == 0 else str(math.floor(_BINS * math.log2(kl)))


def middle(bin: str) -> float:
    """The geometric middle of a bin."""
    return 0.0 if bin == ZERO else float(2.0 ** ((int(bin) + 0.5) / _BINS))
