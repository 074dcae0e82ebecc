"""Comparing the tensors of two artifacts, whatever their formats: pair by canonical name, measure, explain.

The numbers are those of the tensors as each forward uses them. What the file formats are known to do (dimension order,
q/k rows stored for the other rotary convention) is undone by the readers and reported; what they are not supposed to
do (a transposed matrix, permuted rows) is reported as a finding and left in the numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.dequantize import dequantize
from kernels.measures import COL, Measures, summarise
from kernels.metrics import profile_weights
from kernels.weight import Weight
from store.artifact import Artifact
from workbench.nonfinite import nonfinite, overflow_words

# Quantization to 4 bits costs about 0.08 relative RMS; a row beyond this is not explained by it.
ROW_BAND = 0.5
_EXPLAINED = 0.5  # a rearrangement explains a tensor if it takes away at least this share of the relative RMS

TensorStatus = Literal["ok", "identical", "uncomparable", "only_a", "only_b"]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How one tensor differs between two artifacts.

    measures : over all elements; None unless the status is "ok" or "identical".
    worst_row, worst_row_rel_rms : the output row with the largest relative RMS (None where undefined).
    findings : what was undone, and what seems to be wrong, in sentences.
    """

    name: str
    status: TensorStatus
    note: str | None
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    type_a: str | None
    type_b: str | None
    measures: Measures | None = None
    worst_row: int | None = None
    worst_row_rel_rms: float | None = None
    findings: tuple[str, ...] = ()

    @property
    def in_band(self) -> bool:
        """Whether the tensor is there on both sides, all numbers, and no row differs by more than ROW_BAND."""
        if self.measures is None or self.measures.nonfinite_a or self.measures.nonfinite_b:
            return False
        if self.measures.identical or self.measures.max_abs == 0.0:
            return True
        whole = self.measures.rel_rms
        rows = self.worst_row_rel_rms
        return whole is not None and whole <= ROW_BAND and (rows is None or rows <= ROW_BAND)


def tensor_names(a: Artifact, b: Artifact) -> list[str]:
    """Canonical names of all tensors of both sides, in the order of the model, A's order first."""
    return list(dict.fromkeys([*a.tensors, *b.tensors]))


def sweep(
    a: Artifact, b: Artifact, progress: Callable[[int, int, str], object] = lambda *_: None
) -> Iterator[TensorDifference]:
    """Compare every tensor of two artifacts; progress(done, total, name) is called before each."""
    names = tensor_names(a, b)
    for done, name in enumerate(names):
        progress(done, len(names), name)
        yield compare_tensor(a, b, name)
    progress(len(names), len(names), "")


def compare_tensor(a: Artifact, b: Artifact, name: str) -> TensorDifference:
    """The difference of one tensor; a tensor of one side only is told apart from one that cannot be compared."""
    if name not in a or name not in b:
        return _unmatched(a, b, name)
    weight_a, weight_b = a.weight(name), b.weight(name)
    facts: dict[str, Any] = {
        "name": name,
        "shape_a": weight_a.shape,
        "shape_b": weight_b.shape,
        "type_a": weight_a.type.name,
        "type_b": weight_b.type.name,
    }
    findings = [
        f"{side} stores the rows for adjacent-pair rotation; undone"
        for side, artifact in (("A", a), ("B", b))
        if artifact.permuted(name)
    ]
    if weight_a.shape != weight_b.shape:
        note = f"A is {_dims(weight_a.shape)}, B is {_dims(weight_b.shape)}"
        if weight_a.shape == weight_b.shape[::-1] and (gap := _transposed_gap(weight_a, weight_b)) < _EXPLAINED:
            findings.append(f"B is A transposed (relative RMS {gap:.2g} after transposing)")
        return TensorDifference(status="uncomparable", note=note, findings=tuple(findings), **facts)
    rows = profile_weights(weight_a, weight_b)
    measures = summarise(rows)
    row, gap_of_row = _worst_row(rows)
    if measures.nonfinite_a or measures.nonfinite_b:
        findings += _not_numbers(weight_a, weight_b)
    if not measures.identical:
        findings += _rearrangements(weight_a, weight_b, measures, a.config.head_dim)
    return TensorDifference(
        status="identical" if measures.identical else "ok",
        note=None,
        measures=measures,
        worst_row=row,
        worst_row_rel_rms=gap_of_row,
        findings=tuple(findings),
        **facts,
    )


def _unmatched(a: Artifact, b: Artifact, name: str) -> TensorDifference:
    side, artifact = ("A", a) if name in a else ("B", b)
    weight = artifact.weight(name)
    return TensorDifference(
        name=name,
        status="only_a" if side == "A" else "only_b",
        note=f"only {side} has this tensor",
        shape_a=weight.shape if side == "A" else None,
        shape_b=weight.shape if side == "B" else None,
        type_a=weight.type.name if side == "A" else None,
        type_b=weight.type.name if side == "B" else None,
    )


def _not_numbers(a: Weight, b: Weight) -> Iterator[str]:
    """What of either side is NaN or infinite; said of both where both have it."""
    for side, weight, other in (("A", a, b), ("B", b, a)):
        if (found := nonfinite(weight)) is not None:
            yield f"of {side}, {found.words}{overflow_words(found, weight, other)}"


def _worst_row(rows: NDArray[np.float64]) -> tuple[int | None, float | None]:
    """The row with the largest relative RMS; a row that is zero in B only counts as infinitely far."""
    energy = rows[:, COL.energy_b]
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.sqrt(rows[:, COL.energy_d] / energy)
    gaps = np.where(rows[:, COL.energy_d] == 0, 0.0, gaps)
    worst = int(np.argmax(gaps))
    return worst, float(gaps[worst]) if np.isfinite(gaps[worst]) else None


def _rearrangements(a: Weight, b: Weight, measures: Measures, head_dim: int) -> Iterator[str]:
    """Known ways of misplacing values that explain most of a large difference."""
    if measures.rel_rms is None or measures.rel_rms <= ROW_BAND:
        return
    values_a, values_b = dequantize(a), dequantize(b)
    candidates: dict[str, NDArray[np.float32]] = {}
    if len(a.shape) == 2 and a.shape[0] == a.shape[1]:
        candidates["B is A transposed"] = values_b.T
    if a.name.rpartition(".")[0].endswith(("q_proj", "k_proj")) and a.shape[0] % head_dim == 0:
        heads = values_b.reshape(-1, head_dim // 2, 2, *a.shape[1:])
        candidates["B's rows are ordered for adjacent-pair rotation"] = heads.swapaxes(1, 2).reshape(a.shape)
        heads = values_b.reshape(-1, 2, head_dim // 2, *a.shape[1:])
        candidates["B's rows were reordered from adjacent pairs once too often"] = heads.swapaxes(1, 2).reshape(a.shape)
    candidates["B has the opposite sign"] = -values_b
    for words, rearranged in candidates.items():
        gap = _relative_rms(values_a, rearranged)
        if gap <= (1 - _EXPLAINED) * measures.rel_rms:
            yield f"{words} (relative RMS {gap:.2g} after undoing it)"


def _transposed_gap(a: Weight, b: Weight) -> float:
    return _relative_rms(dequantize(a), dequantize(b).T)


def _relative_rms(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norm = float(np.linalg.norm(b.astype(np.float64)))
    return float(np.linalg.norm(a.astype(np.float64) - b)) / norm if norm else float("inf")


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
