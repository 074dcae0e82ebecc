"""Stages that only gemma4 has; transformers_script.py imports it by its plain name.

Runs in the interpreter that has torch: nothing of this project can be imported here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from expert_layers_script import listen_to_experts, watch_beside
from recurrent_layers_script import watch

Array = Any  # a torch tensor


def watch_layer_embeddings(body: Any, put: Any) -> None:
    """Watch the embeddings of every layer; put(layer, stage, values)."""
    table, projection = body.embed_tokens_per_layer, body.per_layer_model_projection

    def of_all(stage: str, values: Array) -> None:
        parts = values.flatten(start_dim=2).unflatten(-1, (len(body.layers), -1))
        for layer in range(len(body.layers)):
            put(layer, stage, parts[:, :, layer])

    def given(layer: int, _module: Any, inputs: Any) -> None:
        put(layer, "ple_input", inputs[1])

    watch(table, lambda _x, y: of_all("ple_embedding", y))
    watch(projection, lambda _x, y: of_all("ple_projection", y * body.per_layer_model_projection_scale))
    watch(body.per_layer_projection_norm, lambda _x, y: of_all("ple_norm", y))
    for n, layer in enumerate(body.layers):
        layer.register_forward_pre_hook(partial(given, n))
        watch(layer.per_layer_input_gate, lambda x, y, n=n: (put(n, "post_ffn_residual", x), put(n, "ple_gate", y)))
        watch(layer.act_fn, lambda _x, y, n=n: put(n, "ple_gelu", y))
        watch(layer.per_layer_projection, lambda x, y, n=n: (put(n, "ple_gated", x), put(n, "ple_out", y)))
        watch(layer.post_per_layer_input_norm, lambda _x, y, n=n: put(n, "post_ple_norm", y))


def watch_normed_experts(layer: Any, put: Any) -> None:
    """Watch experts beside the feed-forward block, where each reads and gives what is normed by itself."""

    def whole(stage: str) -> Any:
        return lambda _x, y: put(stage, y[None] if y.dim() == 2 else y)

    def before(x: Array, y: Array) -> None:
        put("post_attn_residual", x)
        put("ffn_norm", y)

    def after(x: Array, y: Array) -> None:
        put("ffn_out", x)
        put("post_ffn_norm", y)

    watch(layer.pre_feedforward_layernorm, before)
    watch_beside(layer.mlp, whole)
    watch(layer.post_feedforward_layernorm_1, whole("shared_norm"))
    watch(layer.router.proj, lambda x, y: (whole("router_norm")(None, x), whole("router")(None, y)))
    watch(layer.pre_feedforward_layernorm_2, whole("expert_norm"))
    listen_to_experts(layer.experts, put, "expert_sum", layer.router.per_expert_scale)
    watch(layer.post_feedforward_layernorm_2, whole("expert_sum_norm"))
    watch(layer.post_feedforward_layernorm, after)
