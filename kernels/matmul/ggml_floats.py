"""x @ W.T for weights of floats in llama.cpp's order of sums, bit for bit.

Several tokens are multiplied by tinyBLAS (llamafile/sgemm.cpp), which sums in as many chains as a vector has lanes; a
token alone, rows that do not come in fours and odd columns by the type's vec_dot (vec.cpp), in four times as many.
Products of two halves, or of two BF16, are exact, so that only their sums round. A processor with AVX512-BF16 adds
those of two neighbours in one step, the second of them first.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from kernels.formats import bf16, f16
from kernels.ggml.order import WIDTHS
from kernels.machine.compiler import kernel
from kernels.machine.vectors import F32
from kernels.matmul.float_dot import Scheme
from kernels.matmul.floats import SINGLE, multiplier, product
from kernels.matmul.products import joined
from kernels.weight import TensorType, Weight


def tiled(width: int, paired: bool = False) -> Scheme:
    """TinyBLAS with vectors of `width` lanes. paired : of pairs of BF16."""
    return Scheme(F32, width, neighbours=1, paired=paired)


def dotted(width: int, type: TensorType, paired: bool = False) -> Scheme:
    """The vec_dot of a type with vectors of `width` lanes; of BF16 it has always 32 chains."""
    if type.format is bf16.FORMAT:
        return Scheme(F32, 32, 1, "double", groups=width // 8, paired=paired)
    return Scheme(F32, 4 * width, 4 if width == 8 else 1, "double" if type.format is f16.FORMAT else "fours")


def _compiled(scheme: Scheme) -> Callable[..., None]:
    multiply = multiplier(scheme)

    @kernel(SINGLE, of=scheme)
    def matmul_floats(
        type: int,
        rows: NDArray[np.uint8],
        x: NDArray[np.float32],
        tiles: NDArray[np.float32],
        w: NDArray[np.float32],
        acc: NDArray[np.float32],
        out: NDArray[np.float32],
        column: int,
        start: int,
        stop: int,
    ) -> None:
        multiply(type, rows, x, tiles, w, acc, out, column, start, stop)

    return matmul_floats


_multiply = cache(_compiled)
_multiply(tiled(WIDTHS[0]))  # of the usual build: compiled with all other kernels


def matmul_floats(
    x: NDArray[np.float32], weights: tuple[Weight, ...], width: int, apart: bool, pairs: bool = False
) -> NDArray[np.float32]:
    """x @ W.T for each weight, side by side: x float32 (tokens, in), weights of floats of shape (out, in).

    width : float lanes of the vectors that llama.cpp was built with. apart : every token is multiplied by itself. pairs
    : BF16 is multiplied by pairs.
    """
    schemes = _schemes(x, weights, width, apart, pairs)
    return joined([product(_multiply(scheme), scheme, x, some) for scheme, some in schemes])


def _schemes(
    x: NDArray[np.float32], weights: tuple[Weight, ...], width: int, apart: bool, pairs: bool
) -> Iterator[tuple[Scheme, tuple[Weight, ...]]]:
    """Neighbouring weights that are summed alike."""

    def scheme(weight: Weight) -> Scheme:
        paired = pairs and weight.type.format is bf16.FORMAT
        together = tiled(width, paired)
        alone = apart or len(x) == 1 or weight.whole_rows % 4 or weight.shape[1] % together.unit
        return dotted(width, weight.type, paired) if alone else together

    for shared, some in groupby(weights, scheme):
        yield shared, tuple(some)
