"""How far a difference of the inputs must come out of a stage: the amplifiers, forecast from their local derivative.

SiLU grows relative differences fivefold at -6, a softmax or a norm may swallow them or blow them up; none of that is a
mistake. To first order the output changes by J(x) (x_B - x_A), with J taken half way between the two inputs, where
the second order cancels. What the derivative does not account for was added by the stage itself.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from kernels.graph import Array, At, Inputs, Values
from workbench.bisect.models.substitution import ORACLE
from workbench.cells.limit import LIMIT


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


def forecast(a: At, b: At, inputs_a: Inputs, inputs_b: Inputs, y_a: Array, y_b: Array) -> Forecast:
    """Compare y_B - y_A with what A's own derivative makes of x_B - x_A.

    a, b : where each side evaluated the stage. inputs : (tokens, channels) by role. y : the outputs.
    """
    low, high = ({role: np.array(x[role], dtype=np.float64) for role in a.kind.roles} for x in (inputs_a, inputs_b))
    middle = {role: (low[role] + high[role]) / 2 for role in low}
    dx = {role: high[role] - low[role] for role in low}
    at_ends = (derivative(a, low, dx) + derivative(a, high, dx)) / 2
    predicted = derivative(a, middle, dx)
    observed = y_b.astype(np.float64) - y_a
    into, y = _norm(*low.values()), _norm(y_a)
    change, result = _norm(*dx.values()), _norm(predicted)
    return Forecast(
        predicted=result,
        observed=_norm(observed),
        unexplained=_norm(observed - predicted),
        curvature=_norm(at_ends - predicted) / 3,  # the error of the midpoint rule, to the same order
        floor=math.hypot(*(at.kind.rounding(at, low, y_a) for at in (a, b))),
        growth=(result / y) / (change / into) if y and change and into else None,
    )


def derivative(at: At, x: dict[str, Values], dx: dict[str, Values]) -> Values:
    """First-order change of a stage's output, float64 (tokens, channels), for the change dx of its inputs x."""
    return at.kind.derivative(replace(at, path=ORACLE), x, dx)


def _norm(*parts: Array) -> float:
    return float(sum(np.square(part, dtype=np.float64).sum() for part in parts) ** 0.5)
