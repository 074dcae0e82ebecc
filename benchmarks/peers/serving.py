"""How a peer is driven: it prints "ready", then one JSON line for every line it is given."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def job() -> Any:  # noqa: ANN401
    """Return what the benchmark wants of this peer."""
    return json.loads(sys.argv[1])


def clock(wanted: Any) -> Callable[[], float]:  # noqa: ANN401
    """Seconds as the job wants them: those of the processor, or of the wall."""
    return time.process_time if wanted.get("processor", False) else time.perf_counter


def serve(run: Callable[[], float]) -> None:
    """Answer every line on stdin with the seconds that `run` gives."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints
    answers.write("ready\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(f"{json.dumps(run())}\n")
        answers.flush()
