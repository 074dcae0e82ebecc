"""The measurements of a session's pair for a contract: what its capture holds is read, and nothing is written."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.errors import WorkbenchError
from store.stored_model import StoredModel
from store.text import printable
from store.traces.hdf5 import open_store
from store.traces.run import versions
from store.traces.trace import Trace
from workbench.capture.job import CaptureJob
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.lab.measurements import Measurements, Show
from workbench.lab.retractions import retracted_capture
from workbench.pair.pair import Pair, open_side, paired, runnable
from workbench.pair.recorded import of_other_engine
from workbench.session.files import STORES
from workbench.session.session import Session, Side

if TYPE_CHECKING:
    from workbench.cells.comparison import Comparison


class CapturedMeasurements(Measurements):
    """Measures a session's pair.

    Cells and logits are those of its capture if that is complete, was not retracted, and is of the files, paths and
    tokens that the session has now; else both sides are run, and `provenance` says why. In the place of a file that is
    gone stands its recorded run.
    """

    def __init__(self, session: Session, show: Show = lambda *_: None) -> None:
        spec = session.spec
        asked = spec.a.numeric_path or None, spec.b.numeric_path or None
        super().__init__((Path(spec.a.path), Path(spec.b.path)), asked, spec.tokens or None, None, show)
        self._session = session

    @cached_property
    def sources(self) -> tuple[StoredModel | Trace, StoredModel | Trace]:
        """Both sides, opened; WorkbenchError for what cannot be, or is gone and may not be replaced."""
        a, b = (self._source(number) for number in (0, 1))
        return a, b

    def _source(self, number: int) -> StoredModel | Trace:
        path = self._paths[number]
        if path.exists() or isinstance(self._kept, str):
            if not path.exists():
                what = f"{printable(str(path))} does not exist"
                raise WorkbenchError(f"{what}, and the session's capture cannot stand for it: {self._kept}")
            return open_side(path)
        return self._kept[number]

    @cached_property
    def pair(self) -> Pair:
        """Both sides as they run or were recorded; WorkbenchError where one cannot be run."""
        a, b = map(runnable, self.sources)
        one, other = (None if isinstance(side, Trace) else path for side, path in zip((a, b), self._asked, strict=True))
        return paired((a, b), (one, other), self._tokens, self._prompt)

    def provenance(self) -> dict[str, Any]:
        """Return what the base does; the notes say which capture was read, or why it was not."""
        record = super().provenance()
        return record | {"notes": [*record["notes"], *self._said()]}

    def _said(self) -> list[str]:
        said = []
        for letter, path, source in zip("AB", self._paths, self.sources, strict=True):
            if source.path != path:
                said.append(f"{printable(str(path))} is gone; of {letter} only what the session recorded is there.")
        if not {"_of_all", "_of_last"} & self.__dict__.keys():
            return said
        if isinstance(self._captured, str):
            return [*said, f"The session's capture was not used: {self._captured}; both sides were run."]
        a, b = (trace.run for trace in self._captured)
        other = "" if a.versions == b.versions == versions() else ", with other versions than those installed"
        return [*said, f"Cells and logits are those that the session captured on {max(a.created, b.created)}{other}."]

    @cached_property
    def _kept(self) -> tuple[Trace, Trace] | str:
        """The runs that the session recorded, or why they may not be used."""
        if why := retracted_capture(self._session):
            return why
        if self._session.spec.statistics_only:
            return "it keeps no tensors (--statistics-only)"
        paths = [self._session.folder / name for name in STORES.values()]
        if not all(path.is_file() for path in paths):
            return "it is not complete"
        try:
            a, b = map(open_store, paths)
        except WorkbenchError as error:
            return str(error).rstrip(".")
        return a, b

    @cached_property
    def _captured(self) -> tuple[Trace, Trace] | str:
        """The recorded runs if they are of what the session has now, or why they are not used."""
        if isinstance(self._kept, str):
            return self._kept
        for number, trace in enumerate(self._kept):
            letter, source, run = "AB"[number], self.sources[number], trace.run
            if source is not trace and not self._is_of(source, trace):
                return f"the file of {letter} is not the one that was captured"
            if self._asked[number] not in (None, run.numeric_path):
                return f"{letter} was captured on path {printable(run.numeric_path, 40)}"
            if self._tokens is not None and run.tokens != self._tokens:
                return f"{letter} was captured on other tokens"
        return self._kept

    def _is_of(self, source: StoredModel | Trace, trace: Trace) -> bool:
        """Whether a recorded run is of a source as it is now."""
        if isinstance(source, Trace) and not of_other_engine(trace.run):
            return source.record == trace.run
        return self._sha256(source) == trace.run.sha256

    def _compare(self, scope: TokenScope) -> "Comparison":
        if isinstance(self._captured, str):
            return super()._compare(scope)
        from workbench.capture.comparing import compare_job

        a, b = (Side(str(trace.path), "") for trace in self._captured)
        job = CaptureJob(a, b, self._captured[0].run.tokens)
        return replace(compare_job(job, METRICS["rel_rms"], scope, self._show), notes=self.pair.notes)
