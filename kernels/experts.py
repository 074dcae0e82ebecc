"""The feed-forward block of layers with experts: its stages and tensors, by settings and by what a family adds."""

from collections.abc import Iterator
from dataclasses import dataclass

from kernels.config import ModelConfig
from kernels.family import Has, Tensor
from kernels.graph import Kind, Stage
from kernels.kinds.activation import Activation
from kernels.kinds.elementwise import Add, Multiply
from kernels.kinds.product import Product
from kernels.stages import Site

CHOICE = "expert_weights"  # what every expert counts for a token, 0 for those that are not chosen
# Stages whose channels are a run for each expert of a token, in ascending order of the experts.
PAIRS = ("expert_input", "expert_gate", "expert_up", "expert_silu", "expert_swigl", "expert_out")
_NORMS = ("router_norm", "expert_norm", "expert_sum_norm", "shared_norm")
_ROUTED = ("router_norm", "router", CHOICE, "expert_norm", *PAIRS)
# What is computed for every token beside the experts, and the sum of those.
_SHARED = (
    *("expert_sum", "expert_sum_norm", "shared_router", "shared_gate", "shared_up", "shared_silu", "shared_swigl"),
    *("shared_out", "shared_norm"),
)
_GATED = ("shared_router", "shared_gated")
_BEFORE = ("expert_input",)  # where experts read what is weighted already
NAMES: tuple[str, ...] = (*_ROUTED, *_SHARED, "shared_gated")
GATE, EXPERTS, BESIDE = "mlp.gate", "mlp.experts", "mlp.shared_expert"
SELECTION = f"{GATE}.e_score_correction_bias"  # added to scores for the choice only
_PARTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ExpertParts:
    """What the experts of a family have beside their weights.

    selection : something is added to scores for the choice only, if it is stored. gated : what is computed beside them
    is multiplied by the sigmoid of a gate of its own, which llama.cpp makes of a SiLU where `divided`. biased :
    products of experts, and the router's, may have biases. scaled : products of experts are multiplied by stored
    factors, if there are any; shared_scaled : and so are those of what is computed beside them. before : the weight of
    an expert multiplies what it reads, not what it gives. normed : what the router and the experts read, what these
    give and what is beside them is normed, each by itself.
    """

    selection: bool = False
    gated: bool = False
    divided: bool = False
    biased: bool = False
    scaled: bool = False
    shared_scaled: bool = False
    before: bool = False
    normed: bool = False


def names(config: ModelConfig, parts: ExpertParts | None) -> tuple[str, ...]:
    """The stages that only models with experts have, in execution order."""
    if parts is None or not config.num_experts:
        return ()
    absent = (*(() if parts.gated else _GATED), *(() if parts.before else _BEFORE), *(() if parts.normed else _NORMS))
    there = NAMES if config.shared_intermediate_size else _ROUTED
    return tuple(name for name in there if name not in absent)


def expert(number: int, part: str) -> str:
    """The module of one product of an expert."""
    return f"{EXPERTS}.{number}.{part}"


def tensors(c: ModelConfig, layer: int, parts: ExpertParts) -> Iterator[Tensor]:
    """Tensors of the block; those of experts one by one, however they are stored."""
    name, hidden, inner = f"model.layers.{layer}.".__add__, c.hidden_size, c.moe_intermediate_size
    yield Tensor(name(f"{GATE}.weight"), (c.num_experts, hidden))
    if parts.biased:
        yield Tensor(name(f"{GATE}.bias"), (c.num_experts,), optional=True)
    if parts.selection:
        yield Tensor(name(SELECTION), (c.num_experts,), optional=True)
    for part, shape in zip(_PARTS, ((inner, hidden), (inner, hidden), (hidden, inner)), strict=True):
        for number in range(c.num_experts):
            module = name(expert(number, part))
            yield Tensor(f"{module}.weight", shape)
            if parts.biased:
                yield Tensor(f"{module}.bias", shape[:1], optional=True)
            if parts.scaled:
                yield Tensor(f"{module}.output_scale", (1,), optional=True)
    if size := c.shared_intermediate_size:
        for part, shape in zip(_PARTS, ((size, hidden), (size, hidden), (hidden, size)), strict=True):
            yield Tensor(name(f"{BESIDE}.{part}.weight"), shape)
            if parts.shared_scaled:
                yield Tensor(name(f"{BESIDE}.{part}.output_scale"), (1,), optional=True)
        if parts.gated:
            yield Tensor(name(f"{BESIDE}_gate.weight"), (1, hidden))


def stages(c: ModelConfig, layer: int, x: str, activation: Activation, parts: ExpertParts, has: Has) -> Iterator[Stage]:
    """The stages of the block, which reads x and ends with ffn_out."""
    # Loaded with the first model that has experts.
    from kernels.kinds.choice import Choice
    from kernels.kinds.clamped import ClampedMultiply
    from kernels.kinds.experts import ExpertInput, ExpertProduct, ExpertSum, RankedSum
    from kernels.kinds.gated import Gated
    from kernels.kinds.gelu import GeluTanh

    def stage(name: str, kind: Kind, channels: int, reads: tuple[str, ...], used: tuple[str, ...] = ()) -> Stage:
        return Stage(Site(layer, name), kind, channels, reads, used)

    def of_experts(name: str, kind: Kind, channels: int, reads: tuple[str, ...], part: str = "") -> Stage:
        modules = [expert(number, part) for number in range(c.num_experts)] if part else []
        used = tuple(tensor for module in modules for tensor in _used(layer, module, has, parts.biased, parts.scaled))
        return stage(name, kind, runs * channels, reads, used)

    runs, inner, hidden = c.num_experts_per_tok, c.moe_intermediate_size, c.hidden_size
    choice = Choice(
        *(runs, c.expert_scoring, c.norm_topk_prob, c.routed_scaling_factor, c.n_group, c.topk_group),
        c.group_best,
    )
    product = ExpertProduct(runs, apart=parts.before)
    added = tuple(filter(has, (f"model.layers.{layer}.{SELECTION}",) if parts.selection else ()))
    yield stage("router", Product(), c.num_experts, (x,), _used(layer, GATE, has, parts.biased))
    yield stage(CHOICE, choice, c.num_experts, ("router",), added)
    given = x
    if parts.before:
        given = "expert_input"
        yield stage(given, ExpertInput(runs), runs * hidden, (x, CHOICE))
    yield of_experts("expert_gate", product, inner, (given, CHOICE), "gate_proj")
    yield of_experts("expert_up", product, inner, (given, CHOICE), "up_proj")
    yield of_experts("expert_silu", activation, inner, ("expert_gate",))
    plain = Multiply(plain_zeros=isinstance(activation, GeluTanh))
    gated = plain if c.swiglu_limit is None else ClampedMultiply(limit=c.swiglu_limit)
    yield of_experts("expert_swigl", gated, inner, ("expert_silu", "expert_up"))
    down = ExpertProduct(runs, apart=True)
    yield of_experts("expert_out", down, hidden, ("expert_swigl", CHOICE), "down_proj")

    def beside_used(part: str) -> tuple[str, ...]:
        return _used(layer, f"{BESIDE}.{part}", has, scaled=parts.shared_scaled)

    size = c.shared_intermediate_size
    summed, read = ExpertSum(not parts.before), (CHOICE, "expert_out")
    if added:
        summed, read = RankedSum(weighted=not parts.before, choice=choice), (*read, "router")
    yield stage("expert_sum" if size else "ffn_out", summed, hidden, read, added)
    if not size:
        return
    beside = "shared_out"
    if parts.gated:
        yield stage("shared_router", Product(), 1, (x,), _used(layer, f"{BESIDE}_gate", has))
    yield stage("shared_gate", Product(), size, (x,), beside_used("gate_proj"))
    yield stage("shared_up", Product(), size, (x,), beside_used("up_proj"))
    yield stage("shared_silu", activation, size, ("shared_gate",))
    yield stage("shared_swigl", plain, size, ("shared_silu", "shared_up"))
    yield stage(beside, Product(), hidden, ("shared_swigl",), beside_used("down_proj"))
    if parts.gated:
        yield stage("shared_gated", Gated(parts.divided), hidden, (beside, "shared_router"))
        beside = "shared_gated"
    yield stage("ffn_out", Add(), hidden, ("expert_sum", beside))


def _used(layer: int, module: str, has: Has, biased: bool = False, scaled: bool = False) -> tuple[str, ...]:
    """The tensors of a product: its weight, and what else there is and counts."""
    name = f"model.layers.{layer}.{module}".__add__
    more = (*((".bias",) if biased else ()), *((".output_scale",) if scaled else ()))
    return (name(".weight"), *filter(has, map(name, more)))
