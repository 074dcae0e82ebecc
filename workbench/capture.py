"""Capturing a pair: what is asked for, what is reported, and the process that does it.

Nothing heavy is imported here, so that the screen can use it; the work itself is in workbench.lockstep.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from store.run import RunRecord
from store.text import printable
from workbench.cells import Cell, cell_from_wire, cell_to_wire
from workbench.session import SessionError, Side, append_log

SideName = Literal["a", "b"]
Phase = Literal["open", "hash", "compile", "run"]

_GRACE = 2.0  # seconds between asking a process to end and ending it
_STDERR_KEPT = 8000  # bytes


@dataclass(frozen=True, slots=True)
class CaptureJob:
    """Two sides, the token ids both run (empty: those of a recorded trace), and the session folder, if any."""

    a: Side
    b: Side
    tokens: tuple[int, ...]
    prompt: str | None = None
    folder: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return asdict(self) | {"folder": None if self.folder is None else str(self.folder.absolute())}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "CaptureJob":
        """Rebuild a job from `to_json`."""
        folder = record["folder"]
        a, b = Side(**record["a"]), Side(**record["b"])
        return cls(a, b, tuple(record["tokens"]), record["prompt"], None if folder is None else Path(folder))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come: `done` of `total` (bytes, kernels or cells; total 0 where it is unknown)."""

    phase: Phase
    done: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class SideReady:
    """A side was opened, and this is its run."""

    side: SideName
    run: RunRecord


@dataclass(frozen=True, slots=True)
class CellReady:
    """Both sides have passed a stage."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class Finished:
    """All cells are there, and with a session folder both traces are complete."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
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
            facts = asdict(event)
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


def capture(job: CaptureJob, emit: Emit) -> None:
    """Run or read both sides in lockstep in this process, reporting every cell as soon as both sides have it.

    With a folder the traces are kept there as a.h5 and b.h5; what an earlier capture has completed is used.
    Raises WorkbenchError in one sentence; what was captured by then stays in the folder and is resumed.
    """
    from workbench.lockstep import run_pair

    run_pair(job, emit)


def trace_side(side: Side, tokens: tuple[int, ...], prompt: str | None, output: Path, emit: Emit) -> RunRecord:
    """Run one model into the store `output`, resuming an unfinished one of the same run; returns what was run.

    Raises WorkbenchError in one sentence.
    """
    from workbench.lockstep import run_one

    return run_one(side, tokens, prompt, output, emit)


class CaptureProcess:
    """A capture in a process of its own, so that its crash, memory and compiler do not touch this one.

    It ends when it has finished, when it is cancelled, or when this process is gone, and never leaves anything that
    the next capture into the same folder could not go on with.
    """

    def __init__(self, job: CaptureJob) -> None:
        root = str(Path(__file__).resolve().parents[1])
        others = os.environ.get("PYTHONPATH")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, others] if others else [root])}
        self._job = job
        self._cancelled = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(  # -P: modules in the working directory are none of ours
            [sys.executable, "-P", "-m", "workbench.capture_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # if the child is gone already, `events` says why
            self._process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
            self._process.stdin.flush()  # it stays open: its end tells the child that this process is gone

    def events(self) -> Iterator[Event]:
        """Yield events as they arrive, until the process has ended; the last one is Finished or Failed.

        After `cancel` the events just end.
        """
        assert self._process.stdout is not None
        concluded = False
        try:
            for line in self._process.stdout:
                if not line.endswith(b"\n"):
                    break  # torn when the process died
                event = event_from_wire(json.loads(line))
                concluded = concluded or isinstance(event, Finished | Failed)
                yield event
            status, words = self._process.wait(), self._last_words()
            if not concluded and not self._cancelled:
                yield Failed(self._why(status, words))
        finally:
            self.cancel()
            self._close()

    def cancel(self) -> None:
        """End the process if it still runs; returns when it has ended. May be called from any thread, repeatedly."""
        self._cancelled = True
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _last_words(self) -> str:
        """Return the end of what the process wrote to stderr, and log it."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_KEPT))
        words = self._stderr.read().decode(errors="replace").strip()
        if words and self._job.folder is not None:
            with suppress(SessionError):  # on a full disk the failure itself is what must be told
                append_log(self._job.folder, "capture stderr", text=words)
        return words

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _why(self, status: int, words: str) -> str:
        how = f"ended with exit code {status}"
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
            how += ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        said = f" ({printable(words.splitlines()[-1], 160)})" if words else ""
        return f"The capture process {how}{said}; run it again, finished layers are kept."
