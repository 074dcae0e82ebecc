"""What the user waits for: commands, the first screen, a key, the compiler, a whole pair."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.forward_rows import some_tokens
from benchmarks.limits import Work, forward_work
from benchmarks.processes import ENVIRONMENT, WORKBENCH, Terminal, Watched, run_watched
from benchmarks.rows import Bench, Measured, Row
from benchmarks.shapes import DEEP
from benchmarks.store_rows import seven_billion
from benchmarks.tensor_rows import read_once
from store.open import open_artifact
from workbench.cells.metrics import METRICS

_PATH = b"jjjljjjh" * 13  # on 80 layers every one of these moves gets somewhere, and a few of them scroll
_PAIR_TOKENS = 7


def rows() -> list[Row]:
    """All rows about the product as a whole."""
    pair = "7B pair, apr and ggml, 7 tokens"
    return [
        Row("pair-seconds", f"{pair}: command to map", "public harness: 178 s", 30, 10, _pair_seconds),
        Row("pair-memory", f"{pair}: memory beyond mapped pages", "", 2, 1, _pair_memory),
        Row("help", "workbench --help", "", 0.2, 0.1, _help),
        Row("first-paint", "first paint of open", "", 0.6, 0.3, _first_paint),
        Row("cursor", "cursor move on 80 layers", "", 5, 2.5, _cursor),
        Row("first-run", "first ever run: kernels compiled and cached", "", 11, 6, _first_run),
    ]


def _pair_seconds(bench: Bench) -> Measured:
    gguf = seven_billion(bench)
    sides = [
        forward_work(bench.threads, open_artifact(path), _PAIR_TOKENS, "int8")
        for path in (gguf, bench.models.apr(gguf))
    ]
    work = Work(bench.threads, sum(side.bytes for side in sides), sum(side.operations for side in sides), "int8")
    return Measured([run.seconds for run in _pair(bench)], work=work)


def _pair_memory(bench: Bench) -> Measured:
    return Measured([run.memory / 1e9 for run in _pair(bench)], unit="GB")


_pairs: dict[Bench, list[Watched]] = {}


def _pair(bench: Bench) -> list[Watched]:
    """Captures into a new session; measured once for both rows."""
    if bench not in _pairs:
        gguf = seven_billion(bench)
        models = bench.models.apr(gguf), gguf
        for model in models:
            read_once(model)
        _pairs[bench] = [_open_pair(bench, *map(str, models)) for _ in range(1 if bench.quick else 3)]
    return _pairs[bench]


def _open_pair(bench: Bench, a: str, b: str) -> Watched:
    tokens = ",".join(map(str, some_tokens(_PAIR_TOKENS)))
    command = [*WORKBENCH, "compare", a, b, "--tokens", tokens, "--json"]
    return run_watched(command, {"WORKBENCH_THREADS": str(bench.threads)})


def _help(bench: Bench) -> Measured:
    seconds = []
    for _ in range(bench.rounds + 1):
        start = time.perf_counter()
        subprocess.run([*WORKBENCH, "--help"], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)  # noqa: S603
        seconds.append(time.perf_counter() - start)
    return Measured(seconds[1:])


def _first_paint(bench: Bench) -> Measured:
    """The note says what importing the libraries takes meanwhile, which the product cannot do without."""
    seconds, importing = [], []
    for _ in range(bench.rounds + 1):
        with tempfile.TemporaryDirectory() as folder, _opened(bench, Path(folder)) as terminal:
            seconds.append(_painted(terminal) - terminal.started)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import textual.app, numpy"], check=True, env=ENVIRONMENT)
        importing.append(time.perf_counter() - start)
    return Measured(seconds[1:], note=f"importing Textual and NumPy alone: {statistics.median(importing[1:]):.2f} s")


def _cursor(bench: Bench) -> Measured:
    """Key written to the terminal until the cursor has come back on another cell.

    Both sides are one model, so that every cell says "=", and the one under the cursor "[= ]".
    """
    with tempfile.TemporaryDirectory() as folder, _opened(bench, Path(folder)) as terminal:
        _painted(terminal)
        terminal.settle(3)
        milliseconds = []
        for key in b"l" + _PATH:
            start = time.perf_counter()
            terminal.press(bytes([key]))
            milliseconds.append((terminal.wait_for(lambda text: b"[=" in text, 5) - start) * 1e3)
            terminal.settle(0.05)
        extremes = f"{len(_PATH)} moves, {min(milliseconds[1:]):.1f} to {max(milliseconds[1:]):.1f} ms"
    return Measured(milliseconds[1:], unit="ms", note=extremes)


def _opened(bench: Bench, folder: Path) -> Terminal:
    model = str(bench.models.gguf("deep", DEEP, "Q8_0"))
    command = [*WORKBENCH, "open", model, model, "--tokens", "1,2,3", "--session", str(folder / "session")]
    return Terminal(command, 120, 40, {})


def _painted(terminal: Terminal) -> float:
    """When the map's frame was there: it names the metric that it shows."""
    label = METRICS["std_ratio"].label.encode()
    return terminal.wait_for(lambda text: label in text, 30)


def _first_run(bench: Bench) -> Measured:
    seconds = []
    for _ in range(1 if bench.quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            program = "from kernels.machine.compiler import compile_all; compile_all()"
            run = run_watched([sys.executable, "-c", program], {"NUMBA_CACHE_DIR": cache})
            seconds.append(run.processor if bench.processor else run.seconds)
    return Measured(seconds)
