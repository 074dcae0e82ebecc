"""Which tensors of a model a stage uses, and what its channels are."""

from kernels.config import ModelConfig
from kernels.stages import Site

_ATTENTION = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"}
_LAYER_TENSORS: dict[str, tuple[str, ...]] = {
    "attn_norm": ("input_layernorm.weight",),
    "qkv_matmul": tuple(f"{name}.weight" for name in _ATTENTION.values()),
    "qkv_bias": tuple(f"{name}.bias" for name in _ATTENTION.values()),
    "attn_out": ("self_attn.o_proj.weight",),
    "ffn_norm": ("post_attention_layernorm.weight",),
    "ffn_gate": ("mlp.gate_proj.weight",),
    "ffn_up": ("mlp.up_proj.weight",),
    "ffn_out": ("mlp.down_proj.weight",),
}
_MODEL_TENSORS: dict[str, str] = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


def stage_tensors(site: Site) -> tuple[str, ...]:
    """Canonical names of the tensors that a stage uses; empty where it only combines other stages."""
    if site.layer is None:
        return (_MODEL_TENSORS[site.stage],)
    return tuple(f"model.layers.{site.layer}.{suffix}" for suffix in _LAYER_TENSORS.get(site.stage, ()))


def channel_head(stage: str, channel: int, config: ModelConfig) -> str:
    """Name head and channel within it, "q31.127", for the stages whose heads are flattened; empty for the others."""
    part = ""
    if stage in ("qkv_matmul", "qkv_bias"):
        starts = {"q": 0, "k": config.q_size, "v": config.q_size + config.kv_size}
        part, start = [(name, start) for name, start in starts.items() if channel >= start][-1]
        channel -= start
    elif stage not in ("q_post_rope", "k_post_rope", "attention"):
        return ""
    return f"{part}{channel // config.head_dim}.{channel % config.head_dim}"


def channel_name(stage: str, channel: int, config: ModelConfig) -> str:
    """Name a channel in running text: its number, with head and channel within it where heads are flattened."""
    head = channel_head(stage, channel, config)
    return f"{channel} ({head})" if head else str(channel)
