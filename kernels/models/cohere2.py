"""cohere2: a cohere of which every fourth layer is full and does not rotate, and the others slide."""

from types import MappingProxyType

from kernels.config import SLIDING, ModelConfig
from kernels.family import (
    OF_SLIDING,
    Keys,
    Settings,
    every,
    gguf_layer_types,
    given_layer_types,
    rotating_where_sliding,
)
from kernels.models.cohere import Cohere
from kernels.models.llama import Llama

_PATTERN = 4  # layers, of which the last is full


class Cohere2(Cohere):
    """Defaults of Cohere2Config in transformers 5.24; models/cohere2.cpp in llama-cpp-python 0.3.36."""

    model_types = ("cohere2",)
    defaults = MappingProxyType({**Cohere.defaults, "sliding_window": 4096, "sliding_window_pattern": _PATTERN})
    told = ("logit_scale", "sliding_window", "layer_types")
    gguf = "cohere2"
    scaled = Llama.scaled
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    ("logit_scale", "attention_bias", "sliding_window", "sliding_window_pattern", "layer_types")
                ),
                ignored={"mlp_bias": (), "rotary_pct": (1,)},
                irrelevant=("order_of_interleaved_layers", "position_embedding_type", "use_gated_activation"),
            ),
            "gguf": Keys(
                used=frozenset(
                    ("logit_scale", "attention.sliding_window", "attention.sliding_window_pattern", *OF_SLIDING)
                ),
                irrelevant=("rope.freq_base_swa",),
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = super().of_hugging_face(config, fields)
        types = given_layer_types(config, fields)
        if types is None:
            types = every(fields.integer("sliding_window_pattern") or _PATTERN, config)
        window = fields.integer("sliding_window")
        if window is None and SLIDING in types:
            raise fields.wrong(f"has layer_types with {SLIDING}, but no sliding_window; correct it.")
        return rotating_where_sliding(config, window, types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        of_layers = {"sliding_window": config.sliding_window, "layer_types": list(config.layer_types or ())}
        return super().to_hugging_face(config) | of_layers

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = super().of_gguf(config, fields)
        window = fields.integer("attention.sliding_window")
        if window is None or fields.find("logit_scale")[1] is None:
            raise fields.wrong(
                f"does not say {self.gguf}.attention.sliding_window and {self.gguf}.logit_scale, which llama.cpp asks "
                "for; convert it again."
            )
        return rotating_where_sliding(config, window, gguf_layer_types(config, fields, _PATTERN))


FAMILY = Cohere2()
