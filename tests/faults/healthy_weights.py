"""Healthy copies of models whose weights are unusual, quantized by the engine with unusual importance matrices."""

import subprocess
import zlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from store.names import gguf_name
from tests.faults import engine_quantizer
from tests.faults.cases import Case, Prepared
from tests.faults.distributions import DISTRIBUTIONS, IMPORTANCES
from tests.faults.models import Plain
from tests.faults.storing import FORMATS, stored, write
from tests.memory_model import random_model

_LAYERS = 29  # of seven matrices, each another draw: 203
_SIZES = {"heads": 8, "kv_heads": 2, "head_dim": 32, "hidden": 256, "ffn": 256, "vocab": 160}  # whole super-blocks
_SOURCES = ("st-f32", "gguf-f16")
_FLOATS = ("gguf-f16", "gguf-bf16")
_FTYPES = {  # number of the llama_ftype, and whether all matrices have one type
    "gguf-q8_0": (7, True),
    "gguf-q4_0": (2, True),
    "gguf-q4_1": (3, True),
    "gguf-q5_0": (8, True),
    "gguf-q5_1": (9, True),
    "gguf-q4_k": (14, True),
    "gguf-q5_k": (16, True),
    "gguf-q6_k": (18, True),
    "gguf-q4_k_m": (15, False),
    "gguf-q5_k_m": (17, False),
}


def healthy_weights(python: str | None) -> Iterator[Case]:
    """200 draws of every distribution in every format, with and without importances; by the engine where it is there.

    python : an interpreter with llama-cpp-python.
    """
    for number, distribution in enumerate(DISTRIBUTIONS):
        for copy in (*_FLOATS, *_FTYPES):
            for importances in IMPORTANCES if python and copy in _FTYPES else ("none",):
                if python or copy in FORMATS:
                    source = _SOURCES[number % 2] if importances == "none" and copy != "gguf-f16" else _SOURCES[0]
                    prepare = partial(_prepare, distribution, source, copy, importances, python)
                    kind, place = f"healthy weights {distribution}", f"importances {importances}"
                    yield Case(kind, place, distribution, f"{source} {copy}", None, prepare)


@cache
def drawn(distribution: str, seed: int = 0) -> Plain:
    """A deep model whose matrices are draws of a distribution."""
    model = random_model("qwen2", layers=_LAYERS, tied=False, seed=seed, **_SIZES)
    draw, values = DISTRIBUTIONS[distribution], {}
    for name, value in model.values().items():
        rng = np.random.default_rng([seed, zlib.crc32(f"{distribution} {name}".encode())])
        values[name] = draw(rng, *value.shape) if value.ndim == 2 else value
    return Plain(distribution, model.config, values)


def _prepare(distribution: str, a: str, b: str, importances: str, python: str | None, folder: Path) -> Prepared:
    model = drawn(distribution)
    source = write(stored(model, FORMATS[a]), FORMATS[a], folder / "a")
    if python and b in _FTYPES:
        return Prepared(source, by_engine(model, b, importances, python, folder), model.tokens())
    return Prepared(source, write(stored(model, FORMATS[b]), FORMATS[b], folder / "b"), model.tokens())


def by_engine(model: Plain, copy: str, importances: str, python: str, folder: Path) -> Path:
    """The model as llama.cpp quantizes it, every matrix with importances of its own."""
    whole = write(stored(model, FORMATS["gguf-f32"]), FORMATS["gguf-f32"], folder / "whole")
    drawn_importances = {}
    for name, values in model.values.items():
        weights = IMPORTANCES[importances](np.random.default_rng(zlib.crc32(name.encode())), values.shape[-1])
        if values.ndim == 2 and weights is not None:
            drawn_importances[gguf_name(name)] = weights.astype(np.float32)
    ftype, pure = _FTYPES[copy]
    command = [python, engine_quantizer.__file__, str(whole), str(folder / "b.gguf"), str(ftype)]
    command += ["--pure"] if pure else []
    if drawn_importances:
        np.savez(folder / "importances.npz", **drawn_importances)  # type: ignore[arg-type]
        command += ["--importances", str(folder / "importances.npz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return folder / "b.gguf"
