"""Mistakes of the bound that q, k and v are cut off at."""

from collections.abc import Iterator

import numpy as np

from kernels.kinds.elementwise import Clip
from workbench.bisect.mistakes.mistake import FITTED, Mistake, Question


def clip_mistakes(q: Question) -> Iterator[Mistake]:
    """No bound, another one, or one on one side only."""
    x, bound = q.x["x"], q.kind(Clip).bound
    words = f"values are not cut off at {bound:g}"
    yield Mistake("scaled", "config", words, x, setting=(words,))
    for words, predicted in (
        (f"values are cut off at {bound:g} above only", np.minimum(x, bound)),
        (f"values are cut off at -{bound:g} below only", np.maximum(x, -bound)),
    ):
        yield Mistake("scaled", "graph", words, predicted, setting=(words,))
    other = float(np.abs(q.y).max())  # where some are cut off, the bound itself is among what is left
    words = f"values are cut off at {other:.6g} in place of {bound:g}"
    yield Mistake("scaled", "config", words, np.clip(x, -other, other), rank=FITTED, setting=(words,))
