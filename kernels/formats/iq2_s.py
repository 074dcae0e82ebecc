"""IQ2_S: 32 points of 8 codes with a sign each, in 16 groups (ggml-common.h, `block_iq2_s`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_16, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    for group in range(8):
        low, high = block.bytes(2 + 4 * group, 4), block.parts(66 + group, (0, 2, 4, 6), 2)
        yield block.negated(block.points(grids.IQ2_S, low, high), block.bits(34 + 4 * group, 32))


def _scales(block: Stored[L]) -> L:
    fours = block.bytes(74, 8)
    return block.less(block.zipped(fours & 15, fours >> 4) << 1, -1)


FORMAT = BlockFormat(
    name="IQ2_S",
    block=Block(256, 82),
    codes=_codes,
    grid=grids.IQ2_S,
    top=43,
    unit=0.125,
    groups=16,
    scales=_scales,
    activations="ggml Q8_K",
    dot=SIGNED_16,
    tiled=True,
    largest_scale=31,
)
