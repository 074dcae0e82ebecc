"""`python -m benchmarks.profile A B`: where the processor time of a capture goes, on one thread, by area of code."""

import argparse
import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.forward_rows import some_tokens
from benchmarks.rows import threads
from kernels.machine.compiler import compile_all
from workbench.capture.job import CaptureJob
from workbench.capture.lockstep import capture
from workbench.pair.sides import pair_sides
from workbench.session.session import Side

# Area by the start of a file's name and of a function's; the first that fits.
_AREAS = (
    ("kernels/matmul_", "", "matmul: unpack and dot"),
    ("kernels/matmul/activations.py", "", "rounding activations to 8 bits"),
    ("kernels/ops.py", "_attention", "attention"),
    ("kernels/ops.py", "attention", "attention"),
    ("kernels/", "embedding", "other stages"),
    ("kernels/metrics.py", "", "metrics"),
    ("kernels/measures.py", "", "metrics"),
    ("workbench/cells/compare.py", "", "metrics"),
    ("workbench/cells/flips.py", "", "metrics"),
    ("store/traces/hdf5_writer.py", "", "HDF5"),
    ("store/", "sha256", "hash"),
    ("store/", "", "opening files"),
    ("kernels/machine/compiler.py", "", "loading compiled kernels"),
    ("kernels/", "", "other stages"),
    ("workbench/", "", "rest"),
)
_ROOT = str(Path(__file__).resolve().parents[1]) + "/"

Function = tuple[str, int, str]
Entry = tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]  # as pstats has it


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    arguments.add_argument("a", type=Path)
    arguments.add_argument("b", type=Path)
    arguments.add_argument("--tokens", type=int, default=7)
    given = arguments.parse_args()
    a, b, tokens = pair_sides((given.a, given.b), (None, None), some_tokens(given.tokens), None)
    with threads(1):
        compile_all()
        _profiled(a, b, tokens.ids)  # once for page cache and hashes
        areas, seconds = _profiled(a, b, tokens.ids)
    total = sum(areas.values())
    for area, spent in sorted(areas.items(), key=lambda known: -known[1]):
        print(f"{area:<32} {spent:8.2f} s {spent / total:6.1%}")  # noqa: T201
    print(f"{'processor time of the thread':<32} {total:8.2f} s; wall {seconds:.2f} s")  # noqa: T201


def _profiled(a: Side, b: Side, tokens: tuple[int, ...]) -> tuple[dict[str, float], float]:
    """Processor seconds by area of one capture into a new session folder, and its wall time."""
    profile = cProfile.Profile(time.thread_time)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        profile.runcall(capture, CaptureJob(a, b, tokens, None, Path(folder)), lambda _: None)
        seconds = time.perf_counter() - start
    return _by_area(pstats.Stats(profile).stats), seconds  # type: ignore[attr-defined]


def _by_area(stats: dict[Function, Entry]) -> dict[str, float]:
    """Own time of every function by area; what is not ours, such as NumPy, counts for its callers."""
    areas: defaultdict[str, float] = defaultdict(float)
    for function, (_, _, own, _, callers) in stats.items():
        if _area(function) or not callers:
            areas[_home(stats, function)] += own
        else:
            for caller, entry in callers.items():
                areas[_home(stats, caller)] += entry[2]
    return areas


def _home(stats: dict[Function, Entry], function: Function) -> str:
    """Area of a function, or of the nearest caller that has one, going where it worked longest."""
    passed: set[Function] = set()
    while not (area := _area(function)) and function not in passed and (callers := stats[function][4]):
        passed.add(function)
        function = max(callers, key=lambda caller: callers[caller][3])
    return area or "rest"


def _area(function: Function) -> str:
    """Area of a function of ours by its own place; empty if it works for whoever calls it."""
    path, _, name = function
    file = path.removeprefix(_ROOT)
    fitting = (area for start, begins, area in _AREAS if file.startswith(start) and name.startswith(begins))
    return next(fitting, "") if file != path else ""


if __name__ == "__main__":
    main()
