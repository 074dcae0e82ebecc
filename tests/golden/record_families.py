"""Record what transformers and llama.cpp make of small models of a family: transformers-FAMILY-*.npz, llama-cpp-*.npz.

usage: python -m tests.golden.record_families PYTHON FAMILY... (PYTHON has torch, transformers and llama-cpp-python)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kernels import models
from tests.artifacts import tiny_gguf, tiny_safetensors

GOLDEN = Path(__file__).parent
TOKENS = (5, 100, 7, 7, 31)
SHAPE = {"head_dim": 32, "seed": 5}  # heads that are not hidden / heads wide
TYPE = "Q8_0"


def record(python: str, engine: str, model: Path, output: Path, *more: str) -> dict[str, np.ndarray]:
    """The stages that an engine has of a model, by "LAYER.STAGE"."""
    tokens = ",".join(map(str, TOKENS))
    command = [sys.executable, "-m", "workbench", "record", str(model), "--python", python, "--tokens", tokens]
    subprocess.run([*command, "-o", str(output), "--force", "--engine", engine, *more], check=True)
    from store.traces import open_trace

    trace = open_trace(output)
    return {f"{-1 if s.layer is None else s.layer}.{s.stage}": np.asarray(trace.read(s)) for s in trace.sites()}


def main(python: str, *families: str) -> None:
    """Record every family with every engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in families:
            tiny_safetensors(folder / family, family, **SHAPE)
            for dtype in ("float32", "float64"):
                found = record(python, "transformers", folder / family, folder / "t.npz", "--dtype", dtype)
                np.savez_compressed(GOLDEN / f"transformers-{family}-{dtype}.npz", **found)
            if models.family(family).gguf is not None:
                tiny_gguf(folder / "m.gguf", family, TYPE, layers=1, **SHAPE)
                found = record(python, "llama.cpp", folder / "m.gguf", folder / "l.npz")
                np.savez_compressed(GOLDEN / f"llama-cpp-{family}-{TYPE.lower()}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
