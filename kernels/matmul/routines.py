"""Which of its routines llama.cpp's CPU backend multiplies a quantized weight with, and so in which order of sums.

Sources: ggml-cpu/repack.cpp (`ggml_repack_get_optimal_repack_type`, `forward_mul_mat`), ggml-cpu/tiled/tiled.cpp
(`ggml_tiled_supported`, `ggml_tiled_min_batch`), ggml-cpu.c (`ggml_compute_forward_mul_mat`).
"""

from typing import NamedTuple

from kernels.formats.format import BlockFormat, Dot
from kernels.weight import Weight

_ROWS = 8  # rearranged together, or not at all
TILED = 8  # tokens from which on tiles are used
FOUR = 4  # tokens that rearranged weights are multiplied with together
_AS_STORED = (".k_b_proj.", ".v_b_proj.")  # never rearranged: what heads have each of their own
_EXPERT = ".experts."  # multiplied with the tokens that chose it, one by one


class Routines(NamedTuple):
    """What decides it.

    repack : whether weights were rearranged when they were loaded (`use_extra_bufts`). tiled : whether products are
    tiled (unless GGML_CPUTILED_MM=0). wide : whether the library was built for AVX-512. batch : the most tokens that
    are computed at once; 0 for all. pairs : whether it was built for AVX512-BF16.
    """

    repack: bool = False
    tiled: bool = False
    wide: bool = False
    batch: int = 0
    pairs: bool = False

    def rearranged(self, weight: Weight) -> bool:
        """Whether a weight is."""
        format = weight.type.format
        if not (self.repack and isinstance(format, BlockFormat) and format.repacked):
            return False
        able = self.wide or format.repacked_by == "AVX2"
        return able and weight.whole_rows % _ROWS == 0 and not any(part in weight.name for part in _AS_STORED)

    def in_fours(self, weight: Weight) -> bool:
        """Whether its tokens are rounded and multiplied four at a time, as far as there are so many."""
        return self.rearranged(weight) and _EXPERT not in weight.name

    def dot(self, weight: Weight, tokens: int) -> Dot:
        """The order of sums of a product with so many tokens at once."""
        format = weight.type.format
        assert isinstance(format, BlockFormat)
        if self.rearranged(weight):
            return format.rearranged if self.in_fours(weight) else format.rearranged_alone
        return format.tiles if self.tiled and format.tiled and tokens >= TILED else format.dot


PLAIN = Routines()


def orders(format: BlockFormat) -> set[Dot]:
    """All orders of sums in which a format is multiplied."""
    found = {format.dot}
    if format.tiled:
        found.add(format.tiles)
    if format.repacked:
        found |= {format.rearranged, format.rearranged_alone}
    return found
