"""glm4: half of each head rotates, in adjacent pairs; norms before and behind both blocks; gate and up in one."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings, plain_sections
from kernels.models.llama import Decoder, decoder_stages


class Glm4(Decoder):
    """Defaults of Glm4Config in transformers 5.24; models/glm4.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("post_attn_norm", "post_ffn_norm")
    after = MappingProxyType(
        {
            "attn_out": ("post_attn_norm", "post_self_attn_layernorm"),
            "ffn_out": ("post_ffn_norm", "post_mlp_layernorm"),
        }
    )
    pairs = "norm"
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.5)
    model_types = ("glm4",)
    defaults = MappingProxyType(
        {
            "vocab_size": 151552,
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1.5625e-7,
            "attention_bias": True,
        }
    )
    gguf = "glm4"
    gguf_modules = MappingProxyType(
        {
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
        }
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias",)),
                ignored={"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
            ),
            "gguf": Keys(used=frozenset(("rope.dimension_sections",))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """With sections of time, height and width, llama.cpp turns halves, and text as if there were none."""
        if plain_sections(config, fields, "rope.dimension_sections") is None:
            return config
        return replace(config, rope_type="neox")

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.rope_factors is not None and len(set(config.rope_factors)) > 1:
            yield "it has a tensor of rotary divisors, which it does not look for in glm4"


FAMILY = Glm4()
