"""The 19 named points of a decoder forward, in execution order.

A stage name says what has just been computed; see docs/stages.md for shapes and the llama.cpp node of each.
"""

from typing import NamedTuple

LAYER_STAGES: tuple[str, ...] = (
    "attn_norm",
    "qkv_matmul",
    "qkv_bias",
    "q_post_rope",
    "k_post_rope",
    "attention",
    "attn_out",
    "post_attn_residual",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_silu",
    "ffn_swigl",
    "ffn_out",
    "post_ffn_residual",
    "layer_output",
)
FIRST_STAGES: tuple[str, ...] = ("embedding",)
LAST_STAGES: tuple[str, ...] = ("final_norm", "lm_head")
STAGES: tuple[str, ...] = FIRST_STAGES + LAYER_STAGES + LAST_STAGES


class Site(NamedTuple):
    """Where a stage tensor stands in a model: layer number (None for whole-model stages) and stage name."""

    layer: int | None
    stage: str

    def __str__(self) -> str:
        return self.stage if self.layer is None else f"layer {self.layer} {self.stage}"


def execution_order(n_layers: int) -> list[Site]:
    """All sites of a model with `n_layers` decoder layers, first computed first."""
    sites = [Site(None, stage) for stage in FIRST_STAGES]
    sites += [Site(layer, stage) for layer in range(n_layers) for stage in LAYER_STAGES]
    return sites + [Site(None, stage) for stage in LAST_STAGES]
