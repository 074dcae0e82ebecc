"""IQ3_S: 64 points of 4 codes with a sign each, in 8 groups (ggml-common.h, `block_iq3_s`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_32, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    for group in range(8):
        low, high = block.bytes(2 + 8 * group, 8), block.bits(66 + group, 8)
        yield block.negated(block.points(grids.IQ3_S, low, high), block.bits(74 + 4 * group, 32))


def _scales(block: Stored[L]) -> L:
    fours = block.bytes(106, 4)
    return block.less(block.zipped(fours & 15, fours >> 4) << 1, -1)


FORMAT = BlockFormat(
    name="IQ3_S",
    block=Block(256, 110),
    codes=_codes,
    grid=grids.IQ3_S,
    top=15,
    groups=8,
    scales=_scales,
    activations="ggml Q8_K",
    dot=SIGNED_32,
    tiled=True,
    largest_scale=31,
)
