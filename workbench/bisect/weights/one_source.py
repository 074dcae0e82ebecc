"""Whether two models were made from one source at all, or are two checkpoints of one shape.

A mistake of a conversion leaves most tensors alone, or does one thing to all of them that the catalogue knows. Training
moves every tensor by about as much, the norms and biases too, and nothing in the catalogue undoes it.
"""

from dataclasses import dataclass

import numpy as np

from kernels.graph import Model
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.check import check
from workbench.bisect.weights.steps import Stored
from workbench.bisect.weights.tensor_pairs import TensorPairs

_ROWS = 32  # of a tensor that tell how it differs
_NEARLY_ALL = 0.9
_TRIED = 6  # tensors of each kind for which the whole catalogue is tried
_DAMAGE = "corrupted_blocks"  # explains whatever is left where it is


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    is_vector: bool
    differs: bool
    moved: bool
    relative: float
    correlation: float


def not_one_source(pairs: TensorPairs, a: Model, b: Model) -> str | None:
    """A sentence saying that two models are no copies of one checkpoint; None where that is not so.

    What differs within the steps of one type that both sides have counts too, beside vectors that none explains.
    """
    tensors = [_looked_at(name, a, b) for name in pairs.names if a.weight(name).shape == b.weight(name).shape]
    differing = [tensor for tensor in tensors if tensor.differs]
    vectors, matrices = ([x for x in differing if x.is_vector == vector] for vector in (True, False))
    moved = [tensor for tensor in tensors if tensor.moved]
    if not vectors or len(moved) < _NEARLY_ALL * len(pairs.names) or all(x.is_vector for x in moved):
        return None
    if len(vectors) < _NEARLY_ALL * sum(x.is_vector for x in tensors):
        return None
    kinds = [kind for kind in (vectors, matrices) if kind]
    some = [kind[n] for kind in kinds for n in np.unique(np.linspace(0, len(kind) - 1, _TRIED).astype(int))]
    if sum(_named(tensor.name, pairs, a, b) for tensor in some) > (1 - _NEARLY_ALL) * len(some):
        return None
    relative, correlation = (np.median([getattr(x, name) for x in differing]) for name in ("relative", "correlation"))
    return (
        f"the two are not made from one source: {len(moved)} of {len(pairs.names)} tensors that both have differ, "
        f"{len(differing)} beyond their formats, norms included, by {relative:.2g} of their size in the median "
        f"(correlation {correlation:.4g}), and no known mistake makes one from the other: two checkpoints of one shape"
    )


def _looked_at(name: str, a: Model, b: Model) -> _Tensor:
    one, other = a.weight(name), b.weight(name)
    rows = np.unique(np.linspace(0, len(one.rows) - 1, _ROWS).astype(np.int64))
    right, wrong = Stored.of(one, rows), Stored.of(other, rows)
    x, y = (stored.values.astype(np.float64).ravel() for stored in (right, wrong))
    with np.errstate(all="ignore"):
        correlation = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    found = check(right, wrong)
    differs = not found.explained
    moved = differs or (one.type == other.type and not found.equal)
    return _Tensor(name, len(one.shape) == 1, differs, moved, found.rel_rms, correlation)


def _named(name: str, pairs: TensorPairs, a: Model, b: Model) -> bool:
    """Whether a known mistake makes one side's tensor from the other's."""
    judged = pairs.judge(name)
    causes = weight_causes(name, a, b, judged.check, judged.touched)
    return causes[0].explained and causes[0].cause not in (_DAMAGE, "bias_wrong")
