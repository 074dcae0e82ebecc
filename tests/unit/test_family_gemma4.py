"""gemma4: two kinds of heads, keys that stand for values, a number for every layer; the mistakes that it invites."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.config import FULL, SLIDING
from kernels.errors import WorkbenchError
from kernels.forward import evaluate
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import (
    TOKENS,
    Fault,
    bisected,
    check_named,
    damaged,
    fault_name,
    model_of,
    of_layer,
)
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, write_safetensors
from workbench.conventions.heads import Heads
from workbench.tensors.sweep import sweep

F32 = numeric_path("f32")
SCALAR = "model.layers.1.layer_scalar.weight"


def unscaled(model, known, right, site):
    return known["post_ffn_residual"]


def not_normed(model, known, right, site):
    """The keys as they are in place of values."""
    return np.ascontiguousarray(known["qkv_matmul"][:, -right.shape[1] :])


def rotated_values(model, known, right, site):
    """Attention to keys that stand for values after they were normed and rotated."""
    at = At(model, F32, TOKENS, Graph.of(model).stage(site))
    return evaluate(at, {"q": known["q_post_rope"], "k": known["k_post_rope"], "v": known["k_post_rope"]})


FAULTS = (
    *(
        Fault("gemma4", Site(layer, stage), "norm_offset", "", tensors={of_layer(layer, module): lambda w: w + 1})
        for layer, stage, module in (
            (0, "attn_norm", "input_layernorm"),
            (1, "q_norm", "self_attn.q_norm"),
            (0, "post_ffn_norm", "post_feedforward_layernorm"),
        )
    ),
    Fault("gemma4", Site(1, "layer_output"), "scaled", "layer_scalar", change=unscaled),
    Fault("gemma4", Site(1, "layer_output"), "scaled", "wrong_layer would explain",
          tensors={SCALAR: of_layer(0, "layer_scalar")}),
    Fault("gemma4", Site(1, "v_norm"), "norm_missing", "the norm is left out", change=not_normed),
    Fault("gemma4", Site(0, "v_norm"), "norm_missing", "the norm is left out", change=not_normed),
    Fault("gemma4", Site(1, "attention"), "kv_source", "k_post_rope stands in place of values", change=rotated_values),
    Fault("gemma4", Site(0, "attention"), "causal_mask", "sliding_window is 3", config={"sliding_window": 5}),
    Fault("gemma4", Site(1, "attention"), "causal_mask", "", change=None, runtime={"layer_types": (FULL, SLIDING),
          "full_head_dim": 16, "head_dim": 32, "num_key_value_heads": 1}),
    Fault("gemma4", Site(1, "q_post_rope"), "rope_theta", "other factors", config={"rope_factors": None}),
    Fault("gemma4", Site(0, "q_post_rope"), "rope_theta", "", config={"rope_local_theta": 1e6}),
    Fault("gemma4", Site(0, "attention"), "attention_scale", "", config={"attention_scale": None}),
    Fault("gemma4", Site(None, "lm_head"), "scaled", "not bent", runtime={"logits_cap": None}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


def test_keys_of_another_layer_are_named():
    model = model_of("gemma4", layers=4)
    own, other = of_layer(3, "self_attn.k_proj"), of_layer(1, "self_attn.k_proj")
    moved = replace(model, weights=model.weights | {own: float_tensor(own, model.values()[other])})
    found = bisected(model, moved).culprit
    assert (found.site, found.cause, found.tensor) == (Site(3, "qkv_matmul"), "wrong_layer", own)


def test_heads_differ_by_the_kind_of_the_layer():
    model = model_of("gemma4")
    sizes = [{stage.site.stage: stage.channels for stage in Graph.of(model).layer(n)} for n in range(2)]
    assert [[of[name] for name in ("qkv_matmul", "q_norm", "v_norm")] for of in sizes] == [
        [128, 64, 32],
        [160, 128, 32],
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size_per_layer_input": 8}, "embed_tokens_per_layer"),
        ({"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64}, "vocab_size_per_layer_input"),
        ({"num_kv_shared_layers": 1}, "num_kv_shared_layers"),
        ({"num_kv_shared_layers": 3}, "num_kv_shared_layers"),
        ({"enable_moe_block": True}, "num_experts"),
        ({"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}, "moe_intermediate_size"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ({"sliding_window": None}, "sliding_window"),
        ({"global_head_dim": None}, "global_head_dim"),
        ({"global_head_dim": 31}, "even"),
        ({"num_global_key_value_heads": 3}, "divide"),
        ({"rope_parameters": None}, "rope_parameters"),
        ({"rope_parameters": {SLIDING: {"rope_type": "default", "rope_theta": 1e4}}}, "rope_parameters"),
        ({"per_layer_config": {"0": {"head_dim": 32}}}, "per_layer_config"),
        ({"per_layer_config": {"1": {"head_dim": 32, "sliding_window": 2}}}, "per_layer_config"),
    ],
)
def test_settings_that_are_not_computed_are_refused_by_name(tmp_path, changes, words):
    model = model_of("gemma4")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


def test_a_silent_folder_is_refused_for_the_embeddings_that_transformers_then_has(tmp_path):
    model = model_of("gemma4")
    write_safetensors(tmp_path, model)
    config = {key: value for key, value in hf_config(model).items() if "per_layer_input" not in key}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match="vocab_size_per_layer_input as 262144"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("share", [0.5, 1.0, None])
def test_what_transformers_writes_and_what_is_published_is_one_model(tmp_path, share):
    model = model_of("gemma4")
    write_safetensors(tmp_path, model)
    config = hf_config(model)
    if share is None:
        del config["rope_parameters"][FULL]["partial_rotary_factor"]
    else:
        config["rope_parameters"][FULL]["partial_rotary_factor"] = share
    own = {key: value for key, value in config.items() if "global" not in key}
    own["per_layer_config"] = {"1": {"head_dim": 32, "num_key_value_heads": 1}}
    found = []
    for settings in (config, own, {"model_type": "gemma4", "text_config": own, "vision_config": {}}):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        found.append(open_artifact(tmp_path).config)
    assert found[0] == found[1] == found[2]
    assert found[0].rope_factors.count(1.0) == 16 * (share or 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention__shared_kv_layers": 1}, "shared_kv_layers"),
        ({"attention__shared_kv_layers": 7}, "shared_kv_layers"),
        ({"embedding_length_per_layer_input": 8}, "per_layer_token_embd|embed_tokens_per_layer"),
        ({"expert_count": 2}, "expert_used_count"),
        ({"expert_count": 2, "expert_used_count": 1, "expert_feed_forward_length": 32}, "mlp.gate"),
        ({"feed_forward_length": [96]}, "feed_forward_length"),
        ({"feed_forward_length": [96, -1]}, "feed_forward_length"),
        ({"attention__key_length_swa": 32}, "key_length_swa|rotate whole heads"),
        ({"attention__head_count_kv": [2]}, "head_count_kv"),
        ({"attention__head_count_kv": [2, 3]}, "divide"),
        ({"attention__sliding_window_pattern": 2}, "sliding_window_pattern"),
        ({"attention__causal": False}, "causal"),
    ],
)
def test_settings_of_gguf_that_are_not_computed_are_refused_by_name(tmp_path, changes, words):
    write_gguf(tmp_path / "m.gguf", model_of("gemma4"), **changes)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.gguf")


def test_logits_of_gguf_are_bent_where_nothing_is_said(tmp_path):
    write_gguf(tmp_path / "m.gguf", model_of("gemma4"), final_logit_softcapping=0.0)
    assert open_artifact(tmp_path / "m.gguf").config.logits_cap is None
    text = (tmp_path / "m.gguf").read_bytes().replace(b"final_logit_softcapping", b"final_logit_softcappinX")
    (tmp_path / "m.gguf").write_bytes(text)
    assert open_artifact(tmp_path / "m.gguf").config.logits_cap == 30.0


def in_pairs(values):
    """The rows of heads of a full layer, which are twice as large, as for the rotation of adjacent pairs."""
    return values.reshape(-1, 2, 16, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def test_rows_are_looked_at_by_the_heads_of_their_layer(tmp_path):
    model, name = model_of("gemma4"), of_layer(1, "self_attn.q_proj")
    moved = damaged(model, {name: in_pairs})
    found = bisected(model, moved).culprit
    assert (found.tensor, found.cause) == (name, "permuted_rope")
    write_safetensors(tmp_path / "a", model)
    write_safetensors(tmp_path / "b", moved)
    a, b = (open_artifact(tmp_path / side) for side in "ab")
    (tensor,) = (tensor for tensor in sweep(a, b) if tensor.name == name)
    assert any("adjacent-pair rotation" in words for words in tensor.findings)
    heads = [Heads.of(a).in_layer_of(of_layer(n, "self_attn.q_proj")) for n in range(2)]
    assert [(of.k, of.size) for of in heads] == [(2, 16), (1, 32)]
    assert all(of.rows(*pair) is not None for of, pair in zip(heads, heads[0].layers(list(a.tensors)), strict=True))
