"""Find the first place where two copies of a language model part ways, and say why."""

import gc
import sys
from itertools import pairwise
from pathlib import Path

from workbench.machine import interrupts
from workbench.machine.clashes import OURS, clash

__version__ = "0.1.0"

# `workbench ...` or `python -m workbench ...`, and not one of its child processes or whoever imports it
_AS_PROGRAM = Path(sys.argv[0]).stem == "workbench" or ("-m", "workbench") in pairwise(sys.orig_argv)

# New objects between two looks for garbage. What is imported is none, and with Python's 700 looking for it takes a
# tenth of the time until the first screen.
_GARBAGE_LOOKS = 50_000

if _AS_PROGRAM:
    interrupts.end_at_once()
    gc.set_threshold(_GARBAGE_LOOKS)

_FOR_DOCTOR = _AS_PROGRAM and sys.argv[1:2] == ["doctor"]  # which says it among other things
for _package in () if _FOR_DOCTOR else OURS:
    if _sentence := clash(_package):
        if _AS_PROGRAM:  # no traceback for its user
            print(f"workbench: {_sentence}", file=sys.stderr)  # noqa: T201
            raise SystemExit(2)
        raise ImportError(_sentence)
