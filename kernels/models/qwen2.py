"""qwen2: a llama whose q, k and v always have biases, and whose later layers may have a sliding window."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import Keys, Settings, given_layer_types
from kernels.models.llama import Decoder


class Qwen2(Decoder):
    """Defaults of Qwen2Config in transformers 5.24; models/qwen2.cpp in llama-cpp-python 0.3.36."""

    biased = True
    model_types: ClassVar[tuple[str, ...]] = ("qwen2",)
    defaults = MappingProxyType(
        {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 22016,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "sliding_window": 4096,
            "max_window_layers": 28,
        }
    )
    gguf = "qwen2"
    head_bias = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")),
                ignored={"mlp_bias": ()},
                irrelevant=("attention_bias",),
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset(f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv"))

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The layers from max_window_layers on slide, if any do and no types of layers are given."""
        window = fields.integer("sliding_window") if fields.flag("use_sliding_window") else None
        given, layers = given_layer_types(config, fields), config.num_hidden_layers
        full = fields.integer("max_window_layers", low=0)
        if window is not None and given is None and full is None:
            raise fields.wrong(
                "sets use_sliding_window, but neither max_window_layers nor layer_types; add one of them."
            )
        types = given or (FULL,) * min(full or 0, layers) + (SLIDING,) * max(layers - (full or 0), 0)
        if SLIDING in types and given is not None and window is None:
            raise fields.wrong(f"has layer_types with {SLIDING}, but no sliding_window that is in use; correct it.")
        if window is None or SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        if config.sliding_window is None:
            return {}
        types = list(config.layer_types or (SLIDING,) * config.num_hidden_layers)
        return {"use_sliding_window": True, "sliding_window": config.sliding_window, "layer_types": types}

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield (
                f"its {config.q_size} channels of Q are not the {config.hidden_size} that it takes for granted in qwen2"
            )


FAMILY = Qwen2()
