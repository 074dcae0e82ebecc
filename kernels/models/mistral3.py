"""mistral3 (Ministral 3): a llama that scales queries by their positions, with a magnitude of YaRN of its own."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import experts
from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Llama, decoder_stages

_ROPE = ("rope_scaling", "rope_parameters")  # the first counts, if it is not empty
_BETA, _LENGTH = "llama_4_scaling_beta", "original_max_position_embeddings"
_OF_ROPE = ("beta_fast", "beta_slow", "log_multiplier")
_TEMPERATURE = "attention.temperature_scale"


class Mistral3(Llama):
    """Defaults of Ministral3Config in transformers 5.24; models/mistral3.cpp in llama-cpp-python 0.3.36."""

    model_types: ClassVar[tuple[str, ...]] = ("ministral3",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
            **{"max_position_embeddings": 262144, "rms_norm_eps": 1e-5},
        }
    )
    stages = decoder_stages(*experts.NAMES, "q_tempered")
    gguf = "mistral3"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("sliding_window", *(f"{group}.{_BETA}" for group in _ROPE))),
                ignored={"layer_types": ("full_attention", "sliding_attention"), "mlp_bias": (), "attention_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers", "rope_*.max_position_embeddings"),
            ),
            "gguf": Keys(
                used=Llama.keys["gguf"].used | {_TEMPERATURE, *(f"rope.scaling.yarn_{key}" for key in _OF_ROPE)},
                ignored=Llama.keys["gguf"].ignored,
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The factor of positions stands among the rotary settings, which transformers cannot do without."""
        rope = fields.within(*_ROPE)
        beta, length = rope.number(_BETA), rope.integer(_LENGTH)
        if beta is None or length is None:
            key = _LENGTH if beta else _BETA
            raise rope.wrong(f"does not say rope_parameters.{key}; add it, it is needed and cannot be guessed.")
        window = fields.integer("sliding_window")
        return replace(config, temperature=beta, temperature_length=length, sliding_window=window)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {"sliding_window": config.sliding_window}

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        del fields
        return frozenset()

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = super().of_gguf(config, fields)
        if not fields.find(_TEMPERATURE)[1]:
            return config
        length = fields.integer("rope.scaling.original_context_length", low=0)
        if length is None:
            length = fields.integer("context_length")
        if not length:
            raise fields.wrong(
                f"sets {self.gguf}.{_TEMPERATURE} and an original context of 0 tokens; convert it again."
            )
        return replace(config, temperature=fields.single(_TEMPERATURE), temperature_length=length)


FAMILY = Mistral3()
