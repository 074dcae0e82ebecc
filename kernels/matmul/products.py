"""Products of the same tokens with one weight or several, side by side in one array and shared among threads."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.machine.memory import lent
from kernels.machine.parallel import over_rows
from kernels.weight import Weight

Real = TypeVar("Real", np.float32, np.float64)

_GROUP = 16  # tokens, which are whole tiles of every product

# (weight, out, column, start, stop): products with stored rows start to stop, to out[:, column + start] and on
Compute = Callable[[Weight, NDArray[Any], int, int, int], object]


def room(weights: tuple[Weight, ...], tokens: int, dtype: type[Real]) -> NDArray[Real]:
    """Memory for the products with all weights, (tokens, rows of all weights)."""
    return lent((tokens, sum(weight.shape[0] for weight in weights)), dtype)


def side_by_side(weights: tuple[Weight, ...], out: NDArray[Real], compute: Compute, least: int) -> None:
    """Fill such memory, rows in canonical order; each thread computes `least` rows at a time."""
    ends = list(accumulate(weight.shape[0] for weight in weights))

    def share(start: int, stop: int) -> None:
        for weight, end in zip(weights, ends, strict=True):
            column = end - weight.shape[0]
            first, last = max(start, column), min(stop, end)
            if first < last:
                compute(weight, out, column, first - column, last - column)

    over_rows(share, ends[-1], least)
    for weight, end in zip(weights, ends, strict=True):
        if weight.order is not None:
            mine = out[:, end - weight.shape[0] : end]
            mine[:] = mine.take(weight.order, axis=1)


def groups(tokens: int, most: int) -> Iterator[slice]:
    """All tokens in groups of about the same size, at most `most`, a multiple of _GROUP.

    What a few rows meet of all tokens has to stay in a core's cache. A token is multiplied alike in any group of whole
    tiles, and the last group ends as all tokens do.
    """
    even = -(-tokens // -(-tokens // most))
    size = -(-even // _GROUP) * _GROUP
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


def joined(products: list[NDArray[Real]]) -> NDArray[Real]:
    """Return products of the same tokens side by side."""
    return products[0] if len(products) == 1 else np.concatenate(products, axis=1)
