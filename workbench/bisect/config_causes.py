"""Configuration as a cause: which field of two configurations changes what a stage computes."""

from collections.abc import Callable
from dataclasses import replace

from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.substitution import Factors, relative
from workbench.bisect.verdict import Culprit

# A change in float64 below this share of the output is out of sight of float32 arithmetic.
_VISIBLE = 1e-6

_CAUSE_OF_FIELD = {
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "rope_type": "rope_type",
    "rope_factors": "rope_theta",
    "head_dim": "head_grouping",
    "num_attention_heads": "head_grouping",
    "num_key_value_heads": "head_grouping",
}


def config_cause(site: Site, a: Factors, b: Factors, run: Callable[[Factors], Array], base: Array) -> Culprit | None:
    """The configuration field that makes B's stage another function than A's, judged in float64 on A's input."""
    if a.config == b.config:
        return None
    whole = relative(run(replace(a.exact(), config=b.config)) - base, base)
    if whole is not None and whole <= _VISIBLE:
        return None
    effects: list[tuple[float, str]] = []
    for name in _CAUSE_OF_FIELD:
        if getattr(a.config, name) != getattr(b.config, name):
            changed = replace(a.config, **{name: getattr(b.config, name)})
            effect = relative(run(replace(a.exact(), config=changed)) - base, base)
            effects.append((float("inf") if effect is None else effect, name))
    if not effects:
        return None
    effect, name = max(effects)
    words = f"{name} is {getattr(a.config, name)} in A and {getattr(b.config, name)} in B"
    others = sorted(effects, reverse=True)[1:]
    runner_up = {"cause": _CAUSE_OF_FIELD[others[0][1]], "effect": others[0][0]} if others else None
    return Culprit(site, "config", _CAUSE_OF_FIELD[name], words, None, 0.0, runner_up=runner_up)
