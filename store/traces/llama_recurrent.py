"""The stages of layers without attention among the nodes of a ggml graph."""

import re
from collections.abc import Sequence

# (name without its layer, operation) -> stage, or the part of one.
MEANING: dict[tuple[str, str], str] = {
    ("model.layers.{}.operator_norm", "MUL"): "attn_norm",
    ("model.layers.{}.self_attn.q_layernorm", "MUL"): "q_norm",
    ("model.layers.{}.self_attn.k_layernorm", "MUL"): "k_norm",
    ("model.layers.{}.self_attn.out_proj", "MUL_MAT"): "attn_out",
    ("model.layers.{}.conv.in_proj", "MUL_MAT"): "conv_in",
    ("model.layers.{}.conv.conv", "SSM_CONV"): "convolved",
    ("model.layers.{}.conv.out_proj", "MUL_MAT"): "attn_out",
    ("model.layers.{}.ffn_norm", "MUL"): "ffn_norm",
    ("model.layers.{}.ffn_out", "MUL"): "ffn_norm",  # so it is called
    ("model.embed_tokens", "GET_ROWS"): "embedding",
}
_LAYER = re.compile(r"-\d{1,6}( \([a-z]+\))*\Z")
# What has no name, by operation and the names of what it is computed from.
_UNNAMED: dict[tuple[str, tuple[str, ...]], str] = {
    ("MUL", ("model.layers.{}.conv.in_proj", "model.layers.{}.conv.in_proj")): "conv_gated",
    ("MUL", ("model.layers.{}.conv.in_proj", "model.layers.{}.conv.conv")): "conv_out",
}


def unnamed(op: str, sources: Sequence[str]) -> str | None:
    """The stage of a node without a name; None for one that is none."""
    return _UNNAMED.get((op, tuple(_LAYER.sub("", source) for source in sources)))
