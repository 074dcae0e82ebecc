"""IQ3_XXS: 64 points of 4 codes, seven of eight signs free, in 8 groups (ggml-common.h, `block_iq3_xxs`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_32, Block, BlockFormat, L, Stored
from kernels.formats.signs import even


def _codes(block: Stored[L]) -> Iterator[L]:
    for group in range(8):
        signs = even(block.parts(66 + 4 * group, (0, 7, 14, 21), 7))
        yield block.negated(block.points(grids.IQ3_XXS, block.bytes(2 + 8 * group, 8)), block.spread(signs))


def _scales(block: Stored[L]) -> L:
    fours = block.joined(*(block.parts(at, (28,), 4) for at in range(66, 98, 4)))
    return block.less(fours << 1, -1)


FORMAT = BlockFormat(
    name="IQ3_XXS",
    block=Block(256, 98),
    codes=_codes,
    grid=grids.IQ3_XXS,
    top=62,
    unit=0.25,
    groups=8,
    scales=_scales,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_32,
    tiled=True,
    largest_scale=31,
    even=True,
)
