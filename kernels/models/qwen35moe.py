"""qwen35moe: a qwen35 with experts, whose weights add up to 1, and beside them a gated part for every token."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import decoder_stages
from kernels.models.qwen35 import DELTA, Qwen35

INNER, BESIDE = "moe_intermediate_size", "shared_expert_intermediate_size"
GGUF_INNER, GGUF_BESIDE = "expert_feed_forward_length", "expert_shared_feed_forward_length"


class Qwen35Moe(Qwen35):
    """Defaults of Qwen3_5MoeTextConfig in transformers 5.24; models/qwen35moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("attn_gate", "q_norm", "k_norm", "attn_gated", *DELTA, *experts.NAMES)
    expert_parts = ExpertParts(gated=True, scaled=True, shared_scaled=True)
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5_moe_text",)
    defaults = MappingProxyType(
        {
            **Qwen35.defaults,
            **{"hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "intermediate_size": 1},
            **{INNER: 512, BESIDE: 512, USED: 8, COUNTS[0]: 256},
        }
    )
    gguf = "qwen35moe"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=Qwen35.keys["safetensors"].used | {*COUNTS, USED, INNER, BESIDE},
                ignored={**Qwen35.keys["safetensors"].ignored, "norm_topk_prob": (True,), "decoder_sparse_step": (1,)},
                irrelevant=(*Qwen35.keys["safetensors"].irrelevant, *OF_TRAINING),
            ),
            "gguf": Keys(
                used=Qwen35.keys["gguf"].used | GGUF_USED | {GGUF_INNER, GGUF_BESIDE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return expert_settings.of_hugging_face(
            *(super().of_hugging_face(config, fields), fields, INNER),
            shared_intermediate_size=fields.integer(BESIDE) or 0,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return super().to_hugging_face(config) | {
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            INNER: config.moe_intermediate_size,
            BESIDE: config.shared_intermediate_size,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: all layers have experts, whose weights add up to 1."""
        beside = fields.integer(GGUF_BESIDE, low=0) or config.intermediate_size
        inner = expert_settings.gguf_inner(config, fields)
        made = super().of_gguf(config, fields)
        return expert_settings.of_gguf(made, fields, inner, shared_intermediate_size=beside)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        yield from expert_settings.refused_without(config)


FAMILY = Qwen35Moe()
