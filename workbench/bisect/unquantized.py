"""A trace whose weights were another rounding of the model's: a quantized copy is checked with its source's trace.

Such a trace differs from the stored model at every product, each time by what the rounding of that very weight costs
on that very input, which is known from the formats. A mistake is what remains.
"""

import math
from dataclasses import replace

import numpy as np

from kernels.paths import Array
from kernels.stages import Site
from kernels.weight import Weight
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.steps import Stored
from workbench.bisect.trace_check import TraceCheck
from workbench.bisect.traces import LIMIT
from workbench.bisect.verdict import Bisection, Culprit, Decomposition
from workbench.stage_tensors import stage_tensors

_ROWS = 1024  # rows of a weight whose steps stand in memory at once
_EVEN = 3.0  # values spread evenly over a step lie within half of it by the root of a third
_LEAST, _MOST = 0.2, 2.0  # of the cost, in which a rounded weight may show
_SIGNATURE = 0.9  # of all products must show it
_COARSEST, _ALIKE = 0.3, 30.0  # relative error of coarse weights, and how much coarser one tensor may be than another


def without_rounding_of_weights(check: TraceCheck, found: Bisection) -> Bisection:
    """The verdict on a trace whose weights are another rounding of the model's; any other verdict as it is.

    What the rounding of the model's own weights explains is no mistake. Where the trace must be the coarser one, its
    format is not known and nothing can be proved: undecided.
    """
    products = [cell for cell in found.checked if cell.site.stage in (*MATMUL_INPUT, "embedding")]
    most = _SIGNATURE * len(products)
    if found.culprit is None or len(products) <= check.model.config.num_hidden_layers:
        return found
    if sum(cell.b_off > LIMIT for cell in products) < most:
        return found
    culprits = (found.culprit, *found.others)
    explained = {cell.site for cell in products if _is_cost(check, cell)}
    if len(explained) >= most:
        return _without(check, found, [c for c in culprits if c.site not in explained], explained, products)
    sizes = [cell.local for cell in products if cell.local]
    coarse = max(sizes) < _COARSEST and max(sizes) < _ALIKE * min(sizes)
    if (
        coarse
        and {c.site for c in culprits} <= {c.site for c in products}
        and {c.cause for c in culprits} == {"unknown"}
    ):
        note = (
            f"Every product differs, by {min(sizes):.2g} to {max(sizes):.2g} of its norm, and no other stage does, as "
            "in a copy with coarser weights; bisect the trace against the very model that it was recorded from."
        )
        return replace(found, verdict="undecided", culprit=None, others=(), notes=(*found.notes, note))
    return found


def _without(
    check: TraceCheck, found: Bisection, left: list[Culprit], explained: set[Site], products: list[Decomposition]
) -> Bisection:
    types = sorted({check.model.weight(name).type.name for cell in products for name in stage_tensors(cell.site)})
    note = (
        f"{check.side} is a trace of these weights before they were rounded to {', '.join(types)}: {len(explained)} of "
        f"{len(products)} products differ by what that rounding costs."
    )
    first = left[0] if left else None
    return replace(
        found,
        verdict="divergent" if left else "quantization_only",
        first_divergent=None if first is None else first.site,
        culprit=first,
        others=tuple(left[1:]),
        notes=(*found.notes, note),
    )


def _is_cost(check: TraceCheck, cell: Decomposition) -> bool:
    """Whether the difference at a product is what the rounding of its weights costs, no more and not much less."""
    recorded = check.recorded(cell.site)
    if recorded is None or cell.local is None:
        return False
    norm = float(np.linalg.norm(recorded.astype(np.float64)))
    gap, cost = cell.local * norm, storage_cost(check, cell.site)
    return _LEAST * cost <= gap <= _MOST * cost + LIMIT * cell.floor * norm


def storage_cost(check: TraceCheck, site: Site) -> float:
    """‖what the rounding of a product's weights to their formats may cost‖ on the trace's inputs, as a norm.

    Every weight lies within half a step of its source, and the errors of different weights are independent.
    """
    weights = [check.model.weight(name) for name in stage_tensors(site)]
    if site.stage == "embedding":
        rows = Stored.of(weights[0], np.array(check.tokens)).width
        return float(np.linalg.norm(rows.astype(np.float64)) / _EVEN**0.5)
    square = np.square(check.inputs(site)[MATMUL_INPUT[site.stage]], dtype=np.float64).sum(axis=0)
    return math.sqrt(sum(float(square @ _column_energies(weight)) for weight in weights) / _EVEN)


def _column_energies(weight: Weight) -> Array:
    """Squares of half a step, summed over the rows: float64 (columns,)."""
    total = np.zeros(weight.shape[1])
    for first in range(0, weight.shape[0], _ROWS):
        width = Stored.of(weight, slice(first, first + _ROWS)).width
        total += np.square(width, dtype=np.float64).sum(axis=0)
    return total
