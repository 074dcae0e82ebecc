"""llama4: attention in chunks; layers without rotation scale queries by positions; experts read what is weighted.

Heads are normed behind their rotation, without a weight. An expert is given its token times the sigmoid of its score.
"""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from kernels import expert_settings, experts
from kernels.config import CHUNKED, FULL, SLIDING, ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, gguf_layer_types
from kernels.kinds.temperature import Tempered
from kernels.models.llama import Decoder, decoder_stages

# What llama.cpp takes for granted: every so manyth layer does not rotate, tokens of a chunk, and what grows with them.
_STEP, _CHUNK, _SCALE, _WITHOUT_NORMS = 4, 8192, 0.1, 128
_DENSE, _EXPERTS_EVERY, _WITH_EXPERTS = "intermediate_size_mlp", "interleave_moe_layer_step", "moe_layers"
_PLAIN, _PLAIN_EVERY = "no_rope_layers", "no_rope_layer_interval"
_TUNING = ("attn_temperature_tuning", "attn_scale", "floor_scale")


class Llama4(Decoder):
    """Defaults of Llama4TextConfig in transformers 5.24; models/llama4.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_rope_norm", "k_rope_norm", "q_tempered", *experts.NAMES)
    expert_parts = ExpertParts(before=True)
    by_columns = True
    head_norms = True
    norms_rotated = True
    head_norm_weights = False
    norms_differ = True
    pairs = "norm"
    model_types: ClassVar[tuple[str, ...]] = ("llama4_text",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, _DENSE: 16384},
            **{"num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128},
            **{"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5, USED: 1, COUNTS[1]: 16},
            **{_EXPERTS_EVERY: 1, "use_qk_norm": True, _PLAIN_EVERY: _STEP, "attention_chunk_size": _CHUNK},
            **{_TUNING[0]: True, _TUNING[1]: _SCALE, _TUNING[2]: _CHUNK},
        }
    )
    gguf = "llama4"
    rope_freqs = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *(_DENSE, _EXPERTS_EVERY, _WITH_EXPERTS, _PLAIN, _PLAIN_EVERY, *_TUNING, COUNTS[1], USED),
                        *("use_qk_norm", "attention_chunk_size", "layer_types", "attention_bias"),
                    )
                ),
                ignored={"sliding_window": (), "mlp_bias": ()},
                irrelevant=(*OF_TRAINING, "use_sliding_window", "for_llm_compressor"),
            ),
            "gguf": Keys(
                used=GGUF_USED
                | {"expert_feed_forward_length", _EXPERTS_EVERY, "rope.freq_base_swa"}
                | {"attention.sliding_window", "attention.sliding_window_pattern"},
                ignored={
                    **{key: values for key, values in GGUF_OTHERS.items() if key != _EXPERTS_EVERY},
                    **{"attention.chunk_size": (_CHUNK,), "expert_gating_func": (2,), "expert_weights_norm": (False,)},
                },
            ),
        }
    )

    def normed(self, config: ModelConfig, layer: int) -> bool:
        return super().normed(config, layer) and config.rotates(layer)

    def temperature(self, config: ModelConfig, layer: int) -> Tempered | None:
        """Layers that rotate have none, and positions are counted from 1."""
        found = None if config.rotates(layer) else super().temperature(config, layer)
        return found and replace(found, offset=1)

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        loaded = fields.flag("attention_bias")
        return frozenset(f"self_attn.{part}_proj.bias" for part in "qkvo") if loaded else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        layers, tuned = range(config.num_hidden_layers), fields.find(_TUNING[0])[1]
        rotated = _flags(fields, _PLAIN, len(layers))
        every = fields.integer(_PLAIN_EVERY) or _STEP
        rotated = rotated or tuple((layer + 1) % every != 0 for layer in layers)
        chunk = fields.integer("attention_chunk_size")
        usual = tuple(CHUNKED if turns and chunk is not None else FULL for turns in rotated)
        step, given = fields.integer(_EXPERTS_EVERY) or 1, fields.find(_WITH_EXPERTS)[1]
        if given is not None and not (isinstance(given, list) and all(type(layer) is int for layer in given)):
            raise fields.wrong(f"gives {_WITH_EXPERTS} as something else than numbers of layers; correct it.")
        with_experts = tuple((layer + 1) % step == 0 if given is None else layer in given for layer in layers)
        dense = fields.integer(_DENSE)
        if dense is None:
            raise fields.wrong(f"does not say {_DENSE}; add it, it is needed and cannot be guessed.")
        config = expert_settings.of_hugging_face(
            *(config, fields, "intermediate_size", COUNTS[1:]),
            **_OF_EXPERTS,
            expert_layers=with_experts,
            shared_intermediate_size=config.intermediate_size,
        )
        return replace(
            config,
            intermediate_size=dense,
            rotated_layers=None if all(rotated) else rotated,
            layer_types=_types(fields, len(layers)) or usual,
            attention_chunk=chunk,
            normed_heads=fields.flag("use_qk_norm") is True,
            temperature=fields.number(_TUNING[1]) if tuned else None,
            temperature_length=fields.integer(_TUNING[2]) if tuned else None,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        c, layers = config, range(config.num_hidden_layers)
        return {
            **{"intermediate_size": c.moe_intermediate_size, _DENSE: c.intermediate_size},
            **{COUNTS[1]: c.num_experts, USED: c.num_experts_per_tok, "use_qk_norm": c.normed_heads},
            _WITH_EXPERTS: [layer for layer in layers if c.has_experts(layer)],
            _PLAIN: [int(c.rotates(layer)) for layer in layers],
            **{"attention_chunk_size": c.attention_chunk, "layer_types": list(c.layer_types or ())},
            **{_TUNING[0]: c.temperature is not None, _TUNING[1]: c.temperature, _TUNING[2]: c.temperature_length},
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Chunks, layers without rotation and what grows with positions are constants there."""
        if fields.find("attention.sliding_window")[1] == 0:
            raise fields.unsupported(f"sets {self.gguf}.attention.sliding_window to 0, with which llama.cpp stops.")
        if fields.find("rope.freq_base_swa")[1] and fields.single("rope.freq_base_swa") != config.rope_theta:
            raise fields.unsupported(
                "gives rope.freq_base_swa another base than rope.freq_base; only one is supported."
            )
        layers = range(config.num_hidden_layers)
        types = tuple(CHUNKED if kind == SLIDING else kind for kind in gguf_layer_types(config, fields, _STEP))
        rotated = tuple((layer + 1) % _STEP != 0 for layer in layers)
        step, inner = fields.integer(_EXPERTS_EVERY, low=0), expert_settings.gguf_inner(config, fields)
        if step is None:
            raise fields.wrong(
                f"does not say {self.gguf}.{_EXPERTS_EVERY}; add it, it is needed and cannot be guessed."
            )
        config = expert_settings.of_gguf(
            *(config, fields, inner),
            **_OF_EXPERTS,
            expert_layers=tuple(step > 0 and (layer + 1) % step == 0 for layer in layers),
            shared_intermediate_size=inner,
        )
        return replace(
            config,
            rotated_layers=None if all(rotated) else rotated,
            layer_types=types,
            attention_chunk=_CHUNK,
            normed_heads=config.num_experts != _WITHOUT_NORMS,
            temperature=_SCALE,
            temperature_length=_CHUNK,
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if not config.num_experts:
            yield f"it has no experts, without which there is no {self.gguf}"


_OF_EXPERTS: dict[str, Any] = {"expert_scoring": "sigmoid of chosen", "norm_topk_prob": False}


def _flags(fields: Settings, key: str, layers: int) -> tuple[bool, ...] | None:
    """What a list says of every layer; None where it is absent or empty."""
    given = fields.find(key)[1]
    if not given:
        return None
    if not isinstance(given, list) or len(given) < layers or not all(value in (0, 1) for value in given):
        raise fields.wrong(f"gives {key} as something else than 0 or 1 for each of {layers} layers; correct it.")
    return tuple(bool(value) for value in given[:layers])


def _types(fields: Settings, layers: int) -> tuple[str, ...] | None:
    """The types of layers that are given; None where they are absent."""
    given = fields.find("layer_types")[1]
    if given is None:
        return None
    if isinstance(given, list) and len(given) >= layers and all(kind in (FULL, CHUNKED) for kind in given):
        return tuple(given[:layers])
    raise fields.unsupported(f"has layer_types other than {FULL} and {CHUNKED}, or fewer than layers.")


FAMILY = Llama4()
