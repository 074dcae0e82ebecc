"""How often the rows of q and k were put into rotary pairs, told by the weights alone.

A rotation mixes two rows of a head. Where attention has learned to look some tokens back, one row of such a pair of q
is like the other row of the pair of k, and like no other row. So the two that rotate together are found: rows half a
head apart as Hugging Face keeps them (0 times), or neighbours as llama.cpp's older families do (1 time).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMES = (0, 1, 2)
SIGMAS = 5.0  # of the mean over pairs and key heads, by which the best order must lead
FEWEST = 64  # pairs that may tell
_OFTEN = {0: "never", 1: "once", 2: "twice"}

_Floats = NDArray[np.floating]
_Likeness = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Order:
    """What the rows of one tensor show.

    possible : how often they were put into pairs; empty where it cannot be told, for that may be -1 as well.
    likeness : mean |cosine| of the rows of q and k that would rotate together, by number of times.
    sigmas : by which the best order leads. pairs : over which the mean runs.
    """

    possible: tuple[int, ...]
    likeness: dict[int, float]
    sigmas: float
    pairs: int

    @property
    def words(self) -> str:
        """The figure behind it."""
        if self.pairs < FEWEST:
            return f"{self.pairs} pairs of rows, which is too few to tell"
        means = ", ".join(f"{mean:.3f} if {_OFTEN[times]}" for times, mean in self.likeness.items())
        return (
            f"mean |cosine| of {self.pairs} pairs of rows of q and k that would rotate together: {means}; "
            f"{self.sigmas:.1f} sigmas"
        )


def in_pairs(size: int, times: int) -> NDArray[np.intp]:
    """The rows of a head of `size` rows in the order that so many times make; -1 undoes 1."""
    once = np.arange(size).reshape(2, -1).T.reshape(-1)
    if times < 0:
        once = np.argsort(once)
    order = np.arange(size)
    for _ in range(abs(times)):
        order = order[once]
    return order


def likeness(q: _Floats, k: _Floats, heads: int, kv_heads: int) -> _Likeness:
    """|cosine| of every row of q with every row of the k that it meets, (kv heads, size, size).

    q : (heads x size, columns). k : (kv heads x size, columns). The mean over the heads of q that share one of k.
    """
    q, k = (_unit(rows).reshape(count, -1, rows.shape[1]) for rows, count in ((q, heads), (k, kv_heads)))
    groups = q.reshape(kv_heads, -1, *q.shape[1:])
    return np.stack([np.abs(group @ k[head].T).mean(axis=0) for head, group in enumerate(groups)]).astype(np.float64)


def orders(layers: Sequence[_Likeness]) -> tuple[Order, Order]:
    """What the rows of q and those of k show, of layers that were treated alike."""
    means = {pair: np.concatenate([_of_pairs(like, *pair).ravel() for like in layers]) for pair in _TRIED}
    best = max(means, key=lambda pair: float(means[pair].mean()))
    q, k = (_order(means, best, side) for side in (0, 1))
    return q, k


_TRIED = tuple((q, k) for q in TIMES for k in TIMES)  # times of q, times of k


def _order(means: dict[tuple[int, int], _Likeness], best: tuple[int, int], side: int) -> Order:
    values = means[best]
    if len(values) < FEWEST:
        return Order((), {}, 0.0, len(values))
    leads = {
        times: min(_lead(values, means[pair]) for pair in _TRIED if pair[side] == times)
        for times in TIMES
        if times != best[side]
    }
    possible = tuple(times for times in TIMES if times == best[side] or leads[times] < SIGMAS)
    shown = {times: float(max(means[p].mean() for p in _TRIED if p[side] == times)) for times in TIMES}
    return Order(possible if len(possible) == 1 else (), shown, min(leads.values()), len(values))


def _lead(values: _Likeness, others: _Likeness) -> float:
    """How many standard errors the mean of one lies above that of the other, pair by pair."""
    difference = values - others
    error = difference.std() / np.sqrt(len(difference))
    return float(difference.mean() / error) if error > 0 else 0.0


def _of_pairs(like: _Likeness, times_q: int, times_k: int) -> _Likeness:
    """Likeness of the two rows that rotate together if rows were put into pairs so often, (kv heads, pairs)."""
    size = like.shape[1]
    q, k = (in_pairs(size, -times) for times in (times_q, times_k))
    first, second = np.arange(size // 2), np.arange(size // 2, size)
    return np.asarray((like[:, q[first], k[second]] + like[:, q[second], k[first]]) / 2)


def _unit(rows: _Floats) -> NDArray[np.float32]:
    rows = np.where(np.isfinite(rows), rows, 0).astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))
