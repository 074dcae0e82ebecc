"""gemma4, its dense text model: heads of full layers have a size of their own, their keys may stand for values.

Values are normed, scores are not scaled, norm weights are stored as they are, and a number scales what a layer gives.
"""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import OF_SLIDING, Has, Keys, Settings, Tensor, every, gguf_layer_types, given_layer_types
from kernels.graph import Heads, Stage
from kernels.kinds.attention import Attention
from kernels.kinds.elementwise import Scaled
from kernels.kinds.norm import RmsNorm
from kernels.models.gemma import Gemma
from kernels.models.llama import AFTER, Decoder, decoder_stages
from kernels.stages import Site

_PATTERN = 6  # layers, of which the last is full, where nothing is said
_ON_LOGITS = 30.0  # in llama.cpp, where nothing is said
_STILL = float(np.float32(1e30))  # what converters divide the frequencies of pairs by that do not turn
_SHARE, _SCALAR = 0.25, "layer_scalar"
_OF_FULL = ("global_head_dim", "num_global_key_value_heads", "per_layer_config")
_BY_LAYER, _SHARED = "hidden_size_per_layer_input", "num_kv_shared_layers"


class Gemma4(Gemma):
    """Defaults of Gemma4TextConfig in transformers 5.24; models/gemma4.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "v_norm", "post_attn_norm", "post_ffn_norm")
    head_norms = True
    two_heads = True
    less_one = False
    ffn_norm = "pre_feedforward_layernorm"
    after = AFTER
    in_apr = False
    model_types = ("gemma4_text",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30},
            **{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, _OF_FULL[0]: 512},
            **{"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
            **{"rope_local_base_freq": 1e4, "sliding_window": 512, "attention_k_eq_v": False},
            **{_BY_LAYER: 256, _SHARED: 0},
            "rope_parameters": {
                SLIDING: {"rope_type": "default", "rope_theta": 1e4},
                FULL: {"rope_type": "proportional", "partial_rotary_factor": _SHARE, "rope_theta": 1e6},
            },
        }
    )
    activations = ("hidden_activation", ("gelu_pytorch_tanh",))
    local_base = "rope_local_base_freq"
    rope_kinds = MappingProxyType({"default": "default", "proportional": "default"})  # of its divisors see `_turning`
    gguf = "gemma4"
    rope_freqs = True
    gguf_modules = MappingProxyType({"layer_output_scale": _SCALAR})
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("sliding_window", "layer_types", f"rope_parameters.{FULL}", f"rope_parameters.{SLIDING}"),
                        *("hidden_activation", "attention_bias", "final_logit_softcapping", "attention_k_eq_v"),
                        *("use_bidirectional_attention", "enable_moe_block", _BY_LAYER, _SHARED, *_OF_FULL),
                    )
                ),
                ignored={"hidden_act": ("gelu_pytorch_tanh",), "mlp_bias": (), "num_experts": ()},
                irrelevant=(
                    *("per_layer_config.*", "vocab_size_per_layer_input", "use_double_wide_mlp", "top_k_experts"),
                    *("moe_intermediate_size", "vision_config.*", "audio_config.*", "*_token_index"),
                ),
            ),
            "gguf": Keys(
                used=frozenset(
                    (
                        *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
                        *("final_logit_softcapping", "attention.shared_kv_layers", *OF_SLIDING),
                        "embedding_length_per_layer_input",
                    )
                ),
                ignored={"hidden_activation": ("gelu_pytorch_tanh",)},
                irrelevant=("expert_feed_forward_length",),
            ),
        }
    )

    def layer(self, config: ModelConfig, number: int, has: Has) -> tuple[Stage, ...]:
        *stages, output = super().layer(config.of_layer(number), number, has)
        if has(scalar := f"model.layers.{number}.{_SCALAR}.weight"):
            output = replace(output, kind=Scaled(), tensors=(scalar,))
        return (*stages, output)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        c, before = config, config.q_size + (0 if _keys_are_values(config, layer) else config.kv_size)
        for stage in super().attention(config, layer, has):
            match stage.site.stage:
                case "qkv_matmul" if _keys_are_values(c, layer):
                    heads = Heads(c.head_dim, (("q", c.q_size), ("k", c.kv_size)))
                    used = tuple(name for name in stage.tensors if ".v_proj." not in name)
                    yield replace(stage, channels=c.q_size + c.kv_size, tensors=used, heads=heads)
                case "k_norm":
                    yield stage
                    norm = RmsNorm(c.rms_norm_eps, c.head_dim, before, c.kv_size)
                    yield replace(stage, site=Site(layer, "v_norm"), kind=norm, tensors=())
                case "attention":
                    assert isinstance(stage.kind, Attention)
                    kind = replace(stage.kind, value_start=0)
                    yield replace(stage, kind=kind, reads=(*stage.reads[:2], "v_norm"))
                case _:
                    yield stage

    def tensors(self, config: ModelConfig) -> Iterator[Tensor]:
        yield from super().tensors(config)
        for layer in range(config.num_hidden_layers):
            yield Tensor(f"model.layers.{layer}.{_SCALAR}.weight", (1,), optional=True)

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        for tensor in super().of_attention(config.of_layer(layer), layer):
            if not tensor.name.endswith(".bias") and not (
                ".v_proj." in tensor.name and _keys_are_values(config, layer)
            ):
                yield tensor

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The last layer is full, whatever a file says; the others as it says, or every sixth."""
        _refuse(
            fields,
            (_SHARED, "keys and values of earlier layers in its last ones"),
            (_BY_LAYER, "embeddings of their own in every layer"),
            ("enable_moe_block", "experts"),
            ("attention_bias", "biases of attention"),
        )
        if fields.find("use_bidirectional_attention")[1] not in (None, "vision"):
            raise fields.unsupported("sets use_bidirectional_attention for text, which this program does not compute.")
        types = (*(given_layer_types(config, fields) or every(_PATTERN, config))[:-1], FULL)
        window, base = fields.integer("sliding_window"), fields.number("rope_local_base_freq")
        alike = fields.flag("attention_k_eq_v") is True
        size, heads = _full_heads(fields, types, alike)
        config = replace(config, full_head_dim=size, full_kv_heads=heads or config.num_key_value_heads)
        if window is None:
            raise fields.wrong("does not say sliding_window; add what is null, it is needed and cannot be guessed.")
        return replace(
            _checked(config, fields),
            rope_factors=_turning(size, fields),
            layer_types=types,
            sliding_window=window,
            rope_local_theta=base,
            keys_as_values=alike,
            attention_scale=1.0,
            logits_cap=fields.number("final_logit_softcapping"),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            **{"sliding_window": config.sliding_window, "layer_types": list(config.layer_types or ())},
            **{_OF_FULL[0]: config.full_head_dim, _OF_FULL[1]: config.full_kv_heads, _BY_LAYER: 0},
            **{"attention_k_eq_v": config.keys_as_values, "final_logit_softcapping": config.logits_cap},
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which bends logits below 30 where nothing is said."""
        _refuse(
            fields,
            ("attention.shared_kv_layers", "keys and values of earlier layers in its last ones"),
            ("embedding_length_per_layer_input", "embeddings of their own in every layer"),
        )
        if not config.causal or config.rope_attention_factor != 1:
            raise fields.unsupported("has no causal mask or an attention factor, which is not computed for gemma4.")
        window, own, turned = (fields.integer(key) for key in ("attention.sliding_window", *OF_SLIDING[::2]))
        if None in (window, own) or (turned or config.head_dim) != own:
            raise fields.wrong(
                f"does not say all of {self.gguf}.attention.sliding_window, {OF_SLIDING[0]} and {OF_SLIDING[2]}, which "
                "llama.cpp asks for, or does not rotate whole heads; convert it again."
            )
        if config.rope_factors is None:
            raise fields.wrong("lacks the tensor rope_freqs.weight, which llama.cpp asks for; convert it again.")
        config = replace(config, full_head_dim=config.head_dim, head_dim=own or 0)
        types = gguf_layer_types(config, fields, _PATTERN)
        if not isinstance(fields.find("attention.sliding_window_pattern")[1], list):
            raise fields.wrong("does not give attention.sliding_window_pattern for every layer; convert it again.")
        sliding, full = _gguf_heads(config, fields, types)
        config = _checked(replace(config, num_key_value_heads=sliding, full_kv_heads=full), fields)
        given = fields.find("final_logit_softcapping")[1]
        return replace(
            config,
            layer_types=types,
            sliding_window=window,
            rope_local_theta=fields.single("rope.freq_base_swa") or 1e4,
            attention_scale=1.0,
            logits_cap=_ON_LOGITS if given is None else fields.single("final_logit_softcapping") if given else None,
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from Decoder.refused_by_llama_cpp(self, config)
        if config.rope_factors is None:
            yield "it has no divisors of the rotary frequencies, which llama.cpp asks for"


def _keys_are_values(config: ModelConfig, layer: int) -> bool:
    return config.keys_as_values and not config.slides(layer)


def _refuse(fields: Settings, *settings: tuple[str, str]) -> None:
    """Refuse what is set of some settings, by what it stands for."""
    for key, what in settings:
        if fields.find(key)[1]:
            raise fields.unsupported(f"sets {key}: {what}, which this program does not compute.")


def _checked(config: ModelConfig, fields: Settings) -> ModelConfig:
    """The configuration, whose query heads divide among those of keys in all layers and turn in pairs."""
    counts = config.num_key_value_heads, config.full_kv_heads or 1
    if any(config.num_attention_heads % count for count in counts) or config.head_dim % 2 or _odd(config.full_head_dim):
        raise fields.wrong(
            f"gives {config.num_attention_heads} attention heads of {config.head_dim} and {config.full_head_dim} "
            f"channels, and {counts[0]} and {counts[1]} of keys; the first must divide, of an even size up to 16384."
        )
    return config


def _odd(size: int | None) -> bool:
    return size is not None and (size % 2 != 0 or size > 1 << 14)


def _full_heads(fields: Settings, types: tuple[str, ...], alike: bool) -> tuple[int, int | None]:
    """The channels of a head of full layers, and how many of keys there are; None for as many as in the others."""
    given = fields.find("per_layer_config")[1]
    if given is None:
        size, heads = fields.integer(_OF_FULL[0]), fields.integer(_OF_FULL[1]) if alike else None
        if size is None:
            raise fields.wrong(f"gives null as {_OF_FULL[0]}; correct it.")
        return size, heads
    full = {str(layer) for layer, kind in enumerate(types) if kind == FULL}
    own = list(given.values()) if isinstance(given, dict) and given.keys() == full else []
    known = [one for one in own if isinstance(one, dict) and one == own[0] and one.keys() <= _OF_ONE]
    size, heads = (known[0].get(key) for key in ("head_dim", "num_key_value_heads")) if known else (None, None)
    if len(known) != len(full) or type(size) is not int or size < 1 or not (heads is None or type(heads) is int):
        raise fields.unsupported(
            "gives a per_layer_config that is not one head_dim, and one num_key_value_heads, for all full layers and "
            "for those only."
        )
    if heads is not None and heads < 1:
        raise fields.wrong("gives fewer than one of num_key_value_heads in per_layer_config; correct it.")
    return size, heads


_OF_ONE = {"head_dim", "num_key_value_heads"}


def _gguf_heads(config: ModelConfig, fields: Settings, types: tuple[str, ...]) -> tuple[int, int]:
    """How many heads of keys sliding layers have, and full ones."""
    _, given = fields.find("attention.head_count_kv")
    given = config.num_attention_heads if given is None else given
    counts = given if isinstance(given, list) else [given] * len(types)
    if len(counts) < len(types) or not all(type(count) is int and count > 0 for count in counts):
        raise fields.wrong("gives attention.head_count_kv not as a number above 0 for every layer; convert it again.")
    found = [{count for count, kind in zip(counts, types, strict=False) if kind == of} for of in (SLIDING, FULL)]
    if any(len(several) > 1 for several in found):
        raise fields.unsupported("has other attention.head_count_kv among layers of one kind; that is not supported.")
    sliding, full = (min(several or found[0] | found[1]) for several in found)
    return sliding, full


def _turning(size: int, fields: Settings) -> tuple[float, ...] | None:
    """Divisors by which the first pairs of a head turn as in a head that turns as a whole, and the others do not."""
    rope = fields.within("rope_parameters")
    full, sliding = rope.within(FULL), rope.within(SLIDING)
    if None in (full.number("rope_theta"), sliding.number("rope_theta")) or full.text("rope_type") is None:
        raise fields.wrong("does not give rope_type and rope_theta in rope_parameters for both kinds of layers.")
    if full.number("factor") not in (None, 1):
        raise fields.unsupported(f"gives rope_parameters.{FULL}.factor, which this program does not compute.")
    share = full.number("partial_rotary_factor")
    if full.text("rope_type") != "proportional":
        return None
    turned = int((1.0 if share is None else share) * size // 2)
    if turned > size // 2:
        raise fields.wrong(f"gives rope_parameters.{FULL}.partial_rotary_factor above 1; correct it.")
    return (1.0,) * turned + (_STILL,) * (size // 2 - turned)


FAMILY = Gemma4()
