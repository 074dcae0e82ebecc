"""IQ2_XS: 32 points of 8 codes, seven of eight signs free, in 16 groups (ggml-common.h, `block_iq2_xs`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_16, Block, BlockFormat, L, Stored
from kernels.formats.signs import even


def _codes(block: Stored[L]) -> Iterator[L]:
    """Words of 16 bits: nine are the number of a point, seven its signs."""
    for at in range(2, 66, 8):
        low, high, signs = (
            block.joined(*(block.parts(word, (first, first + 16), width) for word in (at, at + 4)))
            for first, width in ((0, 8), (8, 1), (9, 7))
        )
        yield block.negated(block.points(grids.IQ2_XS, low, high), block.spread(even(signs)))


def _scales(block: Stored[L]) -> L:
    fours = block.bytes(66, 8)
    return block.less(block.zipped(fours & 15, fours >> 4) << 1, -1)


FORMAT = BlockFormat(
    name="IQ2_XS",
    block=Block(256, 74),
    codes=_codes,
    grid=grids.IQ2_XS,
    top=43,
    unit=0.125,
    groups=16,
    scales=_scales,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_16,
    tiled=True,
    largest_scale=31,
    even=True,
)
