"""Q2_K: 256 codes of 2 bits in 16 groups, each with a scale and a min of 4 bits (ggml-common.h, `block_q2_K`)."""

from collections.abc import Iterator

from kernels.formats.format import MINS_FIRST, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    for half in range(2):
        pairs = block.bytes(16 + 32 * half, 32)
        for part in range(4):
            yield (pairs >> (2 * part)) & 3


def _scales(block: Stored[L]) -> L:
    return block.bytes(0, 16) & 15


def _mins(block: Stored[L]) -> L:
    return block.bytes(0, 16) >> 4


FORMAT = BlockFormat(
    name="Q2_K",
    block=Block(256, 84),
    codes=_codes,
    top=3,
    d=80,
    dmin=82,
    groups=16,
    scales=_scales,
    mins=_mins,
    activations="ggml Q8_K",
    dot=MINS_FIRST,
    repacked=128,
    repacked_by="AVX-512",
    tiled=True,
    largest_scale=15,
    lost=4,  # importance weights may fit a scale a little lower than the range of values
)
