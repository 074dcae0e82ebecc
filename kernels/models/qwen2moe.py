"""qwen2moe: a qwen2 with experts, and beside them a part for every token that is multiplied by a gate of its own."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED, dense_layers, sparse_layers
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, given_layer_types
from kernels.models.llama import decoder_stages
from kernels.models.qwen2 import Qwen2

_INNER, _BESIDE = "moe_intermediate_size", "shared_expert_intermediate_size"
_GGUF_INNER, _GGUF_BESIDE = "expert_feed_forward_length", "expert_shared_feed_forward_length"


class Qwen2Moe(Qwen2):
    """Defaults of Qwen2MoeConfig in transformers 5.24; models/qwen2moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts(gated=True, divided=True)
    model_types = ("qwen2_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24},
            **{"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 32768},
            **{"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28, _INNER: 1408, _BESIDE: 5632},
            **{USED: 4, COUNTS[0]: 60, "norm_topk_prob": False, "decoder_sparse_step": 1, "qkv_bias": True},
        }
    )
    gguf = "qwen2moe"
    head_bias = False
    told = (COUNTS[0], USED, _INNER, _BESIDE, "norm_topk_prob")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "qkv_bias"),
                        *(*COUNTS, USED, _INNER, _BESIDE, "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
                    )
                ),
                ignored={"mlp_bias": ()},
                irrelevant=("attention_bias", *OF_TRAINING),
            ),
            "gguf": Keys(
                used=GGUF_USED | {_GGUF_INNER, _GGUF_BESIDE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (False,), "expert_gating_func": (1,)},
            ),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv"))
        return frozenset(named) if fields.flag("qkv_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Every other of the layers before max_window_layers slides, if any do and no types of layers are given."""
        config = expert_settings.of_hugging_face(
            *(config, fields, _INNER),
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            expert_layers=sparse_layers(config, fields),
            shared_intermediate_size=fields.integer(_BESIDE) or 0,
        )
        window = fields.integer("sliding_window") if fields.flag("use_sliding_window") else None
        most = fields.integer("max_window_layers", low=0) or 0
        layers = range(config.num_hidden_layers)
        given = given_layer_types(config, fields)
        if window is None and SLIDING in (given or ()):
            raise fields.wrong(f"has layer_types with {SLIDING}, but no sliding_window that is in use; correct it.")
        types = given or tuple(SLIDING if n < most and n % 2 == 0 else FULL for n in layers)
        if window is None or SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return super().to_hugging_face(config) | {
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            _INNER: config.moe_intermediate_size,
            _BESIDE: config.shared_intermediate_size,
            "norm_topk_prob": config.norm_topk_prob,
            "mlp_only_layers": dense_layers(config),
            "decoder_sparse_step": 1,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: all layers have experts, whose weights are those of the softmax over all."""
        used, inner = (fields.integer(key, low=0) or 0 for key in ("expert_used_count", _GGUF_INNER))
        beside = fields.integer(_GGUF_BESIDE, low=0) or config.intermediate_size
        return expert_settings.of_gguf(
            *(config, fields, inner or config.intermediate_size // max(used, 1)),
            norm_topk_prob=False,
            shared_intermediate_size=beside,
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        yield from expert_settings.refused_without(config)
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Qwen2Moe()
