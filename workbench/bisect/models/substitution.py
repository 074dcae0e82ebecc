"""Re-running one stage with some of its factors taken from the other side.

For a stage f with inputs x_A and x_B:  f_B(x_B) - f_A(x_A) = [f_B(x_B) - f_B(x_A)] + [f_B(x_A) - f_A(x_A)],
inherited plus local, exact. Every other figure here is the same stage with one factor exchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kernels.config import ModelConfig
from kernels.forward import At, Model, evaluate
from kernels.paths import Array, F32Path, numeric_path
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
    """What a stage computes with, apart from its input."""

    weights: Model
    config: ModelConfig
    path: F32Path

    @classmethod
    def of(cls, model: Model, path: F32Path) -> "Factors":
        """The factors of one side."""
        return cls(model, model.config, path)

    def run(self, stage: str, layer: int | None, tokens: tuple[int, ...], inputs: Mapping[str, Array]) -> Array | None:
        """The stage on the given inputs, in the precision of the path; None if the model does not have it."""
        at = At(Mixed(self.weights, self.config), self.path, tokens, layer)
        ready = {name: np.ascontiguousarray(value, dtype=self.path.dtype) for name, value in inputs.items()}
        return evaluate(stage, at, ready)

    def exact(self) -> "Factors":
        """The same in float64: the arbiter."""
        return replace(self, path=ORACLE)


def difference(found: Array, other: Array) -> Array:
    """found - other in float64; 0 where neither is a number: what both have lost differs in nothing."""
    lost = ~np.isfinite(found) & ~np.isfinite(other)
    with np.errstate(invalid="ignore"):
        return np.where(lost, 0.0, np.subtract(found, other, dtype=np.float64))


def numbers(values: Array) -> Array:
    """The values in float64, 0 where they are NaN or infinite."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float64, copy=False)


def norm(values: Array) -> float:
    """‖values‖ in float64 over those that are numbers."""
    return float(np.linalg.norm(numbers(values)))


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
