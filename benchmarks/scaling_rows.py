"""How cost grows: with layers, with tokens, and the memory of a capture with layers; three sizes of each."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.forward_rows import some_tokens
from benchmarks.processes import WORKBENCH, run_watched
from benchmarks.rows import Bench, Measured, Row, threads
from benchmarks.shapes import TINYLLAMA
from kernels.forward import forward
from kernels.machine.compiler import compile_all
from kernels.paths import numeric_path
from store.open import open_artifact

_LAYERS = (11, 22, 44)
_TOKENS = (32, 64, 128)


def rows() -> list[Row]:
    """All rows about growth; 1 is linear, or no growth at all for the memory."""
    return [
        Row("growth-layers", "cost of one more layer, 22-44 to 11-22", "", 1.25, 1.1, _by_layers),
        Row("growth-tokens", "cost of one more token, 64-128 to 32-64", "", 1.25, 1.1, _by_tokens),
        Row("memory-layers", "memory of a trace, 44 to 11 layers", "", 1.1, 1.05, _memory),
    ]


def _model(bench: Bench, layers: int) -> Path:
    """A Q4_K model of the 1.1B shape with so many layers."""
    return bench.models.gguf(f"1.1b-{layers}", replace(TINYLLAMA, num_hidden_layers=layers), "Q4_K")


def _by_layers(bench: Bench) -> Measured:
    models = {layers: open_artifact(_model(bench, layers)) for layers in _LAYERS}
    return _growth(bench, _LAYERS, lambda layers: list(forward(models[layers], some_tokens(7), numeric_path("ggml"))))


def _by_tokens(bench: Bench) -> Measured:
    model = open_artifact(_model(bench, _LAYERS[0]))
    return _growth(bench, _TOKENS, lambda count: list(forward(model, some_tokens(count), numeric_path("ggml"))))


def _growth(bench: Bench, sizes: tuple[int, int, int], run: Callable[[int], object]) -> Measured:
    """Cost of one more unit between the larger two sizes over that between the smaller two; all in turn.

    Cost is the least processor time of all threads among the rounds, which other programs disturb least.
    """
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    with threads(bench.threads):
        for number in range(bench.rounds + 1):
            for size in sizes:
                start = time.process_time()
                run(size)
                if number:
                    seconds[size].append(time.process_time() - start)
    small, middle, large = (min(seconds[size]) for size in sizes)
    grown = ((large - middle) / (sizes[2] - sizes[1])) / ((middle - small) / (sizes[1] - sizes[0]))
    figures = ", ".join(f"{size}: {min(seconds[size]):.3f} s" for size in sizes)
    return Measured([grown], unit="x", note=figures)


def _memory(bench: Bench) -> Measured:
    """Largest memory beyond mapped file pages while a trace of 64 tokens is written."""
    compile_all()
    held = []
    for layers in _LAYERS:
        with tempfile.TemporaryDirectory(dir=bench.models.folder) as folder:
            tokens = ",".join(map(str, some_tokens(64)))
            out = str(Path(folder) / "trace.h5")
            command = [*WORKBENCH, "trace", str(_model(bench, layers)), "--tokens", tokens, "-o", out]
            held.append(run_watched(command, {"WORKBENCH_THREADS": str(bench.threads)}).memory)
    note = ", ".join(f"{layers} layers: {size / 1e6:.0f} MB" for layers, size in zip(_LAYERS, held, strict=True))
    return Measured([held[-1] / held[0]], unit="x", note=note)
