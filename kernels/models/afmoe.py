"""afmoe: norms before and behind both blocks, normed heads, gates of attention, experts chosen by sigmoids."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from kernels import expert_settings, experts
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_SIZES, GGUF_USED, GGUF_WEIGHTS, INNER, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import OF_SLIDING, Keys, Settings, every, gguf_layer_types, given_layer_types
from kernels.models.llama import Decoder, decoder_stages

_PATTERN, _STEP = 4, "global_attn_every_n_layers"  # layers, of which the last is full
_DENSE, _BESIDE, _SCALE, _SCALED = "num_dense_layers", "num_shared_experts", "route_scale", "mup_enabled"
_OF_EXPERTS = (COUNTS[0], USED, INNER, _DENSE, _BESIDE, _SCALE)
_BASE = "rope.freq_base_swa"


class Afmoe(Decoder):
    """Defaults of AfmoeConfig in transformers 5.24; models/afmoe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(
        *("q_norm", "k_norm", "attn_gate", "attn_gated", "post_attn_norm", "post_ffn_norm"), *experts.NAMES
    )
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    output_gate = True
    gates_apart = True
    ffn_norm = "pre_mlp_layernorm"
    after = MappingProxyType(
        {
            "attn_out": ("post_attn_norm", "post_attention_layernorm"),
            "ffn_out": ("post_ffn_norm", "post_mlp_layernorm"),
        }
    )
    in_apr = False
    model_types = ("afmoe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 200192, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 32},
            **{"num_attention_heads": 16, "head_dim": 128, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5},
            **{INNER: 1408, _DENSE: 1, COUNTS[0]: 64, USED: 6, _BESIDE: 2, _SCALE: 1.0, _SCALED: False},
            **{_STEP: _PATTERN, "sliding_window": 1024},
        }
    )
    modules = MappingProxyType({"model.layers.N.mlp.gate": "model.layers.N.mlp.router.gate"})
    gguf = "afmoe"
    gguf_modules = MappingProxyType(
        {
            "attn_gate": "self_attn.gate_proj",
            "ffn_norm": "pre_mlp_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        }
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((*_OF_EXPERTS, _SCALED, _STEP, "sliding_window", "layer_types", "attention_bias")),
                ignored={
                    **{"mlp_bias": (), "score_func": ("sigmoid",), "route_norm": (True,), "n_group": (1,)},
                    **{"topk_group": (1,), "num_expert_groups": (1,), "num_limited_groups": (1,)},
                },
                irrelevant=(*OF_TRAINING, "load_balance_coeff", "use_grouped_mm"),
            ),
            "gguf": Keys(
                used=GGUF_USED
                | GGUF_SIZES
                | GGUF_WEIGHTS
                | {"attention.sliding_window", "attention.sliding_window_pattern", _BASE, *OF_SLIDING},
                ignored=GGUF_OTHERS,
            ),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in "qkvo")
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        inner, beside = fields.integer(INNER) or 0, fields.integer(_BESIDE, low=0) or 0
        dense, window = fields.integer(_DENSE, low=0) or 0, fields.integer("sliding_window")
        types = given_layer_types(config, fields) or every(fields.integer(_STEP, low=0) or 0, config)
        if window is None and SLIDING in types:
            raise fields.wrong(f"has layers of the type {SLIDING}, but no sliding_window; correct it.")
        config = expert_settings.of_hugging_face(
            *(config, fields, INNER, COUNTS[:1]),
            expert_scoring="sigmoid",
            routed_scaling_factor=fields.number(_SCALE) or 1.0,
            expert_layers=tuple(layer >= dense for layer in range(config.num_hidden_layers)),
            shared_intermediate_size=inner * beside,
        )
        return _with_windows(_scaled(config) if fields.flag(_SCALED) else config, window, types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            INNER: config.moe_intermediate_size,
            _DENSE: len(expert_settings.dense_layers(config)),
            _BESIDE: config.shared_intermediate_size // max(config.moe_intermediate_size, 1),
            _SCALE: config.routed_scaling_factor,
            _SCALED: config.embedding_scale != 1,
            "sliding_window": config.sliding_window,
            "layer_types": list(config.layer_types or (FULL,) * config.num_hidden_layers),
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: every fourth layer does not rotate, whichever have windows."""
        window = fields.integer("attention.sliding_window", low=0) or None
        if (base := fields.single(_BASE)) not in (None, config.rope_theta) and window is not None:
            raise fields.unsupported(f"gives {self.gguf}.{_BASE} as {base:g}; only one base is supported.")
        types = gguf_layer_types(config, fields, _PATTERN) if window is not None else every(1, config)
        made = _with_windows(_scaled(expert_settings.gguf_in_groups(config, fields, "sigmoid")), window, types)
        rotated = tuple(kind == SLIDING for kind in every(_PATTERN, config))
        return replace(made, rotated_layers=None if all(rotated) else rotated)


def _scaled(config: ModelConfig) -> ModelConfig:
    """The configuration with embeddings that are multiplied by the square root of the channels."""
    return replace(config, embedding_scale=float(np.sqrt(np.float32(config.hidden_size))))


def _with_windows(config: ModelConfig, window: int | None, types: tuple[str, ...]) -> ModelConfig:
    """The configuration with windows in some layers, which alone rotate."""
    slides = tuple(kind == SLIDING for kind in types)
    if not any(slides):
        return replace(config, rotated_layers=slides)
    return replace(config, sliding_window=window, layer_types=types, rotated_layers=None if all(slides) else slides)


FAMILY = Afmoe()
