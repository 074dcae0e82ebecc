"""Files: writing a capture, opening a model."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import gguf

from benchmarks.forward_rows import some_tokens
from benchmarks.rows import Bench, Measured, Row, alternate
from benchmarks.shapes import QWEN_7B, shortened
from benchmarks.tensor_rows import layer_tensors
from kernels.config import ModelConfig
from kernels.stages import Site
from store.open import open_artifact
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import RunRecord, describe_machine, now, versions

_TOKENS = 64


def rows() -> list[Row]:
    """All rows about files."""
    return [
        Row("capture", f"capture to HDF5, 7B, {_TOKENS} tokens", "ndarray.tofile, fsync", 1.3, 1.1, _capture),
        Row("open-gguf", "open a GGUF, vocabulary of 152 064", "gguf.GGUFReader", 0.02, 0.005, _open),
    ]


def quick_7b(bench: Bench) -> ModelConfig:
    """The 7B shape."""
    return shortened(QWEN_7B, 2) if bench.quick else QWEN_7B


def seven_billion(bench: Bench) -> Path:
    """The 7B model as a GGUF with a vocabulary."""
    return bench.models.gguf("7b", quick_7b(bench), "Q4_K_M", vocabulary=True)


def _capture(bench: Bench) -> Measured:
    config = quick_7b(bench)
    tensors = list(layer_tensors(config, _TOKENS, 0))
    stored, plain = (bench.models.folder / name for name in ("capture.h5", "capture.bin"))
    run = _run(config)

    def product() -> None:
        stored.unlink(missing_ok=True)
        with TraceWriter(stored, run) as writer:
            for layer in range(config.num_hidden_layers):
                for stage, values in tensors:
                    writer.write(Site(layer, stage), values)
                writer.finish_layer(layer)
            writer.finish()

    def peer() -> None:
        plain.unlink(missing_ok=True)
        with plain.open("wb") as file:
            for _ in range(config.num_hidden_layers):
                for _, values in tensors:
                    values.tofile(file)
            file.flush()
            os.fsync(file.fileno())

    try:
        gigabytes = config.num_hidden_layers * sum(values.nbytes for _, values in tensors) / 1e9
        return alternate(lambda: _quickest(product), lambda: _quickest(peer), bench.rounds, note=f"{gigabytes:.2f} GB")
    finally:
        stored.unlink(missing_ok=True)
        plain.unlink(missing_ok=True)


def _quickest(write: Callable[[], None]) -> float:
    """Seconds of the quickest of three writings.

    A virtual machine gives free memory back to its host, and whoever happens to be first to want it again waits for
    that, as long as for the writing itself. The sum of both sides stays the same; which one waits is chance.
    """
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        write()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _run(config: ModelConfig) -> RunRecord:
    return RunRecord(
        artifact="random",
        format="gguf",
        size=0,
        sha256="0" * 64,
        numeric_path="ggml",
        tokens=some_tokens(_TOKENS),
        prompt=None,
        settings={},
        config=config,
        versions=versions(),
        machine=describe_machine(),
        created=now(),
    )


def _open(bench: Bench) -> Measured:
    model = seven_billion(bench)

    def peer() -> None:
        gguf.GGUFReader(model)

    return alternate(lambda: open_artifact(model), peer, 3)
