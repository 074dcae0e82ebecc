"""IQ2_XXS: 32 points of 8 codes, seven of eight signs free, in 8 groups (ggml-common.h, `block_iq2_xxs`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_32, Block, BlockFormat, L, Stored
from kernels.formats.signs import even


def _codes(block: Stored[L]) -> Iterator[L]:
    for at in range(2, 66, 8):
        signs = even(block.parts(at + 4, (0, 7, 14, 21), 7))
        yield block.negated(block.points(grids.IQ2_XXS, block.bytes(at, 4)), block.spread(signs))


def _scales(block: Stored[L]) -> L:
    fours = block.joined(*(block.parts(at, (28,), 4) for at in range(6, 66, 8)))
    return block.less(fours << 1, -1)


FORMAT = BlockFormat(
    name="IQ2_XXS",
    block=Block(256, 66),
    codes=_codes,
    grid=grids.IQ2_XXS,
    top=43,
    unit=0.125,
    groups=8,
    scales=_scales,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_32,
    tiled=True,
    largest_scale=31,
    even=True,
)
