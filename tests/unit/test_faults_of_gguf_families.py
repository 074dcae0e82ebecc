"""Families that only GGUF has: the mistakes that each invites, in one table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from kernels.models import Graph
from kernels.stages import Site
from tests.family_faults import (
    Fault,
    check_named,
    fault_name,
    halves_of_the_first,
    less,
    of_layer,
    rank_by_rank,
    unbiased,
    up_with_erf,
    without_mean_of,
)

UP, BIAS_OF_V, BIAS_OF_O = "mlp.up_proj", *(f"model.layers.1.self_attn.{part}_proj.bias" for part in "vo")


def without(stage):
    return lambda m, known, right: right - known[stage]


def with_more(stage):
    return lambda m, known, right: right + known[stage]


def up_in_place_of_gate(model, known, right, site):
    read = Graph.of(model).stage(site).reads[0]
    return known[read] @ model.values()[of_layer(1, UP)].T


def by_head(model, known, right):
    """Channels of q, k and v as a product has them whose rows are those of each head of keys."""
    c = model.config
    parts = np.split(right, (c.q_size, c.q_size + c.kv_size), axis=1)
    heads = [part.reshape(len(right), c.num_key_value_heads, -1) for part in parts]
    return np.concatenate(heads, axis=2).reshape(right.shape)


def in_pairs(w):
    """The rows of q as for the rotation of adjacent pairs."""
    return w.reshape(4, 2, len(w) // 8, -1).swapaxes(1, 2).reshape(w.shape)


def in_halves(w):
    """The rows of q as for the rotation of halves."""
    return halves_of_the_first(w, len(w) // 4, len(w) // 4)


def of_one_norm(model, known, right, site):
    """Heads of k normed together."""
    q_size = model.config.q_size
    x = known.get("k_post_rope", known["qkv_matmul"][:, q_size : q_size + right.shape[1]])
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
    (module,) = Graph.of(model).stage(site).tensors
    return x * np.tile(model.values()[module], model.config.num_key_value_heads)


def run(**settings):
    return {"runtime": settings}


def change(function):
    return {"change": function}


def weight(layer, module, changed):
    return {"tensors": {of_layer(layer, module): changed}}


Q, K, QKV, Q_PROJ = Site(0, "q_post_rope"), Site(0, "k_post_rope"), Site(0, "qkv_matmul"), "self_attn.q_proj"
Q_NORM, K_NORM, RESIDUAL = Site(0, "q_rope_norm"), Site(0, "k_rope_norm"), Site(0, "post_attn_residual")
BEHIND, BEFORE = "post_attention_layernorm", "input_layernorm"
# Each mistake: the stage, the cause, words of the explanation, and what is done.
MISTAKES: Mapping[str, tuple[Site, str, str, Mapping[str, Any]]] = {
    "base": (Site(1, "q_post_rope"), "rope_theta", "rope_theta 1000000", run(rope_theta=1e6)),
    "adjacent": (Q, "rope_type", "norm instead of neox", run(rope_type="norm")),
    "halves": (Q, "rope_type", "neox instead of norm", run(rope_type="neox")),
    "whole": (Q, "rope_type", "all channels of a head", run(rotary_dim=None)),
    "still": (K, "rope_position", "nothing is rotated", run(rotated_layers=(False,) * 2)),
    "turned": (Q, "rope_position", "none should be", run(rotated_layers=None)),
    "paired": (QKV, "permuted_rope", "adjacent-pair", weight(0, Q_PROJ, in_pairs)),
    "unpaired": (QKV, "permuted_rope", "half-split", weight(0, Q_PROJ, in_halves)),
    "up": (Site(1, "ffn_gate"), "gate_up_swapped", "", change(up_in_place_of_gate)),
    "added one": (Site(1, "ffn_norm"), "norm_offset", "", weight(1, BEHIND, lambda w: w + 1)),
    "added one before": (Site(1, "attn_norm"), "norm_offset", "", weight(1, BEFORE, lambda w: w + 1)),
    "mean kept": (Site(0, "attn_norm"), "unknown", "the mean is not taken away", change(without_mean_of(0))),
    "epsilon": (Site(0, "attn_norm"), "rms_norm_eps", "0.001", run(rms_norm_eps=1e-3)),
    "causal": (Site(0, "attention"), "causal_mask", "", run(causal=True)),
    "not causal": (Site(0, "attention"), "causal_mask", "", run(causal=False)),
    "causal model": (Site(0, "attention"), "causal_mask", "causal is False", {"config": {"causal": True}}),
    "transposed": (Site(1, "ffn_out"), "transposed", "", weight(1, "mlp.down_proj", lambda w: w.T.reshape(w.shape))),
    "other layer": (Site(1, "ffn_up"), "wrong_layer", "layers.0", weight(1, UP, of_layer(0, UP))),
    "negative": (Site(0, "attn_out"), "sign_flipped", "", weight(0, "self_attn.o_proj", lambda w: -w)),
    "unadded": (RESIDUAL, "residual_missing", "attn_out is not added", change(without("attn_out"))),
    "without bias": (Site(0, "qkv_bias"), "bias_missing", "q_proj.bias is not added", change(unbiased)),
    "without bias of o": (Site(1, "attn_out"), "bias_missing", "o_proj", change(less(BIAS_OF_O))),
    "bias of v": (Site(1, "qkv_bias"), "sign_flipped", "", {"tensors": {BIAS_OF_V: lambda b: -b}}),
    "by rank": (QKV, "rows_permuted", "in another order", change(rank_by_rank)),
    "by head": (Site(1, "qkv_matmul"), "rows_permuted", "", change(by_head)),
    "erf": (Site(0, "ffn_silu"), "activation_function", "GELU (erf)", change(up_with_erf)),
    "embedding": (Site(None, "embedding"), "scaled", "not multiplied by 6", run(embedding_scale=1.0)),
    "residual": (RESIDUAL, "scaled", "not multiplied by 0.25", run(residual_scale=1.0)),
    "logits": (Site(None, "lm_head"), "scaled", "not multiplied by 0.125", run(logits_scale=1.0)),
    "together": (Site(0, "k_norm"), "head_grouping", "heads are normed together", change(of_one_norm)),
    "together behind": (K_NORM, "head_grouping", "heads are normed together", change(of_one_norm)),
    "unnormed": (Q_NORM, "norm_missing", "the norm is left out", change(lambda m, known, right: known["q_post_rope"])),
    "attn_out twice": (Site(0, "post_ffn_residual"), "residual_missing", "twice", change(with_more("attn_out"))),
}  # fmt: skip
INVITED: Mapping[str, tuple[str, ...]] = {
    "baichuan": ("turned", "up", "added one", "transposed", "negative"),
    "chatglm": ("halves", "whole", "by rank", "up", "unpaired"),
    "codeshell": ("mean kept", "erf", "without bias", "base", "without bias of o"),
    "deci": ("base", "adjacent", "paired", "up", "added one"),
    "dream": ("causal", "causal model", "without bias", "base", "up"),
    "exaone": ("base", "still", "paired", "other layer", "added one"),
    "hunyuan_vl": ("unnormed", "together behind", "base", "paired", "adjacent"),
    "internlm2": ("base", "by head", "paired", "up", "unadded"),
    "llada": ("causal", "causal model", "adjacent", "paired", "negative"),
    "maincoder": ("halves", "unnormed", "together behind", "unpaired", "up"),
    "minicpm": ("embedding", "residual", "logits", "paired", "base"),
    "nanbeige": ("base", "paired", "transposed", "added one", "not causal"),
    "openelm": ("together", "adjacent", "by rank", "base", "up"),
    "orion": ("mean kept", "added one", "base", "up", "epsilon"),
    "paddleocr": ("adjacent", "paired", "base", "up", "other layer"),
    "pangu_embedded": ("without bias of o", "without bias", "bias of v", "base", "paired"),
    "plamo": ("attn_out twice", "added one before", "base", "paired", "up"),
    "qwen": ("without bias", "by rank", "up", "bias of v", "adjacent"),
    "qwen2vl": ("epsilon", "adjacent", "paired", "without bias", "bias of v"),
    "qwen3vl": ("together", "adjacent", "paired", "base", "added one"),
    "xverse": ("base", "paired", "up", "epsilon", "unadded"),
}  # fmt: skip


def faults() -> Iterator[Fault]:
    for family, invited in INVITED.items():
        for name in invited:
            site, cause, words, how = MISTAKES[name]
            yield Fault(family, site, cause, words, **how)


@pytest.mark.parametrize("fault", faults(), ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)
