"""Sharing the rows of an operation among threads.

Every row is computed by exactly one call in a fixed order of sums, so the result has the same bits for any number of
threads. Plain threads over GIL-free kernels are used instead of Numba's parallel regions: those abort the process or
a forked child under some of Numba's threading layers.

Operations are short and follow each other closely, and a thread that sleeps needs about as long as one of them to
wake up. So whoever waits looks out for a moment (lookout.py) before it goes to sleep.
"""

from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread

from kernels.machine.lookout import Flag
from kernels.machine.threads import thread_count

_LAST = 8  # the smallest share, as a part of what a thread would have of all
_LEAST = 1 << 14  # values worth a thread


def over_rows(compute: Callable[[int, int], object], rows: int, least: int = 1, most: int | None = None) -> None:
    """Call compute(start, stop) for shares that cover range(rows), multiples of `least` but for the last one.

    Waits for all of them. The calling thread works too. What `compute` raises, an interruption too, is raised here once
    what the other threads have begun is finished; no share is begun after it. most : rows of the largest share, if a
    share would take too long for that.
    """
    threads, most = thread_count(), most or rows
    if rows <= least or (threads == 1 and rows <= most):
        compute(0, rows)
        return
    job = _Job(compute, _shares(rows, least, most, threads))
    for helper in _helpers(min(threads, job.shares) - 1):
        helper.give(job)
    job.work()
    job.wait()


def _shares(rows: int, least: int, most: int, threads: int) -> list[tuple[int, int]]:
    """Large shares first, smaller ones later: few calls, and all threads finish at about the same time."""
    shares, start = list[tuple[int, int]](), 0
    smallest = rows // (threads * _LAST)
    while start < rows:
        wanted = max(2 * (rows - start) // (3 * threads), smallest, 1)
        stop = min(start + -(-min(wanted, most) // least) * least, rows)
        shares.append((start, stop))
        start = stop
    return shares


def by_token(compute: Callable[[slice], object], shape: tuple[int, ...], least: int = 1) -> None:
    """Call compute(tokens) for slices that cover all tokens, at least `least` each, on as many threads as is worth it.

    shape : (tokens, channels) of what is computed.
    """
    over_rows(lambda start, stop: compute(slice(start, stop)), shape[0], max(least, _LEAST // shape[1]))


class _Job:
    """An operation in shares; whoever is free takes the next one."""

    def __init__(self, compute: Callable[[int, int], object], shares: list[tuple[int, int]]) -> None:
        self._compute, self.shares = compute, len(shares)
        self._left, self._finished = iter(shares), count(1)  # the interpreter's lock makes taking the next one safe
        self._errors: list[BaseException] = []
        self._over, self._flag = SimpleQueue[None](), Flag()

    def work(self) -> None:
        """Compute shares until none is left."""
        for start, stop in self._left:
            try:
                if not self._errors:
                    self._compute(start, stop)
            except BaseException as error:  # raised in `wait`, in the thread that asked
                self._errors.append(error)
            if next(self._finished) == self.shares:
                self._over.put(None)
                self._flag.raise_()

    def wait(self) -> None:
        """Return when all shares are finished."""
        self._flag.look_out()
        self._over.get()
        if self._errors:
            raise self._errors[0]


class _Helper:
    """A thread that works on jobs."""

    def __init__(self) -> None:
        self._jobs, self._flag = SimpleQueue[_Job](), Flag()
        Thread(target=self._run, name="kernel", daemon=True).start()

    def give(self, job: _Job) -> None:
        """Let the thread work on a job."""
        self._jobs.put(job)
        self._flag.raise_()

    def _run(self) -> None:
        while True:
            self._flag.look_out()
            self._jobs.get().work()


_hired: list[_Helper] = []
_hiring = Lock()


def _helpers(number: int) -> list[_Helper]:
    with _hiring:
        while len(_hired) < number:
            _hired.append(_Helper())
    return _hired[:number]
