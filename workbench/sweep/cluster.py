"""A sweep on many processes: dask.distributed schedules, this says what; a local cluster, or a scheduler that runs.

A base, A on a prompt, is a task of its own, so the scheduler keeps it on the workers, sends it from one to another and
computes it again where it was lost; this process sees none of it. Only as many units are handed out as workers are soon
ready for, and what is finished is written before it is forgotten.
"""

import logging
import signal
from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.sweep.parts import Part
from workbench.sweep.planning import Work
from workbench.sweep.question import Prompt, Question
from workbench.sweep.running import Finished

try:
    import cryptography  # noqa: F401 - by which dask makes keys
    import dask
    import distributed
except ImportError:  # the extra is not installed
    distributed = None  # type: ignore[assignment, unused-ignore]

INSTALL = "it needs dask.distributed; `pip install 'layer-workbench[cluster]'`, or leave out --workers and --cluster"
_AHEAD = 3  # units that are handed out for each worker
_LOST = 20  # workers that a unit may lose before it is what ends them
_OWN = "127.0.0.1"
_WAIT = 60  # seconds for a scheduler to answer, and for the first of its workers
_SETTINGS = {
    "distributed.scheduler.allowed-failures": _LOST,
    "distributed.deploy.lost-worker-timeout": "1 day",  # else 15 s: who starts again more slowly would never come back
    "distributed.worker.profile.enabled": False,  # nobody looks at it
}
_QUIET = tuple(f"distributed{name}" for name in ("", ".client", ".core", ".nanny", ".scheduler", ".utils", ".worker"))


def available() -> bool:
    """Whether the extra is installed."""
    return distributed is not None


class Cluster:
    """Workers. address : of a scheduler that runs; else `workers` processes are started here, one a processor core."""

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if distributed is None:
            raise WorkbenchError(INSTALL)
        self.workers, self._address = workers or _cores(), address

    def results(self, question: Question, works: Iterable[Work]) -> Finished:
        """Do all of it; WorkbenchError where the scheduler is not there, or is lost."""
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with dask.config.set(_SETTINGS), self._client() as client:
            try:
                client.wait_for_workers(1, timeout=_WAIT)
                client.submit(_prepared, question, pure=False).result()
                yield from _Flow(client, question).results(works)
            except TimeoutError:
                raise WorkbenchError(
                    f"the scheduler {self._address or ''} has no workers; start some with `dask worker`"
                ) from None
            except (CancelledError, OSError) as error:
                if isinstance(error, OSError) and error.filename is not None:
                    raise  # the file of results
                where = self._address or "of this sweep"
                raise WorkbenchError(f"the scheduler {where} is lost; --resume does what is left") from None
            except (ModuleNotFoundError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                    raise
                raise WorkbenchError(
                    f"the scheduler {self._address or ''} or a worker lacks this program; install this version there"
                ) from None
            except distributed.KilledWorker:
                raise WorkbenchError(
                    f"a unit has ended {_LOST} workers, as happens for want of memory; use shorter prompts"
                ) from None

    def _client(self) -> Any:  # noqa: ANN401 - dask has no types
        if self._address is None:
            return distributed.Client(
                n_workers=self.workers,
                threads_per_worker=1,
                memory_limit=0,  # what dask would count is mapped files too
                host=_OWN,
                dashboard_address=f"{_OWN}:0",
                security=True,  # else whoever has an account on this machine could let the workers run anything
                env={"WORKBENCH_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                silence_logs=logging.CRITICAL,
                preload=__name__,
            )
        try:
            return distributed.Client(self._address, timeout=_WAIT)
        except (OSError, ValueError) as error:
            name, why = printable(self._address, 200), printable(str(error).splitlines()[0], 300)
            raise WorkbenchError(f"no scheduler answers at {name} ({why}); start one with `dask scheduler`") from None


def _cores() -> int:
    from kernels.machine.threads import thread_count

    return thread_count()


class _Flow:
    """Hands out units, as many as workers are soon ready for; A is run on the next prompt while they are at work."""

    def __init__(self, client: Any, question: Question) -> None:  # noqa: ANN401
        self._client, self._question = client, question
        self._bases: dict[int, Any] = {}  # by the number of the prompt
        self._left: dict[int, int] = {}  # units of a prompt whose base is needed
        self._running: dict[Any, tuple[Work, Part]] = {}  # by future
        self._finished = distributed.as_completed(with_results=True)

    def results(self, works: Iterable[Work]) -> Finished:
        """Do all of it."""
        waiting = deque(works)
        queue: deque[tuple[Work, Part]] = deque()
        while waiting or queue or self._running:
            room = _AHEAD * max(len(self._client.nthreads()), 1)
            while len(self._running) < room and (queue or waiting):
                if not queue:
                    work = waiting.popleft()
                    queue.extend((work, part) for part in work.parts)
                self._submit(*queue.popleft())
            if waiting and len(queue) < room:
                self._base(waiting[0])
            future, figures = next(self._finished)
            if isinstance(figures, BaseException):  # what is cancelled comes as a result: nobody schedules any more
                raise CancelledError
            work, part = self._running.pop(future)
            self._left[work.number] -= 1
            if not self._left[work.number]:
                del self._bases[work.number]
            yield work, part, figures

    def _submit(self, work: Work, part: Part) -> None:
        future = self._client.submit(_measured, self._question, self._base(work), part, pure=False)
        self._running[future] = work, part
        self._finished.add(future)

    def _base(self, work: Work) -> Any:  # noqa: ANN401
        if work.number not in self._bases:
            self._bases[work.number] = self._client.submit(_base, self._question, work.prompt, pure=False)
            self._left[work.number] = len(work.parts)
        return self._bases[work.number]


def dask_setup(_worker: object) -> None:
    """What dask calls in a worker that is started here: Ctrl-C is for the client, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# What workers do; they find it by its name, and open the files themselves.


def _prepared(question: Question) -> None:
    from workbench.sweep.measuring import prepare

    prepare(question)


def _base(question: Question, prompt: Prompt) -> Any:  # noqa: ANN401 - see `measuring.base`; nothing is loaded here
    from workbench.sweep.measuring import base

    return base(question, prompt)


def _measured(question: Question, base: Any, part: Part) -> dict[str, Any]:  # noqa: ANN401
    from workbench.sweep.measuring import measured

    worker = distributed.get_worker()
    return measured(question, base, part) | {"worker": str(worker.name)}
