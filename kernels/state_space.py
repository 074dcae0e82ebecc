"""The state space of a layer with one decay a head (Mamba 2), for all families: tensors, stages, and its shape."""

from collections.abc import Callable, Iterator
from types import MappingProxyType

from kernels.config import ModelConfig, Recurrence
from kernels.family import Has, Settings, Tensor
from kernels.graph import Kind, Stage
from kernels.kinds.activation import Silu
from kernels.kinds.convolution import Convolution
from kernels.kinds.elementwise import Multiply
from kernels.kinds.product import Product
from kernels.kinds.scan import GroupNorm, Part, Scan, Softplus, Step
from kernels.stages import Site

NAMES = (
    *("scan_in", "convolved", "conv_silu", "scan_dt", "scan_step", "scan", "scan_z", "scan_silu", "scan_gated"),
    "scan_norm",
)
SHAPE = ("mamba_d_conv", "mamba_n_heads", "mamba_n_groups", "mamba_d_state")
GGUF_SHAPE = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count")
GGUF_MODULES = MappingProxyType(
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
Used = Callable[[int, str, Has], tuple[str, ...]]


def tensors(config: ModelConfig, layer: int, norm_optional: bool = False) -> Iterator[Tensor]:
    """The tensors of the state space of a layer. norm_optional : some models do without the norm behind the gate."""
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
    yield Tensor(name("norm.weight"), (r.values,), optional=norm_optional, loose=True)
    yield Tensor(name("out_proj.weight"), (hidden, r.values))
    yield Tensor(name("out_proj.bias"), (hidden,), optional=True)
    for module in ("in_proj", "out_proj"):
        yield Tensor(name(f"{module}.output_scale"), (1,), optional=True)


def stages(config: ModelConfig, layer: int, used: Used, has: Has, last: str) -> Iterator[Stage]:
    """The stages of the state space of a layer, from the norm before it on. last : that of what it gives."""
    r, name = config.recurrence, f"model.layers.{layer}.mamba.".__add__
    assert r is not None

    def stage(of: str, kind: Kind, channels: int, reads: tuple[str, ...], *used: str) -> Stage:
        return Stage(Site(layer, of), kind, channels, reads, used)

    inner, every = r.values, r.convolved
    width = inner + every + r.heads
    yield stage("scan_in", Product(), width, ("attn_norm",), *used(layer, "mamba.in_proj", has))
    swept = used(layer, "mamba.conv1d", has)
    yield stage("convolved", Convolution(inner, every), every, ("scan_in",), *swept)
    yield stage("conv_silu", Silu(), every, ("convolved",))
    yield stage("scan_dt", Step(inner + every), r.heads, ("scan_in",), name("dt_bias"))
    yield stage("scan_step", Softplus(), r.heads, ("scan_dt",))
    scan = Scan(r.groups, r.head_dim, r.state)
    yield stage("scan", scan, inner, ("conv_silu", "scan_step"), name("A_log"), name("D"))
    yield stage("scan_z", Part(0), inner, ("scan_in",))
    yield stage("scan_silu", Silu(), inner, ("scan_z",))
    yield stage("scan_gated", Multiply(), inner, ("scan_silu", "scan"))
    given = "scan_gated"
    if has(name("norm.weight")):
        given, norm = "scan_norm", GroupNorm(config.rms_norm_eps, inner // r.groups)
        yield stage("scan_norm", norm, inner, ("scan_gated",), name("norm.weight"))
    yield stage(last, Product(), config.hidden_size, (given,), *used(layer, "mamba.out_proj", has))


def of_hugging_face(config: ModelConfig, fields: Settings, inner: int | None = None) -> Recurrence:
    """The shape that config.json says. inner : channels in all, where not so many times as there are hidden ones."""
    limit = fields.find("time_step_limit")[1]
    if limit is not None and not (isinstance(limit, list) and list(limit) == [0.0, float("inf")]):
        raise fields.unsupported("sets time_step_limit, which this program does not compute.")
    if not config.causal:
        raise fields.unsupported("sets is_causal to false, which is not computed where layers keep a state.")
    sizes = [fields.integer(key) or 0 for key in SHAPE]
    if missing := [key for key, size in zip(SHAPE, sizes, strict=True) if not size]:
        raise fields.wrong(f"does not say {missing[0]}; add it, it is needed and cannot be guessed.")
    kernel, heads, groups, state = sizes
    inner = inner or (fields.integer("mamba_expand") or 1) * config.hidden_size
    return _checked(Recurrence(kernel, heads, inner // heads, groups, state), inner, fields)


def to_hugging_face(config: ModelConfig) -> dict[str, object]:
    """The keys of config.json for a shape."""
    r = config.recurrence
    assert r is not None
    return {
        **dict(zip(SHAPE, (r.kernel, r.heads, r.groups, r.state), strict=True)),
        "mamba_d_head": r.head_dim,
        "mamba_expand": r.values // config.hidden_size,
    }


def of_gguf(config: ModelConfig, fields: Settings) -> Recurrence:
    """The shape that GGUF's keys say."""
    sizes = {key: fields.integer(key) for key in GGUF_SHAPE}
    if missing := [key for key, size in sizes.items() if size is None]:
        raise fields.wrong(f"does not say {missing[0]}; convert the model again.")
    if not config.causal:
        raise fields.unsupported("sets attention.causal to false, which is not computed where layers keep a state.")
    kernel, inner, state, heads, groups = (size or 1 for size in sizes.values())
    return _checked(Recurrence(kernel, heads, inner // heads, groups, state), inner, fields)


def _checked(r: Recurrence, inner: int, fields: Settings) -> Recurrence:
    if r.values != inner or r.heads % r.groups or inner % r.groups:
        raise fields.wrong(
            f"has state spaces of {inner} channels, {r.heads} heads and {r.groups} groups, which do not share them "
            "evenly; correct it."
        )
    return r
