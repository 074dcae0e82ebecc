"""Products with the weights of the experts that are chosen for each token, and the sum of what they give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import WEIGHT, Array, At, Inputs, Kind, Stage, Values
from kernels.kinds.apart import ProductsApart, Routed
from kernels.kinds.choice import Choice, chosen
from kernels.kinds.product import Product
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class ExpertProduct(ProductsApart):
    """x @ W.T for each expert of a token, in ascending order of the experts, (tokens, used * rows).

    The stage names the weights of all experts, of which those that no token chose are not read. used : how many a token
    has. apart : x holds an input of its own for each of them, side by side.
    """

    used: int
    apart: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x", "weights")

    @property
    def one(self) -> Product:
        return Product(apart=True)

    @property
    def runs(self) -> int:
        return self.used

    def seen_by(self, stage: Stage, tensor: str, x: Inputs) -> Array:
        expert = next(n for n, name in enumerate(stage.weights) if tensor.startswith(name.removesuffix(WEIGHT) + "."))
        tokens, runs = np.nonzero(chosen(x["weights"], self.used) == expert)
        return self._read(x["x"], tokens, runs)

    def routed(self, at: At, x: Inputs) -> Iterator[Routed]:
        experts = chosen(x["weights"], self.used)
        for expert in np.unique(experts).tolist():
            yield Routed(expert, self.alone(at, expert), *np.nonzero(experts == expert))

    def read(self, x: Array, pairs: Routed) -> Array:
        return self._read(x, pairs.tokens, pairs.runs)

    def _read(self, x: Array, tokens: NDArray[np.int64], runs: NDArray[np.int64]) -> Array:
        found = x.reshape(len(x), self.used, -1)[tokens, runs] if self.apart else x[tokens]
        return np.ascontiguousarray(found)


@dataclass(frozen=True, slots=True)
class ExpertSum(Kind):
    """What the experts of a token give, each times its weight, added up: those that count most first.

    weighted : it is multiplied here, and what the experts read was not.
    """

    weighted: bool = True
    roles: ClassVar[tuple[str, ...]] = ("weights", "x")

    def used(self, at: At, x: Array) -> int:
        """How many experts a token has."""
        return int(x.shape[1]) // at.stage.channels

    def terms(self, at: At, x: Inputs, ranking: Array | None = None) -> tuple[Array, Array]:
        """Weights (tokens, used) and outputs (tokens, used, channels), those that count most first.

        ranking : by what they are put in order, where that is not what they count, (tokens, experts).
        """
        experts = chosen(x["weights"], self.used(at, x["x"]))
        own = np.take_along_axis(x["weights"], experts, axis=1)
        by = own if ranking is None else np.take_along_axis(ranking, experts, axis=1)
        order = np.argsort(-by, axis=1, kind="stable")
        parts = x["x"].reshape(len(experts), -1, at.stage.channels)
        own = own if self.weighted else np.ones_like(own)
        return np.take_along_axis(own, order, axis=1), np.take_along_axis(parts, order[:, :, None], axis=1)

    def ranking(self, at: At, x: Inputs) -> Array | None:
        """By what experts are added up, (tokens, experts), the largest first; None for by what they count."""
        return None

    def evaluate(self, at: At, x: Inputs) -> Array:
        weights, parts = self.terms(at, x, self.ranking(at, x))
        out = parts[:, 0] * weights[:, :1]
        for place in range(1, weights.shape[1]):
            out = at.path.elementwise(np.add, out, parts[:, place] * weights[:, place : place + 1])
        return np.ascontiguousarray(out)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        weights, parts = self.terms(at, x)
        return rounding_error(at, {"x": np.asarray(weights[:, :, None] * parts)}, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        weights, parts = self.terms(at, x)
        terms = weights[:, :, None] * parts
        return np.asarray(kept.unit * (3 * terms.sum(axis=1) + 2 * size))

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """With the experts that the tokens have."""
        experts = chosen(x["weights"], self.used(at, x["x"]))
        weights, change = (np.take_along_axis(part["weights"], experts, axis=1)[:, :, None] for part in (x, dx))
        if not self.weighted:
            weights, change = np.ones_like(weights), np.zeros_like(change)
        parts, moved = (part["x"].reshape(len(experts), -1, at.stage.channels) for part in (x, dx))
        return np.asarray((weights * moved + change * parts).sum(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedSum(ExpertSum):
    """The same, of experts that are chosen by other numbers than they count: those that were chosen first come first.

    choice : how they were, of the router's logits, with the tensor of the stage.
    """

    choice: Choice
    roles: ClassVar[tuple[str, ...]] = ("weights", "x", "logits")

    def ranking(self, at: At, x: Inputs) -> Array:
        return self.choice.selection(at, self.choice.scores(x["logits"], at.path))


@dataclass(frozen=True, slots=True)
class ExpertInput(Kind):
    """x times the weight of each expert of a token, in ascending order of the experts, (tokens, used * channels)."""

    used: int
    roles: ClassVar[tuple[str, ...]] = ("x", "weights")

    def evaluate(self, at: At, x: Inputs) -> Array:
        experts = chosen(x["weights"], self.used)
        own = np.take_along_axis(x["weights"], experts, axis=1)
        return np.asarray(own[:, :, None] * x["x"][:, None]).reshape(len(own), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """With the experts that the tokens have."""
        experts = chosen(x["weights"], self.used)
        own, change = (np.take_along_axis(part["weights"], experts, axis=1)[:, :, None] for part in (x, dx))
        return np.asarray(own * dx["x"][:, None] + change * x["x"][:, None]).reshape(len(own), -1)
