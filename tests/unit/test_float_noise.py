"""How far two right engines may be apart: engines that compute in another order, or keep a weight otherwise."""

import numpy as np
import pytest

from kernels.paths import numeric_path
from kernels.precision import BFLOAT16, FLOAT16, FLOAT32, Precision
from tests.artifacts import tiny_model
from tests.memory_model import place
from workbench.bisect.traces.noise import float_noise
from workbench.cells.limit import LIMIT

TOKENS = (3, 17, 90, 4, 55, 21, 8)


def kept(x: np.ndarray, precision: Precision) -> np.ndarray:
    """Values as a type of 16 bits keeps them."""
    if precision is FLOAT16:
        return x.astype(np.float16).astype(np.float32)
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def off(values: np.ndarray, right: np.ndarray, noise: np.ndarray) -> float:
    """Root mean square over the tokens in units of the noise, of the worst channel."""
    return float(np.sqrt(np.square((values - right) / noise).mean(axis=0)).max())


def test_gelu_of_negative_values_errs_by_what_is_rounded_of_its_bracket():
    """The formula in float32, operation by operation, as transformers computes it."""
    at = place(tiny_model("gemma3", ffn=512), numeric_path("f32"), TOKENS, 0, "ffn_silu")
    gate = np.linspace(-5.5, 3, len(TOKENS) * 512, dtype=np.float32).reshape(512, -1).T.copy()
    half, one, root, cube = (np.float32(c) for c in (0.5, 1, 0.7978845608, 0.044715))
    wide = gate.astype(np.float64)
    right = at.kind.of(wide)
    noise = float_noise(at, {"x": gate}, right, FLOAT32)
    literal = half * gate * (one + np.tanh(root * (gate + cube * gate * gate * gate)))
    assert off(literal, right, noise) < LIMIT
    assert off(at.kind.of(wide * (1 + 1e-5)), right, noise) > LIMIT


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT16], ids=lambda precision: precision.name)
@pytest.mark.parametrize("stage", ["attn_norm", "k_norm", "post_ffn_norm", "final_norm"])
def test_a_norm_weight_near_zero_that_is_kept_less_one(stage, precision):
    """transformers keeps weights of gemma3 less 1 in the type of the run: what is left of one near 0 is coarse."""
    model = tiny_model("gemma3", kv_heads=1, tied=True)
    at = place(model, numeric_path("f32"), TOKENS, None if stage == "final_norm" else 1, stage)
    (name,) = at.stage.tensors
    weight = model.values()[name]
    weight[3:6] = (0.0, 1e-3, -2e-3)
    model.weights[name].rows.view(np.float32)[:] = weight
    x = np.random.default_rng(0).standard_normal((len(TOKENS), 2 * model.config.q_size)).astype(np.float32)
    x = x if at.kind.head_dim else np.ascontiguousarray(x[:, : model.config.hidden_size])
    right = at.kind.evaluate(at, {"x": x}).astype(np.float64)
    noise = float_noise(at, {"x": x}, right, precision)
    normed = at.kind.rows(x.astype(np.float64))
    normed /= np.sqrt(np.square(normed).mean(axis=1, keepdims=True) + at.kind.eps)

    def recorded(weight: np.ndarray) -> np.ndarray:
        return kept((normed * weight).reshape(right.shape), precision)

    assert off(recorded(1 + kept(weight - 1, precision)), right, noise) < LIMIT
    assert off(recorded(weight + 0.25 * (weight > 0)), right, noise) > LIMIT
