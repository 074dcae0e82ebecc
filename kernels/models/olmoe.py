"""olmoe: a llama with experts, whose q and k are normed over all their heads at once."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages


class Olmoe(Decoder):
    """Defaults of OlmoeConfig in transformers 5.24; models/olmoe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts()
    head_norms = True
    norms_together = True
    model_types = ("olmoe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16},
            **{"num_attention_heads": 16, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
            **{USED: 8, COUNTS[0]: 64, "norm_topk_prob": False},
        }
    )
    gguf = "olmoe"
    told = (COUNTS[0], USED, "norm_topk_prob")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", *COUNTS, USED, "norm_topk_prob")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers", *OF_TRAINING),
            ),
            "gguf": Keys(
                used=GGUF_USED,
                ignored={**GGUF_OTHERS, "expert_weights_norm": (False,), "expert_gating_func": (1,)},
            ),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        found = expert_settings.of_hugging_face(config, fields, "intermediate_size")
        return replace(found, norm_topk_prob=bool(fields.flag("norm_topk_prob")))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            "norm_topk_prob": config.norm_topk_prob,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return expert_settings.of_gguf(config, fields, config.intermediate_size, norm_topk_prob=False)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from expert_settings.refused_without(config)
        if config.q_size != config.hidden_size or config.kv_size != config.hidden_size:
            yield f"its channels of Q or K are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Olmoe()
