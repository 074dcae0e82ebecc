"""Q6_K: 256 codes of 6 bits in 16 groups, each with a scale of 8 bits (ggml-common.h, `block_q6_K`)."""

from collections.abc import Iterator

from kernels.formats.format import SHARED_ZERO, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    for half in range(2):
        low = block.bytes(64 * half, 32), block.bytes(64 * half + 32, 32)
        high = block.bytes(128 + 32 * half, 32)
        for part in range(4):
            nibbles = low[part % 2] >> 4 if part >= 2 else low[part % 2] & 15
            yield nibbles | ((high >> (2 * part)) & 3) << 4


def _scales(block: Stored[L]) -> L:
    return block.signed(192, 16)


FORMAT = BlockFormat(
    name="Q6_K",
    block=Block(256, 210),
    apr_codes=(9,),
    in_apr=True,
    codes=_codes,
    top=63,
    zero=32,
    d=208,
    groups=16,
    scales=_scales,
    activations="ggml Q8_K",
    apr_activations="APR Q8_K",
    dot=SHARED_ZERO,
    tiled=True,
    largest_scale=128,
    lost=64,  # importance weights may fit a scale down to half of what rounded codes
)
