"""Mistakes of the q, k and v projections that show only later.

A recorder that looks at a projection with its bias computes the bare product once more, with the right arithmetic; what
the engine really multiplied is then first seen after the bias, or after the rotation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from kernels.stages import Site
from workbench.bisect.mistakes.mistake import Flags, Mistake, Question, Values
from workbench.bisect.mistakes.norms import vector
from workbench.bisect.mistakes.product_roundings import product_roundings
from workbench.bisect.mistakes.products import product_mistakes
from workbench.bisect.mistakes.rope import turned


def under_the_bias(q: Question) -> Iterator[Mistake]:
    """What the product must have been for the recorded sums to be right."""
    if len(q.tensors) == 3:
        bias = np.concatenate([vector(q, name) for name in q.tensors])
        yield from _of_product(q, q.y - bias, np.ones(q.y.shape[1], dtype=bool), lambda y: y + bias)


def under_the_rotation(q: Question) -> Iterator[Mistake]:
    """What was rotated, for a rotation that is right; only where the engine adds no bias that would show first."""
    if q.tensors or "qkv_matmul" not in q.known or not np.array_equal(q.known["qkv_matmul"], q.x["qkv_bias"]):
        return
    positions = q.at.positions().astype(np.float64)
    size = q.config.q_size
    part = np.zeros(q.x["qkv_bias"].shape[1], dtype=bool)
    part[slice(0, size) if q.stage == "q_post_rope" else slice(size, size + q.config.kv_size)] = True
    product = q.x["qkv_bias"].copy()
    product[:, part] = turned(q.y, -positions, q.config)
    yield from _of_product(q, product, part, lambda y: turned(y[:, part], positions, q.config))


def _of_product(q: Question, product: Values, part: Flags, onward: Callable[[Values], Values]) -> Iterator[Mistake]:
    """Mistakes of the product, told by what they make of the stage that shows them."""
    if "attn_norm" not in q.known:
        return
    site = Site(q.site.layer, "qkv_matmul")
    noise = np.repeat(np.linalg.norm(q.noise, axis=1, keepdims=True), part.size, axis=1) / q.noise.shape[1] ** 0.5
    asked = Question(
        site,
        q.at,
        {"attn_norm": q.known["attn_norm"]},
        q.known,
        product,
        q.x["qkv_matmul"] if "qkv_matmul" in q.x else q.x["qkv_bias"],
        noise,
        q.rounding,
    )
    for candidates in (product_mistakes, product_roundings):
        for mistake in candidates(asked):
            yield replace(mistake, predicted=onward(np.asarray(mistake.predicted, np.float64)), site=site)
