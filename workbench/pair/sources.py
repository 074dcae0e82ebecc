"""What the two sides of a session consist of: stored stage tensors, once nobody is writing them, and model files."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.experts import CHOICE, PAIRS
from kernels.stages import Site
from store.errors import StoreError
from store.text import printable
from workbench.cells.cell import Cell
from workbench.cells.elements import Elements
from workbench.cells.kept_cells import KeptCells, read_kept, tensors_not_kept
from workbench.cells.stage_tensors import stage_tensors

if TYPE_CHECKING:
    from kernels.config import ModelConfig
    from store.artifact import Artifact
    from store.traces.run import RunRecord
    from store.traces.trace import Trace
    from workbench.cells.view import TokenScope
    from workbench.session.session import Session, Side


_MOST_NAMED = 6  # tensors of a stage that are named one by one


class Tensors(NamedTuple):
    """The traces of A and B."""

    a: "Trace"
    b: "Trace"

    @property
    def runs(self) -> "dict[str, RunRecord]":
        """Both runs by side."""
        return {"a": self.a.run, "b": self.b.run}

    def elements(self, cell: Cell, scope: "TokenScope") -> Elements:
        """Return the values of a cell over the tokens of a scope, mapped, not read."""
        row = scope.row(cell, len(self.a.run.tokens))
        rows = [slice(None), slice(None)] if row is None else [slice(row, row + 1)] * 2
        if self.a.positions(cell.site) != self.b.positions(cell.site):
            rows = [slice(-1, None)] * 2  # aligned to the last token
        a, b = (trace.read(cell.site) for trace in (self.a, self.b))
        if cell.site.stage in PAIRS and cell.shape is not None:
            a, b, rows = *self._of_common_pairs(cell, a, b), [slice(None), slice(None)] if row is None else rows
        a, b = (values[part] for values, part in zip((a, b), rows, strict=True))
        if cell.shape is not None:  # logits of unlike vocabularies are compared over the common tokens
            a, b = (np.ascontiguousarray(values[:, : cell.shape[1]]) for values in (a, b))
        positions = cell.positions if row is None else cell.positions[row : row + 1]
        return Elements(a, b, positions)

    def _of_common_pairs(self, cell: Cell, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """B in the order of A's experts, of the tokens of a cell; NaN on both sides where only one has a pair."""
        choice = cell.site._replace(stage=CHOICE)
        from workbench.cells.routing import Common, experts_of

        common = Common.of(*(experts_of(trace.read(choice)) for trace in (self.a, self.b)))
        places = list(self.a.positions(cell.site) or cell.positions)
        rows = [places.index(position) for position in cell.positions]
        there = np.repeat(common.there, a.shape[1] // common.places.shape[1], axis=1)
        return np.where(there, a, np.nan)[rows].astype(a.dtype), common.of_b(b, np.nan)[rows]

    def align(self, sites: list[Site]) -> list[Cell]:
        """Return the last-token cells of stages whose populations are unlike."""
        from workbench.cells.compare import StageTensor, align_last, compare_stage

        cells = []
        for site in sites:
            pair = (
                align_last(StageTensor(site, trace.read(site), trace.positions(site)), len(trace.run.tokens))
                for trace in (self.a, self.b)
                if trace.status(site) == "ok"
            )
            a, b = (*pair, None, None)[:2]
            if a is not None and b is not None:
                cells.append(compare_stage(site, a, b, _no_stage_is_absent))
        return cells


def _no_stage_is_absent(side: str) -> bool:  # noqa: ARG001
    return False


def open_captured(session: "Session") -> Tensors | KeptCells:
    """Open what a session has captured: tensors, or cells alone; StoreError if there is nothing yet."""
    if not session.spec.statistics_only:
        return open_tensors(session)
    if not session.cells_path.exists():
        where = printable(str(session.folder), 1000)
        raise StoreError(f"{where} has captured nothing yet; run `workbench open` on it first.")
    return read_kept(session.cells_path)


def open_tensors(session: "Session") -> Tensors:
    """Open the tensors that a session has of both sides, whole or unfinished.

    StoreError if a side has none yet, or the session keeps none.
    """
    from store.traces.hdf5 import open_store, partial_path
    from store.traces.kind import is_hdf5
    from store.traces.trace import Trace

    if session.spec.statistics_only:
        raise tensors_not_kept(str(session.folder))

    def side(name: str, given: str, recorded: bool) -> Trace:
        path = session.folder / f"{name}.h5"
        if not path.is_file() and partial_path(path).is_file():
            return open_store(partial_path(path), partial=True)
        own = recorded and not path.is_file() and is_hdf5(Path(given))
        if not own and not path.is_file():
            where = printable(str(session.folder), 1000)
            raise StoreError(
                f"{where} has captured nothing of side {name.upper()} yet; run `workbench open` on it first."
            )
        return open_store(given if own else path)

    a, b = session.spec.a, session.spec.b
    return Tensors(side("a", a.path, not a.numeric_path), side("b", b.path, not b.numeric_path))


def open_artifacts(session: "Session") -> tuple["Artifact", "Artifact"]:
    """Open the model files of both sides, for a recorded trace those it was made from.

    Raises WorkbenchError where a file cannot be read, or is not the one that was traced.
    """
    return open_model(session.spec.a), open_model(session.spec.b)


def open_model(side: "Side") -> "Artifact":
    """Open the model file of one side; WorkbenchError as in `open_artifacts`."""
    from store.open import open_artifact
    from store.traces.hdf5 import open_store
    from store.traces.kind import is_hdf5

    if side.numeric_path:
        return open_artifact(side.path)
    if Path(side.path).exists() and not is_hdf5(Path(side.path)):
        raise WorkbenchError(f"{printable(side.path)} is a trace of another engine, which holds no weights")
    run = open_store(side.path).run
    artifact = open_artifact(run.artifact)
    if artifact.size != run.size:
        raise WorkbenchError(f"{printable(run.artifact)} is not the file that was traced; put that one back there.")
    return artifact


def tensor_types(session: "Session", config: "ModelConfig", site: Site) -> str:
    """Name the tensors that a stage uses with their types on both sides; a line for each, or why there are none."""
    names = stage_tensors(site, config)
    if not names:
        return "no weights: this stage combines other stages"
    try:
        sides = dict(zip("AB", open_artifacts(session), strict=True))
    except WorkbenchError as error:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        return f"uses {', '.join(names[:_MOST_NAMED])}{more}; {printable(str(error), 400)}"
    names, both = tuple(name for name in names if any(name in side for side in sides.values())), list(sides.items())
    types = {
        name: "  ".join(
            f"{side} {model.weight(name).type.name if name in model else 'has none'}" for side, model in both
        )
        for name in names
    }
    if len(names) <= _MOST_NAMED:
        return "\n".join(f"{name}  {of_both}" for name, of_both in types.items())
    counts = Counter(types.values())  # as of the experts of a layer
    firsts = {of_both: next(name for name in names if types[name] == of_both) for of_both in counts}
    return "\n".join(f"{firsts[of_both]} and {count - 1} more  {of_both}" for of_both, count in counts.items())
