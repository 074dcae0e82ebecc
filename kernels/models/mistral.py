"""mistral: a llama without biases, whose layers may have a sliding window; its GGUF files are those of llama."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import Keys, Settings, given_layer_types
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
                used=frozenset(("sliding_window", "layer_types")),
                ignored={"mlp_bias": ()},
                irrelevant=("attention_bias", "use_sliding_window", "max_window_layers"),
            )
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """AutoConfig takes a file that says layer_types for a ministral, of which those layers slide that it says."""
        window, types = fields.integer("sliding_window"), given_layer_types(config, fields)
        if window is None or types is None:
            return replace(config, sliding_window=window)
        given = types if FULL in types and SLIDING in types else None
        return replace(config, sliding_window=window if SLIDING in types else None, layer_types=given)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        types = {} if config.layer_types is None else {"layer_types": list(config.layer_types)}
        return {} if config.sliding_window is None else {"sliding_window": config.sliding_window, **types}


FAMILY = Mistral()
