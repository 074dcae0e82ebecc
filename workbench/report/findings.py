"""The facts of a findings document: an investigation put into words and tables."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from store.traces.run import RunRecord
from workbench import __version__
from workbench.cells.cell import Cell
from workbench.cells.comparison import Comparison
from workbench.cells.metrics import METRICS, Metric, format_value, in_band
from workbench.cells.stage_tensors import channel_name
from workbench.jobs.conclusion import Conclusion
from workbench.pair.recorded import of_other_engine
from workbench.report.commands import again, typed_path
from workbench.report.contracts import contracts
from workbench.report.exchanges import exchanges
from workbench.report.experiments import lab_results
from workbench.report.hypotheses import hypothesis_facts, listed
from workbench.report.investigation import Investigation
from workbench.report.local_map import coverage
from workbench.report.outputs import EXPORTED, Outputs
from workbench.report.summary import Summary

Rows = list[list[object]]

_TOP_ELEMENTS = 10
_TOKEN_ROWS = 64
_LAYERS_PER_BLOCK = 8


def facts(
    found: Investigation, concluded: Conclusion, summary: Summary, outputs: Outputs, weights: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that the template shows. weights : as workbench.report.weight_facts has them."""
    comparison, session = found.comparison, found.session
    run = comparison.a
    ours = comparison.b if of_other_engine(run) else run
    hypotheses = hypothesis_facts(session)  # first, as reading them may complete the log
    return {
        "title": f"Findings: {session.spec.name}",
        "summary": summary,
        "coverage": coverage(comparison, found.local),
        "folder": outputs.folder_words(session.folder),
        "rests_on": concluded.rests_on(),
        "as_of": as_of(found),
        "version": __version__,
        "sides": _side_lines(found),
        "runs": f"A {comparison.a.created}, B {comparison.b.created}",
        "tokens": _tokens(found),
        "token_ids": ",".join(map(str, run.tokens)),
        "prompt": run.prompt,
        "population": population(comparison),
        "settings_a": listed(comparison.a.settings),
        "settings_b": listed(comparison.b.settings),
        "versions": listed(ours.versions),
        "machine": listed(ours.machine),
        "config": [["setting", "A", "B"], *([n, a, b] for n, (a, b) in comparison.config_differences.items())],
        "sentences": [*found.unfinished(), *comparison.summary()],
        "picture": outputs.picture.name,
        "maps_picture": outputs.maps.name,
        "maps": [_map(comparison, metric) for metric in comparison.shown],
        "cell": _cell(found),
        "bisection": concluded.lines(),
        "exchanges": exchanges(session, found.runs),
        "lab": lab_results(session, found.runs),
        "contracts": contracts(session, found.runs),
        "weights": weights,
        **hypotheses,
        "commands": again(session, comparison, not any(isinstance(model, WorkbenchError) for model in found.models)),
    }


def as_of(found: Investigation) -> str:
    """Return the time of the newest entry of the log but those of exports, or of the newer run where there is none."""
    entries = (entry for entry in found.session.entries() if entry.get("kind") != EXPORTED)
    times = [time for entry in entries if isinstance(time := entry.get("time"), str)]
    return printable(max(times or [found.comparison.a.created, found.comparison.b.created]), 40)


def sides(found: Investigation) -> Rows:
    """Return what the two sides are, a table with its heading."""
    comparison = found.comparison
    rows: dict[str, Callable[[RunRecord], object]] = {
        "format": lambda run: run.format,
        "bytes": lambda run: run.size,
        "sha256": lambda run: run.sha256,
        "numeric path": lambda run: run.numeric_path,
        "run": lambda run: run.created,
    }
    files = [typed_path(found.session, file) for file in found.files]
    return [["", "A", "B"], ["file", *files], *([n, of(comparison.a), of(comparison.b)] for n, of in rows.items())]


def _side_lines(found: Investigation) -> list[str]:
    """Return what the two sides are, a line for each, but for when they ran."""
    (_, *names), *rows = (row for row in sides(found) if row[0] != "run")
    return [f"{name}: {', '.join(f'{row[0]} {row[n]}' for row in rows)}" for n, name in enumerate(names, 1)]


def _tokens(found: Investigation) -> Rows:
    tokens = list(zip(found.comparison.a.tokens, found.texts, strict=True))
    rows: Rows = [[n, token, text] for n, (token, text) in enumerate(tokens[:_TOKEN_ROWS])]
    rest: Rows = [["…", "…", f"and {len(tokens) - _TOKEN_ROWS} more"]] if len(tokens) > _TOKEN_ROWS else []
    return [["position", "id", "text"], *rows, *rest]


def population(comparison: Comparison) -> str:
    """Say which values every figure covers, on both sides."""
    scope = comparison.scope.label(len(comparison.a.tokens))
    if not comparison.uncomparable:
        return f"{scope}, all channels of a stage, the same on both sides"
    cell = comparison.uncomparable[0]
    return f"{scope}; {len(comparison.uncomparable)} cells are not comparable, the first is {cell.site}: {cell.note}"


def _map(comparison: Comparison, metric: Metric) -> dict[str, Any]:
    """Return one map: its tables, its definition and, in words, what lies outside the band layer by layer."""
    layers = comparison.layers
    blocks = [layers[n : n + _LAYERS_PER_BLOCK] for n in range(0, max(len(layers), 1), _LAYERS_PER_BLOCK)]
    by_layer: dict[int | None, list[str]] = defaultdict(list)
    for cell in comparison.outside_in(metric):
        by_layer[cell.site.layer].append(cell.site.stage)
    return {
        "label": metric.label,
        "definition": metric.definition,
        "band": f"Band: {_band(metric)}." if metric.band else "It has no band.",
        "blocks": [comparison.grid(metric, block) for block in blocks],
        "words": [
            f"{'whole model' if layer is None else f'layer {layer}'}: {', '.join(stages)}"
            for layer, stages in by_layer.items()
        ],
    }


def _band(metric: Metric) -> str:
    return "" if metric.band is None else " to ".join(format_value(limit) for limit in metric.band)


def _worth_a_look(comparison: Comparison) -> tuple[str, Cell | None]:
    """Return the first cell outside the band, else the most different one, and what it is."""
    if comparison.outside:
        return "First cell outside the band", comparison.outside[0]
    measured = [(m, cell) for cell in comparison.cells if (m := comparison.measures(cell)) is not None]
    gaps = [(m.rel_rms, cell) for m, cell in measured if m.rel_rms]
    if not gaps:
        return "Differences", None
    return "Largest difference, no cell being outside the band", max(gaps, key=lambda pair: pair[0])[1]


def _cell(found: Investigation) -> dict[str, Any]:
    """Return the metrics and the most different elements of the cell worth a closer look."""
    comparison = found.comparison
    heading, cell = _worth_a_look(comparison)
    measures = None if cell is None else comparison.measures(cell)
    if cell is None or measures is None:
        nothing: dict[str, Rows] = {"metrics": [], "definitions": [], "elements": []}
        return {"heading": heading, "sentence": "No compared cell shows any.", **nothing}
    metrics: Rows = [["metric", "value", "band"]]
    definitions = [f"{metric.label}: {metric.definition}" for metric in METRICS.values()]
    for metric in METRICS.values():
        shown = metric.text(measures, "{:.0f}".format if metric.key == "max_ulp" else "{:.9g}".format)
        mark = " !" if metric.band is not None and in_band(metric, measures) is False else ""
        metrics.append([metric.label, shown + mark, _band(metric)])
    if cell.flipped is not None:
        what = "int8 activation codes into the next matmul that differ, over all tokens"
        if cell.flipped.distance:
            what += f"; {cell.flipped.distance}"
        metrics.append(["flipped codes", f"{cell.flipped.flipped} of {cell.flipped.of}", ""])
        definitions.append(f"flipped codes: {what}")
    shape = "×".join(map(str, cell.shape or ()))
    sentence = (
        f"{comparison.scope.label(len(comparison.a.tokens)).capitalize()}; tensors of {shape} (tokens × channels); "
        f"std of A {format_value(measures.std_a)}, of B {format_value(measures.std_b)}."
    )
    try:
        elements = _top_elements(found, cell)
    except WorkbenchError as error:  # no tensors were kept, and of these tokens no element
        elements, sentence = [], f"{sentence} {str(error)[0].upper()}{str(error)[1:]}."
    return {
        "heading": f"{heading}: {cell.site}",
        "sentence": sentence,
        "metrics": metrics,
        "definitions": definitions,
        "elements": elements,
    }


def _top_elements(found: Investigation, cell: Cell) -> Rows:
    elements = found.captured.elements(cell, found.comparison.scope)
    order = elements.ordered("abs")
    rows: Rows = [["token", "text", "channel", "A", "B", "A - B"]]
    for index in [] if order is None else order[:_TOP_ELEMENTS].tolist():
        e = elements.element(index)
        channel = channel_name(cell.site, e.channel, found.comparison.a.config)
        rows.append([e.token, found.texts[e.token], channel, f"{e.a:.9g}", f"{e.b:.9g}", f"{e.d:.9g}"])
    return rows
