"""Families with layer norms: starcoder2, gpt_neox, nemotron, olmo, phi and jais2, and the mistakes that they invite."""

import numpy as np
import pytest

from kernels.stages import Site
from tests.family_faults import (
    Fault,
    check_named,
    group_by_group,
    less,
    of_layer,
    one_after_the_other,
    unbiased,
    up_with_erf,
    without_mean_of,
)

FAULTS = (
    Fault("starcoder2", Site(0, "attn_norm"), "unknown", "the mean is not taken away", change=without_mean_of(0)),
    Fault("starcoder2", Site(1, "attn_norm"), "bias_missing", "input_layernorm.bias is not added",
          change=less("model.layers.1.input_layernorm.bias")),
    Fault("starcoder2", Site(0, "ffn_norm"), "norm_offset", "", tensors={
          of_layer(0, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("starcoder2", Site(0, "ffn_silu"), "activation_function", "GELU (erf)", change=up_with_erf),
    Fault("starcoder2", Site(1, "ffn_out"), "bias_missing", "", change=less("model.layers.1.mlp.down_proj.bias")),
    Fault("starcoder2", Site(None, "final_norm"), "sign_flipped", "", tensors={"model.norm.bias": lambda b: -b}),
    Fault("starcoder2", Site(0, "attn_norm"), "rms_norm_eps", "0.001", runtime={"rms_norm_eps": 1e-3}),
    Fault("gpt_neox", Site(0, "ffn_silu"), "activation_function", "activation is gelu_new in A and gelu in B",
          config={"activation": "gelu"}),
    Fault("gpt_neox", Site(0, "ffn_silu"), "activation_function", "GELU (erf)", change=up_with_erf),
    Fault("gpt_neox", Site(0, "post_attn_residual"), "residual_missing", "beside attention in A and behind it in B",
          config={"parallel": False}),
    Fault("gpt_neox", Site(0, "ffn_norm"), "unknown", "and attn_out is normed", change=one_after_the_other),
    Fault("gpt_neox", Site(1, "qkv_matmul"), "rows_permuted", "", change=group_by_group),
    Fault("gpt_neox", Site(0, "k_post_rope"), "rope_type", "", runtime={"rotary_dim": None}),
    Fault("gpt_neox", Site(0, "qkv_bias"), "bias_missing", "", change=unbiased),
    Fault("nemotron", Site(0, "attn_norm"), "norm_offset", "",
          tensors={of_layer(0, "input_layernorm"): lambda w: w - 1}),
    Fault("nemotron", Site(1, "ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("nemotron", Site(0, "ffn_silu"), "activation_function", "ReLU stands in place of",
          change=lambda _, known, right: np.maximum(known["ffn_up"], 0)),
    Fault("olmo", Site(0, "qkv_clip"), "scaled", "clip_qkv is 0.75 in A and None in B", config={"clip_qkv": None}),
    Fault("phi", Site(None, "lm_head"), "bias_missing", "lm_head.bias is not added", change=less("lm_head.bias")),
    Fault("phi", Site(1, "post_ffn_residual"), "residual_missing", "ffn_out is added twice",
          change=lambda _, known, right: right + known["ffn_out"]),
    Fault("nemotron", Site(0, "k_post_rope"), "rope_type", "all channels of a head are rotated",
          runtime={"rotary_dim": None}),
    Fault("nemotron", Site(1, "attn_norm"), "bias_missing", "input_layernorm.bias is not added",
          change=less("model.layers.1.input_layernorm.bias")),
    Fault("phi", Site(0, "ffn_silu"), "activation_function", "GELU (erf)", change=up_with_erf),
    Fault("phi", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated",
          runtime={"rotary_dim": None}),
    Fault("phi", Site(0, "qkv_bias"), "bias_missing", "", change=unbiased),
    Fault("olmo", Site(0, "attn_norm"), "unknown", "the mean is not taken away", change=without_mean_of(0)),
    Fault("olmo", Site(1, "ffn_norm"), "norm_missing", "the norm is left out",
          change=lambda m, known, right: known["post_attn_residual"]),
    Fault("olmo", Site(0, "qkv_clip"), "scaled", "cut off at 0.5 in place of 0.75", runtime={"clip_qkv": 0.5}),
    Fault("olmo", Site(1, "qkv_clip"), "scaled", "not cut off at 0.75",
          change=lambda m, known, right: known["qkv_matmul"].copy()),
    Fault("olmo", Site(1, "qkv_matmul"), "permuted_rope", "",
          tensors={of_layer(1, "self_attn.q_proj"): lambda w: w.reshape(4, 2, 8, -1).swapaxes(1, 2).reshape(w.shape)}),
    Fault("jais2", Site(0, "ffn_silu"), "activation_function", "ReLU stands in place of",
          change=lambda m, known, right: np.sqrt(right)),
    Fault("jais2", Site(1, "attn_norm"), "unknown", "the mean is not taken away", change=without_mean_of(1)),
    Fault("jais2", Site(0, "attn_out"), "bias_missing", "o_proj.bias is not added",
          change=less("model.layers.0.self_attn.o_proj.bias")),
    Fault("jais2", Site(0, "ffn_out"), "bias_missing", "down_proj.bias is not added",
          change=less("model.layers.0.mlp.down_proj.bias")),
    Fault("jais2", Site(None, "final_norm"), "sign_flipped", "", tensors={"model.norm.bias": lambda b: -b}),
    Fault("jais2", Site(0, "k_post_rope"), "rope_type", "", runtime={"rope_type": "norm"}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_mistake_is_named(fault):
    check_named(fault)
