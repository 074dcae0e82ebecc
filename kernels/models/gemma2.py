"""gemma2: a gemma with norms behind both blocks too, a window in every other layer, and bounds on scores and logits."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import OF_SLIDING, Keys, Settings, every, gguf_layer_types, given_layer_types
from kernels.models.gemma import Gemma
from kernels.models.llama import AFTER, decoder_stages

_PATTERN = 2  # layers, of which the last is full
_WINDOW = 4096
_ON_SCORES, _ON_LOGITS = 50.0, 30.0
_LARGEST = 46  # layers of the one model whose scores llama.cpp scales by the share of a head in the hidden size


class Gemma2(Gemma):
    """Defaults of Gemma2Config in transformers 5.24; models/gemma2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("post_attn_norm", "post_ffn_norm")
    ffn_norm = "pre_feedforward_layernorm"
    after = AFTER
    model_types = ("gemma2",)
    defaults = MappingProxyType(
        {
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 256,
            "sliding_window": _WINDOW,
            "attn_logit_softcapping": _ON_SCORES,
            "final_logit_softcapping": _ON_LOGITS,
        }
    )
    activations = ("hidden_activation", ("gelu_pytorch_tanh",))
    gguf = "gemma2"
    told = ("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "sliding_window")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "use_bidirectional_attention", "hidden_activation", "layer_types"),
                        *("sliding_window", "query_pre_attn_scalar"),
                        *("attn_logit_softcapping", "final_logit_softcapping"),
                    )
                ),
                ignored={"hidden_act": ("gelu_pytorch_tanh",), "mlp_bias": ()},
                irrelevant=("sliding_window_size",),
            ),
            "gguf": Keys(
                used=frozenset(
                    (
                        *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
                        *("attn_logit_softcapping", "final_logit_softcapping", *OF_SLIDING),
                    )
                ),
                ignored={"hidden_activation": ("gelu_pytorch_tanh",)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = super().of_hugging_face(config, fields)
        window, scalar = fields.integer("sliding_window"), fields.number("query_pre_attn_scalar")
        types = given_layer_types(config, fields) or every(_PATTERN, config)
        if scalar is None or (window is None and SLIDING in types):
            raise fields.wrong("does not say sliding_window or query_pre_attn_scalar; add what is absent or null.")
        caps = (fields.number("attn_logit_softcapping"), fields.number("final_logit_softcapping"))
        scale = None if scalar == config.head_dim else scalar**-0.5
        return replace(_with(config, window, types, *caps), attention_scale=scale)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        scalar = config.head_dim if config.attention_scale is None else round(config.attention_scale**-2, 9)
        types = config.layer_types or (FULL,) * config.num_hidden_layers
        return {
            "query_pre_attn_scalar": int(scalar) if float(scalar).is_integer() else scalar,
            "sliding_window": config.sliding_window,
            "layer_types": list(types),
            "attn_logit_softcapping": config.attention_cap,
            "final_logit_softcapping": config.logits_cap,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: what is not said is what the published models have."""
        if (base := fields.single("rope.freq_base_swa")) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.rope.freq_base_swa as {base:g}; only one base is supported.")
        window = fields.integer("attention.sliding_window")
        caps = (
            fields.single("attn_logit_softcapping") or _ON_SCORES,
            fields.single("final_logit_softcapping") or _ON_LOGITS,
        )
        config = _with(config, _WINDOW if window is None else window, gguf_layer_types(config, fields, _PATTERN), *caps)
        scalar = config.hidden_size // config.num_attention_heads
        if config.num_hidden_layers != _LARGEST or scalar == config.head_dim:
            return config
        return replace(config, attention_scale=scalar**-0.5)


def _with(
    config: ModelConfig, window: int | None, types: tuple[str, ...], on_scores: float | None, on_logits: float | None
) -> ModelConfig:
    if not window or SLIDING not in types:
        window, types = None, ()
    return replace(
        config, sliding_window=window, layer_types=types or None, attention_cap=on_scores, logits_cap=on_logits
    )


FAMILY = Gemma2()
