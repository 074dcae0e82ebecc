"""Further families with experts: the mistakes that each invites, what their settings say, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import (
    SHARED,
    Fault,
    check_named,
    chosen_with,
    counted_bias,
    expert,
    fault_name,
    model_of,
    next_expert,
    of_layer,
    per_head,
    reversed_weights,
    swapped_experts,
    unweighted,
    with_kind,
)
from tests.gguf_files import write_gguf
from tests.hf_files import hf_config, write_safetensors
from tests.unit.test_family_gpt_oss import without_sinks
from tests.unit.test_recurrent import other_scan


def without_addition(model, known, right, site):
    return chosen_with(model, known, site, tensors=())


FAULTS = (
    Fault("hunyuan_moe", Site(0, "q_rope_norm"), "norm_missing", "the norm is left out",
          change=lambda m, known, right: known["q_post_rope"]),
    Fault("hunyuan_moe", Site(0, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("hunyuan_moe", Site(1, "expert_sum"), "router", "without weights", change=unweighted),
    Fault("hunyuan_moe", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("hunyuan_moe", Site(0, "expert_gate"), "gate_up_swapped", "up_proj of every expert",
          change=lambda m, known, right: swapped_experts(m, known)),
    Fault("bailingmoe2", Site(1, "expert_weights"), "router", "1 groups of experts", change=with_kind(groups_used=1)),
    Fault("bailingmoe2", Site(1, "expert_weights"), "router", "nothing is added to the scores",
          change=without_addition),
    Fault("bailingmoe2", Site(1, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("bailingmoe2", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated",
          runtime={"rotary_dim": None}),
    Fault("bailingmoe2", Site(0, "k_norm"), "norm_offset", "",
          tensors={of_layer(0, "self_attn.k_norm"): lambda w: w + 1}),
    Fault("minimax_m2", Site(0, "k_norm"), "head_grouping", "every head is normed by itself", change=per_head),
    Fault("minimax_m2", Site(0, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("minimax_m2", Site(1, "expert_weights"), "router", "a softmax over all experts in place of a sigmoid",
          change=with_kind(scoring="softmax")),
    Fault("minimax_m2", Site(1, "expert_weights"), "expert_order", "in reverse order", change=reversed_weights),
    Fault("minimax_m2", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated",
          runtime={"rotary_dim": None}),
    Fault("exaone_moe", Site(1, "q_post_rope"), "rope_position", "1 rotate", config={"rotated_layers": None}),
    Fault("exaone_moe", Site(0, "attention"), "causal_mask", "",
          runtime={"sliding_window": None, "layer_types": None}),
    Fault("exaone_moe", Site(1, "expert_weights"), "router", "1 groups of experts", change=with_kind(groups_used=1)),
    Fault("exaone_moe", Site(1, "expert_weights"), "sign_flipped", "",
          tensors={"model.layers.1.mlp.gate.e_score_correction_bias": lambda b: -b}),
    Fault("exaone_moe", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("mellum", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 5}),
    Fault("mellum", Site(0, "q_post_rope"), "rope_theta", "rope_theta 1000000", runtime={"rope_local_theta": 1e6}),
    Fault("mellum", Site(0, "expert_weights"), "router", "2 experts", change=with_kind(used=2)),
    Fault("mellum", Site(0, "expert_out"), "expert_order", "of the next one", change=next_expert),
    Fault("mellum", Site(1, "q_norm"), "norm_offset", "", tensors={of_layer(1, "self_attn.q_norm"): lambda w: w + 1}),
    Fault("granite_swa", Site(0, "attention"), "attention_sink", "sinks are left out",
          change=without_sinks),
    Fault("granite_swa", Site(1, "q_post_rope"), "rope_position", "1 rotate", config={"rotated_layers": None}),
    Fault("granite_swa", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 5}),
    Fault("granite_swa", Site(None, "lm_head"), "scaled", "not multiplied by 0.125", runtime={"logits_scale": 1.0}),
    Fault("granite_swa", Site(0, "attention"), "attention_scale", "", config={"attention_scale": None}),
    Fault("dbrx", Site(0, "qkv_clip"), "scaled", "clip_qkv is 0.75 in A and None in B", config={"clip_qkv": None}),
    Fault("dbrx", Site(0, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("dbrx", Site(1, "ffn_out"), "router", "without weights", change=unweighted),
    Fault("dbrx", Site(1, "ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("dbrx", Site(0, "expert_out"), "wrong_layer", "model.layers.1",
          tensors={expert(0, 1, "down"): expert(1, 1, "down")}),
    Fault("granitehybrid-experts", Site(0, "scan"), "recurrence", "D x is not added",
          change=other_scan(d=np.zeros_like)),
    Fault("granitehybrid-experts", Site(1, "expert_weights"), "router", "a softmax over all experts",
          change=with_kind(scoring="sigmoid", renormalised=False)),
    Fault("granitehybrid-experts", Site(0, "expert_sum"), "router", "without weights", change=unweighted),
    Fault("granitehybrid-experts", Site(0, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("granitehybrid-experts", Site(0, "shared_gate"), "gate_up_swapped", "shared_expert.up_proj",
          tensors={SHARED[0]: SHARED[1], SHARED[1]: SHARED[0]}),
    Fault("granitehybrid-experts", Site(1, "post_ffn_residual"), "scaled", "is not multiplied by 0.22",
          runtime={"residual_scale": 1.0}),
    Fault("granitehybrid-experts", Site(1, "expert_out"), "expert_order", "experts.3.down_proj",
          tensors={expert(1, 2, "down"): expert(1, 3, "down"), expert(1, 3, "down"): expert(1, 2, "down")}),
    Fault("lfm2moe", Site(1, "expert_weights"), "router", "nothing is added to the scores", change=without_addition),
    Fault("lfm2moe", Site(1, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("lfm2moe", Site(1, "expert_weights"), "router", "a softmax over all experts in place of a sigmoid",
          change=with_kind(scoring="softmax")),
    Fault("lfm2moe", Site(1, "ffn_out"), "router", "without weights", change=unweighted),
    Fault("lfm2moe", Site(1, "expert_out"), "expert_order", "of the next one", change=next_expert),
    Fault("lfm2moe", Site(0, "conv_out"), "recurrence", "the gate is left out",
          change=lambda m, known, right: known["convolved"]),
    Fault("afmoe", Site(0, "attn_gated"), "activation_function", "the gate is left out",
          change=lambda m, known, right: known["attention"]),
    Fault("afmoe", Site(1, "attn_gated"), "activation_function", "does not go through a sigmoid",
          change=lambda m, known, right: known["attention"] * known["attn_gate"]),
    Fault("afmoe", Site(None, "embedding"), "scaled", "not multiplied by 8", runtime={"embedding_scale": 1.0}),
    Fault("afmoe", Site(3, "q_post_rope"), "rope_position", "as other layers are", runtime={"rotated_layers": None}),
    Fault("afmoe", Site(1, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("afmoe", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 5}),
    Fault("afmoe", Site(1, "post_ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_mlp_layernorm"): lambda w: w + 1}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


@pytest.mark.parametrize("family", ["exaone_moe", "mellum"])
def test_another_rotary_base_of_sliding_layers_is_refused(tmp_path, family):
    model = model_of(family)
    model.config = replace(model.config, rope_local_theta=None)
    write_gguf(tmp_path / "m.gguf", model, rope__freq_base_swa=500.0)
    with pytest.raises(WorkbenchError, match=r"freq_base_swa as 500"):
        open_artifact(tmp_path / "m.gguf")


def test_an_epsilon_that_the_engine_does_not_read_is_said(tmp_path):
    model = model_of("qwen2vl")
    model.config = replace(model.config, rms_norm_eps=1e-6)
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config.rms_norm_eps == 0
    assert any("layer_norm_rms_epsilon" in problem and "ignores" in problem for problem in artifact.problems)


def with_settings(folder, family, **settings):
    model = model_of(family)
    write_safetensors(folder, model)
    config = {key: value for key, value in (hf_config(model) | settings).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    return open_artifact(folder), model


def test_a_rotary_size_by_itself_is_the_share_that_is_not_said(tmp_path):
    artifact, model = with_settings(tmp_path, "minimax_m2", rotary_dim=16, partial_rotary_factor=...)
    assert (artifact.config, artifact.problems) == (model.config, ())
    other, _ = with_settings(tmp_path, "minimax_m2", rotary_dim=8)
    assert other.config.rotary_dim == 16


def test_layers_with_experts_by_first_last_and_interval(tmp_path):
    artifact, model = with_settings(tmp_path, "ernie4_5_moe", moe_layer_start_index=0, moe_layer_interval=2)
    assert artifact.config == model.config
    artifact, _ = with_settings(tmp_path, "ernie4_5_moe", moe_layer_start_index=1, moe_layer_end_index=1)
    assert artifact.config == model.config


def test_types_of_layers_count_before_the_number_of_the_first_ones(tmp_path):
    artifact, model = with_settings(
        tmp_path, "exaone_moe", mlp_layer_types=["dense", "sparse"], first_k_dense_replace=2, layer_types=...
    )
    assert artifact.config.expert_layers == model.config.expert_layers
    assert artifact.config.layer_types == ("sliding_attention",) * 2  # every fourth is full


def test_chosen_experts_may_be_said_for_every_layer(tmp_path):
    artifact, model = with_settings(tmp_path, "hunyuan_moe", moe_topk=[3, 3], num_shared_expert=[1, 1])
    assert (artifact.config, artifact.problems) == (model.config, ())


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("hunyuan_moe", {"moe_topk": [3, 2]}, "moe_topk"),
        ("minimax_m2", {"rotary_dim": 7, "partial_rotary_factor": ...}, "rotary_dim as 7"),
        ("ernie4_5_moe", {"use_bias": True}, "use_bias"),
        ("ernie4_5_moe", {"moe_layer_interval": None}, "moe_layer_interval"),
        ("exaone_moe", {"mlp_layer_types": ["sparse"]}, "mlp_layer_types"),
        ("exaone_moe", {"sliding_window_pattern": "LLLG", "layer_types": ...}, "add layer_types"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, family, settings, words):
    with pytest.raises(WorkbenchError, match=words):
        with_settings(tmp_path, family, **settings)
