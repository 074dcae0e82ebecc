"""Statistics of the stages of one run where the tensors are not kept: as this program prints them, and `apr trace`.

A table holds for every stage what `kernels.statistics.Statistics` says, over all tokens or over the last one. Which
elements the figures come from, a table does not know.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from kernels.stages import Site
from kernels.statistics import Statistics
from store.errors import StoreError
from store.text import printable
from store.traces.stage_dump import site_of

Scope = Literal["all", "last"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
FIGURES = ("min", "max", "mean", "std", "rms")
COUNTS = ("nan", "inf", "zero", "worst_channel")
_AGAIN = "make it again with workbench trace X --stats --json"
_MAX_CELLS = 1 << 20
_ROUNDED = 1e-3  # of the largest value: figures may have been rounded on their way, to four digits at least
_SQUARED = 1e-150  # the square of anything smaller is lost in float64
_PRODUCT, _WITH_BIAS = "qkv_matmul", "qkv_bias"


@dataclass(frozen=True, eq=False)
class StatisticsTable:
    """The statistics of one run.

    artifact : the model, as the table names it. numeric_path : how it was computed, where the table says. tokens : the
    ids that went in; None where the table does not say. scope : the tokens that every figure covers.
    sha256 : of the file of the table. notes : sentences about what is unlike a table of our own.
    with_bias : what stands under `qkv_bias` is the projection of a model without biases too.
    """

    path: Path | None
    artifact: str | None
    numeric_path: str | None
    tokens: tuple[int, ...] | None
    scope: Scope
    cells: Mapping[Site, Statistics] = field(repr=False)
    notes: tuple[str, ...] = ()
    with_bias: bool = False
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values, as `trace --stats --json` prints it."""
        return {
            "artifact": self.artifact,
            "path": self.numeric_path,
            "tokens": None if self.tokens is None else list(self.tokens),
            "scope": self.scope,
            "cells": [cell_json(site, found) for site, found in self.cells.items()],
        }

    @property
    def one_token(self) -> bool:
        """Whether only one token is known to have gone in, so that all tokens are the last one."""
        return self.tokens is not None and len(self.tokens) == 1

    def named_as(self, other: "StatisticsTable") -> "StatisticsTable":
        """Return the table with its projection under the name that the other one has, where that has no biases."""
        if not self.with_bias:
            return self

        def named(site: Site) -> Site:
            product = Site(site.layer, _PRODUCT)
            return product if site.stage == _WITH_BIAS and site not in other.cells and product in other.cells else site

        return dataclasses.replace(self, cells={named(site): found for site, found in self.cells.items()})


def cell_json(site: Site, found: Statistics) -> dict[str, Any]:
    """Return one cell as JSON values."""
    facts = {name: getattr(found, name) for name in (*FIGURES, *COUNTS)}
    return {"layer": site.layer, "stage": site.stage, "shape": found.shape and list(found.shape), **facts}


def table_of(path: Path, record: Mapping[str, Any]) -> StatisticsTable:
    """Read a table of our own; StoreError names what is missing or of the wrong kind."""
    name = printable(str(path))
    scope, cells = record.get("scope"), record.get("cells")
    if scope not in SCOPES or not isinstance(cells, list) or len(cells) > _MAX_CELLS:
        raise StoreError(f"{name} names no scope (all or last) or holds no list of cells; {_AGAIN}.")
    found: dict[Site, Statistics] = {}
    for cell in cells:
        site = _site(cell)
        if site is None or site in found:
            raise StoreError(f"{name} holds a cell without a known layer and stage, or one twice; {_AGAIN}.")
        found[site] = _statistics(f"{name}: {site}", cell)
    return StatisticsTable(
        path,
        _text(record.get("artifact")),
        _text(record.get("path")),
        tokens_of(name, record.get("tokens")),
        scope,
        found,
    )


def tokens_of(name: str, value: object) -> tuple[int, ...] | None:
    """Return the token ids of a table, None if it names none; StoreError if they are none."""
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(is_count(token) for token in value):
        raise StoreError(f"{name}: its tokens are no token ids; make it again.")
    return tuple(value)


def is_count(value: object) -> bool:
    """Tell whether a JSON value is a whole number that can be a count or an id."""
    return type(value) is int and 0 <= value < 1 << 53


def figure(what: str, value: object) -> float | None:
    """Return a figure of a table, None if it is null; StoreError, which calls it `what`, if it is no finite number."""
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) < math.inf:  # type: ignore[arg-type]
        raise StoreError(f"{what} is no number; make the statistics again.")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise StoreError(f"{what} is no number; make the statistics again.") from None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _site(cell: object) -> Site | None:
    match cell:
        case {"layer": None, "stage": str(stage)}:
            return site_of(-1, stage)
        case {"layer": int(layer), "stage": str(stage)} if layer >= 0:
            return site_of(layer, stage)
    return None


def _statistics(what: str, cell: Mapping[str, Any]) -> Statistics:
    figures: dict[str, Any] = {name: figure(f"{what} {name}", cell.get(name)) for name in FIGURES}
    shape = cell.get("shape")
    if shape is not None:
        if not isinstance(shape, list) or len(shape) != 2 or not all(is_count(n) and n for n in shape):
            raise StoreError(f"{what} has a shape that is not two whole numbers; {_AGAIN}.")
        shape = shape[0], shape[1]
    counts: dict[str, Any] = {name: cell.get(name) for name in COUNTS}
    for name, count in counts.items():
        if count is not None and not (is_count(count) and (shape is None or count <= shape[0] * shape[1])):
            raise StoreError(f"{what} {name} is no count of its values; {_AGAIN}.")
    if any(value is not None and value < 0 for value in (figures["std"], figures["rms"])):
        raise StoreError(f"{what} has a negative std or RMS; {_AGAIN}.")
    return possible(what, Statistics(shape, **figures, **counts))


def possible(what: str, found: Statistics, advice: str = _AGAIN) -> Statistics:
    """Return figures that some values can have; StoreError, which calls them `what`, says why none can."""
    if (why := next(_contradictions(found), None)) is not None:
        raise StoreError(f"{what} contradicts itself, {why}; {advice}.")
    return found


def _contradictions(found: Statistics) -> Iterator[str]:
    """Say what no values can have.

    The mean lies between the extremes, a population spreads no further than half of what lies between them, and the RMS
    is between the mean and the largest of them, as rms² = mean² + std².
    """
    low, high, mean, std, rms = (getattr(found, name) for name in FIGURES)
    special = (found.nan or 0) + (found.inf or 0)
    if found.shape is not None:
        rows, channels = found.shape
        if special + (found.zero or 0) > rows * channels:
            yield f"it counts more NaN, Inf and zeros than its {rows} × {channels} values"
        if special == rows * channels and any(value is not None for value in (low, high, mean, std, rms)):
            yield "it has figures, and no value is finite"
        if found.worst_channel is not None and found.worst_channel >= channels:
            yield f"the worst channel is {found.worst_channel} of {channels}"
    slack = _ROUNDED * max(abs(value) for value in (low or 0.0, high or 0.0, mean or 0.0))
    if rms is not None and mean is not None and rms < abs(mean) - slack and abs(mean) > _SQUARED:
        yield f"the RMS {rms:.7g} is less than the mean {mean:.7g}"
    if low is None or high is None:
        return
    if low > high:
        yield f"min {low:.7g} is above max {high:.7g}"
    if mean is not None and not low - slack <= mean <= high + slack:
        yield f"the mean {mean:.7g} is not between min {low:.7g} and max {high:.7g}"
    if std is not None and std > (high / 2 - low / 2) + slack:
        yield f"the std {std:.7g} is more than half of what lies between min {low:.7g} and max {high:.7g}"
    if rms is not None and rms > max(abs(low), abs(high)) + slack:
        yield f"the RMS {rms:.7g} is more than the largest of min {low:.7g} and max {high:.7g}"
    if found.zero and not low - slack <= 0 <= high + slack:
        yield f"it counts zeros, and 0 is not between min {low:.7g} and max {high:.7g}"
