"""The numeric paths: which arithmetic each operation of the forward uses.

`f64`  the oracle: every operation in float64 over the weights' float32 values.
`f32`  dequantized weights, then float32, as transformers in float32.
`ggml` what llama.cpp's CPU backend computes: 8-bit activations into every quantized matmul, bit for bit.
`apr`  what APR's CPU inference computes: its own 8-bit rule for Q4_K and Q6_K, float32 for Q, K and V projections.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import ops
from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from kernels.matmul import apr as matmul_apr
from kernels.matmul import ggml as matmul_ggml
from kernels.matmul.activations import Codes
from kernels.matmul.floats import matmul_f32, matmul_f64
from kernels.rows.dequantize import dequantize, dequantize_rows
from kernels.weight import Weight

Array = NDArray[Any]


class F32Path:
    """float32 arithmetic on dequantized weights; the base of the other paths, which replace what differs."""

    name = "f32"
    dtype: type[np.floating[Any]] = np.float32

    def settings(self) -> dict[str, str]:
        """What a run on this path must record to be comparable."""
        return {"activations": "float32", "kv": "float32", "sums": "float32, re-ordered"}

    def embed(self, weight: Weight, tokens: NDArray[np.int64]) -> Array:
        """Rows `tokens` of the embedding matrix: (tokens, hidden)."""
        rows = np.ascontiguousarray(weight.rows[tokens])
        return dequantize_rows(weight.type, rows, weight.shape[1]).astype(self.dtype, copy=False)

    def vector(self, weight: Weight) -> Array:
        """A norm weight or bias as a 1-D array."""
        return dequantize(weight).astype(self.dtype, copy=False)

    def rms_norm(self, x: Array, weight: Weight, eps: float) -> Array:
        """RMS norm over channels, times the norm weight."""
        return ops.rms_norm(x, self.vector(weight), eps)

    def matmul(self, x: Array, *weights: Weight) -> Array:
        """X @ W.T for each weight, side by side: (tokens, all outs)."""
        return matmul_f32(x, *weights)

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:  # noqa: ARG002 - floats by default
        """The 8-bit codes of x that `matmul` with this weight works on, or None where it keeps floats."""
        return None

    def kept_activations(self, x: Array, weight: Weight) -> Array:  # noqa: ARG002
        """The float activations that `matmul` multiplies where it makes no codes; x itself if nothing is rounded."""
        return x

    def rope_angles(self, positions: NDArray[np.int64], config: ModelConfig) -> Array:
        """Rotation angles (tokens, head_dim/2)."""
        return ops.rope_angles_f32(positions, config)

    def attention(self, q: Array, k: Array, v: Array, config: ModelConfig) -> Array:
        """Grouped-query attention, before the output projection."""
        return ops.attention(q, k, v, config)

    def silu(self, x: Array) -> Array:
        """X * sigmoid(x)."""
        return ops.silu(x)


class F64Path(F32Path):
    """The oracle."""

    name = "f64"
    dtype = np.float64

    def settings(self) -> dict[str, str]:
        return {"activations": "float64", "kv": "float64", "sums": "float64, re-ordered"}

    def matmul(self, x: Array, *weights: Weight) -> Array:
        return matmul_f64(x, *weights)

    def rope_angles(self, positions: NDArray[np.int64], config: ModelConfig) -> Array:
        return ops.rope_angles_f64(positions, config)


class GgmlPath(F32Path):
    """llama.cpp, CPU, with repack, tiled matmul and flash attention off and a float32 KV cache."""

    name = "ggml"

    def settings(self) -> dict[str, str]:
        return {
            "activations": "Q8_K/Q8_0 by weight type; F16/BF16 weights round them to that type",
            "kv": "float32",
            "sums": "AVX2 order of ggml_vec_dot",
            "repack": "off",
            "flash_attention": "off",
        }

    def rms_norm(self, x: Array, weight: Weight, eps: float) -> Array:
        return ops.rms_norm_ggml(x, self.vector(weight), eps)

    def matmul(self, x: Array, *weights: Weight) -> Array:
        return matmul_ggml.matmul_ggml(x, *weights)

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:
        return matmul_ggml.round_activations(x, weight.type)

    def kept_activations(self, x: Array, weight: Weight) -> Array:
        return matmul_ggml.rounded_to(x, weight.type)

    def rope_angles(self, positions: NDArray[np.int64], config: ModelConfig) -> Array:
        return ops.rope_angles_ggml(positions, config)


class AprPath(F32Path):
    """APR's CPU inference (aprender-serve) on its traced forward."""

    name = "apr"

    def settings(self) -> dict[str, str]:
        return {
            "activations": "APR Q8_K (positive scale, half away from zero) for Q4_K/Q6_K; float32 for Q, K, V",
            "kv": "float32",
            "sums": "eight fma lanes",
        }

    def rms_norm(self, x: Array, weight: Weight, eps: float) -> Array:
        return ops.rms_norm_apr(x, self.vector(weight), eps)

    def matmul(self, x: Array, *weights: Weight) -> Array:
        return matmul_apr.matmul_apr(x, *weights)

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:
        return matmul_apr.round_activations(x, weight)


_PATHS: dict[str, F32Path] = {path.name: path for path in (F64Path(), F32Path(), GgmlPath(), AprPath())}
PATHS: tuple[str, ...] = tuple(_PATHS)


def numeric_path(name: str) -> F32Path:
    """The path of that name; WorkbenchError names the known ones."""
    if name not in _PATHS:
        raise WorkbenchError(f"numeric path {name!r} is not known; use one of {', '.join(PATHS)}")
    return _PATHS[name]
