"""Export: the findings document of a session, in Markdown, with a picture of the map beside it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.stages import Site
from store.files import write_atomically
from store.run import now
from store.trace import Trace, open_trace
from workbench import __version__
from workbench.cells import Cell
from workbench.compare import StageTensor, compare_streams, require_same_tokens
from workbench.comparison import JUDGE, Comparison
from workbench.metrics import METRICS
from workbench.report import findings
from workbench.report.map_svg import map_svg
from workbench.report.markdown import code_block, escaped, quoted, table
from workbench.view import View

if TYPE_CHECKING:
    from workbench.session import Session

Progress = Callable[[int, int, str], None]


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def export(
    session: "Session",
    target: Path | None = None,
    progress: Progress = _silent,
) -> Path:
    """Write the findings of a session to `target` (its own findings.md by default), the map as .svg beside it.

    Reads the session's traces; raises WorkbenchError if they are not complete. Both files are replaced as a whole.
    """
    target = target or session.findings_path
    a, b = (open_trace(session.trace_path(side)) for side in "ab")
    view = View.from_json(session.spec.view)
    comparison = Comparison(a.run, b.run, list(cells_of(a, b, progress)), METRICS[view.metric], view.tokens)
    picture = target.with_suffix(".svg")
    shown = comparison.metric
    title = f"{session.spec.name}: {shown.label} over {comparison.scope.label(len(a.run.tokens))}"
    write_atomically(picture, map_svg(comparison.looks(shown), title))
    write_atomically(target, _document(session, comparison, a, b, picture.name, progress))
    return target


def cells_of(a: Trace, b: Trace, progress: Progress) -> Iterator[Cell]:
    """Compare two traces, stage by stage in execution order; PopulationError if they saw different tokens."""
    require_same_tokens(a.run.tokens, b.run.tokens)
    traces = {"a": a, "b": b}

    def absent(side: str, site: Site) -> bool:
        return traces[side].status(site) == "absent"

    layers = max(trace.run.config.num_hidden_layers for trace in traces.values())
    total = max(len(trace.sites()) for trace in traces.values())
    for done, cell in enumerate(compare_streams(_stream(a), _stream(b), layers, absent)):
        progress(min(done, total), total, f"compare {cell.site}")
        yield cell


def _stream(trace: Trace) -> Iterator[StageTensor]:
    for site in trace.sites():
        yield StageTensor(site, trace.read(site), trace.positions(site))


def _document(
    session: "Session",
    comparison: Comparison,
    a: Trace,
    b: Trace,
    picture: str,
    progress: Progress,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 (the template escapes for Markdown, not for HTML)
        loader=PackageLoader("workbench.report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    tools = {"md": escaped, "table": table, "quoted": quoted, "code_block": code_block}
    facts = _facts(session, comparison, a, b, picture, progress)
    text: str = environment.get_template("findings.md.j2").render(**tools, **facts)
    return text


def _facts(
    session: "Session",
    comparison: Comparison,
    a: Trace,
    b: Trace,
    picture: str,
    progress: Progress,
) -> dict[str, Any]:
    run = comparison.a
    texts = findings.pieces(comparison.a, comparison.b)
    shown = comparison.metric
    maps = [findings.map_facts(comparison, shown, picture)]
    if shown is not JUDGE:
        maps.append(findings.map_facts(comparison, JUDGE, None))
    return {
        "title": escaped(f"Findings: {session.spec.name}"),
        "verdict": findings.verdict(comparison),
        "created": now(),
        "version": __version__,
        "sides": findings.sides_table(comparison.a, comparison.b),
        "tokens": run.tokens,
        "token_ids": ",".join(map(str, run.tokens)),
        "tokens_table": [
            ["position", "id", "text"],
            *([n, t, x] for n, (t, x) in enumerate(zip(run.tokens, texts, strict=True))),
        ],
        "prompt": run.prompt,
        "population": findings.population(comparison),
        "settings_a": findings.listed(comparison.a.settings),
        "settings_b": findings.listed(comparison.b.settings),
        "versions": findings.listed(run.versions),
        "machine": findings.listed(run.machine),
        "config": [["setting", "A", "B"], *([name, a, b] for name, (a, b) in comparison.config_differences.items())],
        "summary": comparison.summary(),
        "maps": maps,
        "cell": findings.cell_facts(comparison, a, b, texts),
        "weights": findings.weight_facts(comparison.a, comparison.b, progress),
        "hypotheses": session.hypotheses(),
        "problems": session.problems(),
        "commands": findings.reproduce(comparison, session),
    }
