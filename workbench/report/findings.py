"""The facts of a findings document: what a session holds, looked up and put into words and tables."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from store.artifact import Artifact, open_artifact
from store.run import RunRecord
from store.trace import Trace
from workbench.cells import Cell
from workbench.comparison import JUDGE, NOT_COMPARABLE, Comparison
from workbench.demo import DEMO_ENTRY
from workbench.elements import Elements
from workbench.metrics import METRICS, Metric, format_value, in_band
from workbench.report.markdown import command, escaped
from workbench.session import Session
from workbench.sides import is_trace
from workbench.stage_tensors import channel_name
from workbench.tokenizer import decode_tokens
from workbench.weights import TensorDifference, sweep

Progress = Callable[[int, int, str], None]

_TOP_ELEMENTS = 10
_LAYERS_PER_BLOCK = 8


def sides_table(a: RunRecord, b: RunRecord) -> list[list[object]]:
    """Return both sides' files: path, format, size, hash, numeric path."""
    facts: dict[str, Callable[[RunRecord], object]] = {
        "file": lambda run: shown_path(run.artifact),
        "format": lambda run: run.format,
        "bytes": lambda run: run.size,
        "sha256": lambda run: run.sha256,
        "numeric path": lambda run: run.numeric_path,
        "traced": lambda run: run.created,
    }
    return [["", "A", "B"], *([name, fact(a), fact(b)] for name, fact in facts.items())]


def pieces(run_a: RunRecord, run_b: RunRecord) -> list[str]:
    """Return the text of every token, from whichever model is still there."""
    for run in (run_a, run_b):
        try:
            return decode_tokens(open_artifact(run.artifact), run.tokens)
        except WorkbenchError:
            continue
    return [f"token {token}" for token in run_a.tokens]


def map_facts(comparison: Comparison, metric: Metric, picture: str | None) -> dict[str, Any]:
    """Return one map: its tables, its definition and, in words, what lies outside the band layer by layer."""
    layers = comparison.layers
    blocks = [layers[n : n + _LAYERS_PER_BLOCK] for n in range(0, max(len(layers), 1), _LAYERS_PER_BLOCK)]
    by_layer: dict[int | None, list[str]] = defaultdict(list)
    for cell in comparison.outside_in(metric):
        by_layer[cell.site.layer].append(cell.site.stage)
    low, high = metric.band or (0.0, 0.0)
    return {
        "label": metric.label,
        "definition": metric.definition,
        "band": f"Band: {format_value(low)} to {format_value(high)}." if metric.band else "It has no band.",
        "picture": picture,
        "blocks": [comparison.grid(metric, block) for block in blocks],
        "words": [
            f"{'whole model' if layer is None else f'layer {layer}'}: {', '.join(stages)}"
            for layer, stages in by_layer.items()
        ],
    }


def first_cell(comparison: Comparison) -> tuple[str, Cell | None]:
    """Return the cell worth a closer look with its heading: the first outside the band, else the most different."""
    if comparison.outside:
        return "First cell outside the band", comparison.outside[0]
    measured = [
        (m.rel_rms, cell) for cell in comparison.cells if (m := comparison.measures(cell)) and m.rel_rms is not None
    ]
    if not measured:
        return "Cells", None
    return "Largest relative RMS, no cell being outside the band", max(measured, key=lambda pair: pair[0])[1]


def cell_facts(comparison: Comparison, a: Trace, b: Trace, texts: list[str]) -> dict[str, Any]:
    """Return the metrics and the most different elements of the cell worth a closer look."""
    heading, cell = first_cell(comparison)
    measures = None if cell is None else comparison.measures(cell)
    if cell is None or measures is None:
        return {
            "heading": heading,
            "sentence": "No cell has numbers.",
            "metrics": [["metric", "value"]],
            "elements": [],
        }
    metrics: list[list[object]] = [["metric", "value", "band", "definition"]]
    for metric in METRICS.values():
        value = metric.value(measures)
        shown = (
            metric.word(measures) if value is None else str(int(value)) if metric.key == "max_ulp" else f"{value:.9g}"
        )
        band = "" if metric.band is None else f"{format_value(metric.band[0])} to {format_value(metric.band[1])}"
        mark = " !" if metric.band is not None and in_band(metric, measures) is False else ""
        metrics.append([metric.label, shown + mark, band, metric.definition])
    shape = "×".join(map(str, cell.shape or ()))
    scope = comparison.scope.label(len(comparison.a.tokens))
    sentence = (
        f"{comparison.describe(cell, JUDGE)}, over {scope}; tensors of {shape} (tokens × channels), "
        f"std A {format_value(measures.std_a)}, std B {format_value(measures.std_b)}."
    )
    return {
        "heading": f"{heading}: {cell.site}",
        "sentence": sentence,
        "metrics": metrics,
        "elements": _top_elements(comparison, cell, a, b, texts),
    }


def _top_elements(comparison: Comparison, cell: Cell, a: Trace, b: Trace, texts: list[str]) -> list[list[object]]:
    values = [trace.read(cell.site) for trace in (a, b)]
    row = comparison.row(cell)
    rows = slice(None) if row is None else slice(row, row + 1)
    elements = Elements(values[0][rows], values[1][rows], cell.positions[rows])
    order = elements.ordered("abs")
    rowsof: list[list[object]] = [["token", "text", "channel", "A", "B", "A - B"]]
    for index in [] if order is None else order[:_TOP_ELEMENTS].tolist():
        e = elements.element(index)
        channel = channel_name(cell.site.stage, e.channel, comparison.a.config)
        rowsof.append([e.token, texts[e.token], channel, f"{e.a:.9g}", f"{e.b:.9g}", f"{e.d:.9g}"])
    return rowsof


def weight_facts(a: RunRecord, b: RunRecord, progress: Progress) -> dict[str, Any]:
    """Return what a sweep over the tensors of both files finds, or why there was none."""
    try:
        artifacts = [_same_file(run, progress) for run in (a, b)]
    except WorkbenchError as error:
        return {"sentences": [f"The tensors were not compared: {error}"]}
    differences = list(sweep(artifacts[0], artifacts[1], progress))
    compared = [d for d in differences if d.measures is not None]
    outside = [d for d in differences if not d.in_band]
    same = sum(d.status == "identical" for d in differences)
    return {
        "sentences": [
            f"{len(compared)} of {len(differences)} tensors compared: {same} identical, {len(outside)} outside the band"
            " (relative RMS of a row above 0.5, or only on one side)."
        ],
        "groups": _by_type(compared),
        "outside": [["tensor", "A", "B", "relative RMS", "what"], *map(_tensor_row, outside)] if outside else [],
        "findings": [f"{d.name}: {finding}" for d in differences if d.in_band for finding in d.findings],
    }


def _same_file(run: RunRecord, progress: Progress) -> Artifact:
    """Open the model of a run; WorkbenchError if it is gone or is no longer the file that was traced."""
    artifact = open_artifact(run.artifact)
    if artifact.sha256(lambda done, total: progress(done, total, f"hash {artifact.path.name}")) != run.sha256:
        raise WorkbenchError(f"{artifact.path} is no longer the file that was traced; trace it again")
    return artifact


def _by_type(compared: list[TensorDifference]) -> list[list[object]]:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for d in compared:
        key = (d.type_a or "", d.type_b or "")
        counts[key] += 1
        if d.measures is not None and d.measures.rel_rms is not None:
            groups[key].append(0.0 if d.measures.identical else d.measures.rel_rms)
    rows: list[list[object]] = [["type in A", "type in B", "tensors", "relative RMS"]]
    for key, count in counts.items():
        gaps = groups[key]
        spread = f"{format_value(min(gaps))} to {format_value(max(gaps))}" if gaps else "-"
        rows.append([*key, count, spread])
    return rows


def _tensor_row(d: TensorDifference) -> list[object]:
    gap = "-" if d.measures is None else d.measures.words.get("rel_rms") or format_value(d.measures.rel_rms)
    return [d.name, d.type_a or "-", d.type_b or "-", gap, "; ".join([*d.findings, *([d.note] if d.note else [])])]


def reproduce(comparison: Comparison, session: Session) -> list[str]:
    """Return the command lines that give the same numbers again."""
    a, b = comparison.a, comparison.b
    folder, files = shown_path(session.folder), [shown_path(run.artifact) for run in (a, b)]
    lines = []
    made = next((entry for entry in session.entries() if entry.get("kind") == DEMO_ENTRY), None)
    if made is not None:
        fault = ["--fault", str(made.get("fault")), "--layer", str(made.get("layer"))] if made.get("fault") else []
        lines.append(command("workbench", "demo", *fault, "--session", folder))
    scope = comparison.scope
    last = [] if scope.kind == "all" else ["--scope", "last" if scope.kind == "last" else str(scope.position)]
    lines.append(command("workbench", "open", folder))
    run = ["--tokens", ",".join(map(str, a.tokens)), *_path_options(session)]
    lines.append(command("workbench", "compare", *files, *run, "--metric", comparison.metric.key, *last, "--json"))
    if not any(is_trace(Path(run.artifact)) for run in (a, b)):
        lines.append(command("workbench", "weights", *files))
    return lines


def _path_options(session: Session) -> list[str]:
    sides = (("--path-a", session.spec.a), ("--path-b", session.spec.b))
    return [word for option, side in sides if side.numeric_path for word in (option, side.numeric_path)]


def shown_path(path: str | Path) -> str:
    """Return a path as a reader types it: relative to the current folder where it lies inside."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def verdict(comparison: Comparison) -> str:
    """Say in one sentence whether the two agree, and if not where they part."""
    if comparison.outside:
        cell = comparison.outside[0]
        words = " and ".join(
            comparison.describe(cell, metric).removeprefix(f"{cell.site}, ")
            for metric in comparison.judges
            if cell in comparison.outside_in(metric)
        )
        return f"**The two runs part at {escaped(cell.site)}**: {escaped(words)} is the first cell outside the band."
    if comparison.exit_code() == NOT_COMPARABLE:
        return "**The two runs cannot be compared in full**; the cells below say why."
    if all(cell.status in ("identical", "absent") for cell in comparison.cells):
        return "**The two runs are identical.**"
    unlike = ", ".join(comparison.config_differences)
    but = f", **but the models are configured differently** ({escaped(unlike)})" if unlike else ""
    return (
        f"**No cell is outside the bands**{but}. The bands are wide: this alone does not prove that nothing is wrong."
    )


def population(comparison: Comparison) -> str:
    """Say which values every figure covers, on both sides."""
    scope = comparison.scope.label(len(comparison.a.tokens))
    if not comparison.uncomparable:
        return f"{scope}, all channels of a stage, the same on both sides"
    cell = comparison.uncomparable[0]
    return f"{scope}; {len(comparison.uncomparable)} cells are not comparable, the first is {cell.site}: {cell.note}"


def listed(facts: Mapping[str, object]) -> str:
    """Return named facts in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "none"
