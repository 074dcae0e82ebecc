"""Where a stage tensor stands in a model.

A stage name says what has just been computed; see docs/stages.md for shapes and the llama.cpp node of each. The names
that most decoders share are the spine of every map; which of them a family has, and what stands between them, its file
in kernels/models says.
"""

from typing import NamedTuple

SPINE: tuple[str, ...] = (
    *("attn_norm", "qkv_matmul", "qkv_bias", "q_post_rope", "k_post_rope", "attention", "attn_out"),
    *("post_attn_residual", "ffn_norm", "ffn_gate", "ffn_up", "ffn_silu", "ffn_swigl", "ffn_out"),
    *("post_ffn_residual", "layer_output"),
)
FIRST_STAGES: tuple[str, ...] = ("embedding",)
LAST_STAGES: tuple[str, ...] = ("final_norm", "lm_head")


class Site(NamedTuple):
    """Where a stage tensor stands in a model: layer number (None for whole-model stages) and stage name."""

    layer: int | None
    stage: str

    def __str__(self) -> str:
        return self.stage if self.layer is None else f"layer {self.layer} {self.stage}"
