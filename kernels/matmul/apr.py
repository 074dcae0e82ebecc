"""x @ W.T as APR's own CPU inference computes it.

Q4_K and Q6_K weights are multiplied with APR's 8-bit activations (positive scale, half away from zero) in the same
order of sums as llama.cpp's; every other type is dequantized and summed in float32 in APR's order (float_dot.py).
"""

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.matmul.activations import RULES, Codes
from kernels.matmul.floats import matmul_f32_apr
from kernels.matmul.ggml import matmul_codes
from kernels.matmul.products import joined
from kernels.weight import Weight

# The traced forward multiplies these with dequantized weights (aprender PR 1550).
FLOAT_PROJECTIONS = ("q_proj.weight", "k_proj.weight", "v_proj.weight")


def round_activations(x: NDArray[np.float32], weight: Weight) -> Codes | None:
    """The 8-bit codes that a matmul with this weight works on, or None where APR keeps floats."""
    format = weight.type.format
    rule = format.apr_activations if isinstance(format, BlockFormat) else None
    return None if rule is None or weight.name.endswith(FLOAT_PROJECTIONS) else RULES[rule](x)


def matmul_apr(x: NDArray[np.float32], *weights: Weight) -> NDArray[np.float32]:
    """x @ W.T with 8-bit activations where APR has them; shapes and dtypes as `matmul_f32_apr`."""
    if all(weight.name.endswith(FLOAT_PROJECTIONS) for weight in weights):
        return matmul_f32_apr(x, *weights)
    return joined([_matmul(x, weight) for weight in weights])


def _matmul(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    codes = round_activations(x, weight)
    return matmul_f32_apr(x, weight) if codes is None else matmul_codes(codes, weight)
