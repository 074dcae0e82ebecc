"""Write stage-hashes.json: what every stage of small models is, bit for bit, on all numeric paths.

usage: python -m tests.golden.record_stage_hashes (from the root of the project)

Only where bits are meant to change: whoever restructures the forward keeps them. The hashes belong to one set of
elementary functions (exponentials, cosines, powers), which NumPy and the C library may compute differently elsewhere.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from kernels.config import ModelConfig
from kernels.forward import forward
from kernels.ops import rope_angles_f32, rotate, silu
from kernels.paths import numeric_path
from tests.artifacts import tiny_model

HASHES = Path(__file__).with_name("stage-hashes.json")
RUNS = [
    f"{arch} {type} {path}"
    for arch in ("llama", "qwen2")
    for type, path in (("F16", "f64"), ("BF16", "f32"), ("Q8_0", "ggml"), ("Q6_K", "ggml"), ("Q4_K", "apr"))
]


def stage_hashes(run: str) -> dict[str, str]:
    """Site -> first digits of the SHA-256 of its values."""
    arch, type, path = run.split()
    model = tiny_model(arch, type, layers=2)
    return {
        str(site): hashlib.sha256(values.tobytes()).hexdigest()[:16]
        for site, values in forward(model, tuple(range(3, 14)), numeric_path(path))
    }


def elementary_functions() -> str:
    """What tells one set of elementary functions from another."""
    grid = np.linspace(-9, 9, 4096).reshape(8, 512)
    config: ModelConfig = tiny_model("llama", "F32", layers=1).config
    angles = rope_angles_f32(np.arange(8), config)
    single = np.ascontiguousarray(grid, np.float32)
    found = (silu(grid), silu(single), angles, rotate(single, angles, config), np.exp(grid))
    return hashlib.sha256(b"".join(values.tobytes() for values in found)).hexdigest()[:16]


if __name__ == "__main__":
    record = {"elementary functions": elementary_functions(), **{run: stage_hashes(run) for run in RUNS}}
    HASHES.write_text(json.dumps(record, indent=1) + "\n")
