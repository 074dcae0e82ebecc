"""mistral: a llama without biases, whose layers may all have a sliding window; its GGUF files are those of llama."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder


class Mistral(Decoder):
    """Defaults of MistralConfig in transformers 5.24."""

    model_types = ("mistral",)
    defaults = MappingProxyType(
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "sliding_window": 4096,
        }
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("sliding_window",)),
                ignored={"layer_types": ("sliding_attention",), "mlp_bias": ()},
                irrelevant=("attention_bias", "use_sliding_window", "max_window_layers"),
            )
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(config, sliding_window=fields.integer("sliding_window"))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {} if config.sliding_window is None else {"sliding_window": config.sliding_window}


FAMILY = Mistral()
