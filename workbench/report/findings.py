"""The facts of a findings document: an investigation put into words and tables."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from store.traces.run import RunRecord, now
from workbench import __version__
from workbench.cells.cell import Cell
from workbench.cells.comparison import NOT_COMPARABLE, Comparison
from workbench.cells.metrics import METRICS, Metric, format_value, in_band
from workbench.cells.stage_tensors import channel_name
from workbench.demo import entry_of
from workbench.jobs.conclusion import Conclusion
from workbench.lab.shelf import shelf_of
from workbench.pair.recorded import of_other_engine
from workbench.report.experiments import experiments
from workbench.report.investigation import Investigation, Progress
from workbench.report.markdown import command
from workbench.report.weight_facts import weight_facts
from workbench.session.session import Session

Rows = list[list[object]]

_TOP_ELEMENTS = 10
_TOKEN_ROWS = 64
_LAYERS_PER_BLOCK = 8


def facts(found: Investigation, concluded: Conclusion, picture: str, progress: Progress) -> dict[str, Any]:
    """Return everything that the template shows."""
    comparison, session = found.comparison, found.session
    run = comparison.a
    ours = comparison.b if of_other_engine(run) else run
    shelf = shelf_of(session)
    return {
        "title": f"Findings: {session.spec.name}",
        "verdict": next(iter(concluded.lines()), None) or _verdict(comparison),
        "rests_on": concluded.rests_on(),
        "created": now(),
        "version": __version__,
        "sides": _sides(found),
        "tokens": _tokens(found),
        "token_ids": ",".join(map(str, run.tokens)),
        "prompt": run.prompt,
        "population": _population(comparison),
        "settings_a": _listed(comparison.a.settings),
        "settings_b": _listed(comparison.b.settings),
        "versions": _listed(ours.versions),
        "machine": _listed(ours.machine),
        "config": [["setting", "A", "B"], *([n, a, b] for n, (a, b) in comparison.config_differences.items())],
        "summary": [*found.unfinished(), *comparison.summary()],
        "picture": picture,
        "maps": [_map(comparison, metric) for metric in comparison.shown],
        "cell": _cell(found),
        "bisection": concluded.lines(),
        "experiments": experiments(session),
        "weights": weight_facts(found.models, progress),
        "hypotheses": [(hypothesis, _evidence(hypothesis.evidence)) for hypothesis in shelf.hypotheses],
        "problems": shelf.problems,
        "commands": _commands(found),
    }


def _verdict(comparison: Comparison) -> str:
    """Say in one sentence whether the two agree, and if not where they part."""
    if comparison.outside:
        cell = comparison.outside[0]
        outside_in = [metric for metric in comparison.judges if cell in comparison.outside_in(metric)]
        values = " and ".join(comparison.describe(cell, metric).removeprefix(f"{cell.site}, ") for metric in outside_in)
        return f"The two runs part at {cell.site}: {values} is the first outside the band."
    if unlike := ", ".join(comparison.config_differences):
        return f"No cell is outside the bands, but the models are configured differently: {unlike}."
    if comparison.exit_code() == NOT_COMPARABLE:
        compared, expected = comparison.counted
        return (
            f"The two runs cannot be compared in full, only in {compared} of {expected} cells; the sentences above the "
            "maps say why."
        )
    if all(cell.status in ("identical", "absent") for cell in comparison.cells):
        return "The two runs are identical."
    compared, expected = comparison.counted
    part = "" if compared == expected else f", of the {compared} of {expected} that could be compared"
    return f"No cell is outside the bands{part}. They are wide: this alone does not prove that nothing is wrong."


def _sides(found: Investigation) -> Rows:
    comparison = found.comparison
    rows: dict[str, Callable[[RunRecord], object]] = {
        "format": lambda run: run.format,
        "bytes": lambda run: run.size,
        "sha256": lambda run: run.sha256,
        "numeric path": lambda run: run.numeric_path,
        "run": lambda run: run.created,
    }
    files = [shown_path(file) for file in found.files]
    return [["", "A", "B"], ["file", *files], *([n, of(comparison.a), of(comparison.b)] for n, of in rows.items())]


def _tokens(found: Investigation) -> Rows:
    tokens = list(zip(found.comparison.a.tokens, found.texts, strict=True))
    rows: Rows = [[n, token, text] for n, (token, text) in enumerate(tokens[:_TOKEN_ROWS])]
    rest: Rows = [["…", "…", f"and {len(tokens) - _TOKEN_ROWS} more"]] if len(tokens) > _TOKEN_ROWS else []
    return [["position", "id", "text"], *rows, *rest]


def _population(comparison: Comparison) -> str:
    """Say which values every figure covers, on both sides."""
    scope = comparison.scope.label(len(comparison.a.tokens))
    if not comparison.uncomparable:
        return f"{scope}, all channels of a stage, the same on both sides"
    cell = comparison.uncomparable[0]
    return f"{scope}; {len(comparison.uncomparable)} cells are not comparable, the first is {cell.site}: {cell.note}"


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "none"


def _evidence(evidence: Mapping[str, Any]) -> list[str]:
    """Return the figures of a hypothesis in one line, and a line for each group among them."""

    def figures(facts: Mapping[str, Any]) -> str:
        plain = {name: value for name, value in facts.items() if value is not None and not isinstance(value, Mapping)}
        return _listed({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in plain.items()})

    groups = {name: value for name, value in evidence.items() if isinstance(value, Mapping)}
    lines = [f"evidence: {figures(evidence)}"] if evidence else []
    return lines + [f"{name}: {figures(group)}" for name, group in groups.items()]


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
        return {"heading": heading, "sentence": "No compared cell shows any.", "metrics": [], "elements": []}
    metrics: Rows = [["metric", "value", "band", "definition"]]
    for metric in METRICS.values():
        value = metric.value(measures)
        shown = (
            metric.word(measures) if value is None else f"{value:.0f}" if metric.key == "max_ulp" else f"{value:.9g}"
        )
        mark = " !" if metric.band is not None and in_band(metric, measures) is False else ""
        metrics.append([metric.label, shown + mark, _band(metric), metric.definition])
    if cell.flipped is not None:
        what = "int8 activation codes into the next matmul that differ, over all tokens"
        if cell.flipped.distance:
            what += f"; {cell.flipped.distance}"
        metrics.append(["flipped codes", f"{cell.flipped.flipped} of {cell.flipped.of}", "", what])
    shape = "×".join(map(str, cell.shape or ()))
    sentence = (
        f"{comparison.scope.label(len(comparison.a.tokens)).capitalize()}; tensors of {shape} (tokens × channels); "
        f"std of A {format_value(measures.std_a)}, of B {format_value(measures.std_b)}."
    )
    elements = _top_elements(found, cell)
    return {"heading": f"{heading}: {cell.site}", "sentence": sentence, "metrics": metrics, "elements": elements}


def _top_elements(found: Investigation, cell: Cell) -> Rows:
    elements = found.tensors.elements(cell, found.comparison.scope)
    order = elements.ordered("abs")
    rows: Rows = [["token", "text", "channel", "A", "B", "A - B"]]
    for index in [] if order is None else order[:_TOP_ELEMENTS].tolist():
        e = elements.element(index)
        channel = channel_name(cell.site.stage, e.channel, found.comparison.a.config)
        rows.append([e.token, found.texts[e.token], channel, f"{e.a:.9g}", f"{e.b:.9g}", f"{e.d:.9g}"])
    return rows


def _commands(found: Investigation) -> list[str]:
    """Return the command lines that give the same numbers again."""
    session, comparison = found.session, found.comparison
    folder, spec, scope = shown_path(session.folder), session.spec, comparison.scope
    inputs = [shown_path(path) for path in (spec.a.path, spec.b.path)]
    paths = [
        word
        for option, side in (("--path-a", spec.a), ("--path-b", spec.b))
        if side.numeric_path
        for word in (option, side.numeric_path)
    ]
    tokens = ["--tokens", ",".join(map(str, comparison.a.tokens))]
    shown = ["--metric", comparison.metric.key]
    if scope.kind != "all":
        shown += ["--scope", "last" if scope.kind == "last" else str(scope.position)]
    lines = [
        *_made_by(session, folder),
        command("workbench", "open", folder),
        command("workbench", "compare", *inputs, *tokens, *paths, *shown, "--json"),
    ]
    if not any(isinstance(model, WorkbenchError) for model in found.models):
        lines.append(command("workbench", "weights", *(shown_path(file) for file in found.files)))
    return lines


def _made_by(session: Session, folder: str) -> list[str]:
    """Return the command line that makes a demo's session, if it is one."""
    made = entry_of(session)
    if made is None:
        return []
    fault = ["--fault", str(made["fault"]), "--layer", str(made.get("layer"))] if made.get("fault") else []
    return [command("workbench", "demo", *fault, "--session", folder)]


def shown_path(path: str | Path) -> str:
    """Return a path as a reader types it: relative to the current folder where it lies inside."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
