"""granitehybrid: a granite of which most layers have a state space in place of attention; the others do not rotate."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig, Recurrence
from kernels.expert_settings import COUNTS, OF_TRAINING, USED
from kernels.family import Has, Keys, Settings, Tensor
from kernels.graph import Kind, Stage
from kernels.kinds.activation import Silu
from kernels.kinds.convolution import Convolution
from kernels.kinds.elementwise import Multiply
from kernels.kinds.product import Product
from kernels.kinds.scan import GroupNorm, Part, Scan, Softplus, Step
from kernels.models.granite import MULTIPLIERS, Granite
from kernels.models.llama import decoder_stages
from kernels.stages import Site

SCAN = (
    *("scan_in", "convolved", "conv_silu", "scan_dt", "scan_step", "scan", "scan_z", "scan_silu", "scan_gated"),
    "scan_norm",
)
_RECURRENT, _ATTENDING = ("mamba", "linear_attention"), ("attention", "full_attention")
_SHAPE = ("mamba_d_conv", "mamba_n_heads", "mamba_n_groups", "mamba_d_state")
_GGUF_SHAPE = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count")
_BESIDE = "shared_intermediate_size"


class GraniteHybrid(Granite):
    """Defaults of GraniteMoeHybridConfig in transformers 5.24; models/granite-hybrid.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(*SCAN, *experts.NAMES)
    headless = True
    in_apr = False
    model_types = ("granitemoehybrid",)
    defaults = MappingProxyType(
        {
            **Granite.defaults,
            **{COUNTS[1]: 8, USED: 2, _BESIDE: 1024, "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256},
            **{"mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False},
        }
    )
    gguf = "granitehybrid"
    gguf_modules: ClassVar[MappingProxyType[str, str]] = MappingProxyType(
        {
            "ssm_in": "mamba.in_proj",
            "ssm_conv1d": "mamba.conv1d",
            "ssm_norm": "mamba.norm",
            "ssm_out": "mamba.out_proj",
            "ssm_a": "mamba.A_log",
            "ssm_d": "mamba.D",
            "ssm_dt.bias": "mamba.dt_bias",
        }
    )
    scaled = (*Granite.scaled, "mamba.in_proj", "mamba.out_proj")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=Granite.keys["safetensors"].used
                | {*COUNTS, USED, _BESIDE, *_SHAPE, "mamba_d_head", "mamba_expand", "mamba_conv_bias"}
                | {"mamba_proj_bias", "layer_types", "layers_block_type", "position_embedding_type", "time_step_limit"},
                ignored={"sliding_window": ()},
                irrelevant=(*Granite.keys["safetensors"].irrelevant, *OF_TRAINING, "mamba_chunk_size", "attn_*"),
            ),
            "gguf": Keys(
                used=Granite.keys["gguf"].used | set(_GGUF_SHAPE),
                ignored=Granite.keys["gguf"].ignored,
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        limit = fields.find("time_step_limit")[1]
        if limit is not None and not (isinstance(limit, list) and list(limit) == [0.0, float("inf")]):
            raise fields.unsupported("sets time_step_limit, which this program does not compute.")
        if not config.causal:
            raise fields.unsupported("sets is_causal to false, which is not computed where layers keep a state.")
        beside = fields.integer(_BESIDE, low=0) or 0
        if fields.integer(COUNTS[1], low=0):
            config = expert_settings.of_hugging_face(
                config, fields, "intermediate_size", shared_intermediate_size=beside
            )
        else:
            config = replace(config, intermediate_size=beside)
        numbers = [fields.number(key) or 1.0 for key in MULTIPLIERS]
        sizes = [fields.integer(key) or 0 for key in _SHAPE]
        if missing := [key for key, size in zip(_SHAPE, sizes, strict=True) if not size]:
            raise fields.wrong(f"does not say {missing[0]}; add it, it is needed and cannot be guessed.")
        kernel, heads, groups, state = sizes
        inner = (fields.integer("mamba_expand") or 1) * config.hidden_size
        recurrence = Recurrence(kernel, heads, inner // heads, groups, state)
        _check(recurrence, inner, fields)
        if fields.text("position_embedding_type") != "rope":
            config = replace(config, rotated_layers=(False,) * config.num_hidden_layers)
        made = self.multiplied(config, *numbers)
        return replace(made, recurrence=recurrence, recurrent_layers=_layers(config, fields))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        r, turned = config.recurrence, config.rotated_layers is None
        assert r is not None
        layers = range(config.num_hidden_layers)
        return {
            **super().to_hugging_face(config),
            COUNTS[1]: config.num_experts,
            _BESIDE: config.shared_intermediate_size or config.intermediate_size,
            **dict(zip(_SHAPE, (r.kernel, r.heads, r.groups, r.state), strict=True)),
            "mamba_d_head": r.head_dim,
            "mamba_expand": r.values // config.hidden_size,
            "layer_types": ["linear_attention" if config.recurs(layer) else "full_attention" for layer in layers],
            "position_embedding_type": "rope" if turned else None,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        sizes = {key: fields.integer(key) for key in _GGUF_SHAPE}
        if missing := [key for key, size in sizes.items() if size is None]:
            raise fields.wrong(f"does not say {missing[0]}; convert the model again.")
        if not config.causal:
            raise fields.unsupported("sets attention.causal to false, which is not computed where layers keep a state.")
        kernel, inner, state, heads, groups = (size or 1 for size in sizes.values())
        recurrence = Recurrence(kernel, heads, inner // heads, groups, state)
        _check(recurrence, inner, fields)
        return super().of_gguf(replace(config, recurrence=recurrence), fields)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if config.recurrence is not None and config.recurrence.values != 2 * config.hidden_size:
            yield f"its state spaces have {config.recurrence.values} channels, which are not twice {config.hidden_size}"

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        if not config.recurs(layer):
            yield from super().of_attention(config, layer)
            return
        r, hidden, name = config.recurrence, config.hidden_size, f"model.layers.{layer}.mamba.".__add__
        assert r is not None
        width = r.values + r.convolved + r.heads
        yield Tensor(name("in_proj.weight"), (width, hidden))
        yield Tensor(name("in_proj.bias"), (width,), optional=True)
        yield Tensor(name("conv1d.weight"), (r.convolved, r.kernel), loose=True)
        yield Tensor(name("conv1d.bias"), (r.convolved,), optional=True)
        yield Tensor(name("dt_bias"), (r.heads,))
        yield Tensor(name("A_log"), (r.heads,), loose=True)
        yield Tensor(name("D"), (r.heads,), loose=True)
        yield Tensor(name("norm.weight"), (r.values,), loose=True)
        yield Tensor(name("out_proj.weight"), (hidden, r.values))
        yield Tensor(name("out_proj.bias"), (hidden,), optional=True)
        for module in ("in_proj", "out_proj"):
            yield Tensor(name(f"{module}.output_scale"), (1,), optional=True)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        if not config.recurs(layer):
            yield from super().attention(config, layer, has)
            return
        r, name = config.recurrence, f"model.layers.{layer}.mamba.".__add__
        assert r is not None

        def stage(of: str, kind: Kind, channels: int, reads: tuple[str, ...], *used: str) -> Stage:
            return Stage(Site(layer, of), kind, channels, reads, used)

        inner, every = r.values, r.convolved
        yield self._norm(config, layer, "attn_norm", "input_layernorm", "layer_input")
        width = inner + every + r.heads
        yield stage("scan_in", Product(), width, ("attn_norm",), *self._used(layer, "mamba.in_proj", has))
        swept = self._used(layer, "mamba.conv1d", has)
        yield stage("convolved", Convolution(inner, every), every, ("scan_in",), *swept)
        yield stage("conv_silu", Silu(), every, ("convolved",))
        yield stage("scan_dt", Step(inner + every), r.heads, ("scan_in",), name("dt_bias"))
        yield stage("scan_step", Softplus(), r.heads, ("scan_dt",))
        scan = Scan(r.groups, r.head_dim, r.state)
        yield stage("scan", scan, inner, ("conv_silu", "scan_step"), name("A_log"), name("D"))
        yield stage("scan_z", Part(0), inner, ("scan_in",))
        yield stage("scan_silu", Silu(), inner, ("scan_z",))
        yield stage("scan_gated", Multiply(), inner, ("scan_silu", "scan"))
        norm = GroupNorm(config.rms_norm_eps, inner // r.groups)
        yield stage("scan_norm", norm, inner, ("scan_gated",), name("norm.weight"))
        out = self._used(layer, "mamba.out_proj", has)
        yield stage("attn_out", Product(), config.hidden_size, ("scan_norm",), *out)


def _layers(config: ModelConfig, fields: Settings) -> tuple[bool, ...] | None:
    """Which layers have a state space; all where nothing is said."""
    layers, (key, types) = config.num_hidden_layers, fields.find("layer_types", "layers_block_type")
    if types is None:
        return (True,) * layers
    known = (*_RECURRENT, *_ATTENDING)
    if not isinstance(types, list) or len(types) < layers or not all(kind in known for kind in types):
        raise fields.unsupported(f"has {key} other than {', '.join(known)}, or fewer than layers.")
    found = tuple(kind in _RECURRENT for kind in types[:layers])
    return found if any(found) else None


def _check(r: Recurrence, inner: int, fields: Settings) -> None:
    if r.values != inner or r.heads % r.groups or inner % r.groups:
        raise fields.wrong(
            f"has state spaces of {inner} channels, {r.heads} heads and {r.groups} groups, which do not share them "
            "evenly; correct it."
        )


FAMILY = GraniteHybrid()
