"""Two recorded traces of which neither tells the model: compared as far as the names and shapes of stages go."""

from dataclasses import dataclass
from typing import Any

from store.text import printable
from store.traces.trace import Trace
from workbench.cells.compare import PopulationError, require_same_tokens
from workbench.cells.compared_cells import ComparedCells
from workbench.cells.metrics import Metric
from workbench.cells.two_traces import cells_of
from workbench.cells.view import TokenScope
from workbench.session.plain import plain

CANNOT_KNOW = (
    "Neither trace tells its model: that both are of one model is as far as their stages, shapes and tokens tell, and "
    "settings were not compared.",
    "Two traces carry no weights, so no stage can be run again: what each adds by itself, and whether rounding "
    "explains it, cannot be known; bisect the model against each of the traces.",
)


@dataclass(frozen=True, eq=False)
class TraceComparison(ComparedCells):
    """Two traces and their cells. tokens : the ids that went into both. prompt : their text, if it is known."""

    a: Trace
    b: Trace
    tokens: tuple[int, ...]
    prompt: str | None = None

    @property
    def token_count(self) -> int:
        """Tokens that went into both sides."""
        return len(self.tokens)

    def sides_json(self) -> dict[str, Any]:
        """Return what the two traces are; null for what they do not say."""
        traces = {"a": self.a, "b": self.b}
        return {
            **{side: _side_json(trace) for side, trace in traces.items()},
            "tokens": list(self.tokens),
            "prompt": self.prompt,
            "population": {
                side: {"tokens": len(self.tokens), "layers": trace.layers, "hidden_size": None, "vocab_size": None}
                for side, trace in traces.items()
            },
        }


def compare_unbound(
    a: Trace,
    b: Trace,
    tokens: tuple[int, ...],
    prompt: str | None,
    metric: Metric,
    scope: TokenScope,
    worst: bool = False,
) -> TraceComparison:
    """Compare two traces without a configuration. worst : whether cells have the elements that differ most.

    Raises PopulationError where one of them was recorded with other tokens, or they say that they are of two kinds of
    models.
    """
    require_same_tokens(a.tokens or tokens, b.tokens or tokens)
    require_same_tokens(a.tokens or tokens, tokens)
    kinds = [trace.settings.get("architecture") for trace in (a, b)]
    if None not in kinds and kinds[0] != kinds[1]:
        shown = [printable(str(kind), 40) for kind in kinds]
        raise PopulationError(f"A was recorded from a {shown[0]} model and B from a {shown[1]} one; record one model")
    cells = cells_of(a, b, tokens, scope.kind == "last", worst)
    notes = (*CANNOT_KNOW, *(f"{side}: {note}" for side, trace in (("A", a), ("B", b)) for note in trace.notes))
    found = TraceComparison(a, b, tokens, prompt, cells=cells, metric=metric, scope=scope, notes=notes)
    found.require_scope()
    for trace in (a, b):
        for file in trace.files:
            file.require_unchanged()
    return found


def _side_json(trace: Trace) -> dict[str, Any]:
    path = trace.settings.get("numeric_path")
    return {
        "path": str(trace.path),
        "format": trace.engine,
        "size": sum(file.size for file in trace.files),
        "sha256": trace.sha256,
        "numeric_path": path if isinstance(path, str) else None,
        "settings": plain(trace.settings),
    }
