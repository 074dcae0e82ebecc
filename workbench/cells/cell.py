"""A cell of the map: one stage of one layer on both sides, and how they differ."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.measures import LogitAgreement, Measures, summarise
from kernels.stages import Site
from workbench.cells.elements import Element
from workbench.cells.flips import Flips
from workbench.cells.metrics import METRICS

Status = Literal["ok", "identical", "absent", "unmeasured", "uncomparable"]


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One (layer, stage) of the map.

    status
        "ok" and "identical" carry numbers; "absent": neither model has the stage; "unmeasured": not captured on a
        side; "uncomparable": the populations differ. `note` says the rest in words.
    shape : (tokens, channels) compared, or None.
    profile : float64 (tokens, columns) as in kernels.measures.Columns, or None.
    positions : token positions of the profile's rows.
    logits : agreement per token, for lm_head only.
    flipped : int8 activation codes that the next matmul makes of both sides and that differ; None where a side rounds
        nothing to 8 bits here, or in blocks of another size.
    percentiles : of |d| over all tokens, keys "p50", "p90", "p99"; empty where not measured.
    worst : the elements that differ most, where they are kept in place of the tensors.
    """

    site: Site
    status: Status
    note: str | None = None
    shape: tuple[int, int] | None = None
    profile: NDArray[np.float64] | None = None
    positions: tuple[int, ...] = ()
    logits: LogitAgreement | None = None
    flipped: Flips | None = None
    percentiles: dict[str, float] = field(default_factory=dict)
    worst: tuple[Element, ...] = ()
    _measured: dict[int | None, Measures] = field(default_factory=dict, init=False, repr=False)  # by row

    def measures(self, position: int | None = None) -> Measures | None:
        """Metrics over all tokens, or at one row (negative counts from the end); None if the cell has no numbers.

        They are kept: a map of another metric asks every cell again.
        """
        if self.profile is None:
            return None
        row = position + len(self.profile) if position is not None and position < 0 else position
        if row is not None and not 0 <= row < len(self.profile):
            return None
        known = self._measured.get(row)
        if known is None:
            rows = slice(None) if row is None else slice(row, row + 1)
            known = self._measured[row] = summarise(self.profile, rows)
        return known


def cell_to_wire(cell: Cell) -> dict[str, Any]:
    """The cell as JSON values without loss (floats keep all bits); `cell_from_wire` is the inverse."""
    return {
        "layer": cell.site.layer,
        "stage": cell.site.stage,
        "status": cell.status,
        "note": cell.note,
        "shape": cell.shape,
        "profile": None if cell.profile is None else cell.profile.tolist(),
        "positions": list(cell.positions),
        "logits": None if cell.logits is None else [column.tolist() for column in cell.logits],
        "flipped": cell.flipped,
        "percentiles": cell.percentiles,
        "worst": [[element.token, element.channel, element.a, element.b] for element in cell.worst],
    }


def cell_from_wire(record: dict[str, Any]) -> Cell:
    """Rebuild a cell from `cell_to_wire`."""
    logits = record["logits"]
    return Cell(
        site=Site(record["layer"], record["stage"]),
        status=record["status"],
        note=record["note"],
        shape=None if record["shape"] is None else (record["shape"][0], record["shape"][1]),
        profile=None if record["profile"] is None else np.array(record["profile"], dtype=np.float64),
        positions=tuple(record["positions"]),
        logits=None
        if logits is None
        else LogitAgreement(np.array(logits[0]), np.array(logits[1]), np.array(logits[2])),
        flipped=None if record["flipped"] is None else Flips(*record["flipped"]),
        percentiles=record["percentiles"],
        worst=tuple(Element.of(*values) for values in record["worst"]),
    )


class LogitFigure(NamedTuple):
    """What is said of the logits of several tokens.

    column : of LogitAgreement, a value per token. over : makes one number of them. worst : the place in them of the
    token that is worst. unit : of the number, empty for a share.
    """

    column: str
    over: Callable[[NDArray[Any]], float]
    worst: Callable[[NDArray[Any]], np.intp]
    unit: str = ""


LOGIT_FIGURES = {
    "kl_b_a_mean": LogitFigure("kl", lambda values: float(values.mean()), np.argmax, "nats"),
    "kl_b_a_max": LogitFigure("kl", lambda values: float(values.max()), np.argmax, "nats"),
    "top1_agreement": LogitFigure("top1", lambda values: float(values.mean()), np.argmin),
    "top5_agreement": LogitFigure("top5", lambda values: float(values.mean()), np.argmin),
}


def logits_cost(cell: Cell) -> tuple[float, int, int] | None:
    """KL(B‖A) in nats, mean over the cell's tokens; tokens whose top-1 changes; tokens. None but for logits."""
    if cell.logits is None:
        return None
    return float(cell.logits.kl.mean()), int((~cell.logits.top1).sum()), len(cell.logits.kl)


def cell_json(cell: Cell, position: int | None = None) -> dict[str, Any]:
    """The cell as `compare --json` prints it, over all tokens or at one row."""
    record: dict[str, Any] = {
        "layer": cell.site.layer,
        "stage": cell.site.stage,
        "status": cell.status,
        "note": cell.note,
    }
    measures = cell.measures(position)
    if measures is None or cell.shape is None:
        return record
    rows = cell.shape[0] if position is None else 1
    record["shape"] = [rows, cell.shape[1]]
    record |= {"std_a": measures.std_a, "std_b": measures.std_b}
    record |= {metric.key: getattr(measures, metric.key) for metric in METRICS.values()}
    record |= {
        "max_at": {
            "token": cell.positions[measures.max_token],
            "channel": measures.max_channel,
            "a": _finite(measures.max_a),
            "b": _finite(measures.max_b),
        },
        "nonfinite_a": measures.nonfinite_a,
        "nonfinite_b": measures.nonfinite_b,
    }
    if measures.words:
        words = "; ".join(f"{name}: {why}" for name, why in measures.words.items())
        record["note"] = f"{cell.note}; {words}" if cell.note else words
    if position is None and cell.percentiles:
        record["percentiles_abs_d"] = cell.percentiles
    if cell.worst:
        place = None if position is None else cell.positions[position]
        record["worst"] = [_element_json(element) for element in cell.worst if place in (None, element.token)]
    if cell.flipped is not None:
        record["flipped_codes"] = cell.flipped.to_json()
    if cell.logits is not None:
        rows_of = slice(None) if position is None else slice(position, position + 1 or None)
        record["logits"] = {
            name: _finite(figure.over(getattr(cell.logits, figure.column)[rows_of]))
            for name, figure in LOGIT_FIGURES.items()
        }
    return record


def _element_json(element: Element) -> dict[str, Any]:
    values = {"a": element.a, "b": element.b, "abs_d": abs(element.d)}
    return {"token": element.token, "channel": element.channel} | {name: _finite(x) for name, x in values.items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
