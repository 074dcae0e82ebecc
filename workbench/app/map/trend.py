"""The figures of the map as curves: of a stage over the layers, of the residual stream, of a cell over its tokens."""

import math

from kernels.measures import OTHER_SIGN, Measures
from kernels.stages import SPINE, Site
from workbench.app.map.bars import Series
from workbench.app.map.model import MapModel
from workbench.cells.cell import Cell
from workbench.cells.decomposition import Checked
from workbench.cells.heat import level_edge
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import METRICS, Metric
from workbench.cells.view import ASPECTS, FLOORS, OBSERVED

_RESIDUAL = SPINE[-1]
_LOG = "(log)"


def stage_trend(model: MapModel, stage: str, layers: list[int]) -> Series:
    """Return what the map shows of a stage, over layers; of a metric how far it is from that of identical tensors."""
    aspect, sites = model.view.aspect, [Site(layer, stage) for layer in layers]
    if aspect == OBSERVED:
        metric = model.metric
        limit = None if metric.band is None else level_edge([], metric)
        values = tuple(_distance(metric, model.measures(site)) for site in sites)
        return Series(f"{stage} over the layers, {_label(metric)} {_LOG}", values, limit)
    figures = tuple(_figure(model, model.checked.get(site)) for site in sites)
    limit = LIMIT if aspect == FLOORS else None
    label = ASPECTS[aspect].partition(",")[0]
    return Series(f"{stage} over the layers, {label} {_LOG}", figures, limit)


def residual_trend(model: MapModel, layers: list[int]) -> Series:
    """Return the relative RMS difference, as observed, of what each layer gives on."""
    metric = METRICS["rel_rms"]
    values = tuple(_distance(metric, model.measures(Site(layer, _RESIDUAL))) for layer in layers)
    return Series(f"{_RESIDUAL}, {metric.label} as observed {_LOG}", values)


def token_trend(model: MapModel, cell: Cell, most: int) -> Series:
    """Return the metric of a cell, in the other views its relative RMS, at each of its last `most` tokens."""
    metric = model.metric if model.view.aspect == OBSERVED else METRICS["rel_rms"]
    count = len(cell.positions)
    rows = range(max(count - most, 0), count)
    values = tuple(_distance(metric, cell.measures(row)) for row in rows)
    which = f"{cell.positions[rows[0]]}-{cell.positions[rows[-1]]}" if rows else "none"
    return Series(f"{cell.site} over tokens {which}, {_label(metric)} as observed {_LOG}", values)


def _label(metric: Metric) -> str:
    """Name the distance from identical."""
    if metric.key == "std_ratio":
        return f"|ln {metric.label}|"
    return f"{metric.perfect:g} - {metric.label}" if metric.perfect else metric.label


def _distance(metric: Metric, measures: Measures | None) -> float | None:
    if measures is None:
        return None
    if measures.identical:
        return 0.0
    if metric.word(measures) == OTHER_SIGN:
        return math.inf
    value = metric.value(measures)
    return None if value is None else metric.distance(value)


def _figure(model: MapModel, checked: Checked | None) -> float | None:
    if checked is None:
        return None
    if model.view.aspect == FLOORS and checked.floors is None and checked.beyond_floor:
        return math.inf  # where rounding can cause nothing
    return model.figure(checked)
