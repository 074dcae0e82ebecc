"""The table of results, and the same as JSON with machine and versions."""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import Bench, Measured, Row
from store.traces.run import describe_machine, now, versions

_HEADINGS = ("row", "product", "peer", "ratio median", "must", "aim", "verdict", "of its limit", "before", "to before")
_DECIMALS = 3  # significant digits


@dataclass(frozen=True)
class Result:
    """A row and what came of it; `problem` says in a sentence why nothing was measured.

    load : processes that wanted to run in the minute before (one of them may be this benchmark).
    """

    row: Row
    measured: Measured | None
    problem: str | None
    load: float

    @property
    def verdict(self) -> str:
        """In one word."""
        return "not measured" if self.measured is None else self.row.verdict(self.measured)

    def limit_share(self, bench: Bench) -> float | None:
        """Time at the machine's limit as a share of the time it took; None where the row does not say its work."""
        if self.measured is None or self.measured.work is None:
            return None
        work = self.measured.work
        return bench.limits[work.threads].share(work, statistics.median(self.measured.product))


def as_table(bench: Bench, results: list[Result]) -> str:
    """All results as a Markdown table; problems, notes and the machine's limits below."""
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *(_cells(bench, result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    table = [f"| {' | '.join(line)} |" for line in padded]
    remarks = [(result.row.key, result.problem or (result.measured and result.measured.note)) for result in results]
    limits = [f"limits on {limits}" for limits in bench.limits.values()]
    return "\n".join([*table, *(f"{key}: {remark}" for key, remark in remarks if remark), *limits])


def write_json(path: Path, bench: Bench, results: list[Result]) -> None:
    """Write everything that was measured."""
    record = {
        "created": now(),
        "quick": bench.quick,
        "threads": bench.threads,
        "machine": describe_machine(),
        "versions": versions(),
        "limits": [asdict(limits) for limits in bench.limits.values()],
        "rows": [_record(bench, result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def _cells(bench: Bench, result: Result) -> tuple[str, ...]:
    row, measured, share = result.row, result.measured, result.limit_share(bench)
    if measured is None:
        return (
            f"{row.title} ({row.key})",
            "",
            row.peer,
            "",
            _figure(row.must),
            _figure(row.aim),
            result.verdict,
            *[""] * 3,
        )
    unit = "x" if measured.peer else f" {measured.unit}"
    peer = f"{row.peer}: {_figure(statistics.median(measured.peer))} {measured.unit}" if measured.peer else row.peer
    return (
        f"{row.title} ({row.key})",
        f"{_figure(statistics.median(measured.product))} {measured.unit}",
        peer,
        f"{_figure(measured.value)}x" if measured.peer else "",
        f"{_figure(row.must)}{unit}",
        f"{_figure(row.aim)}{unit}",
        result.verdict,
        "" if share is None else f"{share:.0%}",
        *_before(measured),
    )


def _before(measured: Measured) -> tuple[str, str]:
    """What another build needed, and the median of the ratios to it."""
    if not measured.before:
        return "", ""
    ratios = (mine / theirs for mine, theirs in zip(measured.product, measured.before, strict=True))
    return f"{_figure(statistics.median(measured.before))} {measured.unit}", f"{_figure(statistics.median(ratios))}x"


def _figure(value: float) -> str:
    return f"{value:.{_DECIMALS}g}"


def _record(bench: Bench, result: Result) -> dict[str, Any]:
    row, measured = result.row, result.measured
    record: dict[str, Any] = {"key": row.key, "title": row.title, "peer": row.peer, "must": row.must, "aim": row.aim}
    record |= {"verdict": result.verdict, "load": result.load, "problem": result.problem}
    if measured is not None:
        figures = {
            "product": measured.product,
            "peer_figures": measured.peer,
            "before": measured.before,
            "unit": measured.unit,
        }
        record |= figures | {"value": measured.value, "note": measured.note, "limit_share": result.limit_share(bench)}
    return record
