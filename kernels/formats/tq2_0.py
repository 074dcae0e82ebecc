"""TQ2_0: 256 ternary codes of 2 bits with one scale (ggml-common.h, `block_tq2_0`)."""

from collections.abc import Iterator

from kernels.formats.format import PLAIN_SHARED_ZERO, Block, BlockFormat, L, Stored
from kernels.formats.tq1_0 import scales


def _codes(block: Stored[L]) -> Iterator[L]:
    for half in range(2):
        pairs = block.bytes(32 * half, 32)
        for part in range(4):
            yield (pairs >> (2 * part)) & 3


FORMAT = BlockFormat(
    name="TQ2_0",
    block=Block(256, 66),
    codes=_codes,
    top=2,
    zero=1,
    d=64,
    groups=16,
    scales=scales,
    activations="ggml Q8_K",
    dot=PLAIN_SHARED_ZERO,
    late=True,
    scale_of="largest",
)
