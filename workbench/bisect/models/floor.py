"""The noise floor of a stage: what two right copies of its weights may be apart because of the formats they are in.

What the numeric path must add by itself, kernels/kinds says for every operation.
"""

import math

import numpy as np

from kernels.graph import At, Inputs
from kernels.kinds.apart import ProductsApart
from kernels.kinds.embed import Embed
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from kernels.numbers import numbers
from workbench.bisect.weights.tensor_pairs import TensorPairs


def storage_error(at: At, inputs: Inputs, pairs: TensorPairs) -> float:
    """‖what the formats of two right copies of the stage's weights cost‖, in the units of the output.

    Every value is off by a rounding error within half a step of each format; those of different values are independent.
    A wrong tensor counts as a right one would: nothing where its like are equal on both sides. at : in float64.
    inputs : what the stage reads, by role.
    """
    if isinstance(at.kind, ProductsApart):
        parts = at.kind.routed(at, inputs)
        errors = (storage_error(part.at, {"x": at.kind.read(inputs["x"], part)}, pairs) for part in parts)
        return math.hypot(*errors)
    energy = 0.0
    for name in (name for name in at.stage.tensors if name in pairs.names):
        judged = pairs.judge(name)
        if judged.check.equal or judged.touched:
            continue
        if isinstance(at.kind, Embed):
            share = at.stage.channels / at.model.weight(name).shape[1]  # a part of a row has its share of what it costs
            energy += share * at.kind.scale**2 * float(judged.check.cost_of_rows[list(at.tokens)].sum())
        elif name in at.stage.biases:
            energy += len(at.tokens) * float(judged.check.cost.sum())
        elif isinstance(at.kind, Norm):
            plain = at.kind.normed(at.kind.rows(inputs["x"]).astype(np.float64))
            energy += at.kind.times**2 * float(np.square(numbers(plain)).sum(axis=0) @ judged.check.cost)
        elif name in at.stage.weights:
            times = at.kind.factor(at, name) if isinstance(at.kind, Product) else 1.0
            energy += times**2 * float(np.square(numbers(inputs["x"])).sum(axis=0) @ judged.check.cost)
    return float(energy**0.5)
