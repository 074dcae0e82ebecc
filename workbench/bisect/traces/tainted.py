"""Tokens of which nothing can be said, because what came in is NaN or infinite already."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernels.paths import Array

Flags = NDArray[np.bool_]


def tainted_tokens(stage: str, inputs: Mapping[str, Array], causal: bool) -> Flags:
    """Tokens whose output NaN or infinite inputs reach: their own, and before attention those of any token it sees."""
    own = np.logical_or.reduce([~np.isfinite(x).all(axis=1) for x in inputs.values()])
    if stage != "attention":
        return np.asarray(own)
    return np.asarray(np.logical_or.accumulate(own) if causal else np.full_like(own, own.any()))


def silenced(values: Mapping[str, Array], tainted: Flags) -> dict[str, Array]:
    """The values with zeros in the rows of tainted tokens, and in the place of any other NaN or infinity."""
    return {
        name: np.where(tainted[:, None] | ~np.isfinite(x), x.dtype.type(0), x) if len(x) == len(tainted) else x
        for name, x in values.items()
    }
