"""Comparing the tensors of two artifacts, whatever their formats: pair by canonical name, measure, explain.

No forward is needed: a tensor is compared where its values can be had on both sides. The numbers are those of the
tensors as each forward uses them. What the file formats are known to do (dimension order,
q/k rows stored for the other rotary convention) is undone by the readers and reported; what they are not supposed to
do (a transposed matrix, permuted rows) is reported as a finding and left in the numbers.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.measures import COL, Measures, summarise
from kernels.metrics import profile_weights
from kernels.models import Graph
from kernels.rows.dequantize import dequantize
from kernels.weight import Weight
from store.artifact import Artifact
from store.names import EMBEDDING, LM_HEAD, layer_of, settings_of
from store.stored_model import StoredModel
from workbench.tensors.nonfinite import nonfinite, overflow_words
from workbench.tensors.one_sided import common_rows, extra_rows

# Quantization to 4 bits costs about 0.08 relative RMS; a row beyond this is not explained by it.
ROW_BAND = 0.5
_EXPLAINED = 0.5  # a rearrangement explains a tensor if it takes away at least this share of the relative RMS

TensorStatus = Literal["ok", "identical", "uncomparable", "unread", "elsewhere", "only_a", "only_b"]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How one tensor differs between two models.

    status : "unread" where a side's values cannot be had, and "elsewhere" where a side is one file of several and may
        have the tensor in another one; nothing is known of the difference then.
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
    def compared(self) -> bool:
        """Whether both sides' values, or else their bytes, were set side by side."""
        return self.measures is not None or self.status == "identical"

    @property
    def in_band(self) -> bool | None:
        """Whether the tensor is there on both sides, all numbers, and no row is off by more than ROW_BAND.

        None if unknown.
        """
        if self.status in ("unread", "elsewhere"):
            return None
        if self.status == "identical" and self.measures is None:  # told by its bytes
            return True
        if self.measures is None or self.measures.nonfinite_a or self.measures.nonfinite_b:
            return False
        if self.measures.identical or self.measures.max_abs == 0.0:
            return True
        whole = self.measures.rel_rms
        rows = self.worst_row_rel_rms
        return whole is not None and whole <= ROW_BAND and (rows is None or rows <= ROW_BAND)


def tensor_names(a: StoredModel, b: StoredModel) -> list[str]:
    """Canonical names of all tensors of both sides in the order in which a forward uses them.

    Files have orders of their own, many by the alphabet. It is kept within a layer, and behind everything else, for
    tensors that no forward uses, or of models that cannot be run.
    """
    stages = (stage for model in (a, b) if isinstance(model, Artifact) for stage in Graph.of(model).stages())
    used = {name: place for place, name in enumerate(dict.fromkeys(name for s in stages for name in s.tensors))}

    def place(name: str) -> tuple[int, int]:
        layer = -1 if name == EMBEDDING else layer_of(name)
        return sys.maxsize if layer is None else layer, used.get(name, len(used))

    return sorted(dict.fromkeys([*a.tensors, *b.tensors]), key=place)


def sweep(
    a: StoredModel, b: StoredModel, progress: Callable[[int, int, str], object] = lambda *_: None
) -> Iterator[TensorDifference]:
    """Compare every tensor of two models; progress(done, total, name) is called before each.

    ArtifactError, after the last one, if a file has changed meanwhile.
    """
    names = tensor_names(a, b)
    for done, name in enumerate(names):
        progress(done, len(names), name)
        yield compare_tensor(a, b, name)
    a.require_unchanged()
    b.require_unchanged()
    progress(len(names), len(names), "")


def compare_tensor(a: StoredModel, b: StoredModel, name: str) -> TensorDifference:
    """The difference of one tensor; a tensor of one side only is told apart from one that cannot be compared."""
    if name not in a or name not in b:
        return _unmatched(a, b, name)
    info_a, info_b = a.info(name), b.info(name)
    facts: dict[str, Any] = {
        "name": name,
        "shape_a": info_a.shape,
        "shape_b": info_b.shape,
        "type_a": info_a.stored_as,
        "type_b": info_b.stored_as,
    }
    unread = [f"{side}: {info.unread}" for side, info in (("A", info_a), ("B", info_b)) if info.unread is not None]
    if unread:
        same = _same_bytes(a, b, name)
        if same:
            return TensorDifference(status="identical", note="the same bytes", **facts)
        words = dict.fromkeys(unread) if same is None else ("the bytes differ", *unread)
        return TensorDifference(status="unread", note="; ".join(words), **facts)
    weight_a, weight_b, findings = _as_used(a, b, name)
    if weight_a.shape != weight_b.shape or info_a.shape[1:] != info_b.shape[1:]:
        note = f"A is {_dims(info_a.shape)}, B is {_dims(info_b.shape)}"
        if weight_a.shape == weight_b.shape[::-1] and (gap := _transposed_gap(weight_a, weight_b)) < _EXPLAINED:
            findings.append(f"B is A transposed (relative RMS {gap:.2g} after transposing)")
        return TensorDifference(status="uncomparable", note=note, findings=tuple(findings), **facts)
    rows = profile_weights(weight_a, weight_b)
    measures = summarise(rows)
    row, gap_of_row = _worst_row(rows)
    if measures.nonfinite_a or measures.nonfinite_b:
        findings += _not_numbers(weight_a, weight_b)
    if not measures.identical:
        findings += _rearrangements(weight_a, weight_b, measures, _head_dim(name, a, b))
    return TensorDifference(
        status="identical" if measures.identical else "ok",
        note=None,
        measures=measures,
        worst_row=row,
        worst_row_rel_rms=gap_of_row,
        findings=tuple(findings),
        **facts,
    )


def _same_bytes(a: StoredModel, b: StoredModel, name: str) -> bool | None:
    """Whether a tensor is stored with the same bytes on both sides; None where that would say nothing."""
    info_a, info_b = a.info(name), b.info(name)
    alike = (info_a.type, info_a.shape, a.permuted(info_a.name)) == (info_b.type, info_b.shape, b.permuted(info_b.name))
    bytes_a, bytes_b = a.stored_bytes(name), b.stored_bytes(name)
    if not alike or a.adds_one(name) != b.adds_one(name) or bytes_a is None or bytes_b is None:
        return None
    return bool(np.array_equal(bytes_a, bytes_b))


def _as_used(a: StoredModel, b: StoredModel, name: str) -> tuple[Weight, Weight, list[str]]:
    """Both sides' tensor without what formats are known to do to it, over the rows of both; and what was undone."""
    one, other, findings = a.weight(name), b.weight(name), list[str]()
    for side, model in (("A", a), ("B", b)):
        if model.permuted(model.info(name).name):
            findings.append(f"{side} stores the rows for adjacent-pair rotation; undone")
    if a.adds_one(name) != b.adds_one(name):
        findings.append(f"{'A' if a.adds_one(name) else 'B'} stores the norm less 1, as its engine adds it; added")
    per_token = name in (EMBEDDING, LM_HEAD) and len(one.shape) == len(other.shape) == 2
    if per_token and one.shape[0] != other.shape[0] and one.shape[1] == other.shape[1]:
        findings.append(extra_rows(one, other))
        one, other = common_rows(one, other)
    return one, other, findings


def _head_dim(name: str, *models: StoredModel) -> int | None:
    """Channels of a head in the layer of a tensor, where a side tells."""
    return next((settings_of(m.config, m.info(name).name).head_dim for m in models if isinstance(m, Artifact)), None)


def _unmatched(a: StoredModel, b: StoredModel, name: str) -> TensorDifference:
    side, model, other = ("A", a, b) if name in a else ("B", b, a)
    info = model.info(name)
    unused = isinstance(model, Artifact) and name in model.unused
    return TensorDifference(
        name=name,
        status="elsewhere" if other.is_part else "only_a" if side == "A" else "only_b",
        note=f"only {side} has this tensor"
        + (", and its forward does not use it" if unused else "")
        + (f"; {'B' if side == 'A' else 'A'} is one file of several" if other.is_part else ""),
        shape_a=info.shape if side == "A" else None,
        shape_b=info.shape if side == "B" else None,
        type_a=info.stored_as if side == "A" else None,
        type_b=info.stored_as if side == "B" else None,
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


def _rearrangements(a: Weight, b: Weight, measures: Measures, head_dim: int | None) -> Iterator[str]:
    """Known ways of misplacing values that explain most of a large difference; head_dim where it is known."""
    if measures.rel_rms is None or measures.rel_rms <= ROW_BAND:
        return
    values_a, values_b = dequantize(a), dequantize(b)
    candidates: dict[str, NDArray[np.float32]] = {}
    if len(a.shape) == 2 and a.shape[0] == a.shape[1]:
        candidates["B is A transposed"] = values_b.T
    if head_dim and a.name.rpartition(".")[0].endswith(("q_proj", "k_proj")) and a.shape[0] % head_dim == 0:
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
