"""Record quantized-weights.npz: unusual weights as ggml's own C functions quantize them.

usage: PYTHONPATH=. .venv-peers/bin/python tests/golden/record_quantized_weights.py
"""

from pathlib import Path

import numpy as np

from kernels.weight import TensorType
from tests.faults.distributions import DISTRIBUTIONS, IMPORTANCES
from tests.faults.engine_quantizer import library, quantize

TYPES = [type for type in TensorType if type.block.elements > 1]
WEIGHTED = {TensorType[name] for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")}  # ggml makes none without importances
UNWEIGHTED = {
    TensorType[name] for name in ("Q8_0", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0")
}  # change nothing
KINDS = ("ternary", "eight levels", "constant rows", "small blocks", "tiny", "mixed rows", "one outlier a row")
ROWS, COLUMNS = 16, 256


def levelled() -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first sub-block is one large value and small ones, two of which outweigh all others; importances."""
    values = np.random.default_rng(1).standard_normal((4 * ROWS, COLUMNS)).astype(np.float32)
    values[:, :32] *= 0.15
    values[:, 2] = values[:, 1] + np.float32(0.01)
    values[:, 0], values[:, 32:64] = 8, 100 * values[:, 32:64]
    importances = np.ones(COLUMNS)
    importances[[1, 2]] = 1e4
    return values, importances


def main() -> None:
    base, found = library(), {}
    values, importances = levelled()
    found["levelled"] = values
    for type in (TensorType.Q4_K, TensorType.Q5_K):
        found[f"levelled|two neighbours|{type.name}"] = quantize(base, values, int(type), importances)
    for seed, kind in enumerate(KINDS):
        rng = np.random.default_rng(seed)
        values = DISTRIBUTIONS[kind](rng, ROWS, COLUMNS)
        found[kind] = values
        for importances in ("none", "two channels"):
            weights = IMPORTANCES[importances](rng, COLUMNS)
            for type in TYPES:
                if (weights is None and type not in WEIGHTED) or (weights is not None and type not in UNWEIGHTED):
                    found[f"{kind}|{importances}|{type.name}"] = quantize(base, values, int(type), weights)
    np.savez_compressed(Path(__file__).with_name("quantized-weights.npz"), **found)


if __name__ == "__main__":
    main()
