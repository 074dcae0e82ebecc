"""hunyuan_v1_dense: every head of q and k is normed after its rotation, whose base may be stretched by a factor."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings, plain_sections
from kernels.models.llama import Decoder, decoder_stages

_LEAST = 1e-9  # of what the context is stretched by


class HunYuanDense(Decoder):
    """Defaults of HunYuanDenseV1Config in transformers 5.24; models/hunyuan-vl.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_rope_norm", "k_rope_norm")
    head_norms = True
    norms_rotated = True
    norm_modules = ("query_layernorm", "key_layernorm")
    model_types: ClassVar[tuple[str, ...]] = ("hunyuan_v1_dense",)
    defaults = MappingProxyType(
        {
            "vocab_size": 290943,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
        }
    )
    gguf = "hunyuan-dense"
    gguf_modules = MappingProxyType(
        {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "rope_parameters.alpha", "rope_scaling.alpha")),
                ignored={
                    **{"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
                    **{"use_qk_norm": (True,), "num_experts": (1,)},
                },
                irrelevant=("attention_head_dim",),
            ),
            "gguf": Keys(used=frozenset(("rope.scaling.alpha", "rope.dimension_sections"))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Dynamic scaling with an alpha is none by the length of the text: it stretches the base."""
        scaling = fields.find("rope_scaling")[1] or fields.find("rope_parameters")[1]
        if not isinstance(scaling, dict) or not scaling.get("alpha"):
            return config
        alpha = scaling["alpha"]
        if type(alpha) not in (int, float) or not _LEAST <= alpha <= 1 / _LEAST:
            raise fields.wrong(f"gives an alpha that is not a number from {_LEAST:g} to {1 / _LEAST:g}; correct it.")
        if scaling.get("rope_type", scaling.get("type")) != "dynamic":
            return config
        return replace(_stretched(config, alpha), length_limit=None, length_limit_key=None)

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        plain_sections(config, fields, "rope.dimension_sections")
        alpha = fields.single("rope.scaling.alpha") if fields.find("rope.scaling.alpha")[1] else None
        return config if alpha is None else _stretched(config, alpha)


def _stretched(config: ModelConfig, alpha: float) -> ModelConfig:
    """The configuration with the rotary base of a text that is longer by so much."""
    size = config.head_dim
    return replace(config, rope_theta=config.rope_theta * alpha ** (size / (size - 2)))


FAMILY = HunYuanDense()
