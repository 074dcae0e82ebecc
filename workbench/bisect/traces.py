"""Bisecting an artifact against a recorded trace: our operation on the trace's own recorded inputs, stage by stage.

Every stage is judged by itself, so nothing is inherited and two faults that cancel are both seen. What the trace does
not hold is computed from what it holds, and said; a stage that cannot be checked is never called right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.forward import At, Model, evaluate, inputs_of
from kernels.paths import Array, F32Path
from kernels.stages import Site, execution_order
from workbench.bisect.floor import MATMUL_INPUT, predicted_error
from workbench.bisect.graph_causes import Mistake, Question, mistakes
from workbench.bisect.substitution import relative
from workbench.bisect.verdict import Bisection, Culprit, Decomposition, Factor

# Two correct implementations of one float operation stay within this many predicted errors; docs/bisect.md.
LIMIT = 8.0
_UNIT = 2.0**-24


class Recorded(Protocol):
    """What a bisection needs of a trace."""

    def status(self, site: Site) -> str:
        """Whether the stage is there ("ok"), not in the model ("absent") or not recorded ("unmeasured")."""

    def read(self, site: Site) -> NDArray[Any]:
        """Values (rows, channels)."""

    def positions(self, site: Site) -> tuple[int, ...] | None:
        """Token position of every row."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The trace of one run, with the model and the path it should have computed with.

    unit : relative rounding of the engine's own numbers (2^-24 for float32, 2^-9 for bfloat16).
    attention_unit : the same for attention, where keys and values may be kept in half precision.
    """

    model: Model
    path: F32Path
    trace: Recorded
    tokens: tuple[int, ...]
    unit: float = _UNIT
    attention_unit: float = _UNIT


def bisect_trace(reader: Reader) -> Bisection:
    """Check every recorded stage against our operation on the recorded inputs; find all that are wrong."""
    checked: list[Decomposition] = []
    culprits: list[Culprit] = []
    notes: list[str] = []
    suspects = 0
    for site, inputs, y in _stages(reader, notes):
        at = At(reader.model, reader.path, reader.tokens, site.layer)
        right = _evaluated(site, at, inputs)
        if right is None:
            continue
        floor = _floor(reader, site, at, inputs, right)
        gap = float(np.linalg.norm(y.astype(np.float64) - right))
        norm = float(np.linalg.norm(y.astype(np.float64)))
        local = relative(y.astype(np.float64) - right, y)
        off = gap / floor if floor else 0.0
        checked.append(Decomposition(site, local, local, 0.0, floor / norm if norm else 0.0, 0.0, off))
        if off > LIMIT or not np.isfinite(gap):
            suspects += 1
            culprit = _diagnose(site, at, inputs, y, right, floor)
            if not any(_same_mistake(culprit, known) for known in culprits):
                culprits.append(culprit)
    return _answer(checked, culprits, notes)


def _answer(checked: list[Decomposition], culprits: list[Culprit], notes: list[str]) -> Bisection:
    floor = max((cell.floor for cell in checked), default=None)
    if not checked:
        return Bisection("uncomparable", None, None, (), None, (), (*notes, "no stage of the trace could be checked"))
    if culprits:
        first = culprits[0]
        own = next(cell.floor for cell in checked if cell.site == first.site or cell.b_off > LIMIT)
        return Bisection("divergent", first.site, first, tuple(culprits[1:]), own, tuple(checked), tuple(notes))
    same = all(cell.local == 0 for cell in checked)
    return Bisection("alike" if same else "numerics_only", None, None, (), floor, tuple(checked), tuple(notes))


def _same_mistake(one: Culprit, other: Culprit) -> bool:
    """One setting that is wrong in every layer is one mistake."""
    everywhere = one.factor in ("config", "graph", "numerics") and one.tensor is None
    return everywhere and (one.cause, one.factor) == (other.cause, other.factor) and one.cause != "unknown"


def _stages(reader: Reader, notes: list[str]) -> Iterator[tuple[Site, dict[str, Array], Array]]:
    """Every recorded stage with its inputs, recorded where possible and else computed from what is recorded."""
    order = execution_order(reader.model.config.num_hidden_layers)
    known: dict[str, Array] = {}
    last: Array | None = None
    unchecked: list[Site] = []
    for site in order:
        if site.stage == "attn_norm":
            known = {} if last is None else {"layer_input": last}
        recorded = _read(reader, site)
        if recorded is not None and all(name in known for name in inputs_of(site.stage)):
            yield site, {name: known[name] for name in inputs_of(site.stage)}, recorded
        elif recorded is None and reader.trace.status(site) != "absent":
            unchecked.append(site)
        value = recorded if recorded is not None else _computed(reader, site, known)
        if value is not None:
            known[site.stage] = value
        elif site.stage == "qkv_bias" and "qkv_matmul" in known:
            known["qkv_bias"] = known["qkv_matmul"]
        if site.stage in ("embedding", "layer_output"):
            last = known.get(site.stage)
    if unchecked:
        names = ", ".join(sorted({site.stage for site in unchecked}))
        notes.append(f"{len(unchecked)} stages are not in the trace and were not checked ({names})")


def _read(reader: Reader, site: Site) -> Array | None:
    """A recorded stage over all tokens; a stage that holds only some of them is not an input for the next."""
    if reader.trace.status(site) != "ok":
        return None
    values = reader.trace.read(site)
    return values if len(values) == len(reader.tokens) else None


def _computed(reader: Reader, site: Site, known: Mapping[str, Array]) -> Array | None:
    if not all(name in known for name in inputs_of(site.stage)):
        return None
    return _evaluated(site, At(reader.model, reader.path, reader.tokens, site.layer), known)


def _evaluated(site: Site, at: At, inputs: Mapping[str, Array]) -> Array | None:
    ready = {name: np.ascontiguousarray(inputs[name], dtype=at.path.dtype) for name in inputs_of(site.stage)}
    return evaluate(site.stage, at, ready)


def _floor(reader: Reader, site: Site, at: At, inputs: Mapping[str, Array], right: Array) -> float:
    """‖what two correct implementations may differ by‖: float rounding only, for both round alike to 8 bits."""
    unit = reader.attention_unit if site.stage == "attention" else reader.unit
    error = predicted_error(site.stage, at, inputs, right, rounded=False)
    if at.path.dtype == np.float64:
        error = float(np.linalg.norm(right)) * 2 * _UNIT  # a float64 engine still keeps tables and norms in float32
    if site.stage in MATMUL_INPUT:
        error *= max(1.0, inputs[MATMUL_INPUT[site.stage]].shape[1] ** 0.5 / 16)  # sums in order lose more digits
    return error * unit / _UNIT


def _diagnose(site: Site, at: At, inputs: Mapping[str, Array], y: Array, right: Array, floor: float) -> Culprit:
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    y, right = y.astype(np.float64), right.astype(np.float64)
    gaps = np.linalg.norm(y - right, axis=0)
    wrong = ~(gaps <= LIMIT * floor / y.shape[1] ** 0.5)
    if not wrong.any():
        wrong[:] = True
    question = Question(site.stage, at, wide, y, right, wrong)
    # A prediction in float64 lacks the 8-bit rounding that a quantized engine adds.
    rounding = predicted_error(site.stage, at, inputs, right)
    tried: list[tuple[float, bool, Mistake]] = []
    for mistake in mistakes(question):
        gap = float(np.linalg.norm(y - mistake.predicted))
        allowed = LIMIT * floor if mistake.predicted.dtype == np.float32 else 1.5 * rounding + LIMIT * floor
        if np.isfinite(gap):
            tried.append((gap, gap <= allowed and gap < 0.5 * float(np.linalg.norm(y - right)), mistake))
    tried.sort(key=lambda entry: (not entry[1], entry[0]))
    norm = float(np.linalg.norm(y)) or 1.0
    share = int(wrong.sum())
    if tried and tried[0][1]:
        gap, _, best = tried[0]
        other = next((entry for entry in tried[1:] if entry[2].cause != best.cause), None)
        runner = None if other is None else _runner(other, norm)
        return Culprit(site, best.factor, best.cause, best.explanation, best.tensor, gap / norm, _whole(best), runner)
    tensor = question.tensors[0] if question.tensors else None
    runner = _runner(tried[0], norm) if tried else None
    words = f"{share} of {wrong.size} channels are wrong and no known mistake reproduces them"
    residual = float(np.linalg.norm(y - right)) / norm
    if tensor is not None and share <= wrong.size // 2 and site.stage in MATMUL_INPUT:
        words = f"{share} of {wrong.size} rows of the weight act as if damaged; all others are right"
        return Culprit(site, "weights", "corrupted_blocks", words, tensor, residual, {}, runner)
    factor: Factor = "weights" if tensor is not None else "graph"
    return Culprit(site, factor, "unknown", words, tensor, residual, {}, runner)


def _runner(entry: tuple[float, bool, Mistake], norm: float) -> dict[str, Any]:
    return {"cause": entry[2].cause, "residual": entry[0] / norm, "reproduces": entry[1]}


def _whole(mistake: Mistake) -> dict[str, float | None]:
    shares: dict[str, float | None] = dict.fromkeys(("input", "weights", "numerics", "config", "graph"), 0.0)
    return shares | {mistake.factor: 1.0}
