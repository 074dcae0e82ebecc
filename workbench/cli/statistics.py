"""Statistics of one run in the terminal: the table, the course of the spread over layers, and how both come about."""

import math
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from kernels.models import all_stages, layer_stages
from kernels.stages import Site
from kernels.statistics import Statistics
from store.text import printable
from store.traces.statistics_table import FIGURES, Scope, StatisticsTable
from workbench.cells.metrics import format_value
from workbench.cells.statistics_comparison import StatisticsComparison
from workbench.cells.view import TokenScope
from workbench.cli.tables import aligned, in_blocks, shape_text

_BARS = "▁▂▃▄▅▆▇█"
_UNKNOWN = "?"
_INTERVAL = 0.1  # seconds between two paintings
_NARROW = 92  # columns below which shapes stand with the course over layers only
_HEADING = ("stage", *FIGURES, "nan", "inf", "zero", "worst")
_RIGHT = frozenset(range(1, len(_HEADING)))


def head(table: StatisticsTable) -> list[str]:
    """What the figures of a table are of: model, path, tokens, scope."""
    model = "model not recorded" if table.artifact is None else printable(table.artifact, 1000)
    path = "" if table.numeric_path is None else f", path {printable(table.numeric_path, 40)}"
    tokens = "not recorded" if table.tokens is None else printable(",".join(map(str, table.tokens)), 4000)
    return [
        f"{model}{path}",
        f"tokens  {tokens}",
        "",
        f"Statistics over {scope_text(table.scope, table.tokens)}, of the finite values; ? is not known.",
        "std: of the population; worst: the channel of the largest absolute value.",
    ]


def scope_text(scope: Scope, tokens: Sequence[int] | None) -> str:
    """Name the tokens that figures cover: all 7 tokens."""
    return TokenScope(scope).label(0 if tokens is None else len(tokens))


def table_lines(table: StatisticsTable) -> list[str]:
    """The whole table as text: its head, every stage of every layer, and the course of the std over layers."""
    columns = shutil.get_terminal_size((120, 24)).columns
    wide = columns >= _NARROW
    rows = [_row(site, found, wide) for site, found in table.cells.items()]
    heading, *texts = aligned([_HEADING + ("shape",) * wide, *rows], _RIGHT, gap=" ")
    lines, last = [*head(table), "", heading], None
    for site, line in zip(table.cells, texts, strict=True):
        if site.layer != last:
            lines.append("" if site.layer is None else f"layer {site.layer}")
        last = site.layer
        lines.append(line)
    return [*lines, *_course_lines(table.cells, columns), *(("", *table.notes) if table.notes else ())]


def comparison_lines(comparison: StatisticsComparison) -> list[str]:
    """Two tables side by side as text: what they are of, the std ratios as a map, and what was found."""
    a, b = comparison.a, comparison.b
    lines = []
    for side, table in (("A", a), ("B", b)):
        model, *_ = head(table)
        lines.append(f"{side}  {printable(str(table.path), 1000)}  ({model})")
    tokens = a.tokens or b.tokens
    lines += [
        f"tokens  {'not recorded' if tokens is None else printable(','.join(map(str, tokens)), 4000)}",
        "",
        f"Statistics over {scope_text(a.scope, tokens)}: std of A / std of B, of the population",
        *in_blocks(comparison.layers, comparison.grid),
    ]
    return [*lines, "", "= all figures the same   ! beyond the bands", "", *comparison.summary()]


def _row(site: Site, found: Statistics, shaped: bool) -> tuple[str, ...]:
    counts = (found.nan, found.inf, found.zero, found.worst_channel)
    figures = (_UNKNOWN if value is None else format_value(value) for value in (getattr(found, n) for n in FIGURES))
    words = (_UNKNOWN if count is None else str(count) for count in counts)
    return (site.stage, *figures, *words, *((shape_text(found.shape),) if shaped else ()))


def _course_lines(cells: Mapping[Site, Statistics], columns: int) -> list[str]:
    """One line for every stage of layers: its shape, and its std from the first layer to the last."""
    courses = courses_of(cells)
    if not courses:
        return []
    rows = [("stage", "shape", "smallest", "", "largest")]
    for stage, course in courses.items():
        known = [std for _, std in course if std is not None]
        low, high = (format_value(limit(known)) if known else _UNKNOWN for limit in (min, max))
        line = sparkline([std for _, std in course], max(columns - 60, 8))
        rows.append((stage, _shapes(cells, stage), low, line, high))
    layers = [layer for course in courses.values() for layer, _ in course]
    title = f"std over layers {min(layers)} to {max(layers)}, each stage from its smallest to its largest, logarithmic"
    return ["", title, "", *aligned(rows, frozenset({2}))]


def courses_of(cells: Mapping[Site, Statistics]) -> dict[str, list[tuple[int, float | None]]]:
    """The std of every stage of layers, by layer, as far as it is there."""
    found: dict[str, list[tuple[int, float | None]]] = {}
    for site, of in cells.items():
        if site.layer is not None:
            found.setdefault(site.stage, []).append((site.layer, of.std))
    return {stage: found[stage] for stage in layer_stages() if stage in found}


def _shapes(cells: Mapping[Site, Statistics], stage: str) -> str:
    shapes = list(dict.fromkeys(found.shape for site, found in cells.items() if site.stage == stage))
    return shape_text(shapes[0]) if len(shapes) == 1 else "various"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Values as block characters between their smallest and largest positive one, logarithmically; 0 is the lowest.

    A value that is not known is "?". More values than fit are shown by the largest of each run of them.
    """
    each = -(-len(values) // width) if values else 1
    runs = [[v for v in values[n : n + each] if v is not None] for n in range(0, len(values), each)]
    shown = [max(run) if run else None for run in runs]
    logs = [math.log(v) for v in shown if v]
    low, span = (min(logs), max(logs) - min(logs)) if logs else (0.0, 0.0)

    def bar(value: float | None) -> str:
        if value is None:
            return _UNKNOWN
        share = (math.log(value) - low) / span if value and span else 0.0
        return _BARS[round(share * (len(_BARS) - 1))]

    return "".join(map(bar, shown))


class LiveTable:
    """A table on stderr that fills while a forward runs: of every stage the newest layer, and its std so far.

    It is painted over itself and taken away at the end; where stderr is no terminal there is nothing.
    """

    def __init__(self, scope: str) -> None:
        self._terminal = sys.stderr.isatty()
        self._scope = scope
        self._cells: dict[Site, Statistics] = {}
        self._lines = 0
        self._painted = 0.0

    def __enter__(self) -> "LiveTable":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paint([])

    def add(self, site: Site, found: Statistics) -> None:
        """Take the statistics of a stage."""
        self._cells[site] = found

    def __call__(self, done: int, total: int, text: str) -> None:
        """Paint the table, with how far the work is."""
        now = time.monotonic()
        if self._terminal and now - self._painted >= _INTERVAL:
            self._painted = now
            size = shutil.get_terminal_size()
            self._paint(self._text(f"{done}/{total}  {text}" if total else text, size.columns, size.lines))

    def _text(self, progress: str, columns: int, lines: int) -> list[str]:
        newest = {site.stage: (site, found) for site, found in self._cells.items()}
        courses = courses_of(self._cells)
        rows: list[tuple[str, ...]] = [("stage", "layer", "std", "min", "max", "worst", "std over layers")]
        for stage in (stage for stage in all_stages() if stage in newest):
            site, found = newest[stage]
            course = sparkline([std for _, std in courses.get(stage, [])], max(columns - 62, 8))
            figures = (format_value(value) for value in (found.std, found.min, found.max))
            worst = _UNKNOWN if found.worst_channel is None else str(found.worst_channel)
            rows.append((stage, "" if site.layer is None else str(site.layer), *figures, worst, course))
        title = f"Statistics over {self._scope}   {printable(progress)}"
        table = aligned(rows, frozenset(range(1, 6))) if self._cells else []
        return [line[: columns - 1] for line in (title, *table)][: max(lines - 1, 1)]

    def _paint(self, text: Iterable[str]) -> None:
        """Paint lines over those painted before; none takes them away."""
        lines = list(text)
        if not self._terminal or not (lines or self._lines):
            return
        gone = max(self._lines - len(lines), 0)
        rows = "".join(f"{line}\x1b[K\n" for line in [*lines, *[""] * gone])
        sys.stderr.write("\r" + _up(self._lines) + rows + _up(gone))
        sys.stderr.flush()
        self._lines = len(lines)


def _up(lines: int) -> str:
    return f"\x1b[{lines}A" if lines else ""
