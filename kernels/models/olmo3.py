"""olmo3: an olmo2 with windows in three of four layers, whose rotation is never scaled."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import OF_SLIDING, Keys, Settings, every, gguf_layer_types, given_layer_types
from kernels.models.olmo2 import Olmo2

_PATTERN = 4  # layers, of which the last is full
_WINDOW, _BASE = 4096, 5e5


class Olmo3(Olmo2):
    """Defaults of Olmo3Config in transformers 5.24; models/olmo2.cpp in llama-cpp-python 0.3.36."""

    model_types = ("olmo3",)
    defaults = MappingProxyType(
        {**Olmo2.defaults, "rope_theta": _BASE, "rope_local_base_freq": _BASE, "sliding_window": _WINDOW}
    )
    local_base: ClassVar[str | None] = "rope_local_base_freq"  # which transformers does not read
    told = ("sliding_window", "layer_types", "rope_local_base_freq")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "sliding_window", "layer_types"),
                        *(f"rope_parameters.{FULL}", f"rope_parameters.{SLIDING}"),
                    )
                ),
                ignored={"mlp_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers", "rope_local_base_freq"),
            ),
            "apr": Keys(used=frozenset(("rope_local_base_freq",))),
            "gguf": Keys(
                used=frozenset(
                    ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa", *OF_SLIDING)
                )
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        types, window = given_layer_types(config, fields) or every(_PATTERN, config), fields.integer("sliding_window")
        base = fields.number("rope_local_base_freq")
        if SLIDING in types and (window is None or base is None):
            raise fields.wrong(f"has layers that are {SLIDING}, but no sliding_window; correct it.")
        return _sliding(config, window, types, base)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            "sliding_window": config.sliding_window,
            "layer_types": list(config.layer_types or ()) or [FULL] * config.num_hidden_layers,
            "rope_local_base_freq": config.rope_local_theta,
        }

    def reads_gguf(self, fields: Settings) -> bool:
        return not super().reads_gguf(fields)

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which loads a rotary base for sliding layers and turns them by that of the others."""
        if (base := fields.single("rope.freq_base_swa")) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.rope.freq_base_swa as {base:g}; only one base is supported.")
        types = gguf_layer_types(config, fields, _PATTERN)
        return _sliding(config, fields.integer("attention.sliding_window"), types, config.rope_theta)


def _sliding(config: ModelConfig, window: int | None, types: tuple[str, ...], base: float | None) -> ModelConfig:
    if SLIDING not in types:
        return config
    return replace(config, sliding_window=window, layer_types=types, rope_local_theta=base)


FAMILY = Olmo3()
