"""The process in which a capture runs: a job on stdin, one event per line on stdout.

Run by workbench.capture.CaptureProcess as `python -m workbench.capture_process`.
"""

import json
import os
import sys
import threading

from kernels.errors import WorkbenchError
from workbench.capture import CaptureJob, Event, Failed, capture, event_to_wire


def main() -> None:
    """Read the job, run it, and report; the exit code is 0 unless something unforeseen happened."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed must not mix with the events

    def emit(event: Event) -> None:
        events.write(json.dumps(event_to_wire(event)) + "\n")
        events.flush()

    job = CaptureJob.from_json(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        capture(job, emit)
    except WorkbenchError as error:
        emit(Failed(str(error)))
    except MemoryError:
        emit(Failed("There is not enough memory for this pair; use fewer tokens, or close other programs."))


def _end_with_parent() -> None:
    """Wait for the end of stdin, which the parent keeps open as long as it lives."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
