"""One stage of two artifacts beside each other: what each side reads, computes with and gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, Inputs, Model, Stage, Values
from kernels.kinds.attention import Attention
from kernels.kinds.product import Product
from kernels.paths import F32Path
from kernels.stages import Site
from workbench.bisect.models.rerouted import scores
from workbench.bisect.models.substitution import Factors

_AT_ONCE = 5 << 20  # elements of an output over a large vocabulary that are looked at together
_TOKENS = 16  # of which whole multiples are multiplied at once
_EXACT = 8  # tokens of which a product is repeated in float64, and as many more that are unlike the others
_ODD = 100.0  # times the square of the difference that half of the tokens have, which rounding makes of none


@dataclass(frozen=True, slots=True)
class Side:
    """One artifact as the bisection runs it."""

    model: Model
    path: F32Path


@dataclass
class Cell:
    """Everything known about one stage while it is judged; inputs by role. stage : A's, or B's where A has none."""

    stage: Stage
    a: Factors
    b: Factors
    tokens: tuple[int, ...]
    inputs_a: Inputs
    inputs_b: Inputs
    y_a: Array
    y_b: Array

    @property
    def site(self) -> Site:
        """Where it is."""
        return self.stage.site

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Tokens of which both sides' inputs are numbers: what the others show is inherited."""
        known = np.ones(len(self.tokens), dtype=bool)
        for x in (*self.inputs_a.values(), *self.inputs_b.values()):
            if not _all_numbers(x):
                known &= np.isfinite(x).all(axis=1)
        kinds = [at.kind for at in (side.at(self.site, self.tokens) for side in (self.a, self.b)) if at is not None]
        for kind in kinds:
            if isinstance(kind, Attention):
                seen = kind.mask(np.arange(len(known)), len(known))
                known = np.asarray(~(seen & ~known).any(axis=1))
        return known

    def run(self, factors: Factors, inputs: Inputs | None = None) -> Array:
        """The stage on A's input (or another) with the given factors; a stage it does not have passes on its input."""
        inputs = self.inputs_a if inputs is None else inputs
        result = factors.run(self.site, self.tokens, inputs)
        return result if result is not None else np.asarray(inputs[self.stage.kind.roles[0]])

    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each side chooses experts by."""
        at = [factors.exact().at(self.site, self.tokens) for factors in (self.a, self.b)]
        assert at[0] is not None
        assert at[1] is not None
        return scores(at[0], self.inputs_a), scores(at[1], self.inputs_b)

    def inputs_of_both(self) -> dict[str, Array]:
        """A's inputs, NaN where B's are no numbers: rounding to 8 bits can make a number of NaN on one side only."""
        if self.judged.all():
            return dict(self.inputs_a)
        return {name: np.where(np.isfinite(self.inputs_b[name]), x, np.nan) for name, x in self.inputs_a.items()}

    def of(self, some: slice | NDArray[np.int64]) -> "Cell":
        """The same with some tokens only."""
        of_a, of_b = ({role: x[some] for role, x in of.items()} for of in (self.inputs_a, self.inputs_b))
        tokens = tuple(np.array(self.tokens)[some].tolist())
        return Cell(self.stage, self.a, self.b, tokens, of_a, of_b, self.y_a[some], self.y_b[some])

    def pieces(self) -> Iterator["Cell"]:
        """The same with some tokens at a time where the output is large and made token by token.

        A piece has as many tokens as are multiplied alike by themselves and among all; the last one may have more.
        """
        size = max(1, _AT_ONCE // self.y_a.shape[1] // _TOKENS) * _TOKENS
        batches = self.a.path.in_batches or self.b.path.in_batches
        if not isinstance(self.stage.kind, Product) or batches or len(self.tokens) < size + _TOKENS:
            yield self
            return
        starts = range(0, len(self.tokens) - _TOKENS + 1, size)
        for start, stop in pairwise((*starts, len(self.tokens))):
            yield self.of(slice(start, stop))

    @property
    def whole(self) -> bool:
        """Whether all tokens are looked at in float64; of a product of more than a few some stand for all."""
        return len(self.tokens) <= _EXACT or not isinstance(self.stage.kind, Product)

    def telling(self, first: int, count: int, local: Values) -> NDArray[np.int64]:
        """Which tokens of a piece, `count` of the cell's from its `first` on, are looked at in float64.

        Every so many-th of the cell, and those whose own difference is another than most tokens have. local : its
        squares, of the tokens of the piece.
        """
        if self.whole:
            return np.arange(count)
        every = -(-len(self.tokens) // _EXACT)
        known = np.where(np.isfinite(local), local, np.inf)
        odd = np.flatnonzero(known > _ODD * np.median(known))
        furthest = odd[np.argsort(-known[odd], kind="stable")[:_EXACT]]
        return np.union1d(np.arange(-first % every, count, every), furthest)


def _all_numbers(x: Array) -> bool:
    """Whether no value is NaN or infinite: seen by the sum, which then is a number, unless that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum()) or np.isfinite(x).all())
