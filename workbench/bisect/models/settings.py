"""Configuration as a cause: which field of two configurations changes what a stage computes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from kernels.config import ModelConfig, same_value
from kernels.graph import Array, Model
from kernels.models import Graph
from kernels.stages import Site
from workbench.bisect.models.substitution import ORACLE, Factors, difference, relative
from workbench.bisect.verdict import Culprit, RunnerUp

# An effect in float64 below this share of the output flips at most a few last bits of float32.
_VISIBLE = 2.0**-26

CAUSE_OF_FIELD = {
    "rms_norm_eps": "rms_norm_eps",
    "latent_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "rope_type": "rope_type",
    "rotary_dim": "rope_type",
    "rope_factors": "rope_theta",
    "rope_long_factors": "rope_theta",
    "rope_attention_factor": "attention_scale",
    "rope_local_theta": "rope_theta",
    "rotated_layers": "rope_position",
    "attention_scale": "attention_scale",
    "temperature": "attention_scale",
    "temperature_length": "attention_scale",
    "clip_qkv": "scaled",
    "attention_cap": "attention_scale",
    "embedding_scale": "scaled",
    "residual_scale": "scaled",
    "logits_scale": "scaled",
    "logits_cap": "scaled",
    "parallel": "residual_missing",
    "activation": "activation_function",
    "swiglu_alpha": "activation_function",
    "swiglu_limit": "activation_function",
    "causal": "causal_mask",
    "sliding_window": "causal_mask",
    "layer_types": "causal_mask",
    "attention_chunk": "causal_mask",
    "normed_heads": "head_grouping",
    "num_experts_per_tok": "router",
    "expert_scoring": "router",
    "norm_topk_prob": "router",
    "routed_scaling_factor": "router",
    "n_group": "router",
    "topk_group": "router",
    "recurrence": "recurrence",
    "recurrent_layers": "recurrence",
    "group_best": "router",
    "head_dim": "head_grouping",
    "num_attention_heads": "head_grouping",
    "num_key_value_heads": "head_grouping",
}

_OF_PAIRS = ("rotary_dim", "rope_factors")
_OF_WINDOWS = ("sliding_window", "layer_types", "rope_local_theta")


def differing_fields(a: ModelConfig, b: ModelConfig) -> Iterator[str]:
    """Names of the fields that differ by more than single precision and that a forward computes with."""
    for name in CAUSE_OF_FIELD:
        if not same_value(getattr(a, name), getattr(b, name)):
            yield name


def config_cause(
    site: Site, a: Factors, b: Factors, run: Callable[[Factors], Array], base: Callable[[], Array]
) -> Culprit | None:
    """The configuration field that makes B's stage another function than A's, judged in float64 on A's input.

    run : the stage on A's input with given factors. base : what A's own give in float64.
    """
    fields = list(differing_fields(a.config, b.config))
    if not fields:
        return None

    def output(config: ModelConfig) -> Array:
        return run(Factors.of(a.weights, ORACLE, config))

    of_b = output(with_fields(a.config, fields, b.config))
    if _moved(of_b, base()) <= _VISIBLE:
        return None

    def effect(unit: list[str]) -> float:
        """What exchanging some fields changes, in A's settings and in B's: which of two does more depends on that."""
        of_a, back = with_fields(a.config, unit, b.config), with_fields(b.config, unit, a.config)
        return _moved(output(of_a), base()) + _moved(output(back), of_b)

    effects = sorted(((effect(unit), unit) for unit in units(fields, a.config, b.config)), reverse=True)
    visible = [(size, CAUSE_OF_FIELD[unit[0]]) for size, unit in effects if size > _VISIBLE]
    words = ", ".join(setting_words(a.config, b.config, name) for name in effects[0][1])
    runner_up = RunnerUp(visible[1][1], effect=visible[1][0]) if len(visible) > 1 else None
    return Culprit(site, "config", CAUSE_OF_FIELD[effects[0][1][0]], words, None, 0.0, runner_up=runner_up)


def units(fields: list[str], a: ModelConfig, b: ModelConfig) -> list[list[str]]:
    """Fields that are exchanged together.

    The shape of heads comes in several, which also count the frequencies; a model whose layers never slide has neither
    a window nor a rotary base for such layers.
    """
    heads = [name for name in fields if CAUSE_OF_FIELD[name] == "head_grouping"]
    single = [name for name in fields if name not in heads]
    if not heads and "rotary_dim" in single:
        single.remove("rotary_dim")
        heads = ["rotary_dim"]
    if heads:
        heads += [name for name in _OF_PAIRS if name in single]
        single = [name for name in single if name not in _OF_PAIRS]
    found = [heads] if heads else []
    if (a.rope_local_theta is None) != (b.rope_local_theta is None):
        found.append([name for name in _OF_WINDOWS if name in single])
        single = [name for name in single if name not in _OF_WINDOWS]
    return found + [[name] for name in single]


def first_changed(a: Model, b: Model, fields: list[str]) -> Site:
    """The first stage that is another operation in A with some fields of B."""
    own, other = Graph.of(a), Graph(with_fields(a.config, fields, b.config), a.__contains__)
    changed = (one.site for one in own.stages() if other.stage(one.site) != one)
    return next(changed, own.first[-1].site)


def setting_words(a: ModelConfig, b: ModelConfig, name: str) -> str:
    """How a field differs, in words."""
    one, other = (getattr(config, name) for config in (a, b))
    if name == "rope_factors":
        return "the rotary frequencies are divided by other factors in A and in B"
    if name == "layer_types" and (one is None or other is None):
        return f"layer_types are given in {'B' if one is None else 'A'} only"
    if name == "rotated_layers":
        turned = [str(n) for n in range(a.num_hidden_layers) if a.rotates(n) != b.rotates(n)]
        return f"the layers {', '.join(turned)} rotate q and k in A or in B only"
    if name == "parallel":
        sides = "A", "B"
        first, second = sides if one else sides[::-1]
        return f"the feed-forward block stands beside attention in {first} and behind it in {second}"
    if name == "layer_types":
        layers = [str(n) for n, (own, its) in enumerate(zip(one, other, strict=True)) if own != its]
        return f"the layers {', '.join(layers)} slide in A or in B only"
    if name == "rotary_dim":
        one, other = (config.rotary_dim or config.head_dim for config in (a, b))
        return f"{one} of the {a.head_dim} channels of each head rotate in A and {other} in B"
    return f"{name} is {one} in A and {other} in B"


def with_fields(config: ModelConfig, fields: list[str], other: ModelConfig) -> ModelConfig:
    """The settings with some fields of the other side."""
    return replace(config, **{name: getattr(other, name) for name in fields})


def _moved(output: Array, base: Array) -> float:
    """Relative change of an exact output; infinite where the base is zero, or where only one of the two is finite."""
    effect = relative(difference(output, base), base)
    return effect if effect is not None and np.isfinite(effect) else float("inf")
