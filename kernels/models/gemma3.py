"""gemma3, its text model: four norms a layer, windows in most layers, which have a rotary base of their own."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import OF_SLIDING, Keys, Settings, every, gguf_layer_types, given_layer_types
from kernels.models.gemma import Gemma
from kernels.models.llama import AFTER, Decoder, decoder_stages

_PATTERN = 6  # layers, of which the last is full, where nothing is said
_LARGEST = 62  # layers of the one model whose scores llama.cpp scales by the share of a head in the hidden size


class Gemma3(Gemma):
    """Defaults of Gemma3TextConfig in transformers 5.24; models/gemma3.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "post_attn_norm", "post_ffn_norm")
    head_norms = True
    ffn_norm = "pre_feedforward_layernorm"
    after = AFTER
    model_types = ("gemma3_text",)
    defaults = MappingProxyType(
        {
            "vocab_size": 262208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": _PATTERN,
        }
    )
    activations = ("hidden_activation", ("gelu_pytorch_tanh",))
    local_base = "rope_local_base_freq"
    gguf = "gemma3"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("sliding_window", "sliding_window_pattern", "layer_types", "rope_local_base_freq"),
                        *("query_pre_attn_scalar", "hidden_activation", "attention_bias", "final_logit_softcapping"),
                        *("use_bidirectional_attention", f"rope_parameters.{FULL}", f"rope_parameters.{SLIDING}"),
                    )
                ),
                ignored={"hidden_act": ("gelu_pytorch_tanh",), "mlp_bias": (), "attn_logit_softcapping": ()},
                irrelevant=("_sliding_window_pattern", "vision_config.*", "mm_tokens_per_image", "*_token_index"),
            ),
            "gguf": Keys(
                used=frozenset(
                    (
                        *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
                        *("final_logit_softcapping", *OF_SLIDING),
                    )
                ),
                ignored={"hidden_activation": ("gelu_pytorch_tanh",)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Every sixth layer is full where nothing else is said; a file that says nothing at all has no windows."""
        config = super().of_hugging_face(config, fields)
        types, pattern = given_layer_types(config, fields), fields.integer("sliding_window_pattern")
        if types is None and pattern is not None:
            types = every(pattern, config)
        window, base = fields.integer("sliding_window"), fields.number("rope_local_base_freq")
        slide = SLIDING in (types or ())
        if (slide and None in (window, base)) or (types is None and (window, base) != (None, None)):
            raise fields.wrong(
                "does not say all of sliding_window, rope_local_base_freq and layer_types (or sliding_window_pattern), "
                "though some; add what is absent or null, it is needed and cannot be guessed."
            )
        scalar = fields.number("query_pre_attn_scalar")
        if types is not None and scalar is None:
            raise fields.wrong("does not say query_pre_attn_scalar, by which scores are scaled; add it.")
        config = replace(config, sliding_window=window, layer_types=types, rope_local_theta=base if slide else None)
        return _scaled(replace(config, logits_cap=fields.number("final_logit_softcapping")), scalar)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        return Decoder.refused_by_llama_cpp(self, config)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        """Everything by which layers differ; what `of_hugging_face` would have to guess is never left out."""
        scalar = config.head_dim if config.attention_scale is None else _number(round(config.attention_scale**-2, 9))
        of_layers = {
            "sliding_window": config.sliding_window,
            "layer_types": None if config.layer_types is None else list(config.layer_types),
            "rope_local_base_freq": config.rope_local_theta,
            "final_logit_softcapping": config.logits_cap,
        }
        return {
            "query_pre_attn_scalar": scalar,
            **{key: value for key, value in of_layers.items() if value is not None},
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: every sixth layer is full unless the pattern says otherwise; without a window, all are."""
        if config.rope_attention_factor != 1:
            raise fields.unsupported(
                "stretches rotary embeddings by YaRN or an attention factor, which is not computed for layers with "
                "rotary bases of their own; give a file with linear scaling or none."
            )
        if fields.find("final_logit_softcapping")[1]:
            config = replace(config, logits_cap=fields.single("final_logit_softcapping"))
        if config.num_hidden_layers == _LARGEST:
            config = _scaled(config, config.hidden_size // config.num_attention_heads)
        window = fields.integer("attention.sliding_window", low=0)
        if not window:
            return config
        base = fields.number("rope.freq_base_swa") or self.defaults["rope_local_base_freq"]
        assert isinstance(base, float)
        return replace(
            config, sliding_window=window, layer_types=gguf_layer_types(config, fields, _PATTERN), rope_local_theta=base
        )


def _scaled(config: ModelConfig, scalar: float | None) -> ModelConfig:
    """The configuration with scores that are divided by the root of a number, which usually is the size of a head."""
    return config if scalar in (None, config.head_dim) else replace(config, attention_scale=scalar**-0.5)


def _number(value: float) -> float:
    """A whole number as transformers insists on it: without a point."""
    return int(value) if value.is_integer() else value


FAMILY = Gemma3()
