"""Decays of a state, kept as their logarithms in one container and as -exp of them in another."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Floats, Stored

_ULPS = 4  # that two libraries may be apart in an exponential


def decays_otherwise(q: Question) -> Iterator[Prediction]:
    """-exp taken once more on one side than on the other."""
    if not q.name.endswith(".A_log"):
        return
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        own = q.a(np.zeros(1, dtype=np.int64)).values.astype(np.float64)
        again, undone = -np.exp(own), np.log(-own)
    times = "never" if (own >= 0).any() else "once"
    yield _prediction(q, again, f"-exp was taken of {q.what} once more than on the other side, which has it {times}")
    yield _prediction(q, undone, f"-exp was not taken of {q.what}: it holds logarithms where the other side has decays")


def _prediction(q: Question, values: Floats, words: str) -> Prediction:
    made = values.astype(np.float32)

    def rows_of(rows: Rows) -> Stored:
        stored = q.a(rows)
        return replace(stored, values=made, width=stored.width + _ULPS * np.spacing(np.abs(made)), fitted=0, top=0)

    return Prediction("recurrence", words, rows_of)
