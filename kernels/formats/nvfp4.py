"""NVFP4: 64 floats of 4 bits in 4 groups with a float of 8 bits as their scale (ggml-common.h, `block_nvfp4`)."""

from collections.abc import Iterator

from kernels.formats.format import SCALED_HALVES, Block, BlockFormat, L, Stored
from kernels.formats.mxfp4 import LEVELS


def _codes(block: Stored[L]) -> Iterator[L]:
    for at in range(4, 36, 8):
        nibbles = block.bytes(at, 8)
        yield block.looked_up(LEVELS, block.joined(nibbles & 15, nibbles >> 4))


FORMAT = BlockFormat(
    name="NVFP4",
    block=Block(64, 36),
    codes=_codes,
    levels=LEVELS,
    top=12,
    d_as="UE4M3",
    groups=4,
    activations="ggml Q8_0",
    dot=SCALED_HALVES,
)
