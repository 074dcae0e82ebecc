"""smollm3: a llama of which every fourth layer does not rotate q and k."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import FULL, ModelConfig
from kernels.family import Keys, Settings, given_layer_types
from kernels.models.llama import Decoder, Llama

_STEP = 4  # llama.cpp takes it for granted


class SmolLM3(Decoder):
    """Defaults of SmolLM3Config in transformers 5.24; models/smollm3.cpp in llama-cpp-python 0.3.36."""

    model_types = ("smollm3",)
    defaults = MappingProxyType(
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_theta": 2e6,
            "no_rope_layer_interval": _STEP,
        }
    )
    ffn_biases = True
    gguf = "smollm3"
    interleaved = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval"),
                        *("use_sliding_window", "sliding_window", "layer_types"),
                    )
                ),
                irrelevant=("max_window_layers",),
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return Llama.loaded_biases(self, fields)  # type: ignore[arg-type] # it looks at the settings only

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The layers that no_rope_layers marks with 1 rotate; where it is absent or null, all but every so manyth."""
        if fields.flag("use_sliding_window") or given_layer_types(config, fields) not in (
            None,
            (FULL,) * config.num_hidden_layers,
        ):
            raise fields.unsupported("sets use_sliding_window or layer_types that slide, which is not computed.")
        key, given = fields.find("no_rope_layers")
        layers = config.num_hidden_layers
        if given is None:
            step = fields.integer("no_rope_layer_interval")
            if step is None:
                raise fields.wrong("does not say no_rope_layers; add it, it is needed and cannot be guessed.")
            return _rotated(config, [(number + 1) % step != 0 for number in range(layers)])
        if not isinstance(given, list) or len(given) < layers or not all(turns in (0, 1) for turns in given):
            raise fields.wrong(f"gives {key} as something else than 0 or 1 for each layer; correct it.")
        return _rotated(config, list(map(bool, given[:layers])))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {"no_rope_layers": [int(config.rotates(layer)) for layer in range(config.num_hidden_layers)]}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        del fields
        return _rotated(config, [(number + 1) % _STEP != 0 for number in range(config.num_hidden_layers)])


def _rotated(config: ModelConfig, layers: list[bool]) -> ModelConfig:
    return config if all(layers) else replace(config, rotated_layers=tuple(layers))


FAMILY = SmolLM3()
