"""Every cell of a pair run again on both inputs: what it inherits, what it adds, and how it amplifies."""

from collections.abc import Iterator

import numpy as np

from kernels.errors import WorkbenchError
from kernels.kinds.activation import Activation
from kernels.kinds.attention import Attention
from kernels.kinds.delta import Decay, DeltaNet
from kernels.kinds.elementwise import Multiply
from kernels.kinds.norm import Norm
from kernels.kinds.scan import GroupNorm, Scan
from workbench.bisect.models.bisection import walk
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.decompose import decompose
from workbench.bisect.models.forecast import forecast
from workbench.bisect.pair import bisect_pair, model_sides
from workbench.bisect.traces.announced import Progress
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Checked
from workbench.cells.metrics import format_value
from workbench.pair.pair import Pair

LARGE = 1 << 29  # bytes of a model of which every stage is run again only if that is asked for
_AMPLIFIERS = (
    Norm,
    Attention,
    Activation,
    Multiply,
    Decay,
    DeltaNet,
    Scan,
    GroupNorm,
)  # what is not linear in its inputs


def views(pair: Pair, progress: Progress = lambda *_: None) -> Iterator[Checked]:
    """Run every stage again on both inputs, not only up to the first wrong one; in execution order.

    A cell of which no token reads numbers on both sides is left out: there is nothing to judge it by.

    Raises WorkbenchError for two traces, which cannot be run again.
    """
    if pair.traces is not None:
        raise WorkbenchError("two traces carry no weights, so no stage can be run again: local is not known")
    if pair.models is None:
        yield from bisect_pair(pair, progress).bisection.judged(of_models=False)
        return
    a, b = model_sides(pair)
    pair.require_one_model()
    pairs = TensorPairs(a.model, b.model)
    total = len(pairs.sites)
    for done, cell in enumerate(walk(a, b, pair.ids)):
        progress(done, total, str(cell.site))
        if cell.judged.any():
            yield _with_inputs(cell, a, b, pairs)
    pair.require_unchanged()


def _with_inputs(cell: Cell, a: Side, b: Side, pairs: TensorPairs) -> Checked:
    found = decompose(cell, a, b, pairs)
    gap = _norm(*(cell.inputs_b[name].astype(np.float64) - x for name, x in cell.inputs_a.items()))
    size = _norm(*cell.inputs_b.values())
    words, unforeseen = "", False
    at_a, at_b = (factors.at(cell.site, cell.tokens) for factors in (cell.a, cell.b))
    if isinstance(cell.stage.kind, _AMPLIFIERS) and at_a is not None and at_b is not None:
        known = forecast(at_a, at_b, cell.inputs_a, cell.inputs_b, cell.y_a, cell.y_b)
        unforeseen = known.marked
        growth = "" if known.growth is None else f", relative growth {format_value(known.growth)}"
        words = f"{format_value(known.predicted)}, observed {format_value(known.observed)}{growth}: " + (
            "more than its inputs explain" if unforeseen else "what its inputs explain"
        )
    wrong = any(pairs.judge(name).wrong for name in pairs.tensors(cell.site) if name in pairs.names)
    at_input = gap / size if size else None
    amplification = None if not at_input or found.inherited is None else found.inherited / at_input
    return Checked(found, amplification, wrong or found.beyond_floor, words, unforeseen)


def _norm(*parts: np.ndarray) -> float:
    return float(sum(np.square(part, dtype=np.float64).sum() for part in parts) ** 0.5)
