"""IQ1_M: 32 points of 8 codes, each moved up or down, in 16 groups (ggml-common.h, `block_iq1_m`)."""

from collections.abc import Iterator

from kernels.formats import grids
from kernels.formats.format import SIGNED_AND_EIGHTS, Block, BlockFormat, L, Stored

_WORDS = range(32, 48, 2)  # of 32 bits, whose lower halves belong to four points


def _codes(block: Stored[L]) -> Iterator[L]:
    for group, word in enumerate(_WORDS):
        yield block.points(grids.IQ1, block.bytes(4 * group, 4), block.parts(word, (0, 4, 8, 12), 3))


def _scales(block: Stored[L]) -> L:
    """Three bits each, in words of 16 bits whose other four are a part of d."""
    threes = (block.parts(at, (first, first + 3, first + 6, first + 9), 3) for at in (48, 52) for first in (0, 16))
    return block.less(block.joined(*threes) << 1, -1)


def _shifts(block: Stored[L]) -> L:
    return block.joined(*(block.parts(word, (3, 7, 11, 15), 1) for word in _WORDS))


FORMAT = BlockFormat(
    name="IQ1_M",
    block=Block(256, 56),
    codes=_codes,
    grid=grids.IQ1,
    top=1,
    d=48,
    d_as="nibbles",
    groups=16,
    scales=_scales,
    shifts=_shifts,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_AND_EIGHTS,
    tiled=True,
    largest_scale=15,
)
