"""What a row of the table is, and what everybody who measures one needs."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from benchmarks.builds import Build
from benchmarks.limits import Limits, Work, measure_limits
from benchmarks.models import ModelFolder

Unit = Literal["s", "ms", "KB", "GB", "x"]
Verdict = Literal["aim", "must", "MISSED"]

_PAUSE = 0.05  # seconds between two runs, in which the threads of the last one stop waiting for work


@dataclass(frozen=True)
class Measured:
    """What product and peer needed, run by run; without a peer the product's figures stand alone.

    work : what the product has to do at least, where the machine's limits for that are measured.
    before : what another build of the product needed, run by run in turn, where the row measures one.
    processor : seconds are those of the processor, which others who use it too can only make longer; so the least of
        each is held against the other.
    """

    product: list[float]
    peer: list[float] = field(default_factory=list)
    unit: Unit = "s"
    note: str = ""
    work: Work | None = None
    before: list[float] = field(default_factory=list)
    processor: bool = False

    @property
    def value(self) -> float:
        """What is held against the limits: the median ratio of product to peer, or the product's median."""
        if not self.peer:
            return statistics.median(self.product)
        if self.processor:
            return min(self.product) / min(self.peer)
        return statistics.median(mine / theirs for mine, theirs in zip(self.product, self.peer, strict=True))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    must, aim : upper limits of the ratio to the peer, or of the product's figure where there is no peer.
    """

    key: str
    title: str
    peer: str
    must: float
    aim: float
    measure: Callable[["Bench"], Measured]

    def verdict(self, measured: Measured) -> Verdict:
        """Which of the two limits holds."""
        return "aim" if measured.value <= self.aim else "must" if measured.value <= self.must else "MISSED"


@dataclass(frozen=True)
class Bench:
    """Where and how rows are measured.

    quick : smaller models and fewer rounds, to see that everything works.
    against : another build of the product, for the rows of the screen.
    processor : hold seconds of the processor against each other where a peer has them too, on a busy machine.
    """

    folder: Path
    peer_python: Path
    quick: bool
    threads: int
    against: Build | None = None
    processor: bool = False

    @property
    def rounds(self) -> int:
        """How often product and peer run in turn."""
        return 3 if self.quick else 7

    @cached_property
    def models(self) -> ModelFolder:
        """The models, made when they are first asked for."""
        return ModelFolder(self.folder / ("quick" if self.quick else "full"))

    @cached_property
    def limits(self) -> dict[int, Limits]:
        """What the machine can do at most, by threads: on one, and on as many as both sides have."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for count in sorted({1, self.threads}):
            with threads(count):
                found[count] = measure_limits(self.folder, count)
        return found


def alternate(
    product: Callable[[], object],
    peer: Callable[[], float | None],
    rounds: int,
    note: str = "",
    work: Work | None = None,
    *,
    processor: bool = False,
) -> Measured:
    """Run product and peer in turn, after one run of each that does not count.

    A peer that measures itself returns its seconds; if `processor`, all are those of the processor.
    """
    clock = time.process_time if processor else time.perf_counter
    figures: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 1):
        for kept, run in zip(figures, (product, peer), strict=True):
            time.sleep(_PAUSE)
            start = clock()
            reported = run()
            elapsed = clock() - start
            if number:
                kept.append(reported if isinstance(reported, float) else elapsed)
    return Measured(*figures, note=note, work=work, processor=processor)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let kernels use that many threads."""
    before = os.environ.get("WORKBENCH_THREADS")
    os.environ["WORKBENCH_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WORKBENCH_THREADS"]
        else:
            os.environ["WORKBENCH_THREADS"] = before
