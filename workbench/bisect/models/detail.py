"""One cell of a pair in detail: where its local error sits, and how much of its difference the inputs explain."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kernels.errors import WorkbenchError
from kernels.forward import steps
from kernels.graph import Array, At
from kernels.kinds.attention import Attention
from kernels.kinds.product import Product
from kernels.precision import FLOAT32
from kernels.stages import Site
from workbench.bisect.models.bisection import walk
from workbench.bisect.models.breakdown import Breakdown, break_down, local_breakdown, times_median
from workbench.bisect.models.decompose import decompose
from workbench.bisect.models.forecast import Forecast, forecast
from workbench.bisect.pair import model_sides, trace_check
from workbench.bisect.traces.announced import Progress
from workbench.bisect.traces.trace_check import TraceCheck
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Decomposition
from workbench.pair.pair import Pair

WORST = 20  # parts that are listed by name


_NO_BLOCKS = "a trace carries no weights: which super-block of a weight row its local error comes from is not known"
_NO_NOISE = "a trace cannot be run again: the noise of its path is bounded by the floor and not measured"


@dataclass(frozen=True, slots=True)
class Detail:
    """A cell taken apart. cell : its figures as a whole, None where it was not judged. unknown : sentences."""

    breakdown: Breakdown
    forecast: Forecast | None
    cell: Decomposition | None
    unknown: tuple[str, ...] = ()


def cell_detail(
    pair: Pair, site: Site, progress: Progress = lambda *_: None, judged: Iterable[Decomposition] = ()
) -> Detail:
    """Take one cell of a pair apart. judged : cells of a trace that a bisection has checked.

    Raises WorkbenchError for a site that the pair does not have or that cannot be evaluated, and for two traces.
    """
    if pair.models is not None:
        return _of_models(pair, site, progress)
    if pair.traces is not None:
        raise WorkbenchError("two traces carry no weights, so no cell can be evaluated; leave out --cell")
    check = trace_check(pair)
    error, stage = _trace_error(check, site), check.graph.stage(site)
    assert stage is not None
    cell = next((cell for cell in judged if cell.site == site), None)
    unknown = (_NO_BLOCKS, _NO_NOISE) if isinstance(stage.kind, Product) else (_NO_NOISE,)
    return Detail(break_down(stage, error), _forecast_of_trace(check, site, progress), cell, unknown)


def _of_models(pair: Pair, site: Site, progress: Progress) -> Detail:
    a, b = model_sides(pair)
    tokens, pairs = pair.ids, TensorPairs(a.model, b.model)
    for done, cell in enumerate(walk(a, b, tokens)):
        progress(done, len(pairs.sites), str(cell.site))
        if cell.site == site:
            _refuse_lost(site, cell.y_a, cell.y_b)
            sides = [factors.at(site, tokens) for factors in (cell.a, cell.b)]
            at_a, at_b = (side or next(filter(None, sides)) for side in sides)  # of a side without, the other's
            known = forecast(at_a, at_b, cell.inputs_a, cell.inputs_b, cell.y_a, cell.y_b)
            return Detail(local_breakdown(cell), known, decompose(cell, a, b, pairs))
    raise WorkbenchError(f"neither A nor B has a stage {site}; give another --cell")


def _forecast_of_trace(check: TraceCheck, site: Site, progress: Progress) -> Forecast:
    """What the inputs of the trace explain of its difference from our own run."""
    total = len(check.graph.sites())
    for done, step in enumerate(steps(check.model, check.tokens, check.arithmetic.path)):
        progress(done, total, f"our own run, {step.stage.site}")
        if step.stage.site == site:
            break
    at, recorded = At(check.model, check.arithmetic.path, check.tokens, step.stage), check.recorded(site)
    assert recorded is not None
    sides = [(step.x, step.y), (check.inputs(step.stage), recorded)]
    (inputs_a, y_a), (inputs_b, y_b) = sides if check.side == "B" else reversed(sides)
    known = forecast(at, at, inputs_a, inputs_b, y_a, y_b)
    kept = check.arithmetic.attention if isinstance(at.kind, Attention) else check.arithmetic.kept
    return replace(known, floor=known.floor * kept.unit / FLOAT32.unit)


def _trace_error(check: TraceCheck, site: Site) -> Array:
    """y_B - y_A on the inputs of the trace, float64 (tokens, channels)."""
    found = check.recorded(site)
    if found is None:
        raise WorkbenchError(f"{check.side} does not hold all tokens of {site}; give another --cell")
    stage = check.graph.stage(site)
    if stage is None:
        raise WorkbenchError(f"the model has no stage {site}; give another --cell")
    right = check.evaluated(stage, check.inputs(stage))
    _refuse_lost(site, found, right)
    error: Array = np.subtract(found, right, dtype=np.float64)
    return error if check.side == "B" else -error


def _refuse_lost(site: Site, one: Array | None, other: Array | None) -> None:
    """WorkbenchError where both sides hold NaN or infinite values, between which there is no difference."""
    if one is None or other is None:
        return
    lost = ~np.isfinite(one) & ~np.isfinite(other)
    if lost.any():
        raise WorkbenchError(
            f"{site} cannot be taken apart: {int(lost.sum())} of {lost.size} values are NaN or infinite on both sides, "
            f"the first at token {int(np.argwhere(lost)[0][0])}; give the --cell of a stage before them"
        )


def detail_json(detail: Detail) -> dict[str, Any]:
    """The detail as `bisect --json --cell` prints it; arrays in index order, the worst parts by name."""
    found = detail.breakdown
    record: dict[str, Any] = {
        "layer": found.site.layer,
        "stage": found.site.stage,
        "cell": None if detail.cell is None else detail.cell.to_json(),
        "rms": float(np.sqrt(np.square(found.error).mean())),
        "channels": found.per_channel().tolist(),
        "tokens": found.per_token().tolist(),
        "heads": dict(zip(found.heads, found.per_head().tolist(), strict=True)),
        "worst_channels": worst_channels(found),
        "blocks": None,
        "forecast": None if detail.forecast is None else _forecast_json(detail.forecast),
        "unknown": list(detail.unknown),
    }
    if found.blocks is not None:
        record["blocks"] = {
            "elements": 256,
            "columns": np.sqrt(np.square(found.blocks).mean(axis=0)).tolist(),
            "worst": worst_blocks(found),
        }
    return record


def worst_channels(found: Breakdown) -> list[dict[str, Any]]:
    """The channels with the largest error, largest first; `times_median` is None where half of all have none."""
    return [{"channel": place[0], **rest} for place, rest in _worst(found.per_channel())]


def worst_blocks(found: Breakdown) -> list[dict[str, Any]]:
    """The super-blocks whose part of the error is largest."""
    if found.blocks is None:
        return []
    return [{"channel": place[0], "block": place[1], **rest} for place, rest in _worst(found.blocks)]


def _worst(parts: Array) -> list[tuple[list[int], dict[str, Any]]]:
    multiples = times_median(parts)
    order = np.argsort(-np.nan_to_num(parts, nan=np.inf), axis=None, kind="stable")[:WORST]
    places = np.stack(np.unravel_index(order, parts.shape), axis=1)
    rows = []
    for place in places.tolist():
        value, multiple = float(parts[tuple(place)]), float(multiples[tuple(place)])
        if value:
            rows.append((place, {"rms": value, "times_median": multiple if np.isfinite(multiple) else None}))
    return rows


def _forecast_json(found: Forecast) -> dict[str, Any]:
    return {
        "predicted": found.predicted,
        "observed": found.observed,
        "ratio": found.ratio,
        "unexplained": found.unexplained,
        "curvature": found.curvature,
        "floor": found.floor,
        "growth": found.growth,
        "marked": found.marked,
    }
