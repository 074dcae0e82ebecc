"""glm4_moe (GLM-4.5 to 4.7): half of each head rotates; experts behind the first layers, by sigmoids and in groups."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import (
    BESIDE,
    DENSE,
    GGUF_OTHERS,
    GGUF_SIZES,
    GGUF_USED,
    GGUF_WEIGHTS,
    INNER,
    OF_GROUPS,
    OF_TRAINING,
    ROUTED,
    USED,
)
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, plain_sections
from kernels.models.llama import Decoder, decoder_stages

_SECTIONS = "rope.dimension_sections"


class Glm4Moe(Decoder):
    """Defaults of Glm4MoeConfig in transformers 5.24; models/glm4-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    head_norms = True
    norms_differ = True
    predicts = True
    expert_parts = ExpertParts(selection=True)
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.5)
    model_types = ("glm4_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944, "num_hidden_layers": 46},
            **{"num_attention_heads": 96, "num_key_value_heads": 8, "max_position_embeddings": 131072},
            **{"rms_norm_eps": 1e-5, "attention_bias": False, "use_qk_norm": False, INNER: 1408, USED: 8, BESIDE: 1},
            **{ROUTED: 128, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, DENSE: 1},
            "norm_topk_prob": True,
        }
    )
    told = (ROUTED, USED, INNER, DENSE, BESIDE, *OF_GROUPS, "use_qk_norm")
    gguf = "glm4moe"
    gguf_modules = MappingProxyType({"post_attention_norm": "post_attention_layernorm"})
    more = r"nextn\.[a-z_]+\.(?:weight|scale|input_scale)"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "use_qk_norm", ROUTED, USED, INNER, DENSE, BESIDE, *OF_GROUPS)),
                ignored={"mlp_bias": (), "sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=(*OF_TRAINING, "num_nextn_predict_layers", "num_mtp_layers"),
            ),
            "gguf": Keys(used=GGUF_USED | GGUF_SIZES | GGUF_WEIGHTS | {_SECTIONS}, ignored=GGUF_OTHERS),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        normed = bool(fields.flag("use_qk_norm"))
        return replace(expert_settings.in_groups(config, fields), normed_heads=normed)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {**expert_settings.keys_of_groups(config), "use_qk_norm": config.normed_heads}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where sections of rotation, which are one for text, change nothing."""
        plain_sections(config, fields, _SECTIONS)
        return expert_settings.gguf_in_groups(config, fields, "sigmoid")


FAMILY = Glm4Moe()
