"""qwen35: gated delta nets between attention layers with gates; norms stored less 1, but for those of delta nets."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import FULL, ModelConfig, Recurrence
from kernels.family import Has, Keys, Settings, Tensor, plain_sections
from kernels.graph import Heads, Kind, Stage
from kernels.kinds.activation import Sigmoid, Silu
from kernels.kinds.convolution import Convolution
from kernels.kinds.delta import Decay, DeltaNet
from kernels.kinds.elementwise import Multiply
from kernels.kinds.norm import RmsNorm, UnitNorm
from kernels.kinds.product import Product
from kernels.models.llama import Decoder, decoder_stages
from kernels.stages import Site

LINEAR = "linear_attention"
DELTA = (
    *("delta_qkv", "delta_z", "delta_b", "delta_a", "convolved", "conv_silu", "delta_q", "delta_k"),
    *("delta_beta", "delta_decay", "delta", "delta_norm", "delta_silu", "delta_gated"),
)
SHAPE = MappingProxyType(
    {
        "kernel": "linear_conv_kernel_dim",
        "heads": "linear_num_value_heads",
        "head_dim": "linear_value_head_dim",
        "groups": "linear_num_key_heads",
        "state": "linear_key_head_dim",
    }
)
OF_LAYERS = ("layer_types", "full_attention_interval")
GGUF_SHAPE = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count")
GGUF_LAYERS = ("attention.recurrent_layers", "full_attention_interval")
GGUF_MODULES = MappingProxyType(
    {
        "attn_qkv": "linear_attn.in_proj_qkv",
        "attn_gate": "linear_attn.in_proj_z",
        "ssm_conv1d": "linear_attn.conv1d",
        "ssm_norm": "linear_attn.norm",
        "ssm_out": "linear_attn.out_proj",
        "ssm_a": "linear_attn.A_log",
        "ssm_dt.bias": "linear_attn.dt_bias",
        "post_attention_norm": "post_attention_layernorm",
    }
)
_USUAL = 4  # every so manyth layer has attention


class Qwen35(Decoder):
    """Defaults of Qwen3_5TextConfig in transformers 5.24; models/qwen35.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("attn_gate", "q_norm", "k_norm", "attn_gated", *DELTA)
    head_norms = True
    output_gate = True
    less_one = True
    tiled = True
    in_apr = False
    predicts = True
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5_text",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32},
            **{"num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "head_dim": 256},
            **{"rms_norm_eps": 1e-6, SHAPE["kernel"]: 4, SHAPE["state"]: 128, SHAPE["head_dim"]: 128},
            **{SHAPE["groups"]: 16, SHAPE["heads"]: 32},
        }
    )
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.25)
    gguf = "qwen35"
    gguf_modules = MappingProxyType(
        {**GGUF_MODULES, "ssm_beta": "linear_attn.in_proj_b", "ssm_alpha": "linear_attn.in_proj_a"}
    )
    rope_sections: ClassVar[bool] = True
    delta_scaled: ClassVar[tuple[str, ...]] = tuple(
        f"linear_attn.{part}_proj" for part in ("q", "k", "v", "z", "b", "a", "out")
    )
    scaled = (
        *(*Decoder.scaled, "self_attn.gate_proj"),
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", *SHAPE.values(), *OF_LAYERS)),
                ignored={"mlp_bias": (), "attn_output_gate": (True,), "sliding_window": ()},
                irrelevant=(
                    *("rope_parameters.mrope_*", "rope_scaling.mrope_*", "mtp_*", "mamba_ssm_dtype", "mlp_only_layers"),
                    *("use_sliding_window", "max_window_layers", "output_gate_type", "language_model_only"),
                ),
            ),
            "gguf": Keys(
                used=frozenset((*GGUF_SHAPE, *GGUF_LAYERS, "rope.dimension_sections")),
            ),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o", "gate"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if not config.causal:
            raise fields.unsupported("sets is_causal to false, which is not computed where layers keep a state.")
        shape = {name: fields.integer(key) or 0 for name, key in SHAPE.items()}
        if missing := [key for name, key in SHAPE.items() if not shape[name]]:
            raise fields.wrong(f"does not say {missing[0]}; add it, it is needed and cannot be guessed.")
        recurrence = Recurrence(**shape)
        made = replace(config, recurrence=recurrence, recurrent_layers=_linear_layers(config, fields))
        _check_shape(recurrence, fields)
        return made

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        assert config.recurrence is not None
        layers = range(config.num_hidden_layers)
        return {
            **{key: getattr(config.recurrence, name) for name, key in SHAPE.items()},
            "layer_types": [LINEAR if config.recurs(layer) else FULL for layer in layers],
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        sizes = {key: fields.integer(key) for key in GGUF_SHAPE}
        if missing := [key for key, size in sizes.items() if size is None]:
            raise fields.wrong(f"does not say {missing[0]}; convert the model again.")
        if not config.causal:
            raise fields.unsupported("sets attention.causal to false, which is not computed where layers keep a state.")
        kernel, inner, state, heads, groups = (size or 1 for size in sizes.values())
        if inner != heads * state:
            raise fields.wrong(f"has values of {inner} channels, which are not {heads} heads of {state}; correct it.")
        if self.rope_sections:
            plain_sections(config, fields, "rope.dimension_sections", in_turn=True)
        recurrence = Recurrence(kernel, heads, state, groups, state, config.rms_norm_eps)
        _check_shape(recurrence, fields)
        return replace(config, recurrence=recurrence, recurrent_layers=_gguf_layers(config, fields))

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        if not config.recurs(layer):
            yield from super().of_attention(config, layer)
            return
        r, hidden = config.recurrence, config.hidden_size
        assert r is not None
        name = f"model.layers.{layer}.linear_attn.".__add__
        sizes = (("q", r.keys), ("k", r.keys), ("v", r.values), ("z", r.values), ("b", r.heads), ("a", r.heads))
        for part, size in sizes:
            yield Tensor(name(f"{part}_proj.weight"), (size, hidden))
        yield Tensor(name("conv1d.weight"), (r.convolved, r.kernel), loose=True)
        yield Tensor(name("A_log"), (r.heads,))
        yield Tensor(name("dt_bias"), (r.heads,))
        yield Tensor(name("norm.weight"), (r.head_dim,))
        yield Tensor(name("out_proj.weight"), (hidden, r.values))
        for module in self.delta_scaled:
            yield Tensor(f"model.layers.{layer}.{module}.output_scale", (1,), optional=True)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        if not config.recurs(layer):
            yield from super().attention(config, layer, has)
            return
        yield self._norm(config, layer, "attn_norm", "input_layernorm", "layer_input")
        yield from self._delta_net(config, layer, has)

    def _delta_net(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        r, name = config.recurrence, f"model.layers.{layer}.linear_attn.".__add__
        assert r is not None

        def stage(of: str, kind: Kind, channels: int, reads: tuple[str, ...], *used: str, size: int = 0) -> Stage:
            heads = Heads(size, (("", channels),)) if size else None
            return Stage(Site(layer, of), kind, channels, reads, used, heads)

        def product(of: str, channels: int, read: str, *parts: str) -> Stage:
            modules = [f"linear_attn.{part}_proj" for part in parts]
            scales = (
                f"model.layers.{layer}.{module}.output_scale" for module in modules if module in self.delta_scaled
            )
            used = (*(name(f"{part}_proj.weight") for part in parts), *filter(has, scales))
            return stage(of, Product(), channels, (read,), *used)

        x, keys, groups, every = "attn_norm", r.keys, r.groups, r.convolved
        mixed = product("delta_qkv", every, x, "q", "k", "v")
        parts = Heads(r.state, (("q", keys), ("k", keys), ("v", r.values)))
        yield replace(mixed, heads=parts if r.state == r.head_dim else None)
        yield product("delta_z", r.values, x, "z")
        yield product("delta_b", r.heads, x, "b")
        yield product("delta_a", r.heads, x, "a")
        yield stage("convolved", Convolution(), every, ("delta_qkv",), name("conv1d.weight"))
        yield stage("conv_silu", Silu(), every, ("convolved",))
        for part, start in (("q", 0), ("k", keys)):
            unit = UnitNorm(r.norm_eps / r.state, r.state, start, keys)
            yield stage(f"delta_{part}", unit, keys, ("conv_silu",), size=r.state)
        yield stage("delta_beta", Sigmoid(), r.heads, ("delta_b",))
        yield stage("delta_decay", Decay(), r.heads, ("delta_a",), name("A_log"), name("dt_bias"))
        net = DeltaNet(groups, r.head_dim, 2 * keys, self.tiled)
        read = ("delta_q", "delta_k", "conv_silu", "delta_beta", "delta_decay")
        yield stage("delta", net, r.values, read, size=r.head_dim)
        normed = RmsNorm(config.rms_norm_eps, r.head_dim)
        yield stage("delta_norm", normed, r.values, ("delta",), name("norm.weight"), size=r.head_dim)
        yield stage("delta_silu", Silu(), r.values, ("delta_z",))
        yield stage("delta_gated", Multiply(), r.values, ("delta_silu", "delta_norm"))
        yield product("attn_out", config.hidden_size, "delta_gated", "out")


def _linear_layers(config: ModelConfig, fields: Settings) -> tuple[bool, ...] | None:
    """Which layers have a delta net by Hugging Face's keys."""
    layers, (key, types) = config.num_hidden_layers, fields.find(OF_LAYERS[0])
    if types is None:
        step = fields.integer(OF_LAYERS[1]) or _USUAL
        found = tuple((layer + 1) % step != 0 for layer in range(layers))
    elif isinstance(types, list) and len(types) >= layers and all(kind in (LINEAR, FULL) for kind in types):
        found = tuple(kind == LINEAR for kind in types[:layers])
    else:
        raise fields.unsupported(f"has {key} other than {LINEAR} and {FULL}, or fewer than layers.")
    return found if any(found) else None


def _gguf_layers(config: ModelConfig, fields: Settings) -> tuple[bool, ...] | None:
    """The same by GGUF's keys, which may name further layers that are not run."""
    layers, (key, given) = config.num_hidden_layers, fields.find(GGUF_LAYERS[0])
    if given is None:
        step = fields.integer(GGUF_LAYERS[1]) or _USUAL
        found = tuple((layer + 1) % step != 0 for layer in range(layers))
    else:
        marks = given if isinstance(given, list) else [given] * layers
        if len(marks) < layers or not all(mark in (0, 1) for mark in marks):
            raise fields.wrong(f"gives {key} for fewer layers than it has, or not as true and false; convert it again.")
        found = tuple(bool(mark) for mark in marks[:layers])
    return found if any(found) else None


def _check_shape(recurrence: Recurrence, fields: Settings) -> None:
    if recurrence.heads % recurrence.groups:
        raise fields.wrong(
            f"has {recurrence.heads} heads of values, which {recurrence.groups} heads of keys cannot share; correct it."
        )


FAMILY = Qwen35()
