"""How far a difference of the inputs must come out of a stage: the amplifiers, forecast from their local derivative.

SiLU grows relative differences fivefold at -6, a softmax or a norm may swallow them or blow them up; none of that is a
mistake. To first order the output changes by J(x) (x_B - x_A), with J taken half way between the two inputs, where
the second order cancels. What the derivative does not account for was added by the stage itself.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.forward import At, inputs_of
from kernels.paths import Array
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from workbench.bisect.models.floor import predicted_error
from workbench.bisect.models.substitution import Factors
from workbench.cells.decomposition import LIMIT
from workbench.cells.stage_tensors import stage_tensors

Values = NDArray[np.float64]
Inputs = Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Forecast:
    """The difference at a stage's output, forecast and observed; all are norms over tokens and channels.

    predicted : ‖J dx‖. observed : ‖y_B - y_A‖. unexplained : ‖y_B - y_A - J dx‖.
    curvature : how far the forecast itself may be off, from how the derivative changes between the two inputs.
    floor : what the rounding of both paths must add.
    growth : relative difference of the output over that of the input, as forecast; None where an input is zero.
    """

    predicted: float
    observed: float
    unexplained: float
    curvature: float
    floor: float
    growth: float | None

    @property
    def ratio(self) -> float | None:
        """Observed over forecast; 1 where the inputs explain everything, None where nothing was to be expected."""
        return self.observed / self.predicted if self.predicted else None

    @property
    def marked(self) -> bool:
        """Whether the stage added what neither its inputs nor rounding explain."""
        return not self.unexplained <= 2 * self.curvature + LIMIT * self.floor


def forecast(
    stage: str, a: At, b: At, inputs_a: Mapping[str, Array], inputs_b: Mapping[str, Array], y_a: Array, y_b: Array
) -> Forecast:
    """Compare y_B - y_A with what A's own derivative makes of x_B - x_A.

    a, b : where each side evaluated the stage. inputs : (tokens, channels) by stage name. y : the outputs.
    """
    low, high = (
        {name: np.asarray(x[name], dtype=np.float64) for name in inputs_of(stage)} for x in (inputs_a, inputs_b)
    )
    middle = {name: (low[name] + high[name]) / 2 for name in low}
    dx = {name: high[name] - low[name] for name in low}
    at_ends = (derivative(stage, a, low, dx) + derivative(stage, a, high, dx)) / 2
    predicted = derivative(stage, a, middle, dx)
    observed = y_b.astype(np.float64) - y_a
    into, y = _norm(*low.values()), _norm(y_a)
    change, result = _norm(*dx.values()), _norm(predicted)
    return Forecast(
        predicted=result,
        observed=_norm(observed),
        unexplained=_norm(observed - predicted),
        curvature=_norm(at_ends - predicted) / 3,  # the error of the midpoint rule, to the same order
        floor=math.hypot(*(predicted_error(stage, at, low, y_a) for at in (a, b))),
        growth=(result / y) / (change / into) if y and change and into else None,
    )


def derivative(stage: str, at: At, x: Inputs, dx: Inputs) -> Values:
    """First-order change of a stage's output, float64 (tokens, channels), for the change dx of its inputs x."""
    if stage in _DERIVATIVES:
        return _DERIVATIVES[stage](Site(at.layer, stage), at, x, dx)
    # Every other stage is linear in its inputs, plus a constant.
    exact = Factors.of(at.model, at.path).exact()
    changed = {name: x[name] + dx[name] for name in x}
    before, after = (exact.run(stage, at.layer, at.tokens, values) for values in (x, changed))
    if before is None or after is None:  # no biases: the product passes through
        return dx["qkv_matmul"]
    return np.asarray(after - before)


def _norm(*parts: Array) -> float:
    return float(sum(np.square(part, dtype=np.float64).sum() for part in parts) ** 0.5)


def _embedding(_site: Site, at: At, _x: Inputs, _dx: Inputs) -> Values:
    return np.zeros((len(at.tokens), at.config.hidden_size))  # token ids do not change a little


def _rms_norm(site: Site, at: At, x: Inputs, dx: Inputs) -> Values:
    (value,), (change,) = x.values(), dx.values()
    weight = dequantize(at.model.weight(stage_tensors(site)[0])).astype(np.float64)
    square = np.square(value).mean(axis=1, keepdims=True) + at.config.rms_norm_eps
    slope = (value * change).mean(axis=1, keepdims=True)
    result: Values = weight * (change - value * slope / square) / np.sqrt(square)
    return result


def _sigmoid(x: Values) -> Values:
    with np.errstate(over="ignore"):
        result: Values = 1 / (1 + np.exp(-x))
    return result


def _silu(_site: Site, _at: At, x: Inputs, dx: Inputs) -> Values:
    gate, share = x["ffn_gate"], _sigmoid(x["ffn_gate"])
    return share * (1 + gate * (1 - share)) * dx["ffn_gate"]


def _product(_site: Site, _at: At, x: Inputs, dx: Inputs) -> Values:
    return dx["ffn_silu"] * x["ffn_up"] + x["ffn_silu"] * dx["ffn_up"]


def _attention(_site: Site, at: At, x: Inputs, dx: Inputs) -> Values:
    """Per head p = softmax(s): dp = p (ds - sum p ds), and the output changes by dp v + p dv."""
    d, offset = at.config.head_dim, at.config.q_size + at.config.kv_size
    group = at.config.num_attention_heads // at.config.num_key_value_heads
    query, key, value = x["q_post_rope"], x["k_post_rope"], x["qkv_bias"][:, offset:]
    d_query, d_key, d_value = dx["q_post_rope"], dx["k_post_rope"], dx["qkv_bias"][:, offset:]
    unseen = np.triu(np.ones((len(query), len(query)), dtype=bool), 1) & at.config.causal
    out = np.empty_like(query)
    for head in range(at.config.num_attention_heads):
        own, shared = (slice(n * d, n * d + d) for n in (head, head // group))
        scores = np.where(unseen, -np.inf, query[:, own] @ key[:, shared].T * d**-0.5)
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        slope = (d_query[:, own] @ key[:, shared].T + query[:, own] @ d_key[:, shared].T) * d**-0.5
        d_share = share * (slope - (share * slope).sum(axis=1, keepdims=True))
        out[:, own] = d_share @ value[:, shared] + share @ d_value[:, shared]
    return out


_DERIVATIVES: dict[str, Callable[[Site, At, Inputs, Inputs], Values]] = {
    "embedding": _embedding,
    **dict.fromkeys(("attn_norm", "ffn_norm", "final_norm"), _rms_norm),
    "attention": _attention,
    "ffn_silu": _silu,
    "ffn_swigl": _product,
}
