"""Rotary tables that were kept too coarsely: positions, frequencies, angles, or the cosines and sines themselves."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Values
from kernels.kinds.rotate import Rotate
from kernels.precision import BFLOAT16, FLOAT16
from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.traces.angles import channels_of, pairs_of
from workbench.bisect.weights.roundings import rounded

_Keep = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_TYPES: tuple[tuple[str, float, _Keep], ...] = (
    ("bfloat16", BFLOAT16.unit, partial(rounded, kept=7)),
    ("float16", FLOAT16.unit, partial(rounded, kept=10, smallest=-14)),
)
_PARTS = ("positions", "frequencies", "angles", "cosines and sines")


def table_mistakes(q: Question, x: Values) -> Iterator[Mistake]:
    """Every part of the tables, and any of them together, rounded to a narrower type; fewest parts first."""
    pairs = pairs_of(x, q.kind(Rotate).rotation)
    right = _table(q, (), np.copy)
    for name, unit, keep in _TYPES:
        own = _PARTS[-1:] if q.kept.unit >= unit else ()  # an engine of that type casts the cosines and sines to it
        parts = [part for part in _PARTS if part not in own]
        seen = [right]
        for chosen in (some for count in range(1, len(parts) + 1) for some in combinations(parts, count)):
            table = _table(q, chosen + own, keep)
            if any(np.array_equal(table, other) for other in seen):
                continue
            seen.append(table)
            words = f"rotary tables rounded to {name} ({', '.join(chosen)}): {_worst(_table(q, chosen, keep), right)}"
            predicted = channels_of(pairs * table[:, None, :], x, q.kind(Rotate).rotation)
            yield Mistake("dtype_truncated", "numerics", words, predicted, rounded=True, setting=(name, *chosen))


def _table(q: Question, chosen: tuple[str, ...], keep: _Keep) -> NDArray[np.complex128]:
    """The cosines and sines, as complex numbers (tokens, pairs), of an engine that keeps some parts its way."""

    def kept(part: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return keep(values) if part in chosen else values

    positions = kept("positions", q.at.positions().astype(np.float32))
    one = q.at.path.rope_angles(np.ones(1, dtype=np.int64), q.kind(Rotate).rotation)
    angles = kept("angles", positions[:, None] * kept("frequencies", np.ascontiguousarray(one, dtype=np.float32)))
    cos, sin = (kept("cosines and sines", f(angles.astype(np.float64)).astype(np.float32)) for f in (np.cos, np.sin))
    return np.asarray(cos + 1j * sin, dtype=np.complex128)


def _worst(table: NDArray[np.complex128], right: NDArray[np.complex128]) -> str:
    off = np.abs(np.angle(table * right.conj()))
    token, pair = np.unravel_index(int(off.argmax()), off.shape)
    return f"at position {token} pair {pair} of a head is turned {off[token, pair]:.3g} radians too far or too little"
