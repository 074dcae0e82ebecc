"""What a quantized KV cache takes away from attention.

llama.cpp keeps K and V in blocks of 32 values, each with its own scale. Where a head has a multiple of 64 channels it
turns q, k and v by Walsh-Hadamard matrices first, which spreads outliers over a whole block and leaves scores as they
are; what attention gives is turned back before it is handed on. A quantized K is multiplied with a q that is rounded
to 8 bits. Seen in llama.cpp 0c1e57098, llama-kv-cache.cpp and ggml-cpu/ops.cpp.
"""

from dataclasses import dataclass

import numpy as np

from kernels.formats import all_formats
from kernels.formats.format import BlockFormat
from kernels.graph import Inputs, Values
from kernels.kinds.attention import Attention

_BLOCK = 32
_FORMATS = [
    format
    for format in all_formats()
    if isinstance(format, BlockFormat) and format.block.elements == _BLOCK and format.factors
]
# Step between two values of a block, in units of its largest magnitude (of its range where the type has a minimum).
_OF_LARGEST = {
    format.name.lower(): format.gap / max(map(abs, format.ends)) for format in _FORMATS if format.least is None
}
_OF_RANGE = {format.name.lower(): 1 / format.top for format in _FORMATS if format.least is not None}
_Q8 = "q8_0"
_EVEN = 12**-0.5  # root mean square of an error that is spread evenly over a step of 1


@dataclass(frozen=True, slots=True)
class KvCache:
    """How K and V are kept. turned_k, turned_v : side of the matrix that turns them first, 0 for none."""

    type_k: str
    type_v: str
    turned_k: int = 0
    turned_v: int = 0

    @property
    def quantized(self) -> bool:
        """Whether any of both is kept in blocks."""
        return bool({self.type_k, self.type_v} & KINDS)

    def noise(self, kind: Attention, inputs: Inputs) -> Values:
        """Root mean square of what the cache adds to every value of attention, (tokens, channels).

        A score that is off by d changes its weight by the share d; the errors of a block are independent.
        """
        sizes = (kind.head_dim, kind.head_dim, kind.value_size)
        read = (np.asarray(x, dtype=np.float64) for x in (inputs["q"], inputs["k"], kind.values(inputs["v"])))
        q, k, v = (_heads(x, size) for x, size in zip(read, sizes, strict=True))
        group = kind.heads // kind.kv_heads
        keys, values = (np.repeat(z, group, axis=1) for z in (k, v))
        own = self._errors(_turned(values, self.turned_v), self.type_v, self.turned_v)
        noise = np.maximum.accumulate(own, axis=0)  # weights add up to 1: no worse than the worst value
        if self.type_k in KINDS:
            turned_q, turned_k = (_turned(z, self.turned_k) for z in (q, keys))
            of_k, of_q = self._errors(turned_k, self.type_k, 0), self._errors(turned_q, _Q8, 0)
            latest = np.maximum.accumulate(np.sqrt(np.square(of_k).mean(axis=2)), axis=0)
            longest = np.maximum.accumulate(np.linalg.norm(keys, axis=2), axis=0)
            off = np.hypot(np.linalg.norm(q, axis=2) * latest, longest * np.sqrt(np.square(of_q).mean(axis=2)))
            reach = np.maximum.accumulate(np.abs(values), axis=0)
            noise = np.hypot(noise, (off * kind.scale)[:, :, None] * reach)
        return np.asarray(noise.reshape(len(q), -1))

    def _errors(self, heads: Values, kind: str, turned: int) -> Values:
        """Root mean square error of every value; of those that are turned back it spreads over the whole matrix."""
        if kind not in KINDS:
            return np.zeros_like(heads)
        width = _BLOCK if heads.shape[2] % _BLOCK == 0 else heads.shape[2]
        blocks = heads.reshape(*heads.shape[:2], -1, width)
        if kind in _OF_LARGEST:
            step = np.abs(blocks).max(axis=3) * _OF_LARGEST[kind]
        else:
            step = (blocks.max(axis=3) - blocks.min(axis=3)) * _OF_RANGE[kind]
        errors = np.repeat(step * _EVEN, width, axis=2)
        if not turned or heads.shape[2] % turned:
            return errors
        spread = np.square(errors).reshape(*heads.shape[:2], -1, turned).mean(axis=3)
        return np.repeat(np.sqrt(spread), turned, axis=2)


KINDS = frozenset(_OF_LARGEST) | frozenset(_OF_RANGE)


def _heads(x: Values, head_dim: int) -> Values:
    return x.reshape(len(x), -1, head_dim)


def _turned(heads: Values, side: int) -> Values:
    """Values as the cache has them: every run of `side` channels times the orthonormal Walsh-Hadamard matrix."""
    if not side or heads.shape[2] % side:
        return heads
    matrix = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray((heads.reshape(*heads.shape[:2], -1, side) @ (matrix / side**0.5)).reshape(heads.shape))
