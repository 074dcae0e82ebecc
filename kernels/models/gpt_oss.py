"""gpt-oss: a sink for every head, a window in every other layer, biases everywhere, experts with bounded gates."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from kernels import expert_settings, experts
from kernels.config import SLIDING, ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, every, gguf_layer_types, given_layer_types
from kernels.kinds.activation import Activation
from kernels.kinds.clamped import ClampedGate
from kernels.models.llama import Decoder, decoder_stages

_PATTERN = 2  # layers, of which the last is full, where nothing is said
_ALPHA, _LIMIT = "swiglu_alpha", "swiglu_limit"
_STEEPNESS, _BOUND = 1.702, 7.0
_WINDOW, _PATTERN_KEY = "attention.sliding_window", "attention.sliding_window_pattern"


class GptOss(Decoder):
    """Defaults of GptOssConfig in transformers 5.24; models/openai-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(*experts.NAMES)
    biased = True
    sinks = True
    expert_parts = ExpertParts(biased=True)
    model_types = ("gpt_oss",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36},
            **{"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072},
            **{"rms_norm_eps": 1e-5, "rope_theta": 150000.0, "sliding_window": 128, "attention_bias": True},
            **{COUNTS[1]: 128, USED: 4, _ALPHA: _STEEPNESS, _LIMIT: _BOUND},
        }
    )
    rope_usual: ClassVar[Mapping[str, object]] = MappingProxyType(
        {
            **{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
            "original_max_position_embeddings": 4096,
        }
    )
    more = r"attn_output\.bias"
    modules = MappingProxyType({"model.layers.N.mlp.gate": "model.layers.N.mlp.router"})
    by_columns = True
    by_turns = True
    told = (COUNTS[1], USED, "sliding_window", "layer_types", _ALPHA, _LIMIT)
    gguf = "gpt-oss"
    gguf_modules = MappingProxyType({"post_attention_norm": "post_attention_layernorm"})
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    ("attention_bias", "sliding_window", "layer_types", COUNTS[1], USED, _ALPHA, _LIMIT, COUNTS[0])
                ),
                ignored={"mlp_bias": (), "use_sliding_window": ()},
                irrelevant=(*OF_TRAINING, "experts_per_token", "initial_context_length"),
            ),
            "gguf": Keys(
                used=GGUF_USED | {"expert_feed_forward_length", _WINDOW, _PATTERN_KEY, "rope.freq_base_swa"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (), "expert_gating_func": (3,)},
            ),
        }
    )

    def activation_of(self, config: ModelConfig) -> Activation:
        assert config.swiglu_limit is not None
        return ClampedGate(config.swiglu_alpha, config.swiglu_limit)

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = [f"mlp.experts.{part}_proj.bias" for part in ("gate_up", "down")]
        if fields.flag("attention_bias"):
            named += [f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o")]
        return frozenset(named)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Every other layer slides, from the first on, where nothing else is said."""
        alpha, limit = (fields.number(key) for key in (_ALPHA, _LIMIT))
        if alpha is None or limit is None:
            raise fields.wrong(f"gives {_ALPHA if alpha is None else _LIMIT} as null; give a number.")
        config = expert_settings.of_hugging_face(
            *(config, fields, "intermediate_size", COUNTS[1:]), swiglu_alpha=alpha, swiglu_limit=limit, **_CHOICE
        )
        types = given_layer_types(config, fields) or every(_PATTERN, config)
        return _sliding(config, fields.integer("sliding_window"), types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            COUNTS[1]: config.num_experts,
            USED: config.num_experts_per_tok,
            _ALPHA: config.swiglu_alpha,
            _LIMIT: config.swiglu_limit,
            "sliding_window": config.sliding_window,
            "layer_types": list(config.layer_types or ("full_attention",) * config.num_hidden_layers),
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which has the two numbers of the gates in its code, and one rotary base for all layers."""
        if (base := fields.single("rope.freq_base_swa")) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.rope.freq_base_swa as {base:g}; only one base is supported.")
        inner, window = fields.integer("expert_feed_forward_length"), fields.integer(_WINDOW, low=0)
        for key, value in (("expert_feed_forward_length", inner), (_WINDOW, window)):
            if value is None:
                raise fields.wrong(f"does not say {self.gguf}.{key}, which llama.cpp asks for; convert it again.")
        config = expert_settings.of_gguf(
            *(config, fields, inner or 0), swiglu_alpha=_STEEPNESS, swiglu_limit=_BOUND, **_CHOICE
        )
        return _sliding(config, window, gguf_layer_types(config, fields, _PATTERN))

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from expert_settings.refused_without(config)
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


_CHOICE: dict[str, Any] = {"expert_scoring": "softmax of chosen", "norm_topk_prob": False}


def _sliding(config: ModelConfig, window: int | None, types: tuple[str, ...]) -> ModelConfig:
    if not window or SLIDING not in types:
        return config
    return replace(config, sliding_window=window, layer_types=types)


FAMILY = GptOss()
