"""Work in a process of its own: a job goes in, events come out, and its crash, memory and compiler stay outside.

The child is `python -m MODULE`, which calls `serve`: a job as a line of JSON on stdin, one event per line on stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.machine.endings import how_it_ended
from workbench.session.files import SessionError, append_log

Record = dict[str, Any]
Event = TypeVar("Event")

_GRACE = 2.0  # seconds between asking a process to end and ending it
_STDERR_KEPT = 8000  # bytes


class ChildProcess(Generic[Event]):
    """A child process at work on a job.

    It ends when it has finished, when it is cancelled, or when this process is gone. module : what the child runs.
    what : its work in a word. advice : what to do when it dies. decode : an event from its record. concludes : whether
    an event is the last word. failed : the event that tells why the child died. log_folder : session whose log keeps
    what the child wrote to stderr.
    """

    def __init__(
        self,
        module: str,
        job: Record,
        *,
        what: str,
        advice: str,
        decode: Callable[[Record], Event],
        concludes: Callable[[Event], bool],
        failed: Callable[[str], Event],
        log_folder: Path | None,
    ) -> None:
        root = str(Path(__file__).resolve().parents[2])
        others = os.environ.get("PYTHONPATH")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, others] if others else [root])}
        self._what, self._advice, self._log_folder = what, advice, log_folder
        self._decode, self._concludes, self._failed = decode, concludes, failed
        self._cancelled = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603 - -P: modules in the working directory are none of ours
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # if the child is gone already, `events` says why
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()  # it stays open: its end tells the child that this process is gone

    def events(self) -> Iterator[Event]:
        """Yield events as they arrive, until the process has ended; the last one concludes.

        After `cancel` the events just end.
        """
        assert self._process.stdout is not None
        concluded = False
        try:
            for line in self._process.stdout:
                if not line.endswith(b"\n"):
                    break  # torn when the process died
                event = self._decode(json.loads(line))
                concluded = concluded or self._concludes(event)
                yield event
            status, words = self._process.wait(), self._last_words()
            if not concluded and not self._cancelled:
                yield self._failed(self._why(status, words))
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
        if words and self._log_folder is not None:
            with suppress(SessionError):  # on a full disk the failure itself is what must be told
                append_log(self._log_folder, f"{self._what} stderr", text=words)
        return words

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _why(self, status: int, words: str) -> str:
        said = f" ({printable(words.splitlines()[-1], 160)})" if words else ""
        return f"The {self._what} process {how_it_ended(status)}{said}; {self._advice}."


def serve(work: Callable[[Record, Callable[[Record], None]], None], failed: Callable[[str], Record]) -> None:
    """Be the child: read a job, work on it, and report; the exit code is 0 unless something unforeseen happened.

    work : called with the job's record and with what sends the record of an event. failed : the record of the event
    that tells in a sentence why there is no answer.
    """
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed must not mix with the events

    def send(record: Record) -> None:
        events.write(json.dumps(record) + "\n")
        events.flush()

    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(job, send)
    except WorkbenchError as error:
        send(failed(str(error)))
    except OSError as error:
        if error.filename is None:
            raise
        why = (error.strerror or str(error)).lower()
        send(failed(f"{printable(str(error.filename), 1000)}: {why}."))
    except MemoryError:
        send(failed("There is not enough memory for this pair; use fewer tokens, or close other programs."))


def _end_with_parent() -> None:
    """Wait for the end of stdin, which the parent keeps open as long as it lives."""
    while os.read(0, 4096):
        pass
    os._exit(1)
