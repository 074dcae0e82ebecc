"""qwen3moe: a qwen3 with experts, chosen by softmax; the weights of a token add up to 1 where a setting says so."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED, dense_layers, sparse_layers
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import decoder_stages
from kernels.models.qwen3 import Qwen3

_INNER = "moe_intermediate_size"


class Qwen3Moe(Qwen3):
    """Defaults of Qwen3MoeConfig in transformers 5.24; models/qwen3moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(scaled=True)
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24},
            **{"num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32768},
            **{"rms_norm_eps": 1e-6, "sliding_window": 4096, _INNER: 768, USED: 8, COUNTS[0]: 128},
            **{"norm_topk_prob": False, "decoder_sparse_step": 1},
        }
    )
    gguf = "qwen3moe"
    told = (COUNTS[0], USED, _INNER, "norm_topk_prob")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "use_sliding_window", "sliding_window", *COUNTS, USED, _INNER),
                        *("norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
                    )
                ),
                ignored={"mlp_bias": (), "layer_types": ("full_attention",)},
                irrelevant=("max_window_layers", *OF_TRAINING),
            ),
            "gguf": Keys(
                used=GGUF_USED | {"expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Where any layer slides, all do."""
        window = fields.integer("sliding_window") if fields.flag("use_sliding_window") else None
        return expert_settings.of_hugging_face(
            *(config, fields, _INNER),
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            expert_layers=sparse_layers(config, fields),
            sliding_window=window,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        window = config.sliding_window
        return {
            **({} if window is None else {"use_sliding_window": True, "sliding_window": window}),
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            _INNER: config.moe_intermediate_size,
            "norm_topk_prob": config.norm_topk_prob,
            "mlp_only_layers": dense_layers(config),
            "decoder_sparse_step": 1,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: all layers have experts, whose weights add up to 1."""
        inner = fields.integer("expert_feed_forward_length", low=0)
        used = fields.integer("expert_used_count", low=0) or 1
        return expert_settings.of_gguf(config, fields, inner or config.intermediate_size // used)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        yield from expert_settings.refused_without(config)


FAMILY = Qwen3Moe()
