"""Saved sessions: where they are, what each is about, and what it says of its pair without anything being run."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from kernels.models import execution_order
from kernels.stages import Site
from store.text import printable
from store.traces.hdf5 import partial_path
from store.traces.hdf5_index import BusyStoreError
from store.traces.run import RunRecord
from workbench.cells.cell import Cell
from workbench.cells.comparison import Comparison
from workbench.cells.kept_cells import KeptCells
from workbench.cells.metrics import METRICS
from workbench.cells.view import View
from workbench.jobs.bisected import last_bisection, standing_bisection
from workbench.jobs.conclusion import Conclusion
from workbench.pair.sources import Tensors, open_captured
from workbench.session.files import SPEC_FILE, SessionError, refused, shown
from workbench.session.session import Session, Side

Progress = Callable[[int, int, str], object]
_NOT_CAPTURED = "Nothing is captured yet."
_QUICK = 1 << 30  # bytes of two captures that are compared without being asked for


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session says of its pair in one sentence, and the verdict of its bisection, if one stands."""

    sentence: str
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A session as a list names it."""

    session: Session
    standing: Standing

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides."""
        return self.session.spec.a, self.session.spec.b

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        spec = self.session.spec
        sides = {
            name: {"path": side.path, "numeric_path": side.numeric_path or None}
            for name, side in zip("ab", self.sides, strict=True)
        }
        return {
            "session": str(self.session.folder),
            "name": spec.name,
            "created": spec.created,
            **sides,
            "tokens": len(spec.tokens),
            "prompt": spec.prompt,
            "verdict": self.standing.verdict,
            "headline": self.standing.sentence,
        }


def session_folders(folder: Path) -> list[Path]:
    """Return a folder that is a session, else the sessions in it; SessionError if it cannot be read."""
    if os.path.lexists(folder / SPEC_FILE):
        return [folder]
    try:
        return sorted(place for place in folder.iterdir() if os.path.lexists(place / SPEC_FILE))
    except OSError as error:
        if isinstance(error, NotADirectoryError):
            raise SessionError(f"{shown(folder)} is a file; give a folder of sessions.") from None
        raise refused(folder, error) from None


def saved_sessions(folder: Path, progress: Progress) -> Iterator[Saved | WorkbenchError]:
    """Yield the sessions in a folder, for each that cannot be read why, newest first."""
    found: list[Session] = []
    for place in session_folders(folder):
        try:
            found.append(Session.open(place))
        except WorkbenchError as error:
            yield error
    for session in sorted(found, key=lambda session: session.spec.created, reverse=True):
        try:
            yield Saved(session, standing(session, progress))
        except WorkbenchError as error:
            yield SessionError(f"{shown(session.folder)}: {error}")


def standing(session: Session, compare: Progress | None = None) -> Standing:
    """Say what a session holds: its verdict, else what its captures show, else how far they are.

    compare : shows how far the captures are read where nobody has bisected; without it they are not.

    WorkbenchError for captures that cannot be read.
    """
    if not _captured(session):
        known = last_bisection(session)
        if known is None:
            return Standing(_NOT_CAPTURED)
        return Standing(f"{known.headline} So it was when it was bisected; no capture of that is here.")
    try:
        captured = open_captured(session)
    except BusyStoreError:
        return Standing("It is being captured at this moment.")
    bisected = standing_bisection(session, captured.runs)
    if bisected is not None:
        return Standing(bisected.headline, bisected.found.verdict)
    for name, trace in (("A", captured.a), ("B", captured.b)) if isinstance(captured, Tensors) else ():
        if trace.completed_layers is not None and trace.completed_layers < trace.layers:
            return Standing(f"{trace.completed_layers} of {trace.layers} layers of {name} are captured; open goes on.")
    said = "Both sides are captured." if compare is None else _compared(session, captured, compare)
    return Standing(f"{said} Nobody has bisected the pair.")


def _captured(session: Session) -> bool:
    """Whether there is anything to read of both sides: cells or stores of the session, or the traces that they are."""
    spec = session.spec
    if spec.statistics_only:
        return session.cells_path.exists()
    stores = (session.trace_path(name) for name in "ab")
    return all(
        own.exists() or partial_path(own).exists() or (not given.numeric_path and Path(given.path).exists())
        for own, given in zip(stores, (spec.a, spec.b), strict=True)
    )


def _compared(session: Session, captured: Tensors | KeptCells, progress: Progress) -> str:
    """Say in a sentence what two captures show, unless reading them takes long."""
    if isinstance(captured, KeptCells):
        return _headline(session, captured.runs, list(captured.cells))
    from workbench.capture.lockstep import Recorded  # loads the kernels
    from workbench.cells.compare import compare_streams

    if sum(trace.path.stat().st_size for trace in captured if trace.path.is_file()) > _QUICK:
        return "Both sides are captured."
    a, b = (Recorded(trace, None) for trace in captured)
    sites = execution_order(a.run.config, b.run.config)

    def absent(side: str, site: Site) -> bool:
        return (a if side == "a" else b).absent(site)

    cells = []
    for done, cell in enumerate(compare_streams(a.stages(), b.stages(), sites, absent), 1):
        progress(done, len(sites), f"compare {printable(session.spec.name)}")
        cells.append(cell)
    return _headline(session, captured.runs, cells)


def _headline(session: Session, runs: dict[str, RunRecord], cells: list[Cell]) -> str:
    view = View.from_json(session.spec.view)
    compared = Comparison(runs["a"], runs["b"], cells=cells, metric=METRICS[view.metric], scope=view.tokens)
    return Conclusion(compared, None).headline()
