"""Everything that is said of two sides once their cells are known: counts, verdict, tables, JSON."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kernels.errors import WorkbenchError
from kernels.measures import Measures
from kernels.models import all_stages, layer_stages
from kernels.stages import LAST_STAGES, Site
from store.text import printable
from workbench.cells.cell import Cell, cell_json
from workbench.cells.decomposition import Checked
from workbench.cells.heat import UNMEASURED, Look, counts, level_edge, look
from workbench.cells.metrics import METRICS, Metric, format_value, in_band
from workbench.cells.sites import site_json
from workbench.cells.view import TokenScope

# Cells that were run again on both inputs, or the reason why none were.
Again = Mapping[Site, Checked] | str
# The std ratio cannot see order, sign or permutation, so no verdict rests on it alone.
JUDGE = METRICS["rel_rms"]
ALIKE, DIFFERENT, NOT_COMPARABLE = 0, 1, 2
# Models that differ in one of these do not compute the same function, however wide the band.
DECIDING_SETTINGS = frozenset(
    (
        "rms_norm_eps",
        "rope_theta",
        "rope_type",
        "rotary_dim",
        "rope_factors",
        "rope_attention_factor",
        "causal",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    )
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedCells(ABC):
    """Cells in execution order, seen in one metric and one token scope; subclasses say what the two sides are.

    notes : sentences about what no cell covers.
    """

    cells: Sequence[Cell]
    metric: Metric
    scope: TokenScope
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Metric, ...]:
        """The metrics that a report has a map of: the one chosen, and the judge."""
        return (self.metric,) if self.metric is JUDGE else (self.metric, JUDGE)

    @property
    def judges(self) -> tuple[Metric, ...]:
        """The metrics whose bands decide: the one shown, if it has a band, and relative RMS."""
        return tuple(metric for metric in self.shown if metric.band is not None)

    @property
    def counted(self) -> tuple[int, int]:
        """Cells compared over the scope, and cells that should have been."""
        return sum(self.measures(cell) is not None for cell in self.cells), counts(self.cells)[1]

    def row(self, cell: Cell) -> int | None:
        """Row of a cell that the scope selects, None for all."""
        return self.scope.row(cell, self.token_count)

    def measures(self, cell: Cell) -> Measures | None:
        """Metrics of a cell over the scope."""
        return cell.measures(self.row(cell))

    def outside_in(self, metric: Metric) -> list[Cell]:
        """Cells outside the band of a metric, in execution order."""
        return [c for c in self.cells if (m := self.measures(c)) is not None and in_band(metric, m) is False]

    @cached_property
    def outside(self) -> list[Cell]:
        """Cells outside the band of any judging metric, in execution order."""
        found = {id(cell) for metric in self.judges for cell in self.outside_in(metric)}
        return [cell for cell in self.cells if id(cell) in found]

    @property
    def uncomparable(self) -> list[Cell]:
        """Cells whose two sides hold unlike populations."""
        return [cell for cell in self.cells if cell.status == "uncomparable"]

    @property
    def without_numbers(self) -> list[Cell]:
        """Cells that were compared, but of which no element is finite on both sides: nothing shows that they agree."""
        return [cell for cell in self.cells if (m := self.measures(cell)) is not None and not m.finite]

    @property
    def flipped(self) -> tuple[int, int] | None:
        """8-bit activation codes that differ and of how many, over all tokens; None where nothing is rounded alike."""
        counted = [cell.flipped for cell in self.cells if cell.flipped is not None]
        return (sum(found.flipped for found in counted), sum(found.of for found in counted)) if counted else None

    @property
    @abstractmethod
    def token_count(self) -> int:
        """Tokens that went into both sides."""

    @abstractmethod
    def sides_json(self) -> dict[str, Any]:
        """Return what the two sides are, `a` and `b`, their `tokens` and `prompt`, and the `population` of each."""

    @property
    def config_differences(self) -> dict[str, tuple[Any, Any]]:
        """Settings of the two models that are known not to be the same, with A's and B's value."""
        return {}

    def exit_code(self) -> int:
        """0 all compared cells within the bands, the logits too, 1 some outside or another function, 2 not known."""
        if not self.counted[0]:
            return NOT_COMPARABLE
        if self.outside or DECIDING_SETTINGS & self.config_differences.keys():
            return DIFFERENT
        return NOT_COMPARABLE if self.uncomparable or self._open_end or self._lost else ALIKE

    @property
    def _lost(self) -> bool:
        """Whether models that differ lose their numbers on both sides: the rest of the difference is not seen."""
        same = all(m.identical for cell in self.cells if (m := self.measures(cell)) is not None)
        return not same and bool(self.without_numbers)

    @property
    def _open_end(self) -> bool:
        """Whether a side does not hold the last stage, so that nothing is known of what comes out."""
        return any(cell.site.stage == LAST_STAGES[-1] and cell.status == "unmeasured" for cell in self.cells)

    def require_scope(self) -> None:
        """Raise WorkbenchError if the scope is a token that the runs do not have."""
        tokens = self.token_count
        if self.scope.kind == "one" and self.scope.position >= tokens:
            raise WorkbenchError(f"there is no token {self.scope.position}; the runs have tokens 0 to {tokens - 1}")

    def require_answer(self) -> None:
        """Raise WorkbenchError, saying why, where there is no verdict."""
        if self.exit_code() != NOT_COMPARABLE:
            return
        if self.uncomparable:
            cell = self.uncomparable[0]
            raise WorkbenchError(
                f"{len(self.uncomparable)} of {self.counted[1]} cells are not comparable, "
                f"the first is {cell.site}: {cell.note}"
            )
        compared, expected = self.counted
        if self._lost:
            lost = self.without_numbers
            raise WorkbenchError(
                f"{len(lost)} of {expected} cells, the first is {lost[0].site}, hold no number on both sides, and what "
                "is wrong there does not show; see with workbench inspect which tensors have values that are not finite"
            )
        if compared:
            raise WorkbenchError(
                f"{compared} of {expected} cells were compared, and {LAST_STAGES[-1]} is not there on both sides: what "
                "comes out is not known; record it too"
            )
        notes = Counter(cell.note for cell in self.cells if cell.status == "unmeasured")
        why = f" ({notes.most_common(1)[0][0]})" if notes else ""
        raise WorkbenchError(f"nothing was compared: no stage was captured on both sides{why}; trace both models whole")

    # Words and tables

    def looks(self, metric: Metric) -> dict[Site, Look]:
        """Return how each cell looks in a metric."""
        edge = max((level_edge([cell], metric, self.row(cell)) for cell in self.cells), default=0.0)
        return {cell.site: look(cell, metric, edge, self.row(cell)) for cell in self.cells}

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers that have cells."""
        return sorted({cell.site.layer for cell in self.cells if cell.site.layer is not None})

    def grid(self, metric: Metric, layers: Sequence[int]) -> list[list[str]]:
        """Table of stages by the given layers, a heading first; "!" marks the cells outside the band.

        Whole-model stages stand in a column of their own.
        """
        looks = self.looks(metric)
        rows = [["stage", *(f"layer {layer}" for layer in layers), "model"]]
        there = {site.stage for site in looks}
        for stage in (stage for stage in all_stages() if stage in there):
            inner = stage in layer_stages()
            sites = [Site(layer, stage) for layer in layers] if inner else [Site(None, stage)]
            texts = [looks[site].marked if site in looks else UNMEASURED[1] for site in sites]
            rows.append([stage, *texts, ""] if inner else [stage, *[""] * len(layers), *texts])
        return rows

    def summary(self) -> list[str]:
        """Say what the comparison found, in sentences."""
        compared, expected = self.counted
        states = Counter[str](cell.status for cell in self.cells)
        parts = [f"{states[state]} {words}" for state, words in _STATES.items() if states[state]]
        lines = [
            f"{compared} of {expected} cells compared over {self.scope.label(self.token_count)}: {', '.join(parts)}."
        ]
        if self._open_end:
            lines.append(f"{LAST_STAGES[-1]} is not there on both sides: what comes out is not known.")
        broken = [(c, m) for c in self.cells if (m := self.measures(c)) is not None and m.nonfinite_a + m.nonfinite_b]
        if broken:
            cell, m = broken[0]
            lines.append(
                f"{len(broken)} cell{'s hold' if len(broken) > 1 else ' holds'} NaN or infinite values, the first is "
                f"{cell.site}: {m.nonfinite_a} of {m.count} in A, {m.nonfinite_b} in B."
            )
        for metric in self.judges:
            low, high = metric.band or (-math.inf, math.inf)
            band = f"{metric.label} {format_value(low)} to {format_value(high)}"
            found = self.outside_in(metric)
            if found:
                many = f"{len(found)} cell{'s' * (len(found) > 1)}"
                lines.append(f"Outside the band ({band}): {many}, the first is {self.describe(found[0], metric)}.")
            else:
                lines.append(f"No cell is outside the band ({band}){self._largest(metric)}.")
        if self.flipped is not None:
            lines.append(f"{self.flipped[0]} of {self.flipped[1]} activation codes flipped (8 bits, all tokens).")
        for name, values in self.config_differences.items():
            a, b = (printable(str(value)) for value in values)
            lines.append(f"The models differ in {name}: {a} in A, {b} in B.")
        lines += [f"{cell.site}: {cell.note}." for cell in self.cells if cell.profile is not None and cell.note]
        return [*lines, *self.notes]

    def _largest(self, metric: Metric) -> str:
        """Words for the cell furthest from identical, which a wide band says nothing about."""
        values = [(m, metric.value(m), cell) for cell in self.cells if (m := self.measures(cell)) is not None]
        distances = [(metric.distance(v), cell) for m, v, cell in values if v is not None and not m.identical]
        if not distances:
            return ""
        return f"; the largest difference is at {self.describe(max(distances, key=lambda pair: pair[0])[1], metric)}"

    def describe(self, cell: Cell, metric: Metric) -> str:
        """Name a cell and its value: layer 3 ffn_gate, relative RMS 1.39."""
        measures = self.measures(cell)
        return f"{cell.site}, {metric.label} {'' if measures is None else metric.text(measures)}"

    def to_json(self, again: Again | None = None) -> dict[str, Any]:
        """Return the comparison as `compare --json` prints it.

        again : what running the cells again has shown, None where that was no question.
        """
        compared, expected = self.counted
        first = self.outside[0].site if self.outside else None
        flipped = self.flipped
        sides = self.sides_json()
        of = sides["population"]
        alike = {"alike": not self.uncomparable, "scope": self.scope.label(self.token_count)}
        return {
            **sides,
            "population": {"a": of["a"], "b": of["b"], **alike, **of},
            "notes": list(self.notes),
            "compared": compared,
            "expected": expected,
            "metric": self.metric.key,
            "judged_by": {metric.key: list(metric.band or ()) for metric in self.judges},
            "config_differences": {name: list(values) for name, values in self.config_differences.items()},
            "outside_band": len(self.outside),
            "flipped_codes": None if flipped is None else {"flipped": flipped[0], "of": flipped[1], "tokens": "all"},
            "first_outside_band": None if first is None else site_json(first),
            "cells": [_with_again(cell_json(cell, self.row(cell)), cell.site, again) for cell in self.cells],
        }


def _with_again(record: dict[str, Any], site: Site, again: Again | None) -> dict[str, Any]:
    """A cell with what running it again has shown, over all tokens; null with the reason where it was not."""
    if again is None or "shape" not in record:
        return record
    checked = None if isinstance(again, str) else again.get(site)
    record |= dict.fromkeys(("local", "inherited", "floor")) if checked is None else checked.to_json()
    unknown = [name for name in ("local", "inherited", "floor") if record[name] is None]
    if unknown:
        not_run = again if isinstance(again, str) else "no stage that could be run again on numbers"
        why = not_run if checked is None else "not finite"
        words = f"{', '.join(unknown)} not known: {why}"
        record["note"] = f"{record['note']}; {words}" if record["note"] else words
    return record


_STATES = {
    "ok": "with differences",
    "identical": "identical",
    "unmeasured": "unmeasured",
    "uncomparable": "not comparable",
    "absent": "not in the models",
}
