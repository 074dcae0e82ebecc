"""Mistakes of the q, k and v projections that show only later.

A recorder that looks at a projection with its bias computes the bare product once more, with the right arithmetic; what
the engine really multiplied is then first seen after the bias, or after the rotation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from kernels.graph import Values
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate
from workbench.bisect.mistakes.mistake import Flags, Mistake, Question
from workbench.bisect.mistakes.norms import vector
from workbench.bisect.mistakes.product_roundings import product_roundings
from workbench.bisect.mistakes.products import product_mistakes
from workbench.bisect.mistakes.rope import turned


def under_the_bias(q: Question) -> Iterator[Mistake]:
    """What the product must have been for the recorded sums to be right."""
    if q.tensors:
        bias = np.concatenate([vector(q, name) for name in q.tensors])
        yield from _of_product(q, q.y - bias, np.ones(q.y.shape[1], dtype=bool), lambda y: y + bias)


def under_the_rotation(q: Question) -> Iterator[Mistake]:
    """What was rotated, for a rotation that is right; only where the engine adds no bias that would show first."""
    kind, read = q.kind(Rotate), q.read("x")
    if read is None or not isinstance(read.kind, Product) or kind.last_of is not None:
        return
    positions = q.at.positions().astype(np.float64)
    part = np.zeros(q.x["x"].shape[1], dtype=bool)
    part[kind.columns] = True
    product = q.x["x"].copy()
    product[:, part] = turned(q.y, -positions, kind.rotation)
    yield from _of_product(q, product, part, lambda y: turned(y[:, part], positions, kind.rotation))


def _of_product(q: Question, product: Values, part: Flags, onward: Callable[[Values], Values]) -> Iterator[Mistake]:
    """Mistakes of the product, told by what they make of the stage that shows them."""
    stage = q.read("x")
    if stage is None or not isinstance(stage.kind, Product) or stage.reads[0] not in q.known:
        return
    noise = np.repeat(np.linalg.norm(q.noise, axis=1, keepdims=True), part.size, axis=1) / q.noise.shape[1] ** 0.5
    at, x = replace(q.at, stage=stage), {"x": q.known[stage.reads[0]]}
    asked = Question(at, x, q.known, product, q.x["x"], noise, q.rounding)
    for candidates in (product_mistakes, product_roundings):
        for mistake in candidates(asked):
            yield replace(mistake, predicted=onward(np.asarray(mistake.predicted, np.float64)), site=stage.site)
