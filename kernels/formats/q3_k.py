"""Q3_K: 256 codes of 3 bits in 16 groups, each with a scale of 6 bits (ggml-common.h, `block_q3_K`)."""

from collections.abc import Iterator

from kernels.formats.format import SIGNED_16, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    third = block.bytes(0, 32)
    for half in range(2):
        pairs = block.bytes(32 + 32 * half, 32)
        for part in range(4):
            yield (pairs >> (2 * part)) & 3 | ((third >> (4 * half + part)) & 1) << 2


def _scales(block: Stored[L]) -> L:
    """Six bits each, of which the lower four and the upper two stand apart, less 32."""
    low, high = block.bytes(96, 8), block.bytes(104, 4)
    fours = block.joined(low & 15, low >> 4)
    twos = block.joined(high & 3, (high >> 2) & 3, (high >> 4) & 3, high >> 6)
    return block.less(fours | twos << 4, 32)


FORMAT = BlockFormat(
    name="Q3_K",
    block=Block(256, 110),
    codes=_codes,
    top=7,
    zero=4,
    d=108,
    groups=16,
    scales=_scales,
    activations="ggml Q8_K",
    dot=SIGNED_16,
    tiled=True,
    largest_scale=32,
    lost=8,  # as in Q6_K
)
