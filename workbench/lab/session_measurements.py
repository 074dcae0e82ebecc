"""The measurements of a session's pair: cells and logits from its capture, the rest from its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.stages import Site
from store.traces.trace import LOGITS
from workbench.capture.comparing import compare_job
from workbench.capture.job import CaptureJob
from workbench.cells.cell import Cell, cell_json
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.lab.measurements import ALL, LAST, Measurements, Show
from workbench.lab.readings import AGAIN, OBSERVED, OF_TENSORS, Reading
from workbench.session.session import Session

if TYPE_CHECKING:
    from workbench.cells.comparison import Comparison

OF_RUNNING_AGAIN = (*AGAIN, "beyond_floor", "unforeseen")


class SessionMeasurements(Measurements):
    """Measures a session's pair; a capture that is not complete is completed in its folder."""

    def __init__(self, session: Session, show: Show = lambda *_: None) -> None:
        spec = session.spec
        asked = spec.a.numeric_path or None, spec.b.numeric_path or None
        super().__init__((Path(spec.a.path), Path(spec.b.path)), asked, spec.tokens or None, None, show)
        self._session = session

    def require_unchanged(self) -> None:
        """Raise WorkbenchError if a file was written to since it was opened; what was not opened was not used."""
        if "sources" in self.__dict__:
            super().require_unchanged()

    def _compare(self, scope: TokenScope) -> "Comparison":
        return compare_job(CaptureJob.of(self._session), METRICS["rel_rms"], scope, self._show)

    def label(self, scope: TokenScope) -> str:
        """Name the tokens of a scope in words."""
        comparison = self._of_all
        return scope.label(0 if isinstance(comparison, str) else len(comparison.a.tokens))

    def figure_of_cell(self, site: Site, scope: TokenScope, key: str) -> Reading:
        """Return what `compare --json` has of a cell under a key, dots between the levels."""
        if key in OF_RUNNING_AGAIN:
            return self._run_again(site, key)
        if key in OBSERVED:
            return self.cell(site, key, scope)
        found = self._cell(site, ALL)
        return Reading(None, found) if isinstance(found, str) else self._in_record(found, scope, key)

    def figure_of_logits(self, scope: TokenScope, key: str) -> Reading:
        """Return what `compare --json` has of the logits under a key, over the tokens of a scope."""
        found = self._cell(LOGITS, ALL)
        if isinstance(found, Cell) and found.profile is None and scope == LAST:  # one side may hold the last token only
            found = self._cell(LOGITS, LAST)
        if isinstance(found, str):
            return Reading(None, found)
        if key in OBSERVED:
            tokens = 0 if isinstance(self._of_all, str) else len(self._of_all.a.tokens)
            return self._observed(found, key, scope.row(found, tokens), f"logits {scope.kind}")
        figure = found.measures()
        if figure is not None and (figure.nonfinite_a or figure.nonfinite_b) and key not in ("status", "note"):
            return Reading(None, f"{figure.nonfinite_a} values of A and {figure.nonfinite_b} of B are not finite")
        return self._in_record(found, scope, key if key in ("status", "note") else f"logits.{key}")

    def figure_of_tensor(self, name: str, key: str) -> Reading:
        """Return what `weights --json` has of a tensor under a key."""
        if key in OF_TENSORS:
            return self.tensor(name, key)
        found = self._difference(name)
        if isinstance(found, str):
            return Reading(None, found)
        value = getattr(found, key)
        return Reading(value) if value is not None else Reading(None, found.note or "it is not known of this tensor")

    def _in_record(self, cell: Cell, scope: TokenScope, key: str) -> Reading:
        comparison = self._of_all
        tokens = 0 if isinstance(comparison, str) else len(comparison.a.tokens)
        return at(cell_json(cell, scope.row(cell, tokens)), key, cell.note or "it is not known of this cell")


def at(record: Mapping[str, Any], key: str, why: str = "it is not there") -> Reading:
    """Return what stands in a record under a key, dots between the levels; what is null or no single value has none."""
    value: Any = record
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return Reading(None, why)
        value = value[name]
    if isinstance(value, Mapping | list | tuple):
        return Reading(None, "it is a list of values, not one")
    return Reading(value) if value is not None else Reading(None, why)
