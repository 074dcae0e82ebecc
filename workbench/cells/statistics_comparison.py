"""Two tables of statistics side by side: a difference is certain, whether two runs are alike they do not tell."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from kernels.errors import WorkbenchError
from kernels.models import all_stages, layer_stages, sites
from kernels.stages import LAST_STAGES, Site
from kernels.statistics import Statistics
from store.traces.statistics_table import COUNTS, FIGURES, StatisticsTable, cell_json
from workbench.cells.compare import PopulationError, require_same_tokens
from workbench.cells.heat import IDENTICAL, OUTSIDE, UNCOMPARABLE, UNMEASURED
from workbench.cells.metrics import METRICS, format_value

Status = Literal["ok", "unmeasured", "uncomparable"]
CANNOT_KNOW = (
    "Statistics hold no elements: which of them differ, in what order they stand and which sign each has, cannot be "
    "known from them; only traces tell (workbench trace X -o X.h5)."
)
ALIKE, DIFFERENT, NOT_COMPARABLE = 0, 1, 2
_STD_RATIO, _REL_RMS = METRICS["std_ratio"], METRICS["rel_rms"]
_LARGEST = sys.float_info.max  # where the figures of a file lie further apart than float64 can tell
_NO_SPREAD = 2.0**-24  # of the RMS: the rounding of a constant
_ROUNDING = 2.0**-20  # of the largest value: some float32 steps, by which the order of an engine's sums moves a value


@dataclass(frozen=True)
class StatisticsCell:
    """One stage in both tables.

    status : "ok" was compared; "unmeasured": a side has no figures; "uncomparable": populations are unlike or unknown.
    note : the rest in words. same : every figure that both have is the same.
    std_ratio : A's over B's. mean_shift : A's mean less B's.
    at_least : the smallest relative RMS that two tensors with these figures can have, None where a value is not finite.
    """

    site: Site
    status: Status
    a: Statistics | None = None
    b: Statistics | None = None
    note: str | None = None
    same: bool = False
    std_ratio: float | None = None
    mean_shift: float | None = None
    at_least: float | None = None

    @property
    def outside(self) -> bool:
        """Whether the figures prove a difference beyond the bands of `compare`, or in what is not finite."""
        if self.a is None or self.b is None or self.status != "ok" or self.same:
            return False
        low, high = _STD_RATIO.band or (-math.inf, math.inf)
        spread = self.std_ratio is not None and not low <= self.std_ratio <= high
        beyond = self.at_least is not None and self.at_least > (_REL_RMS.band or (0.0, math.inf))[1]
        return spread or beyond or bool(self.a.rms) != bool(self.b.rms) or self.unlike_counts

    @property
    def unlike_counts(self) -> bool:
        """Whether the two sides are known to hold unlike numbers of NaN or infinite values."""
        if self.a is None or self.b is None:
            return False
        return any(
            None not in pair and pair[0] != pair[1] for pair in ((self.a.nan, self.b.nan), (self.a.inf, self.b.inf))
        )

    @property
    def text(self) -> str:
        """The cell in a table of std ratios."""
        if self.status == "ok":
            return IDENTICAL[1] if self.same else format_value(self.std_ratio) + (OUTSIDE if self.outside else "")
        return (UNMEASURED if self.status == "unmeasured" else UNCOMPARABLE)[1]

    def to_json(self) -> dict[str, Any]:
        """Return the cell as JSON values; the figures that `compare --json` has of tensors have the same names."""
        a, b = self.a, self.b
        facts: dict[str, Any] = {"layer": self.site.layer, "stage": self.site.stage, "status": self.status}
        facts |= {"note": self.note, "same_figures": self.same, "outside_band": self.outside}
        if a is not None and b is not None and a.shape is not None and a.shape == b.shape:
            facts |= {"shape": list(a.shape), "std_a": a.std, "std_b": b.std}
        facts |= {"std_ratio": self.std_ratio, "mean_shift": self.mean_shift, "rel_rms_at_least": self.at_least}
        sides = (("a", a), ("b", b))
        return facts | {side: None if found is None else cell_json(self.site, found) for side, found in sides}


def _compared(site: Site, a: Statistics, b: Statistics) -> StatisticsCell:
    if a.shape is None or b.shape is None:
        side = "A" if a.shape is None else "B"
        return StatisticsCell(site, "uncomparable", a, b, f"{side} does not say how many values its figures cover")
    if a.shape != b.shape:
        words = (
            f"{side} covers {rows} × {columns} values" for side, (rows, columns) in (("A", a.shape), ("B", b.shape))
        )
        return StatisticsCell(site, "uncomparable", a, b, ", ".join(words))
    shift = None if a.mean is None or b.mean is None else max(min(a.mean - b.mean, _LARGEST), -_LARGEST)
    if _same(a, b):
        return StatisticsCell(site, "ok", a, b, None, True, 1.0 if a.std and b.std else None, shift, 0.0)
    spread = a.std is not None and b.std is not None and b.std > _NO_SPREAD * (b.rms or 0.0)
    ratio = min(a.std / b.std, _LARGEST) if spread else None  # type: ignore[operator]
    return StatisticsCell(site, "ok", a, b, _channels(a, b), False, ratio, shift, _at_least(a, b))


def _same(a: Statistics, b: Statistics) -> bool:
    """Whether all that both know is the same, but for some steps of float32."""
    size = max((abs(v) for s in (a, b) for v in (s.min, s.max) if v is not None), default=0.0)
    pairs = [(getattr(a, name), getattr(b, name)) for name in FIGURES]
    if any((x is None) != (y is None) for x, y in pairs):
        return False
    near = all(abs(x - y) <= _ROUNDING * size for x, y in pairs if x is not None)
    counts = [(getattr(a, name), getattr(b, name)) for name in COUNTS]
    return near and all(x == y for x, y in counts if x is not None and y is not None)


def _channels(a: Statistics, b: Statistics) -> str | None:
    if None in (a.worst_channel, b.worst_channel) or a.worst_channel == b.worst_channel:
        return None
    return f"the largest value is in channel {a.worst_channel} of A and {b.worst_channel} of B"


def _at_least(a: Statistics, b: Statistics) -> float | None:
    """The least ‖a-b‖ / ‖b‖ of tensors with these figures, all of whose values are finite.

    Means and spreads: mean (a-b)² is at least (mean_a - mean_b)² + (std_a - std_b)². Extremes: somewhere |a-b| is at
    least |max_a - max_b|, and so for min.
    """
    if a.nan or a.inf or b.nan or b.inf or not b.rms or a.shape is None:
        return None
    known = [(getattr(a, name), getattr(b, name)) for name in ("mean", "std", "min", "max")]
    if any(x is None or y is None for x, y in known):
        return None
    mean, std, low, high = (x - y for x, y in known)
    extreme = max(abs(low), abs(high)) / math.sqrt(a.shape[0] * a.shape[1])
    return float(min(max(math.hypot(mean, std), extreme) / b.rms, _LARGEST))


@dataclass(frozen=True, eq=False)
class StatisticsComparison:
    """Two tables over the same tokens, stage by stage; `compare_statistics` makes it."""

    a: StatisticsTable
    b: StatisticsTable
    cells: Sequence[StatisticsCell]

    @cached_property
    def compared(self) -> list[StatisticsCell]:
        """The cells whose figures were compared."""
        return [cell for cell in self.cells if cell.status == "ok"]

    @cached_property
    def outside(self) -> list[StatisticsCell]:
        """The cells outside the bands, first computed first."""
        return [cell for cell in self.cells if cell.outside]

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers that have cells."""
        return sorted({cell.site.layer for cell in self.cells if cell.site.layer is not None})

    def exit_code(self) -> int:
        """0 all figures the same, those of the logits too; 1 some prove a difference; 2 cannot be known."""
        if self.outside:
            return DIFFERENT
        return NOT_COMPARABLE if self._why() else ALIKE

    def require_answer(self) -> None:
        """Raise WorkbenchError, saying why, where there is no verdict."""
        if not self.outside and (why := self._why()):
            raise WorkbenchError(why)

    def _why(self) -> str:
        """Why it cannot be said that the runs are alike; empty if it can."""
        unlike = [cell for cell in self.cells if cell.status == "uncomparable"]
        if not self.compared and not unlike:
            return "nothing was compared: no stage has figures on both sides"
        if unlike:
            return (
                f"{len(unlike)} of {len(self.cells)} cells are not comparable, the first is {unlike[0].site}: "
                f"{unlike[0].note}"
            )
        if not any(cell.site.stage == LAST_STAGES[-1] for cell in self.compared):
            return f"{LAST_STAGES[-1]} is not there on both sides: what comes out is not known"
        largest = max((cell for cell in self.compared if not cell.same), key=_distance, default=None)
        if largest is None:
            return ""
        many = sum(not cell.same for cell in self.compared)
        return (
            f"the figures of {many} of {len(self.compared)} cells differ, none beyond its band, most at "
            f"{_described(largest)}: statistics do not tell whether that is rounding; compare traces of both"
        )

    def summary(self) -> list[str]:
        """Say what was found, and what cannot be, in sentences."""
        same = sum(cell.same for cell in self.compared)
        missing = sum(cell.status == "unmeasured" for cell in self.cells)
        gone = f", {missing} have figures on one side only" if missing else ""
        lines = [f"{len(self.compared)} of {len(self.cells)} cells compared, {same} with the same figures{gone}."]
        if self.outside:
            first = self.outside[0]
            many = f"{len(self.outside)} cell{'s prove' if len(self.outside) > 1 else ' proves'}"
            lines.append(f"{many} a difference beyond the bands, the first is {_described(first)}.")
        for side, table in (("A", self.a), ("B", self.b)):
            lines += [f"{side}: {note}" for note in table.notes]
            if table.tokens is None:
                lines.append(f"{side}: which tokens went in is not there; that they were the same is your word.")
        return [*lines, CANNOT_KNOW]

    def grid(self, layers: Sequence[int]) -> list[list[str]]:
        """Table of std ratios, stages by the given layers, a heading first; "!" marks the cells outside the bands."""
        found = {cell.site: cell.text for cell in self.cells}
        rows = [["stage", *(f"layer {layer}" for layer in layers), "model"]]
        there = {site.stage for site in found}
        for stage in (stage for stage in all_stages() if stage in there):
            inner = stage in layer_stages()
            whole = "" if inner else found[Site(None, stage)]
            rows.append([stage, *(found.get(Site(n, stage), "") if inner else "" for n in layers), whole])
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as `compare --json` prints it for statistics."""
        first = self.outside[0].site if self.outside else None
        tokens = self.a.tokens or self.b.tokens
        alike = all(cell.status != "uncomparable" for cell in self.cells)
        populations = {side: {"scope": table.scope} for side, table in (("a", self.a), ("b", self.b))}
        return {
            "a": _side_json(self.a),
            "b": _side_json(self.b),
            "tokens": None if tokens is None else list(tokens),
            "population": populations | {"alike": alike},
            "statistics_only": True,
            "notes": self.summary(),
            "compared": len(self.compared),
            "expected": len(self.cells),
            "judged_by": {metric.key: list(metric.band or ()) for metric in (_STD_RATIO, _REL_RMS)},
            "outside_band": len(self.outside),
            "first_outside_band": None if first is None else {"layer": first.layer, "stage": first.stage},
            "cells": [cell.to_json() for cell in self.cells],
        }


def compare_statistics(a: StatisticsTable, b: StatisticsTable) -> StatisticsComparison:
    """Set two tables side by side; PopulationError if they cover unlike tokens."""
    if a.tokens is not None and b.tokens is not None:
        require_same_tokens(a.tokens, b.tokens)
    if a.scope != b.scope and not (a.one_token or b.one_token):
        words = {"all": "all tokens", "last": "the last token"}
        raise PopulationError(
            f"A covers {words[a.scope]} and B {words[b.scope]}, so none of their figures are of the same values; make "
            "both with the same --scope"
        )
    a, b = a.named_as(b), b.named_as(a)
    layers = max((site.layer + 1 for table in (a, b) for site in table.cells if site.layer is not None), default=0)
    cells = []
    for site in sites(layers, layer_stages()):
        x, y = a.cells.get(site), b.cells.get(site)
        if x is not None and y is not None:
            cells.append(_compared(site, x, y))
        elif x is not None or y is not None:
            side = "A" if x is None else "B"
            cells.append(StatisticsCell(site, "unmeasured", x, y, f"{side} has no figures of it"))
    return StatisticsComparison(a, b, cells)


def _distance(cell: StatisticsCell) -> float:
    ratio = cell.std_ratio
    return max(cell.at_least or 0.0, abs(math.log(ratio)) if ratio else 0.0)


def _described(cell: StatisticsCell) -> str:
    """Name a cell and what its figures say: layer 3 ffn_out, std ratio A/B 1.31, relative RMS at least 0.3."""
    words = [str(cell.site)]
    if cell.std_ratio is not None:
        words.append(f"{_STD_RATIO.label} {format_value(cell.std_ratio)}")
    if cell.at_least is not None:
        words.append(f"{_REL_RMS.label} at least {format_value(cell.at_least)}")
    if cell.unlike_counts and cell.a is not None and cell.b is not None:
        words.append(f"{cell.a.nan} NaN and {cell.a.inf} Inf in A, {cell.b.nan} and {cell.b.inf} in B")
    return ", ".join(words) + (f" ({cell.note})" if cell.note else "")


def _side_json(table: StatisticsTable) -> dict[str, Any]:
    facts = {"path": str(table.path), "format": "statistics", "sha256": table.sha256}
    return facts | {"artifact": table.artifact, "numeric_path": table.numeric_path}
