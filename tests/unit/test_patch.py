"""Exchanging a part of two models convicts the part that is guilty and acquits all others."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_model
from tests.memory_model import random_model
from workbench.bisect.models.cell import Side
from workbench.bisect.models.patch import (
    Agreement,
    Overlay,
    layer_tensors,
    patch_path,
    patch_settings,
    patch_stage,
    patch_tensors,
)

TOKENS = (3, 1, 4, 1, 5, 9)
MODEL = random_model("qwen2", layers=3)
F32 = numeric_path("f32")
GATE, UP = "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"


def with_weights(weights, model=MODEL):
    other = copy.copy(model)
    other.weights = model.weights | weights
    return other


def scaled(name, factor, model=MODEL):
    values = dequantize(model.weight(name)) * np.float32(factor)
    return {name: Weight(name, TensorType.F32, values.shape, values.view(np.uint8).reshape(len(values), -1))}


def side(model, path="f32"):
    return Side(model, numeric_path(path))


def logits(model, path=F32):
    return dict(forward(model, TOKENS, path))[Site(None, "lm_head")]


GUILTY = side(with_weights(scaled(GATE, 1.3)))
A = side(MODEL)


def test_the_guilty_tensor_is_convicted_by_both_swaps_and_every_other_acquitted():
    found = patch_tensors(A, GUILTY, frozenset([GATE]), GATE, TOKENS)
    assert found.b.to_a.kl_mean > 1e-4
    assert found.left == 0.0
    assert found.brought == 1.0
    assert found.b_patched.to_a.identical
    assert found.a_patched.to_b.identical
    assert found.both.kl_mean > 1e-4
    other = patch_tensors(A, GUILTY, frozenset([UP]), UP, TOKENS)
    assert (other.left, other.brought, other.matters) == (1.0, 0.0, False)
    assert found.matters


def test_two_faults_each_bear_a_part():
    b = side(with_weights(scaled(GATE, 1.3) | scaled(UP.replace("layers.1", "layers.2"), 0.8)))
    one = patch_tensors(A, b, frozenset([GATE]), GATE, TOKENS)
    assert 0.02 < one.left < 0.98
    layers = [patch_tensors(A, b, layer_tensors(MODEL, b.model, n), f"layer {n}", TOKENS) for n in range(3)]
    assert layers[0].left == 1.0
    assert (layers[1].left, layers[1].brought) == (one.left, one.brought)
    assert 0 < layers[2].left < 1


def test_kl_and_top1_are_those_of_the_logits():
    run, other = logits(GUILTY.model).astype(np.float64), logits(MODEL).astype(np.float64)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (run, other))
    kl = (p * np.log(p / q)).sum(axis=1)
    found = Agreement.of(run, other)
    assert found.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert found.kl_max == pytest.approx(kl.max(), rel=1e-4)
    assert found.top1_changed == (run.argmax(axis=1) != other.argmax(axis=1)).sum()
    assert found.rel_rms == pytest.approx(np.linalg.norm(run - other) / np.linalg.norm(other))
    assert Agreement.of(np.full_like(run, np.nan), other).kl_mean is None


@pytest.mark.parametrize(
    ("layer", "stage", "left"),
    [
        (0, "layer_output", 1.0),  # before the fault, nothing is different yet
        (1, "ffn_norm", 1.0),
        (1, "ffn_gate", 0.0),  # from the fault on, all of it passes through these
        (1, "ffn_swigl", 0.0),
        (1, "layer_output", 0.0),
        (2, "post_ffn_residual", 0.0),
        (None, "final_norm", 0.0),
        (None, "lm_head", 0.0),
        (None, "embedding", 1.0),
    ],
)
def test_the_values_of_a_stage_carry_the_fault_from_where_it_happens(layer, stage, left):
    found = patch_stage(A, GUILTY, Site(layer, stage), TOKENS)
    assert found.left == left
    assert found.brought == 1 - left


def test_a_branch_carries_only_its_share():
    found = patch_stage(A, GUILTY, Site(2, "attention"), TOKENS)
    assert 0 < found.left < 1.5
    assert found.matters


def test_paths_and_weights_in_all_four_combinations():
    model = tiny_model("qwen2", "Q4_K", layers=2)
    other = with_weights(scaled(GATE, 1.0, model), model)  # the same values, but F32 is not rounded to 8 bits
    found = patch_path(side(model, "ggml"), side(other, "f32"), TOKENS)
    expected = {
        "A": logits(model, numeric_path("ggml")),
        "B": logits(other, F32),
        "A with B's numeric path": logits(model, F32),
        "B with A's numeric path": logits(other, numeric_path("ggml")),
    }
    exact = logits(model, numeric_path("f64"))
    for run in found.runs:
        y = expected[run.name].astype(np.float64)
        assert run.to_exact.rel_rms == pytest.approx(np.linalg.norm(y - exact) / np.linalg.norm(exact))
    assert found.a_patched.to_exact.rel_rms < 1e-5 < found.a.to_exact.rel_rms
    with pytest.raises(WorkbenchError, match="both sides run on path f32"):
        patch_path(side(model), side(other), TOKENS)


def test_settings_that_differ_are_exchanged_and_nothing_else():
    other = replace(MODEL, config=replace(MODEL.config, rope_theta=123.0, rms_norm_eps=1e-3))
    found = patch_settings(A, side(other), TOKENS)
    assert found.part == "rms_norm_eps, rope_theta"
    assert (found.left, found.brought) == (0.0, 1.0)
    assert found.b_patched.to_a.identical
    assert found.a_patched.to_b.identical
    with pytest.raises(WorkbenchError, match="the same settings"):
        patch_settings(A, GUILTY, TOKENS)


def test_a_missing_bias_can_be_put_back_and_taken_away():
    gone = frozenset(n for n in MODEL.weights if n.startswith("model.layers.1.") and n.endswith(".bias"))
    bare = replace(MODEL, weights={n: w for n, w in MODEL.weights.items() if n not in gone})
    assert len(gone) == 3
    found = patch_tensors(A, side(bare), gone, "biases", TOKENS)
    assert found.left == 0.0
    assert found.brought == 1.0
    with pytest.raises(WorkbenchError, match="B has no stage layer 1 qkv_bias"):
        patch_stage(A, side(bare), Site(1, "qkv_bias"), TOKENS)


def test_a_tied_head_goes_with_its_embedding():
    tied, other = (random_model("llama", layers=1, tied=True, seed=seed) for seed in (0, 1))
    both = Overlay(tied, other, frozenset(["model.embed_tokens.weight"]))
    assert both.weight("lm_head.weight").rows is other.weight("model.embed_tokens.weight").rows
    head = Overlay(tied, other, frozenset(["lm_head.weight"]))
    assert head.weight("model.embed_tokens.weight").rows is tied.weight("model.embed_tokens.weight").rows
    assert head.weight("lm_head.weight").rows is other.weight("model.embed_tokens.weight").rows


def test_what_cannot_be_exchanged_is_said():
    with pytest.raises(WorkbenchError, match="neither A nor B has a tensor nonsense"):
        patch_tensors(A, GUILTY, frozenset(["nonsense"]), "nonsense", TOKENS)
    with pytest.raises(WorkbenchError, match="no layer 3; the layers are 0 to 2"):
        layer_tensors(MODEL, MODEL, 3)
    with pytest.raises(WorkbenchError, match="no layer 7"):
        patch_stage(A, GUILTY, Site(7, "ffn_gate"), TOKENS)
    wide = side(random_model("qwen2", layers=3, ffn=128))
    with pytest.raises(WorkbenchError, match="intermediate_size is 96 in A and 128 in B"):
        patch_stage(A, wide, Site(1, "ffn_gate"), TOKENS)
    with pytest.raises(WorkbenchError, match=r"mlp.gate_proj.weight has shape \(96, 64\) in A and \(128, 64\) in B"):
        patch_tensors(A, wide, frozenset([GATE]), GATE, TOKENS)


def test_progress_is_told_and_nothing_is_changed():
    before = {name: weight.rows.copy() for name, weight in MODEL.weights.items()}
    seen = []
    patch_tensors(A, GUILTY, frozenset([GATE]), GATE, TOKENS, lambda *facts: seen.append(facts))
    assert {total for _, total, _ in seen} == {3}
    assert {text for *_, text in seen} == {
        "layers of " + r for r in ("A", "B", f"A with B's {GATE}", f"B with A's {GATE}")
    }
    assert all((before[name] == weight.rows).all() for name, weight in MODEL.weights.items())
