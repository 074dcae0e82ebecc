"""dots1: a qwen3 with experts behind its first layers, chosen by sigmoids and what is added to them for the choice."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import (
    BESIDE,
    DENSE,
    GGUF_OTHERS,
    GGUF_SIZES,
    GGUF_USED,
    GGUF_WEIGHTS,
    INNER,
    OF_GROUPS,
    OF_TRAINING,
    ROUTED,
    USED,
)
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, given_layer_types
from kernels.models.llama import Decoder, decoder_stages
from kernels.models.qwen3 import Qwen3


class Dots1(Qwen3):
    """Defaults of Dots1Config in transformers 5.24; models/dots1.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    model_types = ("dots1",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 152064, "hidden_size": 4608, "intermediate_size": 10944, INNER: 1408},
            **{"num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 32},
            **{"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 62},
            **{"n_group": 1, "topk_group": 1, DENSE: 0, "norm_topk_prob": False, "routed_scaling_factor": 1.0},
        }
    )
    gguf = "dots1"
    scaled = Decoder.scaled
    told = (ROUTED, USED, INNER, DENSE, BESIDE, *OF_GROUPS)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "sliding_window", "max_window_layers", "layer_types"),
                        *(ROUTED, USED, INNER, DENSE, BESIDE, *OF_GROUPS),
                    )
                ),
                ignored={"mlp_bias": (), "use_sliding_window": (), "scoring_func": ("sigmoid", "noaux_tc")},
                irrelevant=OF_TRAINING,
            ),
            "gguf": Keys(used=GGUF_USED | GGUF_SIZES | GGUF_WEIGHTS, ignored=GGUF_OTHERS),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The layers from max_window_layers on slide where no types of layers are given."""
        config, layers = expert_settings.in_groups(config, fields), range(config.num_hidden_layers)
        window, full = fields.integer("sliding_window"), fields.integer("max_window_layers", low=0) or 0
        types = given_layer_types(config, fields) or tuple(SLIDING if layer >= full else FULL for layer in layers)
        if window is None or SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        types = config.layer_types or ((FULL if config.sliding_window is None else SLIDING,) * config.num_hidden_layers)
        return {
            "sliding_window": config.sliding_window,
            "layer_types": list(types),
            **expert_settings.keys_of_groups(config),
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return expert_settings.gguf_in_groups(config, fields)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if config.kv_size != config.q_size:
            yield f"its {config.kv_size} channels of K are not the {config.q_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Dots1()
