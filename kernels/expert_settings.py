"""What files say of experts: keys of transformers and of GGUF that several families have."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kernels.config import ModelConfig, Scoring
from kernels.family import Settings

COUNTS = ("num_experts", "num_local_experts")
USED = "num_experts_per_tok"
# Of GGUF, in every family with experts.
GGUF_USED = frozenset(("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"))
# What llama.cpp reads in other families only, with values that change nothing.
GGUF_OTHERS: Mapping[str, tuple[object, ...]] = {
    "expert_weights_scale": (1,),
    "expert_feed_forward_length": (),
    "expert_shared_feed_forward_length": (),
    "expert_shared_count": (),
    "leading_dense_block_count": (),
    "interleave_moe_layer_step": (),
    "moe_every_n_layers": (),
    "swiglu_clamp_exp": (),
    "swiglu_clamp_shexp": (),
}
# Of transformers, in families whose experts are chosen in groups: sizes and numbers, and how they are chosen.
INNER, ROUTED, DENSE, BESIDE = (
    "moe_intermediate_size",
    "n_routed_experts",
    "first_k_dense_replace",
    "n_shared_experts",
)
OF_GROUPS = ("n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor")
# The same of GGUF.
GGUF_SIZES = frozenset(("expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count"))
GGUF_WEIGHTS = frozenset(("expert_weights_scale", "expert_weights_norm", "expert_gating_func"))
# What moves training and not the forward.
OF_TRAINING = ("router_aux_loss_coef", "router_jitter_noise", "output_router_logits", "router_z_loss_coef")


def of_hugging_face(
    config: ModelConfig,
    fields: Settings,
    inner: str,
    count: tuple[str, ...] = COUNTS,
    used: str = USED,
    **more: Any,  # noqa: ANN401
) -> ModelConfig:
    """The configuration with experts.

    inner : the key of the channels inside of one. count : keys of how many there are. used : of how many a token has.
    more : further fields of it.
    """
    keys: tuple[tuple[str, ...], ...] = (count, (used,), (inner,))
    numbers = [fields.integer(*key) for key in keys]
    for key, number in zip(keys, numbers, strict=True):
        if number is None:
            raise fields.wrong(f"does not say {key[0]}; add it, it is needed and cannot be guessed.")
    return with_experts(config, fields, *(number or 0 for number in numbers), **more)


def in_groups(config: ModelConfig, fields: Settings) -> ModelConfig:
    """The configuration with experts behind the first layers, chosen by sigmoids in groups, and a part beside them."""
    inner, beside = fields.integer(INNER), fields.integer(BESIDE)
    if beside is None:
        raise fields.wrong(f"does not say {BESIDE}; add it, it is needed and cannot be guessed.")
    dense = fields.integer(DENSE, low=0) or 0
    return of_hugging_face(
        *(config, fields, INNER),
        count=(ROUTED,),
        expert_scoring="sigmoid",
        norm_topk_prob=bool(fields.flag("norm_topk_prob")),
        routed_scaling_factor=fields.number("routed_scaling_factor") or 1.0,
        n_group=fields.integer("n_group") or 1,
        topk_group=fields.integer("topk_group") or 1,
        expert_layers=tuple(layer >= dense for layer in range(config.num_hidden_layers)),
        shared_intermediate_size=(inner or 0) * beside,
    )


def keys_of_groups(config: ModelConfig) -> dict[str, object]:
    """The keys of transformers from which `in_groups` makes this configuration."""
    return {
        ROUTED: config.num_experts,
        USED: config.num_experts_per_tok,
        INNER: config.moe_intermediate_size,
        DENSE: len(dense_layers(config)),
        BESIDE: config.shared_intermediate_size // max(config.moe_intermediate_size, 1),
        "n_group": config.n_group,
        "topk_group": config.topk_group,
        "norm_topk_prob": config.norm_topk_prob,
        "routed_scaling_factor": config.routed_scaling_factor,
    }


def gguf_in_groups(config: ModelConfig, fields: Settings, usual: Scoring | None = None) -> ModelConfig:
    """The same as `in_groups` by the keys of GGUF. usual : what makes weights where they do not say."""
    inner = gguf_inner(config, fields)
    return of_gguf(
        *(config, fields, inner),
        **gguf_weights(fields),
        expert_scoring=gguf_scoring(fields, usual),
        expert_layers=gguf_leading(config, fields),
        shared_intermediate_size=inner * (fields.integer("expert_shared_count", low=0) or 0),
    )


def of_gguf(config: ModelConfig, fields: Settings, inner: int, **more: Any) -> ModelConfig:  # noqa: ANN401
    """The configuration with the experts that GGUF tells of; as it is where there are none.

    inner : channels inside of an expert. more : further fields of it.
    """
    count = fields.integer("expert_count", low=0) or 0
    used = fields.integer("expert_used_count", low=0) or 0
    if not count:
        return config
    if not used:
        raise fields.wrong("has experts and does not say expert_used_count, how many of them a token has; add it.")
    groups, kept = (fields.integer(key, low=0) or 0 for key in ("expert_group_count", "expert_group_used_count"))
    if groups > 1:
        more |= {"n_group": groups, "topk_group": kept}
    return with_experts(config, fields, count, used, inner, **more)


def with_experts(config: ModelConfig, fields: Settings, count: int, used: int, inner: int, **more: Any) -> ModelConfig:  # noqa: ANN401
    """The configuration with so many experts, of which so many are chosen; what cannot be is refused."""
    made = replace(config, num_experts=count, num_experts_per_tok=used, moe_intermediate_size=inner, **more)
    if used > count:
        raise fields.wrong(f"says that {used} of {count} experts are chosen for a token; correct it.")
    if made.n_group > 1 and (count % made.n_group or not 0 < made.topk_group <= made.n_group):
        raise fields.wrong(
            f"puts {count} experts into {made.n_group} groups, of which {made.topk_group} count; correct it."
        )
    if made.n_group > 1 and made.topk_group * (count // made.n_group) < used:
        raise fields.wrong(f"looks for {used} experts in groups that hold fewer; correct it.")
    if made.expert_layers is not None and all(made.expert_layers):
        made = replace(made, expert_layers=None)
    return made


_SCORINGS: Mapping[int, Scoring] = {1: "softmax", 2: "sigmoid", 3: "softmax of chosen"}


def gguf_inner(config: ModelConfig, fields: Settings) -> int:
    """Channels inside of an expert; the share of one of those that are chosen where GGUF does not say."""
    used = fields.integer("expert_used_count", low=0) or 1
    return fields.integer("expert_feed_forward_length", low=0) or config.intermediate_size // used


def gguf_leading(config: ModelConfig, fields: Settings) -> tuple[bool, ...]:
    """Which layers have experts where the first ones of a model have none."""
    dense = fields.integer("leading_dense_block_count", low=0) or 0
    return tuple(layer >= dense for layer in range(config.num_hidden_layers))


def gguf_weights(fields: Settings) -> dict[str, Any]:
    """Whether the weights of a token are divided by their sum, and by what they are multiplied, as GGUF says it."""
    scale = fields.single("expert_weights_scale") if fields.find("expert_weights_scale")[1] else None
    return {
        "norm_topk_prob": bool(fields.flag("expert_weights_norm")),
        "routed_scaling_factor": 1.0 if scale is None else scale,
    }


def gguf_scoring(fields: Settings, usual: Scoring | None = None) -> Scoring:
    """What makes weights of logits; usual : where GGUF does not say."""
    key, number = fields.find("expert_gating_func")[0], fields.integer("expert_gating_func", low=0) or 0
    found = _SCORINGS.get(number, usual if number == 0 else None)
    if found is None:
        raise fields.unsupported(
            f"gives {key} as {number}; supported are 1 (softmax), 2 (sigmoid), 3 (softmax of chosen)."
        )
    return found


def sparse_layers(config: ModelConfig, fields: Settings) -> tuple[bool, ...]:
    """Which layers have experts by qwen's keys: every so manyth that is not one of mlp_only_layers."""
    key, dense = fields.find("mlp_only_layers")
    step = fields.integer("decoder_sparse_step")
    if step is None:
        raise fields.wrong("does not say decoder_sparse_step; add it, it is needed and cannot be guessed.")
    if dense is None:
        dense = []
    if not isinstance(dense, list) or not all(isinstance(layer, int) for layer in dense):
        raise fields.wrong(f"gives {key} as something else than numbers of layers; correct it.")
    return tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(config.num_hidden_layers))


def dense_layers(config: ModelConfig) -> list[int]:
    """The layers without experts."""
    return [layer for layer in range(config.num_hidden_layers) if not config.has_experts(layer)]


def refused_without(config: ModelConfig) -> Iterator[str]:
    """Why llama.cpp would refuse a model of a family whose layers it always has with experts."""
    if not config.num_experts or config.expert_layers is not None:
        yield "it has layers without experts, which there are none of in its family there"
