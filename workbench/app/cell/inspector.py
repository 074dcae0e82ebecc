"""The cell under the cursor in figures and words: a panel beside the map, or two lines below it."""

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text
from textual.widgets import Static

from kernels.measures import Measures
from kernels.stages import Site
from store.text import printable
from workbench.app.cell.fitting import fitting
from workbench.cells.cell import Cell
from workbench.cells.marks import SENTENCES, Mark
from workbench.cells.metrics import METRICS, Metric, format_value, in_band

if TYPE_CHECKING:
    from workbench.app.cell.evidence import Section
    from workbench.cells.decomposition import Checked

_LABEL = 16


class CellReport(NamedTuple):
    """What the inspector says about a site. row: as Cell.measures takes it; sides: names of A and B.

    session : name of its folder.
    checked : the cell as it was when run again, if it was. again_first : whether the map shows those figures.
    hypotheses : about the cell, with their verdicts. mark : what the verdict of the pair says of it, if there is one.
    evidence : why that verdict holds, if it accuses this cell.
    """

    site: Site
    cell: Cell | None
    row: int | None
    metric: Metric
    scope: str
    sides: tuple[str, str]
    session: str = ""
    checked: "Checked | None" = None
    again_first: bool = False
    hypotheses: tuple[str, ...] = ()
    mark: Mark | None = None
    evidence: "tuple[Section, ...]" = ()

    @property
    def measures(self) -> Measures | None:
        """The metrics over the tokens shown."""
        return None if self.cell is None else self.cell.measures(self.row)

    def verdict(self) -> str:
        """Say in words what the map shows at this site."""
        measures = self.measures
        if self.cell is None:
            return "not computed yet"
        if self.mark is not None:
            return SENTENCES[self.mark]
        if measures is None:
            return self.cell.status.upper() if self.cell.profile is None else "UNMEASURED for this token"
        if measures.identical:
            return "IDENTICAL, bit for bit"
        inside = in_band(self.metric, measures)
        if inside is None:
            return f"different; {self.metric.label} has no band"
        return "different, in band" if inside else "OUT OF BAND"

    def why_no_number(self) -> str:
        """Return the sentence that stands in place of figures, or an empty string."""
        if self.cell is None or self.measures is not None:
            return ""
        return printable(self.cell.note or f"no row for {self.scope}", 300)


def figure(metric: Metric, measures: Measures) -> str:
    """Return a metric's number, or the words that stand for it."""
    return metric.text(measures)


def mark(metric: Metric, measures: Measures) -> str:
    """Return "!" where a metric is out of its band."""
    return "!" if in_band(metric, measures) is False else ""


def proof(measures: Measures) -> str:
    """What the std ratio proves: a relative error of at least |r-1|."""
    if measures.std_ratio is None or measures.identical:
        return ""
    return f"proves rel. error ≥ {format_value(abs(measures.std_ratio - 1))}"


class Inspector(Static):
    """Shows a CellReport; `panel` in full beside the map, else in two lines below it."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.panel = True
        self._width = 0
        self._report: CellReport | None = None
        self._text = Text()

    def beside(self, columns: int) -> None:
        """Stand beside the map on so many columns, or below it if there are none."""
        self.panel = columns > 0
        if columns != self._width:
            self._width = columns
            self.styles.width = columns or "100%"

    def show(self, report: CellReport) -> None:
        """Show a site."""
        self._report = report
        width, height = self.size
        self._change(panel_text(report, height, width) if self.panel else compact_text(report, width, height))

    def say(self, sentence: str) -> None:
        """Show a sentence in place of a site."""
        self._report = None
        self._change(Text(sentence, "bold"))

    def _change(self, text: Text) -> None:
        if text != self._text:
            self._text = text
            self.update(text, layout=False)  # the size is the screen's affair

    def on_resize(self) -> None:
        """Fill the new size."""
        if self._report is not None:
            self.show(self._report)


def panel_text(report: CellReport, lines: int, width: int = 36) -> Text:
    """Return everything known about a cell, one figure a line; the metric token by token on what is left of `lines`."""
    text = Text()
    text.append(f"{report.site}\n", "bold")
    stands_out = report.verdict() == "OUT OF BAND" or report.mark in ("culprit", "wrong")
    text.append(f"{report.verdict()}\n", "bold reverse" if stands_out else "bold")
    room = lines - 1 - len(textwrap.wrap(report.verdict(), max(width, 20)))
    for heading, words in fitting(report.evidence, room, width):
        text.append(heading, "bold").append(f"{words}\n")
    if report.evidence:
        text.append("CELL\n", "bold")
    for side, name in zip("AB", report.sides, strict=True):
        text.append(f"{side} {name}\n")
    text.append(f"session {report.session}\n" if report.session else "")
    text.append("".join(f"H {words}\n" for words in report.hypotheses), "bold")
    measures, again = report.measures, "".join(f" {line}\n" for line in checked_lines(report.checked))
    if report.again_first:
        text.append(again or " not run again: not known\n", "bold")
    if measures is None or report.cell is None:
        text.append(f"\n{report.why_no_number()}")
        return text
    text.append("".join(f" {line}\n" for line in population(report)))
    if report.cell.logits is not None:
        text.append("".join(f"{line}\n" for line in _logit_lines(report.cell, report.row)))
    _add(text, "std A | B", f"{format_value(measures.std_a)} | {format_value(measures.std_b)}")
    for metric in METRICS.values():
        current = metric.key == report.metric.key
        _add(text, metric.label, figure(metric, measures) + mark(metric, measures), "▸" if current else " ")
        if metric.key == "std_ratio" and (proved := proof(measures)):
            text.append(f"   {proved}\n")
        if metric.key == "max_abs" and not measures.identical:
            text.append(f"{_where(report.cell, measures)}\n")
    if not report.again_first:
        text.append(again)
    text.append("".join(f" {line}\n" for line in _flipped_lines(report.cell)))
    if report.row is None and report.cell.percentiles:
        parts = (f"{name} {format_value(value)}" for name, value in report.cell.percentiles.items())
        text.append(f" |d| {' '.join(parts)}\n")
    text.append("\n".join(_by_token(report.cell, report.metric, lines - str(text).count("\n") - 2)))
    return text


def _by_token(cell: Cell, metric: Metric, lines: int) -> list[str]:
    """Return the metric of every token, worst first where not all of them fit."""
    rows = [(row, measures) for row in range(len(cell.positions)) if (measures := cell.measures(row)) is not None]
    if lines < 3 or len(rows) < 2:
        return []
    shown = sorted(rows, key=lambda pair: -_badness(metric, pair[1]))[:lines]
    listed = sorted(shown, key=lambda pair: pair[0])
    which = "" if len(shown) == len(rows) else f", the {len(shown)} worst of {len(rows)}"
    head = f" {metric.label} by token{which}"
    return [head, *(f"  {cell.positions[row]:>5}  {figure(metric, m)}{mark(metric, m)}" for row, m in listed)]


def _badness(metric: Metric, measures: Measures) -> float:
    value = metric.value(measures)
    return (0.0 if measures.identical else math.inf) if value is None else metric.distance(value)


def compact_text(report: CellReport, width: int, lines: int) -> Text:
    """Return the most telling figures of a cell, as many as fit."""
    measures = report.measures
    verdict = report.verdict().partition(":")[0] if report.evidence else report.verdict()  # the evidence says it
    parts = [f"{report.site}: {verdict}", *_evidence_in_short(report.evidence)]
    parts += [*(f"H {words.partition(':')[0]}" for words in report.hypotheses)]
    if measures is None:
        parts.append(report.why_no_number())
    else:
        parts += checked_lines(report.checked)
        if report.checked is not None and report.cell is not None:
            parts += _flipped_lines(report.cell)
        for key in dict.fromkeys((report.metric.key, "std_ratio", "rel_rms", "one_minus_cosine", "max_abs")):
            metric = METRICS[key]
            parts.append(f"{metric.label} {figure(metric, measures)}{mark(metric, measures)}")
        parts += [f"std {format_value(measures.std_a)} | {format_value(measures.std_b)}", proof(measures)]
        parts += population(report)
    parts += [f"{side} {name}" for side, name in zip("AB", report.sides, strict=True)]
    return Text("\n".join(_flow(parts, width, lines)), no_wrap=True, overflow="ellipsis")


def _evidence_in_short(evidence: "tuple[Section, ...]") -> list[str]:
    """The first sentence of each section but that of the cause, which the headline says, and of the remedy."""
    return [section.lines[0] for section in evidence if section.title in ("WHERE", "PROOF", "COST")]


def checked_lines(checked: "Checked | None") -> list[str]:
    """What running a cell again on both inputs has shown: relative to B, over all tokens; off float64 over some."""
    if checked is None:
        return []
    cell, grown, floors = checked.cell, checked.amplification, checked.floors
    mark = "!" if checked.beyond_floor else ""
    lines = [f"{_known(floors)}× what rounding can cause"]
    lines += [f"own error {_known(cell.local)}{mark}, came in {_known(cell.inherited)}"]
    noise = "" if cell.noise is None else f", measured {format_value(cell.noise)}"
    lines += [f"rounding can cause {format_value(cell.floor)}{noise}"]
    if cell.noise is not None:
        lines += [_off_float64("A", cell.a_off), _off_float64("B", cell.b_off)]
    if grown is not None:
        lines.append(f"amplification {format_value(grown)}")
    if checked.forecast:
        lines.append(f"forecast {checked.forecast}{'!' if checked.unforeseen else ''}")
    return lines


def _off_float64(side: str, times: float) -> str:
    """How far a side is from float64 on its own weights and input."""
    exact = times <= 1
    return f"{side} is exact to rounding" if exact else f"{side} is off float64 by {format_value(times)}× rounding"


def _flipped_lines(cell: Cell) -> list[str]:
    """Activation codes of the two sides that differ, and how far they are from not doing so."""
    if cell.flipped is None:
        return []
    lines = [f"int8 codes flipped {cell.flipped.flipped} of {cell.flipped.of}"]
    if cell.flipped.median is not None and cell.flipped.largest is not None:
        lines.append(f"by {cell.flipped.median:.2g} of a step, at most {cell.flipped.largest:.2g}")
    return lines


def _known(value: float | None) -> str:
    return "?" if value is None else format_value(value)


def _flow(parts: list[str], width: int, lines: int) -> list[str]:
    """Set parts one after another, on as many lines as there are; what does not fit is left out."""
    filled: list[str] = []
    for part in filter(None, parts):
        if filled and len(filled[-1]) + 2 + len(part) <= width:
            filled[-1] += f"  {part}"
        elif len(filled) < lines:
            filled.append(part)
    return filled


def population(report: CellReport) -> list[str]:
    """Say which values were compared, and how many of them could not be."""
    measures, cell = report.measures, report.cell
    if measures is None or cell is None or cell.shape is None:
        return []
    lines = [f"{report.scope} × {cell.shape[1]} channels", f"compared {measures.finite} of {measures.count}"]
    if measures.nonfinite_a or measures.nonfinite_b:
        lines.append(f"NaN or Inf: {measures.nonfinite_a} in A, {measures.nonfinite_b} in B")
    if cell.note:
        lines.append(printable(cell.note, 300))
    return lines


def _add(text: Text, label: str, value: str, pointer: str = " ") -> None:
    text.append(f"{pointer}{label:<{_LABEL}} {value}\n", "bold" if pointer == "▸" else "")


def _where(cell: Cell, measures: Measures) -> str:
    token = cell.positions[measures.max_token] if cell.positions else measures.max_token
    values = f"{format_value(measures.max_a)} | {format_value(measures.max_b)}"
    return f"   token {token} channel {measures.max_channel}\n   {values}"


def _logit_lines(cell: Cell, row: int | None) -> list[str]:
    """Agreement of the next-token distributions."""
    assert cell.logits is not None
    rows = slice(None) if row is None else slice(row, row + 1)
    kl, top1, top5 = (column[rows] for column in cell.logits)
    return [
        f" KL(B||A) mean {format_value(float(kl.mean()))} nats",
        f"          max  {format_value(float(kl.max()))} nats",
        f" top-1 same {int(top1.sum())} of {len(top1)}, top-5 {float(top5.mean()):.0%}",
    ]
