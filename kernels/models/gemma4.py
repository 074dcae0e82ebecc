"""gemma4, its text model: heads of full layers have a size of their own, their keys may stand for values.

Values are normed, scores are not scaled, norm weights are stored as they are, and a number scales what a layer gives.
Some models have embeddings of their own in every layer, and last layers that attend to keys and values of earlier ones
(E2B, E4B); some have experts beside the feed-forward block, with norms of their own (26B-A4B).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from kernels import expert_settings, experts, layer_embeddings
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import GGUF_USED
from kernels.experts import BESIDE, CHOICE, GATE, ExpertParts
from kernels.family import OF_SLIDING, Has, Keys, Settings, Tensor, every, gguf_layer_types, given_layer_types
from kernels.gemma4_settings import (
    BY_LAYER,
    GGUF_BY_LAYER,
    GGUF_SHARED,
    OF_FULL,
    ROWS,
    SHARED,
    WIDE,
    checked,
    full_heads,
    gguf_heads,
    gguf_of_layers,
    of_layers,
    shared_as_in_llama_cpp,
    turning,
    without_both,
)
from kernels.graph import Heads, Stage
from kernels.kinds.attention import Attention
from kernels.kinds.elementwise import Scaled
from kernels.kinds.norm import RmsNorm
from kernels.models.gemma import Gemma
from kernels.models.llama import AFTER, Decoder, decoder_stages
from kernels.stages import Site

_PATTERN = 6  # layers, of which the last is full, where nothing is said
_ON_LOGITS = 30.0  # in llama.cpp, where nothing is said
_SHARE, _SCALAR = 0.25, "layer_scalar"
_EXPERTS, _COUNT = "enable_moe_block", "num_experts"
_CHOSEN, _INNER = "top_k_experts", "moe_intermediate_size"
_GGUF_INNER = "expert_feed_forward_length"
_OF_KV = tuple(f"self_attn.{module}" for module in ("k_proj", "v_proj", "k_norm", "v_norm"))
_EXPERT_NORM, _SUM_NORM, _DENSE_NORM = (
    *("pre_feedforward_layernorm_2", "post_feedforward_layernorm_2", "post_feedforward_layernorm_1"),
)
_ROUTER_NORM = "mlp.gate_norm"  # its scale, in files


class Gemma4(Gemma):
    """Defaults of Gemma4TextConfig in transformers 5.24; models/gemma4.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(
        *("q_norm", "k_norm", "v_norm", "post_attn_norm", "post_ffn_norm", *experts.NAMES, *layer_embeddings.NAMES)
    )
    expert_parts = ExpertParts(scaled=True, shared_scaled=True, normed=True)
    scaled = (*Decoder.scaled, *(f"mlp.{part}_proj" for part in ("gate", "up", "down")))
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
            **{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, OF_FULL[0]: 512},
            **{"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
            **{"rope_local_base_freq": 1e4, "sliding_window": 512, "attention_k_eq_v": False},
            **{BY_LAYER: 256, ROWS: 262144, SHARED: 0, WIDE: False, _EXPERTS: False},
            "rope_parameters": {
                SLIDING: {"rope_type": "default", "rope_theta": 1e4},
                FULL: {"rope_type": "proportional", "partial_rotary_factor": _SHARE, "rope_theta": 1e6},
            },
        }
    )
    activations = ("hidden_activation", ("gelu_pytorch_tanh",))
    local_base = "rope_local_base_freq"
    rope_kinds = MappingProxyType({"default": "default", "proportional": "default"})  # of its divisors see `turning`
    gguf = "gemma4"
    rope_freqs = True
    gguf_modules = MappingProxyType(
        {
            "layer_output_scale": _SCALAR,
            "per_layer_token_embd": layer_embeddings.TABLE.removesuffix(".weight"),
            "per_layer_model_proj": f"model.{layer_embeddings.PROJECTION}",
            "per_layer_proj_norm": layer_embeddings.NORM.removesuffix(".weight"),
            **dict(zip(("inp_gate", "proj", "post_norm"), layer_embeddings.MODULES, strict=True)),
            "ffn_gate_inp.scale": f"{_ROUTER_NORM}.weight",
            **{"pre_ffw_norm_2": _EXPERT_NORM, "post_ffw_norm_2": _SUM_NORM, "post_ffw_norm_1": _DENSE_NORM},
        }
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("sliding_window", "layer_types", f"rope_parameters.{FULL}", f"rope_parameters.{SLIDING}"),
                        *("hidden_activation", "attention_bias", "final_logit_softcapping", "attention_k_eq_v"),
                        *("use_bidirectional_attention", _EXPERTS, _COUNT, _CHOSEN, _INNER),
                        *(BY_LAYER, ROWS, SHARED, WIDE, *OF_FULL),
                    )
                ),
                ignored={"hidden_act": ("gelu_pytorch_tanh",), "mlp_bias": ()},
                irrelevant=("per_layer_config.*", "vision_config.*", "audio_config.*", "*_token_index"),
            ),
            "gguf": Keys(
                used=frozenset(
                    (
                        *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
                        *("final_logit_softcapping", GGUF_SHARED, GGUF_BY_LAYER, *OF_SLIDING),
                        *(*GGUF_USED, _GGUF_INNER),
                    )
                ),
                ignored={"hidden_activation": ("gelu_pytorch_tanh",)},
            ),
        }
    )

    def stages_of(self, config: ModelConfig) -> tuple[str, ...]:
        absent = () if config.layer_embedding_size else layer_embeddings.NAMES
        return tuple(name for name in super().stages_of(config) if name not in absent)

    def elsewhere(self, config: ModelConfig, number: int) -> Mapping[str, Site]:
        found = dict(layer_embeddings.ELSEWHERE) if config.layer_embedding_size else {}
        if config.shares_kv(number):
            found |= {name: Site(config.kv_layer(number), name) for name in ("k_post_rope", "v_norm")}
        return found

    def unused(self, config: ModelConfig, number: int) -> frozenset[str]:
        """What neither engine computes with where keys and values are those of another layer."""
        kinds = (".weight", ".output_scale") if config.shares_kv(number) else ()
        return frozenset(f"{module}{kind}" for module in _OF_KV for kind in kinds)

    def layer(self, config: ModelConfig, number: int, has: Has) -> tuple[Stage, ...]:
        c = config.of_layer(number)
        *stages, output = super().layer(c, number, has)
        if c.layer_embedding_size:
            stages += layer_embeddings.stages(c, number, stages[-1].site.stage, self.activation_of(c))
            output = replace(output, reads=(stages[-1].site.stage,))
        if has(scalar := f"model.layers.{number}.{_SCALAR}.weight"):
            output = replace(output, kind=Scaled(), tensors=(scalar,))
        return (*stages, output)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        c, before = config, config.q_size + (0 if _keys_are_values(config, layer) else config.kv_size)
        shared = config.shares_kv(layer)
        for stage in super().attention(config, layer, has):
            match stage.site.stage:
                case "qkv_matmul" if shared:
                    used = tuple(name for name in stage.tensors if ".q_proj." in name)
                    heads = Heads(c.head_dim, (("q", c.q_size),))
                    yield replace(stage, channels=c.q_size, tensors=used, heads=heads)
                case "k_norm" | "k_post_rope" if shared:
                    pass
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

    def _feed_forward(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        """With experts these are beside the block that others have, and each reads and gives what is normed by itself.

        What they read is what attention left behind.
        """
        if not config.has_experts(layer):
            yield from super()._feed_forward(config, layer, has)
            return
        parts, x = self.expert_parts, "post_attn_residual"
        yield self._norm(config, layer, "ffn_norm", self.ffn_norm, x)

        def has_dense(name: str) -> bool:
            return has(_dense(name))

        for stage in experts.stages(config, layer, "ffn_norm", self.activation, parts, has_dense):
            match stage.site.stage:
                case "router":
                    norm = self._norm(config, layer, "router_norm", _ROUTER_NORM, x)
                    small = float(np.float32(1) / np.sqrt(np.float32(config.hidden_size)))
                    yield replace(norm, kind=RmsNorm(config.rms_norm_eps, times=small))
                    yield replace(stage, reads=("router_norm",))
                    continue
                case "expert_gate":
                    yield self._norm(config, layer, "expert_norm", _EXPERT_NORM, x)
                    stage = replace(stage, reads=("expert_norm", CHOICE))
                case "expert_up":
                    stage = replace(stage, reads=("expert_norm", CHOICE))
                case "ffn_out":
                    yield self._norm(config, layer, "shared_norm", _DENSE_NORM, "shared_out")
                    stage = replace(stage, reads=("expert_sum_norm", "shared_norm"))
            yield replace(stage, tensors=tuple(map(_dense, stage.tensors)))
            if stage.site.stage == "expert_sum":
                yield self._norm(config, layer, "expert_sum_norm", _SUM_NORM, "expert_sum")

    def tensors(self, config: ModelConfig) -> Iterator[Tensor]:
        for tensor in super().tensors(config):
            yield tensor._replace(name=_dense(tensor.name))
        for layer in range(config.num_hidden_layers):
            yield Tensor(f"model.layers.{layer}.{_SCALAR}.weight", (1,), optional=True)
            for module in (_ROUTER_NORM, _EXPERT_NORM, _SUM_NORM, _DENSE_NORM) if config.has_experts(layer) else ():
                yield Tensor(f"model.layers.{layer}.{module}.weight", (config.hidden_size,))
        if config.layer_embedding_size:
            yield from layer_embeddings.tensors(config)

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        absent = _OF_KV if config.shares_kv(layer) else _OF_KV[1:2] if _keys_are_values(config, layer) else ()
        for tensor in super().of_attention(config.of_layer(layer), layer):
            if not tensor.name.endswith(".bias") and tensor.name.split(".", 3)[3].rpartition(".")[0] not in absent:
                yield tensor

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The last layer is full, whatever a file says; the others as it says, or every sixth."""
        if fields.find("attention_bias")[1]:
            raise fields.unsupported("sets attention_bias: biases of attention, which this program does not compute.")
        if fields.find("use_bidirectional_attention")[1] not in (None, "vision"):
            raise fields.unsupported("sets use_bidirectional_attention for text, which this program does not compute.")
        types = (*(given_layer_types(config, fields) or every(_PATTERN, config))[:-1], FULL)
        window, base = fields.integer("sliding_window"), fields.number("rope_local_base_freq")
        alike = fields.flag("attention_k_eq_v") is True
        size, heads = full_heads(fields, types, alike)
        config = replace(config, full_head_dim=size, full_kv_heads=heads or config.num_key_value_heads)
        if window is None:
            raise fields.wrong("does not say sliding_window; add what is null, it is needed and cannot be guessed.")
        config = replace(checked(config, fields), layer_types=types, **of_layers(config, types, fields))
        if fields.flag(_EXPERTS):
            more = {"shared_intermediate_size": config.intermediate_size}
            config = expert_settings.of_hugging_face(config, fields, _INNER, (_COUNT,), _CHOSEN, **more)
        return replace(
            without_both(config, fields),
            rope_factors=turning(size, fields),
            sliding_window=window,
            rope_local_theta=base,
            keys_as_values=alike,
            attention_scale=1.0,
            logits_cap=fields.number("final_logit_softcapping"),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            **{"sliding_window": config.sliding_window, "layer_types": list(config.layer_types or ())},
            **{OF_FULL[0]: config.full_head_dim, OF_FULL[1]: config.full_kv_heads},
            **{BY_LAYER: config.layer_embedding_size, ROWS: config.vocab_size, SHARED: config.shared_kv_layers},
            **{WIDE: config.intermediate_sizes is not None, _EXPERTS: config.num_experts > 0},
            **{_COUNT: config.num_experts or None, _CHOSEN: config.num_experts_per_tok or None},
            _INNER: config.moe_intermediate_size or None,
            **{"attention_k_eq_v": config.keys_as_values, "final_logit_softcapping": config.logits_cap},
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which bends logits below 30 where nothing is said."""
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
        sliding, full = gguf_heads(config, fields, types)
        config = checked(replace(config, num_key_value_heads=sliding, full_kv_heads=full), fields)
        config = replace(config, layer_types=types, **gguf_of_layers(config, types, fields))
        given, inner = fields.find("final_logit_softcapping")[1], fields.integer(_GGUF_INNER, low=0) or 0
        if fields.integer("expert_count", low=0):
            config = expert_settings.of_gguf(config, fields, inner, shared_intermediate_size=config.intermediate_size)
        return replace(
            without_both(config, fields),
            sliding_window=window,
            rope_local_theta=fields.single("rope.freq_base_swa") or 1e4,
            attention_scale=1.0,
            logits_cap=_ON_LOGITS if given is None else fields.single("final_logit_softcapping") if given else None,
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from Decoder.refused_by_llama_cpp(self, config)
        if config.rope_factors is None:
            yield "it has no divisors of the rotary frequencies, which llama.cpp asks for"
        if config.shared_kv_layers and not shared_as_in_llama_cpp(config):
            yield "its last layers with keys of their own are not a sliding one and a full one, in this order"


def _keys_are_values(config: ModelConfig, layer: int) -> bool:
    return config.keys_as_values and not config.slides(layer)


def _dense(name: str) -> str:
    """The name of what is computed beside experts, which is that of layers without them here."""
    return name.replace(f".{BESIDE}.", f".{GATE.partition('.')[0]}.")


FAMILY = Gemma4()
