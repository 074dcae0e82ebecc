"""Which experts the channels of a stage belong to, on two sides that may have chosen others.

The population of such a stage is pairs of a token and an expert. Where a side has chosen another expert, its pair has
no like on the other side: it is counted and left out.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.experts import CHOICE, PAIRS
from kernels.kinds.choice import Experts, chosen
from kernels.stages import Site

NOWHERE = -1


class Routes:
    """The experts of every token, as the stages of a run come by in execution order."""

    def __init__(self) -> None:
        self._layer: int | None = None
        self._experts: Experts | None = None

    def see(self, site: Site, values: NDArray[Any]) -> Experts | None:
        """The experts of a stage of pairs, (tokens, used); None for any other, or where nothing tells them."""
        if site.stage == CHOICE:
            self._layer, self._experts = site.layer, experts_of(values)
        if site.stage not in PAIRS or site.layer != self._layer or self._experts is None:
            return None
        fits = len(self._experts) == len(values) and values.shape[1] % self._experts.shape[1] == 0
        return self._experts if fits else None


def experts_of(weights: NDArray[Any]) -> Experts:
    """The experts that count anything for each token, (tokens, used), of weights (tokens, experts)."""
    return chosen(weights, max(int(np.count_nonzero(weights, axis=1).max(initial=0)), 1))


class Common(NamedTuple):
    """The pairs of a token and an expert that two sides have in common.

    places : of each run of A the run of B with the same expert, NOWHERE if B has none, (tokens, used of A). runs_of_b :
    how many experts a token has in B.
    """

    places: NDArray[np.int64]
    runs_of_b: int

    @classmethod
    def of(cls, a: Experts, b: Experts) -> "Common":
        """The pairs of two choices for the same tokens."""
        same = a[:, :, None] == b[:, None, :]
        return cls(np.where(same.any(axis=2), same.argmax(axis=2), NOWHERE), b.shape[1])

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which runs of A have one in B."""
        return np.asarray(self.places != NOWHERE)

    @property
    def whole(self) -> bool:
        """Whether both sides chose the same experts for every token."""
        return bool(self.there.all())

    @property
    def words(self) -> str:
        """How many tokens and pairs are not in common."""
        tokens, gone = len(self.places), ~self.there
        elsewhere = int(gone.any(axis=1).sum())
        return (
            f"A and B send {elsewhere} of {tokens} tokens to other experts: {int(gone.sum())} of {gone.size} pairs of "
            "a token and an expert are left out"
        )

    def of_b(self, values: NDArray[Any], missing: NDArray[Any] | float) -> NDArray[Any]:
        """B's values in the order of A's experts, (tokens, channels); missing : what stands where B has none."""
        tokens, used = self.places.shape
        runs = values.reshape(tokens, self.runs_of_b, -1)
        found = np.take_along_axis(runs, np.maximum(self.places, 0)[:, :, None], axis=1)
        instead = np.broadcast_to(np.asarray(missing, dtype=values.dtype), (tokens, used * runs.shape[2]))
        return np.where(self.there[:, :, None], found, instead.reshape(found.shape)).reshape(tokens, -1)
