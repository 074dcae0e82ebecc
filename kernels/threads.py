"""How many threads kernels use."""

import os


def thread_count() -> int:
    """WORKBENCH_THREADS, or the processors this process may run on."""
    wanted = os.environ.get("WORKBENCH_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
