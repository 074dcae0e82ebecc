"""Families with experts that only GGUF files of llama.cpp have: the mistakes that each invites, and what is refused."""

from dataclasses import replace

import pytest

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.open import open_artifact
from tests.artifacts import write_gguf
from tests.unit.test_families import (
    Fault,
    assert_named,
    chosen_with,
    counted_bias,
    expert,
    model_of,
    next_expert,
    of_layer,
    per_head,
    reversed_weights,
    swapped_experts,
    unweighted,
    with_kind,
)


def without_addition(model, known, right, site):
    return chosen_with(model, known, site, tensors=())


FAULTS = (
    Fault("hunyuan_moe", Site(0, "q_rope_norm"), "unknown", "the norm is left out",
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
    Fault("dbrx", Site(0, "qkv_clip"), "scaled", "clip_qkv is 0.75 in A and None in B", config={"clip_qkv": None}),
    Fault("dbrx", Site(0, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("dbrx", Site(1, "ffn_out"), "router", "without weights", change=unweighted),
    Fault("dbrx", Site(1, "ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("dbrx", Site(0, "expert_out"), "wrong_layer", "model.layers.1",
          tensors={expert(0, 1, "down"): expert(1, 1, "down")}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_mistake_is_named(fault):
    assert_named(fault)


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
