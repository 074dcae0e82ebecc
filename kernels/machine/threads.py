"""How many threads kernels use."""

import os

from kernels.errors import WorkbenchError

MOST = 1024  # processors that Linux's own masks have room for


def thread_count() -> int:
    """WORKBENCH_THREADS, or the processors this process may run on; WorkbenchError if it is set to anything else."""
    wanted = os.environ.get("WORKBENCH_THREADS")
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 9 and 1 <= int(wanted) <= MOST:
        return int(wanted)
    raise WorkbenchError(
        f"WORKBENCH_THREADS is {wanted[:20]!r}, not a number of threads from 1 to {MOST}; set it to one, or unset it"
    )
