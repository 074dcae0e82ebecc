"""Tokens that go to other experts on the two sides, and how near the scores were by which experts are chosen.

Where both sides choose in the same way, another choice is no mistake of its own: it follows from the router's scores,
as a flipped code follows from a value beside its boundary. How near that boundary was is told.
"""

from collections.abc import Iterator

import numpy as np

from kernels.graph import Array, At, Inputs, Values
from kernels.kinds.choice import Choice
from kernels.stages import Site
from workbench.cells.routing import Common, experts_of


class Rerouted:
    """What was seen of the choices of all layers so far."""

    def __init__(self) -> None:
        self._tokens, self._seen, self._margin, self._moved = 0, 0, 0.0, 0.0
        self._first: Site | None = None

    def see(self, site: Site, a: Values, b: Values, weights_a: Array, weights_b: Array) -> None:
        """Look at what experts are chosen by, (tokens, experts), and what they count then."""
        self._seen += len(a)
        chosen, others = experts_of(weights_a), experts_of(weights_b)
        if chosen.shape != others.shape:
            return
        other = ~Common.of(chosen, others).there.all(axis=1)
        if not other.any():
            return
        last, left = np.take_along_axis(a[other], chosen[other], axis=1).min(axis=1), a[other].copy()
        np.put_along_axis(left, chosen[other], -np.inf, axis=1)
        self._first = self._first or site
        self._tokens += int(other.sum())
        with np.errstate(invalid="ignore"):
            margin, moved = last - left.max(axis=1), np.abs(a[other] - b[other])
        self._margin = max(self._margin, _largest(margin))
        self._moved = max(self._moved, _largest(moved))

    def words(self) -> Iterator[str]:
        """A sentence, if there are any."""
        if self._first is not None:
            yield (
                f"{self._tokens} of {self._seen} times a token goes to other experts in A and in B, first at "
                f"{self._first}: the last that is chosen was at most {self._margin:.3g} better than the next, where "
                f"the scores of the two sides differ by up to {self._moved:.3g}; what experts compute is judged with "
                "those of A on both sides"
            )


def scores(at: At, x: Inputs) -> Values:
    """What experts are chosen by at a stage that chooses, in float64."""
    assert isinstance(at.kind, Choice)
    found = at.kind.selection(at, at.kind.scores(np.asarray(x["x"], dtype=np.float64)))
    return np.asarray(found, dtype=np.float64)


def _largest(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0
