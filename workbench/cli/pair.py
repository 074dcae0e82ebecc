"""Running a pair of sides without a screen: what compare, open and demo have in common."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.errors import WorkbenchError
from store.run import RunRecord
from workbench.capture import CaptureJob, CellReady, Event, Failed, Progress, SideReady, capture
from workbench.cells import Cell
from workbench.cli.progress import ProgressLine
from workbench.cli.tables import aligned
from workbench.comparison import Comparison
from workbench.heat import LEGEND
from workbench.metrics import METRICS
from workbench.sides import open_side, shared_tokens, side_of
from workbench.view import TokenScope

if TYPE_CHECKING:
    from workbench.metrics import Metric


def pair_job(
    paths: tuple[Path, Path],
    numeric_paths: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    folder: Path | None = None,
) -> CaptureJob:
    """Decide on sides and tokens of a pair; WorkbenchError says what is missing or does not fit."""
    sources = [open_side(path) for path in paths]
    shared = shared_tokens(sources, tokens, prompt)
    a, b = (side_of(source, wanted) for source, wanted in zip(sources, numeric_paths, strict=True))
    return CaptureJob(a, b, shared.ids, shared.prompt, folder)


class _Collector:
    """Keeps what a capture reports and shows how far it is."""

    def __init__(self, line: ProgressLine) -> None:
        self.line = line
        self.runs: dict[str, RunRecord] = {}
        self.cells: list[Cell] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.line(event.done, event.total, f"{event.phase} {event.text}")
        elif isinstance(event, SideReady):
            self.runs[event.side] = event.run
        elif isinstance(event, CellReady):
            self.cells.append(event.cell)
        elif isinstance(event, Failed):
            raise WorkbenchError(event.message)


def run_pair(job: CaptureJob, metric: str, scope: TokenScope) -> Comparison:
    """Run or read both sides and compare them stage by stage."""
    with ProgressLine() as line:
        collected = _Collector(line)
        capture(job, collected)
    return Comparison(collected.runs["a"], collected.runs["b"], collected.cells, METRICS[metric], scope)


def comparison_text(comparison: Comparison) -> str:
    """Return the comparison as text: both sides, the map as tables as wide as the terminal, and the summary."""
    lines = []
    for name, run in (("A", comparison.a), ("B", comparison.b)):
        lines.append(f"{name}  {run.artifact}  ({run.format}, path {run.numeric_path}, sha256 {run.sha256[:16]}…)")
    a = comparison.a
    lines.append(f"tokens  {','.join(map(str, a.tokens))}" + ("" if a.prompt is None else f"  ({a.prompt!r})"))
    lines += [
        "",
        f"{comparison.metric.label} over {comparison.scope.label(len(a.tokens))}: {comparison.metric.definition}",
    ]
    lines += _map(comparison, comparison.metric)
    lines += ["", LEGEND, "", *comparison.summary()]
    return "\n".join(lines)


def _map(comparison: Comparison, metric: "Metric") -> list[str]:
    columns = shutil.get_terminal_size((120, 24)).columns
    layers, lines = comparison.layers, list[str]()
    per_block = max((columns - 30) // 11, 1)
    for first in range(0, max(len(layers), 1), per_block):
        rows = comparison.grid(metric, layers[first : first + per_block])
        lines += ["", *aligned(rows, right=frozenset(range(1, len(rows[0]))))]
    return lines
