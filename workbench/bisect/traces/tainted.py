"""Tokens of which nothing can be said, because what came in is NaN or infinite already."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, Inputs, Kind
from kernels.kinds.attention import Attention

Flags = NDArray[np.bool_]


def tainted_tokens(kind: Kind, inputs: Inputs, y: Array) -> Flags:
    """Tokens whose output y NaN or infinite inputs reach: their own, and before attention those of any token it sees.

    What a token does not see many engines multiply by 0, which leaves NaN what it is: then it may be lost as well.
    """
    own = np.logical_or.reduce([~np.isfinite(x).all(axis=1) for x in inputs.values()])
    if not isinstance(kind, Attention):
        return np.asarray(own)
    seen = (kind.mask(np.arange(len(own)), len(own)) & own).any(axis=1)
    return np.asarray(seen | (own.any() & ~np.isfinite(y).all(axis=1)))


def silenced(values: Mapping[str, Array], tainted: Flags) -> dict[str, Array]:
    """The values with zeros in the rows of tainted tokens, and in the place of any other NaN or infinity."""
    return {
        name: np.where(tainted[:, None] | ~np.isfinite(x), x.dtype.type(0), x) if len(x) == len(tainted) else x
        for name, x in values.items()
    }
