"""How the files of both engines hold gated delta nets, and attention with a gate."""

from dataclasses import replace

import numpy as np

from kernels.config import ModelConfig
from kernels.models import family
from kernels.rows.dequantize import dequantize
from kernels.weight import Weight

_TAPS = ("conv.conv.weight", "conv1d.weight")


def unsqueezed(weight: Weight) -> Weight:
    """A convolution as torch stores it."""
    return replace(weight, shape=(weight.shape[0], 1, weight.shape[1])) if weight.name.endswith(_TAPS) else weight


def rows_of(weight: Weight) -> np.ndarray:
    return weight.rows.reshape(weight.shape[0], -1)


def joined(name: str, parts: list[Weight], groups: int = 1) -> Weight:
    """Rows of several matrices in one: one after the other, or in every one of some groups."""
    rows = [rows_of(part).reshape(groups, part.shape[0] // groups, -1) for part in parts]
    stored = np.concatenate(rows, axis=1).reshape(-1, rows[0].shape[2])
    count, first = sum(part.shape[0] for part in parts), parts[0]
    if len(first.shape) == 1:
        stored = stored.reshape(1, -1)
    return Weight(name, first.type, (count, *first.shape[1:]), np.ascontiguousarray(stored))


def with_gates(weights: dict[str, Weight], c: ModelConfig) -> dict[str, Weight]:
    """Queries and gates of every head in one tensor."""
    for name in [name for name in weights if ".self_attn.gate_proj." in name]:
        q = name.replace("gate_proj", "q_proj")
        weights[q] = joined(q, [weights[q], weights.pop(name)], c.num_attention_heads)
    return weights


def fused_delta(model, whole: dict[str, tuple[tuple[str, ...], int]], weights: dict[str, Weight]) -> dict[str, Weight]:
    """Parts of delta nets in one tensor. whole : its module -> its parts, and in how many groups."""
    weights = with_gates(dict(weights), model.config)
    for layer in range(model.config.num_hidden_layers):
        p = f"model.layers.{layer}.linear_attn."
        for module, (parts, groups) in whole.items():
            names = [f"{p}{part}_proj.weight" for part in parts]
            if names[0] in weights:
                weights[f"{p}{module}.weight"] = joined(f"{p}{module}.weight", [weights.pop(n) for n in names], groups)
    return weights


def gguf_delta(model) -> dict[str, Weight]:
    """As GGUF has them, under canonical names."""
    whole = {"in_proj_qkv": (("q", "k", "v"), 1)}
    if model.config.architecture == "qwen3next":
        whole["in_proj_ba"] = (("b", "a"), model.config.recurrence.groups)
    return fused_delta(model, whole, model.weights)


def hf_delta(model) -> dict[str, Weight]:
    """As Hugging Face has them: decays as logarithms, heads of values that share one of keys side by side."""
    c, r = model.config, model.config.recurrence
    weights = {name: apart(weight, c) if ".linear_attn." in name else weight for name, weight in model.weights.items()}
    if c.architecture == "qwen3next":
        whole = {"in_proj_qkvz": (("q", "k", "v", "z"), r.groups), "in_proj_ba": (("b", "a"), r.groups)}
    else:
        whole = {"in_proj_qkv": (("q", "k", "v"), 1), **{f"in_proj_{part}": ((part,), 1) for part in "zba"}}
    return fused_delta(model, whole, weights)


def apart(weight: Weight, c: ModelConfig) -> Weight:
    r, module = c.recurrence, weight.name.split(".linear_attn.")[1]
    weight = logarithmic(weight)
    if not family(c.architecture).tiled or module == "norm.weight" or module[0] in "qk":
        return weight
    heads = np.arange(r.heads).reshape(-1, r.groups).T.reshape(-1)  # the place in tiles of every head
    values = (heads[:, None] * r.head_dim + np.arange(r.head_dim)).reshape(-1)
    if module in ("v_proj.weight", "z_proj.weight"):
        return replace(weight, stored=np.ascontiguousarray(rows_of(weight)[values]))
    if module in ("a_proj.weight", "b_proj.weight"):
        return replace(weight, stored=np.ascontiguousarray(rows_of(weight)[heads]))
    if module in ("A_log", "dt_bias"):
        return replace(weight, stored=weight.stored.reshape(r.heads, -1)[heads].reshape(1, -1))
    if module == "conv1d.weight":
        order = np.concatenate([np.arange(2 * r.keys), 2 * r.keys + values])
        return replace(weight, stored=np.ascontiguousarray(rows_of(weight)[order]))
    stored = weight.stored.reshape(weight.shape[0], r.values, -1)[:, values]  # of out_proj
    return replace(weight, stored=np.ascontiguousarray(stored).reshape(weight.shape[0], -1))


def logarithmic(weight: Weight) -> Weight:
    """Decays as their logarithms; other tensors as they are."""
    if not weight.name.endswith(".A_log"):
        return weight
    return replace(weight, stored=logarithms(dequantize(weight)).view(np.uint8).reshape(1, -1))


def logarithms(decays: np.ndarray) -> np.ndarray:
    """Float32 values of which -exp in float64 rounds to these."""
    found = np.log(-decays.astype(np.float64)).astype(np.float32)
    for n, decay in enumerate(decays):
        near = [found[n]]
        for way in (-np.inf, np.inf):
            value = found[n]
            for _ in range(64):
                value = np.nextafter(value, np.float32(way))
                near.append(value)
        found[n] = next(value for value in near if np.float32(-np.exp(np.float64(value))) == decay)
    return found
