"""Sharing the rows of an operation among threads.

Every row is computed by exactly one call in a fixed order of sums, so the result has the same bits for any number of
threads. Plain threads over GIL-free kernels are used instead of Numba's parallel regions: those abort the process or
a forked child under some of Numba's threading layers.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_SHARES_PER_THREAD = 4  # uneven speed of the cores is evened out by handing out smaller shares


def thread_count() -> int:
    """Threads used by kernels: WORKBENCH_THREADS, or the processors this process may run on."""
    wanted = os.environ.get("WORKBENCH_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


def over_rows(compute: Callable[[int, int], None], rows: int, least: int = 1) -> None:
    """Call compute(start, stop) for shares that cover range(rows), at least `least` rows each, and wait for all."""
    threads = thread_count()
    share = max(least, -(-rows // (threads * _SHARES_PER_THREAD)))
    if threads == 1 or share >= rows:
        compute(0, rows)
        return
    starts = range(0, rows, share)
    for done in [_pool(threads).submit(compute, start, min(start + share, rows)) for start in starts]:
        done.result()
