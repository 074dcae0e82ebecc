"""A bad channel, head or block stands out in the breakdown of a cell that as a whole looks fine."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from kernels.forward import forward
from kernels.measures import summarise
from kernels.metrics import profile
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import SPINE, Site
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_model
from workbench.bisect.models.breakdown import SUPER_BLOCK, break_down, local_breakdown, times_median
from workbench.bisect.models.cell import Cell
from workbench.bisect.models.substitution import Factors

TOKENS = (3, 1, 4, 1, 5, 9, 2)
MODEL = tiny_model("qwen2", "F32", layers=1, hidden=640, heads=4, head_dim=32, ffn=512)
GATE = "model.layers.0.mlp.gate_proj.weight"
F32 = numeric_path("f32")


def changed(name, change):
    """MODEL with one tensor's float32 values changed in place by `change`."""
    values = dequantize(MODEL.weight(name)).copy()
    change(values)
    other = copy.copy(MODEL)
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(MODEL.weight(name).rows.shape)
    other.weights = MODEL.weights | {name: Weight(name, TensorType.F32, values.shape, rows)}
    return other


def broken_down(model, stage, paths=("f32", "f32")):
    a, b = Factors.of(MODEL, numeric_path(paths[0])), Factors.of(model, numeric_path(paths[1]))
    values = {site.stage: y for site, y in forward(MODEL, TOKENS, F32)}
    inputs = values | {"layer_input": values["embedding"]}
    layer = None if stage in ("embedding", "final_norm", "lm_head") else 0
    return local_breakdown(cell(Site(layer, stage), a, b, TOKENS, inputs)), inputs


def cell(site, a, b, tokens, values):
    stage = Graph(a.config).stage(site)
    x = {role: values[name] for role, name in stage.inputs.items() if name in values}
    return Cell(stage, a, b, tokens, x, x, values[site.stage], values[site.stage])


def test_one_bad_channel_that_hides_at_cosine_0_9998_stands_out():
    def noise(values):
        rng = np.random.default_rng(5)
        values *= 1 + 1e-4 * rng.standard_normal(values.shape).astype(np.float32)
        values[77] *= np.float32(0.6)

    found, inputs = broken_down(changed(GATE, noise), "ffn_gate")
    right = inputs["ffn_gate"]
    whole = summarise(profile(right, (right + found.error).astype(np.float32)))
    assert 1 - whole.one_minus_cosine > 0.9998
    multiples = times_median(found.per_channel())
    assert multiples.argmax() == 77
    assert multiples[77] > 500
    assert np.delete(multiples, 77).max() < 5
    assert times_median(found.per_token()).max() < 5


def test_one_bad_block_is_found_in_the_grid():
    def flip(values):
        values[301, SUPER_BLOCK : 2 * SUPER_BLOCK] *= -1

    found, inputs = broken_down(changed(GATE, flip), "ffn_gate")
    assert found.blocks.shape == (512, 3)
    assert [axis.tolist() for axis in np.nonzero(found.blocks)] == [[301], [1]]
    assert found.blocks[301, 1] == pytest.approx(found.per_channel()[301], rel=1e-5)
    x, w = inputs["ffn_norm"][:, 256:512].astype(np.float64), dequantize(MODEL.weight(GATE))[301, 256:512]
    assert found.blocks[301, 1] == pytest.approx(np.sqrt(np.mean((2 * x @ w) ** 2)))


def test_blocks_see_the_rounding_of_activations():
    """On two paths of one quantized model the parts add up to the very error of the stage."""
    model = tiny_model("llama", "Q8_0", layers=1)
    values = {site.stage: y for site, y in forward(model, TOKENS[:1], F32)}
    a, b = (Factors.of(model, numeric_path(path)) for path in ("f32", "ggml"))
    found = local_breakdown(cell(Site(0, "ffn_gate"), a, b, TOKENS[:1], values))
    assert model.config.hidden_size <= SUPER_BLOCK  # one block: its part is the whole
    assert found.per_channel() == pytest.approx(found.blocks[:, 0], rel=1e-3, abs=1e-7)
    assert found.blocks.min() > 0


def test_one_bad_head_is_named():
    def scramble(values):
        values[32:64] = values[32:64][::-1].copy()

    found, _ = broken_down(changed("model.layers.0.self_attn.k_proj.weight", scramble), "qkv_matmul")
    assert found.heads == ("q0", "q1", "q2", "q3", "k0", "k1", "v0", "v1")
    assert found.heads[int(found.per_head().argmax())] == "k1"
    assert np.count_nonzero(found.per_head()) == 1
    assert times_median(found.per_head())[5] == np.inf
    assert found.blocks.shape == (256, 3)


def test_a_side_without_biases_passes_the_product_on():
    bare = replace(MODEL, weights={n: w for n, w in MODEL.weights.items() if not n.endswith(".bias")})
    found, inputs = broken_down(bare, "qkv_bias")
    assert np.allclose(found.error, inputs["qkv_matmul"] - inputs["qkv_bias"], atol=1e-6)
    assert found.blocks is None


@pytest.mark.parametrize("stage", [*SPINE, "embedding", "final_norm", "lm_head"])
def test_a_model_against_itself_has_no_error_anywhere(stage):
    found, inputs = broken_down(MODEL, stage)
    assert not found.error.any()
    assert not times_median(found.per_channel()).any()
    assert found.blocks is None or not found.blocks.any()
    assert len(found.per_head()) == len(found.heads)
    assert found.error.shape == inputs[stage].shape


def test_heads_are_named_only_where_channels_are_heads():
    stages = {stage.site.stage: stage for stage in Graph.of(MODEL).layer(0)}
    assert break_down(stages["attention"], np.ones((2, 128))).heads == ("0", "1", "2", "3")
    assert break_down(stages["ffn_gate"], np.ones((2, 512))).heads == ()
