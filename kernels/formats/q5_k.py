"""Q5_K: Q4_K with a fifth bit, the bits of element i of all groups in one byte (ggml-common.h, `block_q5_K`)."""

from collections.abc import Iterator

from kernels.formats.format import MINS_IN_ONE, Block, BlockFormat, L, Stored
from kernels.formats.q4_k import mins, scales


def _codes(block: Stored[L]) -> Iterator[L]:
    fifth = block.bytes(16, 32)
    for pair in range(4):
        nibbles = block.bytes(48 + 32 * pair, 32)
        for half, low in enumerate((nibbles & 15, nibbles >> 4)):
            yield low | ((fifth >> (2 * pair + half)) & 1) << 4


FORMAT = BlockFormat(
    name="Q5_K",
    block=Block(256, 176),
    apr_codes=(12,),
    codes=_codes,
    top=31,
    dmin=2,
    groups=8,
    scales=scales,
    mins=mins,
    activations="ggml Q8_K",
    dot=MINS_IN_ONE,
    tiled=True,
    largest_scale=63,
    lost=31,
)
