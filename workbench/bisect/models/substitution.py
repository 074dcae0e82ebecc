"""Re-running one stage with some of its factors taken from the other side.

For a stage f with inputs x_A and x_B:  f_B(x_B) - f_A(x_A) = [f_B(x_B) - f_B(x_A)] + [f_B(x_A) - f_A(x_A)],
inherited plus local, exact. Every other figure here is the same stage with one factor exchanged.
"""

from dataclasses import dataclass, replace

import numpy as np

from kernels.config import ModelConfig
from kernels.forward import evaluate
from kernels.graph import Array, At, Inputs, Model
from kernels.models import Graph
from kernels.numbers import norm
from kernels.paths import F32Path, numeric_path
from kernels.stages import Site
from kernels.weight import Weight

ORACLE = numeric_path("f64")


@dataclass(frozen=True, slots=True)
class Mixed:
    """A model with the tensors of one side and the hyper-parameters of another."""

    tensors: Model
    config: ModelConfig

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name."""
        return self.tensors.weight(name)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


@dataclass(frozen=True, slots=True)
class Factors:
    """What a stage computes with, apart from its input; made by `of`. graph : that of the weights and the config."""

    weights: Model
    config: ModelConfig
    path: F32Path
    graph: Graph

    @classmethod
    def of(cls, weights: Model, path: F32Path, config: ModelConfig | None = None) -> "Factors":
        """The factors of one side, or with the hyper-parameters of another."""
        config = config or weights.config
        return cls(weights, config, path, Graph(config, weights.__contains__))

    @property
    def model(self) -> Model:
        """Tensors and hyper-parameters as one model."""
        return Mixed(self.weights, self.config)

    def at(self, site: Site, tokens: tuple[int, ...]) -> At | None:
        """Where the stage is evaluated; None if the model does not have it."""
        stage = self.graph.stage(site)
        return None if stage is None else At(self.model, self.path, tokens, stage)

    def run(self, site: Site, tokens: tuple[int, ...], inputs: Inputs) -> Array | None:
        """The stage on the given inputs by role, in the precision of the path; None if the model does not have it."""
        at = self.at(site, tokens)
        if at is None:
            return None
        ready = {role: np.ascontiguousarray(value, dtype=self.path.dtype) for role, value in inputs.items()}
        return evaluate(at, ready)

    def on(self, path: F32Path) -> "Factors":
        """The same on another numeric path."""
        return replace(self, path=path)

    def exact(self) -> "Factors":
        """The same in float64: the arbiter."""
        return self.on(ORACLE)


def difference(found: Array, other: Array) -> Array:
    """found - other in float64; 0 where neither is a number: what both have lost differs in nothing."""
    lost = ~np.isfinite(found) & ~np.isfinite(other)
    with np.errstate(invalid="ignore"):
        return np.where(lost, 0.0, np.subtract(found, other, dtype=np.float64))


def relative(difference: Array, reference: Array) -> float | None:
    """‖difference‖ / ‖reference‖ in float64, or None if the reference is zero and the difference is not.

    A difference that is not finite makes the ratio so; of the reference, what is a number counts.
    """
    top, bottom = float(np.linalg.norm(difference.astype(np.float64))), norm(reference)
    if top == 0:
        return 0.0
    return top / bottom if bottom else None


def share(part: Array, whole: Array) -> float | None:
    """How much of a difference another one accounts for: ⟨part, whole⟩ / ‖whole‖², 1 if they are equal."""
    energy = float(np.vdot(whole, whole))
    return float(np.vdot(part, whole)) / energy if energy else None
