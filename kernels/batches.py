"""Paths on which a prompt is computed in several batches one after the other, as engines do with a cache.

What every token has by itself is the same for any batch. A product meets the rows of one batch at a time, and may be
computed by another routine then; attention of a batch sees the keys and values of those before it.
"""

from itertools import pairwise

import numpy as np

from kernels.graph import Array
from kernels.kinds.attention import Attention
from kernels.paths import AprPath, F32Path, F64Path, GgmlPath
from kernels.weight import Weight


class _InBatches(F32Path):
    """The arithmetic of a path, batch by batch. ends : the number of tokens after each batch, the last one all."""

    ends: tuple[int, ...] = ()

    @property
    def in_batches(self) -> bool:
        return True

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:
        """Rows that are not all tokens, as those of which logits are looked at by parts, are multiplied at once."""
        if len(x) != self.ends[-1]:
            return super().matmul(x, *weights, apart=apart)
        parts = (super(_InBatches, self).matmul(x[start:end], *weights, apart=apart) for start, end in self._bounds())
        return np.concatenate(list(parts))

    def attention(self, q: Array, k: Array, v: Array, how: Attention, sinks: Array | None = None) -> Array:
        parts = []
        for start, end in self._bounds():
            queries, keys, values = (np.ascontiguousarray(x[:end]) for x in (q, k, v))
            parts.append(super().attention(queries, keys, values, how, sinks)[start:])
        return np.concatenate(parts)

    def _bounds(self) -> list[tuple[int, int]]:
        return list(pairwise((0, *self.ends)))


class _F32(_InBatches, F32Path):
    pass


class _F64(_InBatches, F64Path):
    pass


class _Ggml(_InBatches, GgmlPath):
    pass


class _Apr(_InBatches, AprPath):
    pass


_KINDS: dict[type[F32Path], type[_InBatches]] = {F32Path: _F32, F64Path: _F64, GgmlPath: _Ggml, AprPath: _Apr}


def in_batches(path: F32Path, sizes: tuple[int, ...]) -> F32Path:
    """The same path, with so many tokens in every batch; they are to be all tokens of what is run."""
    kind = _KINDS[type(path)]
    made = kind(path.how) if isinstance(path, GgmlPath) and issubclass(kind, GgmlPath) else kind()
    made.ends = tuple(int(end) for end in np.cumsum(sizes))
    return made
