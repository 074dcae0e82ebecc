"""Every cell of a pair run again on both inputs: what it inherits, what it adds, and how it amplifies."""

from collections.abc import Iterator

import numpy as np

from kernels.errors import WorkbenchError
from kernels.forward import At
from store.artifact import Artifact
from workbench.bisect.models.bisection import Cell, Side, cells_of, decompose, walk
from workbench.bisect.models.forecast import forecast
from workbench.bisect.pair import Pair, bisect_pair, model_sides, token_ids
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import Bisection
from workbench.bisect.weights.conversion import Customs, tensors_of
from workbench.cells.decomposition import LIMIT, Checked, Decomposition
from workbench.cells.metrics import format_value
from workbench.pair.comparable import require_same_sizes

_AMPLIFIERS = frozenset(("attn_norm", "ffn_norm", "final_norm", "attention", "ffn_silu", "ffn_swigl"))


def views(pair: Pair, progress: Progress = lambda *_: None) -> Iterator[Checked]:
    """Run every stage again on both inputs, not only up to the first wrong one; in execution order.

    Raises WorkbenchError for two traces, which cannot be run again.
    """
    if not (isinstance(pair.a, Artifact) and isinstance(pair.b, Artifact)):
        if not isinstance(pair.a, Artifact) and not isinstance(pair.b, Artifact):
            raise WorkbenchError("two traces carry no weights, so no stage can be run again: local is not known")
        yield from once_run(pair, bisect_pair(pair, progress).bisection)
        return
    a, b = model_sides(pair)
    require_same_sizes(a.model.config, b.model.config)
    customs, total = Customs(a.model, b.model), len(cells_of(a.model, b.model))
    for done, cell in enumerate(walk(a, b, token_ids(pair))):
        progress(done, total, str(cell.site))
        yield _with_inputs(cell, a, b, customs)
    pair.require_unchanged()


def once_run(pair: Pair, found: Bisection) -> Iterator[Checked]:
    """The cells that a bisection has judged; what a trace inherited is not known, only what it did with that."""
    if isinstance(pair.a, Artifact) and isinstance(pair.b, Artifact):
        yield from (checked(cell, None) for cell in found.checked)
        return
    blamed = {culprit.measured_at.stage for culprit in (found.culprit, *found.others) if culprit is not None}
    for cell in found.checked:
        off = cell.a_off + cell.b_off  # that of the trace; its model has none
        yield Checked(cell, None, cell.site.stage in blamed and not off <= LIMIT)


def _with_inputs(cell: Cell, a: Side, b: Side, customs: Customs) -> Checked:
    found = decompose(cell, a, b, customs)
    gap = _norm(*(cell.inputs_b[name].astype(np.float64) - x for name, x in cell.inputs_a.items()))
    size = _norm(*cell.inputs_b.values())
    words, unforeseen = "", False
    if cell.site.stage in _AMPLIFIERS:
        at_a, at_b = (At(side.model, side.path, cell.tokens, cell.site.layer) for side in (a, b))
        known = forecast(cell.site.stage, at_a, at_b, cell.inputs_a, cell.inputs_b, cell.y_a, cell.y_b)
        unforeseen = known.marked
        growth = "" if known.growth is None else f", relative growth {format_value(known.growth)}"
        words = f"{format_value(known.predicted)}, observed {format_value(known.observed)}{growth}: " + (
            "more than its inputs explain" if unforeseen else "what its inputs explain"
        )
    wrong = any(customs.judge(name).wrong for name in tensors_of(cell.site) if name in customs.names)
    return checked(found, gap / size if size else None, words, unforeseen, wrong)


def checked(
    cell: Decomposition, at_input: float | None, words: str = "", unforeseen: bool = False, wrong: bool = False
) -> Checked:
    """Judge a cell: at_input is the relative difference of its inputs, wrong whether a tensor of it is."""
    amplification = None if not at_input or cell.inherited is None else cell.inherited / at_input
    return Checked(cell, amplification, wrong or cell.beyond_floor, words, unforeseen)


def _norm(*parts: np.ndarray) -> float:
    return float(sum(np.square(part, dtype=np.float64).sum() for part in parts) ** 0.5)
