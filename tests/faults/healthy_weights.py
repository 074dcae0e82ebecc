"""Healthy copies of models whose weights are unusual, quantized by the engine with unusual importance matrices."""

import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kernels.weight import Weight
from tests.faults import engine_quantizer
from tests.faults.cases import Case, Prepared
from tests.faults.distributions import DISTRIBUTIONS, IMPORTANCES
from tests.faults.models import Plain, plain
from tests.faults.storing import FORMATS, Format, stored, type_of, write
from tests.memory_model import MemoryModel

_MODEL = "qwen2-4to1"  # rows of whole super-blocks
_SOURCES = ("st-f32", "gguf-f16")
_COPIES = (
    *("gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_0", "gguf-q5_0", "gguf-q4_k", "gguf-q5_k", "gguf-q6_k"),
    *("gguf-q4_k_m", "gguf-q4_1", "gguf-q5_1"),
)
_UNWEIGHTED = ("gguf-f16", "gguf-bf16", "gguf-q8_0")  # importances change nothing


def healthy_weights(python: str | None) -> Iterator[Case]:
    """Every distribution in every format, with and without importances; of the engine's making where it is there.

    python : an interpreter with llama-cpp-python.
    """
    for number, distribution in enumerate(DISTRIBUTIONS):
        model = drawn(distribution)
        for copy in _COPIES:
            for importances in IMPORTANCES if python and copy not in _UNWEIGHTED else ("none",):
                source = _SOURCES[number % 2] if importances == "none" and copy != "gguf-f16" else _SOURCES[0]
                prepare = partial(_prepare, model, source, copy, importances, python)
                kind = f"healthy weights {distribution}"
                yield Case(kind, f"importances {importances}", model.name, f"{source} {copy}", None, prepare)


def drawn(distribution: str, seed: int = 0) -> Plain:
    """A model whose matrices are draws of a distribution."""
    model = plain(_MODEL)
    draw, values = DISTRIBUTIONS[distribution], {}
    for name, value in model.values.items():
        rng = np.random.default_rng([seed, zlib.crc32(f"{distribution} {name}".encode())])
        values[name] = draw(rng, *value.shape) if value.ndim == 2 else value
    return replace(model, name=f"{_MODEL} {distribution}", values=values)


def _prepare(model: Plain, a: str, b: str, importances: str, python: str | None, folder: Path) -> Prepared:
    source = stored(model, FORMATS[a])
    copy = stored(model, FORMATS[b])
    if python:
        copy = by_engine(model, FORMATS[b], importances, python, folder)
    paths = write(source, FORMATS[a], folder / "a"), write(copy, FORMATS[b], folder / "b")
    return Prepared(*paths, model.tokens())


def by_engine(model: Plain, format: Format, importances: str, python: str, folder: Path) -> MemoryModel:
    """The model as ggml quantizes it, every matrix with importances of its own."""
    jobs: dict[str, np.ndarray] = {}
    for name, values in model.values.items():
        if values.ndim == 2:
            jobs |= {f"x|{name}": values, f"type|{name}": np.array(int(type_of(name, values, format)))}
            weights = IMPORTANCES[importances](np.random.default_rng(zlib.crc32(name.encode())), values.shape[1])
            jobs |= {} if weights is None else {f"w|{name}": weights}
    np.savez(folder / "jobs.npz", **jobs)  # type: ignore[arg-type]
    command = [python, engine_quantizer.__file__, str(folder / "jobs.npz"), str(folder / "rows.npz")]
    subprocess.run(command, check=True, cwd=folder)
    plain_model = stored(model, FORMATS["gguf-f32"])
    with np.load(folder / "rows.npz") as rows:
        matrices = {
            name: Weight(name, type_of(name, values, format), values.shape, rows[name])
            for name, values in model.values.items()
            if values.ndim == 2
        }
    return MemoryModel(model.config, plain_model.weights | matrices)
