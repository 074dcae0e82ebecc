"""What a model computes, as data: stages in execution order, each with its kind, what it reads and what it uses.

A stage can be evaluated alone, with any of its inputs, tensors, settings or arithmetic exchanged; the forward is all
of them in order. What is known about an operation hangs on its kind (kernels/kinds), what a family of models is made
of stands in its file (kernels/models).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.precision import Precision
from kernels.stages import Site
from kernels.weight import Weight

Array = NDArray[Any]
Values = NDArray[np.float64]
Inputs = Mapping[str, Array]  # by role

LAYER_INPUT = "layer_input"  # read by the first stages of a layer: what the layer before gives, or the embedding
WEIGHT, BIAS, SCALE = ".weight", ".bias", ".output_scale"


class Model(Protocol):
    """What a forward needs of an artifact."""

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters."""

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name; MissingTensorError if there is none."""

    def __contains__(self, name: str) -> bool: ...


class Arithmetic(Protocol):
    """What kinds need of a numeric path; kernels/paths.py says what each does."""

    name: str
    dtype: type[np.floating[Any]]

    @property
    def engine(self) -> str:
        """The name without settings."""

    def embed(self, weight: Weight, tokens: NDArray[np.int64]) -> Array:
        """Rows of an embedding matrix."""

    def vector(self, weight: Weight) -> Array:
        """A tensor that no product multiplies."""

    def convolved(self, x: Array, weight: Weight, bias: Array | None) -> Array:
        """Every channel of a token and of those before it, times its weights, plus the bias."""

    def row_norms(self, weight: Weight) -> Values:
        """Euclidean norm of every row."""

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:
        """x @ W.T for each weight, side by side. apart : every token is multiplied by itself."""

    def rounded_off(self, x: Array, weight: Weight) -> Array | None:
        """What the rounding of activations makes of the matmul with this weight, in sums; None if nothing."""

    def rms_norm(self, x: Array, weight: Weight | None, eps: float, times: float = 1.0) -> Array:
        """RMS norm over channels, times a factor."""

    def layer_norm(self, x: Array, weight: Weight | None, bias: Weight | None, eps: float) -> Array:
        """Layer norm over channels."""

    def rotate(self, x: Array, positions: NDArray[np.int64], rotation: Any, columns: slice) -> Array:  # noqa: ANN401
        """Rotary embedding of some columns."""

    def rope_angles(self, positions: NDArray[np.int64], rotation: Any) -> Array:  # noqa: ANN401
        """Angles (positions, pairs)."""

    def attention(self, q: Array, k: Array, v: Array, how: Any, sinks: Array | None = None) -> Array:  # noqa: ANN401
        """Attention before the output projection. sinks : a score of every head beside those of the keys."""

    def attention_lost(self, q: Array, k: Array, v: Array, how: Any, sinks: Array | None = None) -> Values | None:  # noqa: ANN401
        """What attention is off because of how its inputs are kept; None if nothing."""

    def attention_units(self, tokens: int) -> Values:
        """What attention errs by because of how its sums and shares are kept, of each token's size (tokens,)."""

    def delta(self, x: Inputs, how: Any) -> Array:  # noqa: ANN401
        """The gated delta rule."""

    def scan(self, x: Inputs, a: Array, d: Array, how: Any) -> Array:  # noqa: ANN401
        """A state space."""

    def silu(self, x: Array) -> Array:
        """x * sigmoid(x)."""

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x))."""

    def unit_norm(self, x: Array, eps: float) -> Array:
        """x over the root of its sum of squares, of every row."""

    def softmax(self, x: Array) -> Array:
        """Shares of scores over the last axis."""

    def exp(self, x: Array) -> Array:
        """The exponential."""

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x))."""

    def capped(self, x: Array, cap: float) -> Array:
        """cap * tanh(x / cap)."""

    def elementwise(self, function: np.ufunc, a: Array, b: Array) -> Array:
        """function(a, b)."""


class Heads(NamedTuple):
    """How the channels of a stage are heads. size : channels of one. parts : name and channels of each run of heads."""

    size: int
    parts: tuple[tuple[str, int], ...]

    def columns(self, name: str) -> slice:
        """The channels of the run of that name."""
        start = 0
        for part, channels in self.parts:
            if part == name:
                return slice(start, start + channels)
            start += channels
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Stage:
    """A named point of a forward.

    channels : how many values a token has there.
    reads : the stages of the same layer that its kind takes, in the order of the kind's roles; LAYER_INPUT, what the
        family says of stages elsewhere, or a stage of the whole model where there is no such.
    tensors : canonical names: weights, their biases, and what their products are multiplied by.
    heads : where its channels are heads.
    """

    site: Site
    kind: "Kind"
    channels: int
    reads: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    heads: Heads | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> the stage that is read in it."""
        return dict(zip(self.kind.roles, self.reads, strict=True))

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights."""
        return tuple(name for name in self.tensors if name.endswith(WEIGHT))

    @property
    def biases(self) -> tuple[str, ...]:
        """Names of the biases."""
        return tuple(name for name in self.tensors if name.endswith(BIAS))

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of the factors of the products."""
        return tuple(name for name in self.tensors if name.endswith(SCALE))


@dataclass(frozen=True, slots=True)
class At:
    """Where a stage is evaluated: the model, its arithmetic, the tokens and the stage."""

    model: Model
    path: Arithmetic
    tokens: tuple[int, ...]
    stage: Stage

    @property
    def kind(self) -> "Kind":
        """What the stage does."""
        return self.stage.kind

    @property
    def layer(self) -> int | None:
        """Number of the layer; None for stages of the whole model."""
        return self.stage.site.layer

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters of the model, with the heads of the layer."""
        config, layer = self.model.config, self.layer
        return config if layer is None else config.of_layer(layer)

    def positions(self) -> NDArray[np.int64]:
        """Rotary position of every token."""
        return np.arange(len(self.tokens), dtype=np.int64)

    def weights(self) -> list[Weight]:
        """The weights of the stage."""
        return [self.model.weight(name) for name in self.stage.weights]

    def biases(self) -> list[Array]:
        """The biases of the stage."""
        return [self.path.vector(self.model.weight(name)) for name in self.stage.biases]

    def doing(self, kind: "Kind") -> "At":
        """The same place with another operation."""
        return replace(self, stage=replace(self.stage, kind=kind))


@dataclass(frozen=True, slots=True)
class Kind(ABC):
    """An operation and everything known about it. Settings of one stage are fields of its kind.

    One without fields needs no decorator of its own: kinds of one class and the same fields are equal.

    roles : names of what it reads.
    over_tokens : the value of a token depends on other tokens.
    by_position : it needs to know at which position every row stands, so that no row may be missing.
    exact : engines hand on what they compute here as it is, or do not keep it.
    signed : its noise is told by its inputs themselves, and not by their magnitudes alone.
    """

    roles: ClassVar[tuple[str, ...]] = ("x",)
    over_tokens: ClassVar[bool] = False
    by_position: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    @abstractmethod
    def evaluate(self, at: At, x: Inputs) -> Array:
        """The stage on inputs (tokens, channels), contiguous and in the dtype of the path."""

    @abstractmethod
    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """‖what the path's own rounding adds here‖, in the units of the output (kernels/kinds/rounding.py).

        codes : whether activations are rounded before a matmul on one side only; two runs of one path round alike.
        """

    @abstractmethod
    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """How far two right implementations may be apart, element by element, by the rounding of float operations.

        x : magnitudes of the inputs, or the inputs where `signed`. size : of the right output. kept : how the engine
        keeps its numbers.
        """

    def either_way(self, at: At, x: Inputs, kept: Precision) -> Values | float:
        """What two right implementations may differ by because a decision was as near as rounding; 0 where none is.

        Element by element, float64. x : the inputs. kept : how the engine keeps its numbers.
        """
        del at, x, kept
        return 0.0

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """First-order change of the output for the change dx of the inputs x, float64 (tokens, channels).

        As it stands here for everything that is linear in its inputs, plus a constant; at.path is float64.
        """
        changed = {name: x[name] + dx[name] for name in x}
        return np.asarray(self.evaluate(at, changed) - self.evaluate(at, x))
