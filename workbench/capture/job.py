"""Capturing a pair: what is asked for, what is reported, and the process that does it.

Nothing heavy is imported here, so that the screen can use it; the work itself is in workbench.capture.lockstep.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from store.traces.run import RunRecord
from workbench.cells.cell import Cell, cell_from_wire, cell_to_wire
from workbench.machine.child_process import ChildProcess
from workbench.session.session import Session, Side

SideName = Literal["a", "b"]
Phase = Literal["wait", "open", "hash", "compile", "run"]


@dataclass(frozen=True, slots=True)
class CaptureJob:
    """Two sides, the token ids both run (empty: those of a recorded trace), and the session folder, if any.

    statistics_only : cells have the elements that differ most, and are kept in the folder in place of tensors.
    """

    a: Side
    b: Side
    tokens: tuple[int, ...]
    prompt: str | None = None
    folder: Path | None = None
    statistics_only: bool = False

    @classmethod
    def of(cls, session: Session) -> "CaptureJob":
        """The capture of a session."""
        spec = session.spec
        return cls(spec.a, spec.b, spec.tokens, spec.prompt, session.folder, spec.statistics_only)

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return asdict(self) | {"folder": None if self.folder is None else str(self.folder.absolute())}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "CaptureJob":
        """Rebuild a job from `to_json`."""
        folder = record["folder"]
        a, b = Side(**record["a"]), Side(**record["b"])
        place = None if folder is None else Path(folder)
        return cls(a, b, tuple(record["tokens"]), record["prompt"], place, record["statistics_only"])


class Progress(NamedTuple):
    """How far a phase has come: `done` of `total` (bytes, kernels or cells; total 0 where it is unknown)."""

    phase: Phase
    done: int
    total: int
    text: str


class SideReady(NamedTuple):
    """A side was opened, and this is its run."""

    side: SideName
    run: RunRecord


class CellReady(NamedTuple):
    """Both sides have passed a stage."""

    cell: Cell


class Finished(NamedTuple):
    """All cells are there, and with a session folder both traces are complete."""

    seconds: float


class Failed(NamedTuple):
    """The capture ended early; the message is one sentence."""

    message: str


Event = Progress | SideReady | CellReady | Finished | Failed
Emit = Callable[[Event], None]


def event_to_wire(event: Event) -> dict[str, Any]:
    """Return an event as JSON values without loss; `event_from_wire` is the inverse."""
    match event:
        case SideReady():
            facts: dict[str, Any] = {"side": event.side, "run": event.run.to_json()}
        case CellReady():
            facts = {"cell": cell_to_wire(event.cell)}
        case _:
            facts = event._asdict()
    return {"event": type(event).__name__, **facts}


def event_from_wire(record: dict[str, Any]) -> Event:
    """Rebuild an event from `event_to_wire`."""
    facts = {name: value for name, value in record.items() if name != "event"}
    match record["event"]:
        case "SideReady":
            return SideReady(facts["side"], RunRecord.from_json(facts["run"]))
        case "CellReady":
            return CellReady(cell_from_wire(facts["cell"]))
        case "Progress":
            return Progress(**facts)
        case "Finished":
            return Finished(**facts)
        case "Failed":
            return Failed(**facts)
    raise ValueError(f"unknown event {record['event']!r}")


class CaptureProcess(ChildProcess[Event]):
    """A capture in a process of its own, whose last event is Finished or Failed.

    It never leaves anything that the next capture into the same folder could not go on with.
    """

    def __init__(self, job: CaptureJob) -> None:
        super().__init__(
            "workbench.capture.process",
            job.to_json(),
            what="capture",
            advice="run it again" if job.statistics_only else "run it again, finished layers are kept",
            decode=event_from_wire,
            concludes=lambda event: isinstance(event, Finished | Failed),
            failed=Failed,
            log_folder=job.folder,
        )
