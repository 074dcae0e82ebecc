"""Products side by side, each with a weight of its own: of experts, or of heads."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.graph import WEIGHT, Array, At, Inputs, Kind, Stage, Values
from kernels.kinds.product import Product
from kernels.precision import Precision


class Routed(NamedTuple):
    """The pairs of a token and one of the weights: where its product is evaluated, and the place of every pair."""

    expert: int
    at: At
    tokens: NDArray[np.int64]
    runs: NDArray[np.int64]


class ProductsApart(Kind):
    """x @ W.T with some of the weights of the stage for every token, side by side, (tokens, runs * rows)."""

    @property
    @abstractmethod
    def one(self) -> Product:
        """What the product with one of them is."""

    @property
    @abstractmethod
    def runs(self) -> int:
        """How many products a token has."""

    @abstractmethod
    def routed(self, at: At, x: Inputs) -> Iterator[Routed]:
        """The pairs of every weight that any token meets."""

    @abstractmethod
    def read(self, x: Array, pairs: Routed) -> Array:
        """What a weight multiplies, (pairs, in)."""

    @abstractmethod
    def seen_by(self, stage: Stage, tensor: str, x: Inputs) -> Array:
        """What the weight multiplies that a tensor of the stage belongs to, (pairs, in)."""

    def alone(self, at: At, number: int) -> At:
        """Where the product with one of the weights is evaluated by itself."""
        stem = at.stage.weights[number].removesuffix(WEIGHT)
        own = tuple(name for name in at.stage.tensors if name.startswith(f"{stem}."))
        channels, reads = at.stage.channels // self.runs, at.stage.reads[:1]
        return replace(
            at, stage=replace(at.stage, kind=self.one, channels=channels, reads=reads, tensors=own, heads=None)
        )

    def evaluate(self, at: At, x: Inputs) -> Array:
        out = np.empty((len(x["x"]), self.runs, at.stage.channels // self.runs), dtype=at.path.dtype)
        for pairs in self.routed(at, x):
            out[pairs.tokens, pairs.runs] = self.one.evaluate(pairs.at, {"x": self.read(x["x"], pairs)})
        return out.reshape(len(out), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        energy, parts = 0.0, output.reshape(len(output), self.runs, -1)
        for pairs in self.routed(at, x):
            read, found = {"x": self.read(x["x"], pairs)}, parts[pairs.tokens, pairs.runs]
            energy += self.one.rounding(pairs.at, read, found, codes) ** 2
        return float(energy**0.5)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        out = size.reshape(len(size), self.runs, -1).copy()
        for pairs in self.routed(at, x):
            read, own = {"x": self.read(x["x"], pairs)}, out[pairs.tokens, pairs.runs]
            out[pairs.tokens, pairs.runs] = self.one.noise(pairs.at, read, own, kept)
        return out.reshape(size.shape)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """With the weights that the tokens have."""
        out = np.empty((len(x["x"]), self.runs, at.stage.channels // self.runs))
        for pairs in self.routed(at, x):
            read, change = ({"x": self.read(values["x"], pairs)} for values in (x, dx))
            out[pairs.tokens, pairs.runs] = self.one.derivative(pairs.at, read, change)
        return out.reshape(len(out), -1)


@dataclass(frozen=True, slots=True)
class HeadProduct(ProductsApart):
    """The first channels of every head times a weight of that head, (tokens, heads * rows).

    columns : how many channels of a head that are. strided : engines read them where they lie, between others.
    """

    heads: int
    columns: int
    strided: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x",)

    @property
    def one(self) -> Product:
        return Product(strided=self.strided)

    @property
    def runs(self) -> int:
        return self.heads

    def routed(self, at: At, x: Inputs) -> Iterator[Routed]:
        tokens = np.arange(len(x["x"]))
        for head in range(self.heads):
            yield Routed(head, self.alone(at, head), tokens, np.full(len(tokens), head))

    def read(self, x: Array, pairs: Routed) -> Array:
        return self._of_head(x, pairs.expert)

    def seen_by(self, stage: Stage, tensor: str, x: Inputs) -> Array:
        return self._of_head(x["x"], stage.weights.index(tensor))

    def _of_head(self, x: Array, head: int) -> Array:
        return np.ascontiguousarray(x.reshape(len(x), self.heads, -1)[:, head, : self.columns])
