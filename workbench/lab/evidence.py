"""What a hypothesis is bound to: the numbers of a cell, and the runs that they were measured on."""

from collections.abc import Mapping
from typing import Any

from store.traces.run import RunRecord
from workbench.cells.cell import Cell, cell_json
from workbench.cells.view import TokenScope


def cell_evidence(cell: Cell, scope: TokenScope, runs: Mapping[str, RunRecord]) -> dict[str, Any]:
    """Return the figures of a cell over a token scope, its population, and files, hashes and paths of both runs.

    runs : by side, "a" and "b".
    """
    tokens = max((len(run.tokens) for run in runs.values()), default=0)
    figures = cell_json(cell, scope.row(cell, tokens))
    sides = {
        side: {"file": run.artifact, "sha256": run.sha256, "numeric_path": run.numeric_path}
        for side, run in runs.items()
    }
    return {
        "population": scope.label(tokens),
        **{name: value for name, value in figures.items() if name not in ("layer", "stage")},
        **sides,
    }
