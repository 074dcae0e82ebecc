"""IQ1_S: 32 points of 8 codes, in 8 groups that are moved up or down (ggml-common.h, `block_iq1_s`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_AND_ONE, Block, BlockFormat, L, Stored

_WORDS = range(32, 48, 2)  # of 32 bits, whose upper halves belong to the groups


def _codes(block: Stored[L]) -> Iterator[L]:
    for group, word in enumerate(_WORDS):
        yield block.points(grids.IQ1, block.bytes(2 + 4 * group, 4), block.parts(word, (16, 19, 22, 25), 3))


def _scales(block: Stored[L]) -> L:
    return block.less(block.joined(*(block.parts(word, (28,), 3) for word in _WORDS)) << 1, -1)


def _shifts(block: Stored[L]) -> L:
    return block.joined(*(block.parts(word, (31,), 1) for word in _WORDS))


FORMAT = BlockFormat(
    name="IQ1_S",
    block=Block(256, 50),
    codes=_codes,
    grid=grids.IQ1,
    top=1,
    groups=8,
    scales=_scales,
    shifts=_shifts,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_AND_ONE,
    tiled=True,
    largest_scale=15,
)
