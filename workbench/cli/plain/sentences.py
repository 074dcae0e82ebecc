"""Cells and verdicts in sentences."""

from collections.abc import Iterator

from kernels.measures import Measures
from kernels.stages import Site
from store.text import printable
from workbench.app.cell.evidence import evidence
from workbench.cells.cell import Cell, logits_cost
from workbench.cells.decomposition import Checked
from workbench.cells.marks import SENTENCES
from workbench.cells.metrics import METRICS, Metric, format_value, in_band
from workbench.cli.plain.investigation import Investigation
from workbench.report.local_map import times

_TOLD = ("std_ratio", "rel_rms", "one_minus_cosine")  # of every cell, after the metric that was chosen


def headline(about: Investigation) -> str:
    """The verdict in one sentence."""
    if about.known.bisected is None:
        return "Nobody has bisected the pair: say bisect to find the first place that is really wrong."
    return about.known.bisected.headline


def why_lines(about: Investigation) -> Iterator[str]:
    """The verdict: cause, place, proof, cost, and how to mend it."""
    yield headline(about)
    logits = next((cell for cell in about.cells.values() if cell.logits is not None), None)
    for section in evidence(about.known, logits):
        if section.title == "PROOF" and about.known.patched is None:
            yield "PROOF: not made yet; patch exchanges this part between A and B."
        else:
            yield from (f"{section.title}: {line}" for line in section.lines)


def judged(about: Investigation, site: Site) -> str:
    """What the verdict says of a cell."""
    mark = about.known.marks(about.cells).get(site)
    if mark is None:
        return "No verdict speaks of it."
    said = SENTENCES[mark].partition(" ")[2]  # behind the sign
    return f"{said[0].upper()}{said[1:]}."


def cell_lines(about: Investigation, site: Site) -> Iterator[str]:
    """A cell: what the verdict says of it, the most telling figures, and what it adds by itself."""
    cell = about.cells.get(site)
    measures = None if cell is None else cell.measures(about.view.tokens.row(cell, about.tokens))
    if cell is None or measures is None:
        yield f"{site}: {_without_numbers(about, cell)}"
        return
    yield f"{site}. {judged(about, site)}"
    if measures.identical:
        yield f"Identical, bit for bit, over {about.view.tokens.label(about.tokens)}."
        return
    chosen = dict.fromkeys((about.view.metric, *_TOLD))
    figures = ", ".join(figure(METRICS[key], measures) for key in chosen)
    yield f"Over {about.view.tokens.label(about.tokens)}: {figures}."
    yield _largest(cell, measures)
    if (checked := about.known.checked.get(site)) is not None:
        yield _by_itself(checked)
    if (cost := logits_cost(cell)) is not None:
        yield f"KL(B‖A) {format_value(cost[0])} nats, mean over {cost[2]} tokens; top-1 changed at {cost[1]} of them."


def figure(metric: Metric, measures: Measures) -> str:
    """A metric with its number, or the words that stand for it, and whether it is outside the band."""
    return f"{metric.label} {metric.text(measures)}" + (
        " (outside the band)" if in_band(metric, measures) is False else ""
    )


def _without_numbers(about: Investigation, cell: Cell | None) -> str:
    if cell is None:
        return "not captured."
    if cell.profile is not None:
        return f"no figures over {about.view.tokens.label(about.tokens)}."
    why = "" if cell.note is None else f": {printable(cell.note, 400)}"
    return f"{cell.status}{why}."


def _largest(cell: Cell, measures: Measures) -> str:
    token = cell.positions[measures.max_token] if cell.positions else measures.max_token
    return (
        f"The largest difference is {format_value(measures.max_abs)}, at token {token} channel {measures.max_channel}: "
        f"A {measures.max_a:.7g}, B {measures.max_b:.7g}."
    )


def _by_itself(checked: Checked) -> str:
    cell = checked.cell
    if cell.local is None:
        return "What it adds by itself is not known: B is zero or not finite there."
    inherited = "" if cell.inherited is None else f"; {format_value(cell.inherited)} came in with its input"
    local = f"{format_value(cell.local)} of B's norm, {times(checked)} what rounding can cause"
    return f"By itself it adds {local}{inherited}, over all tokens."
