"""MXFP4: 32 floats of 4 bits (E2M1) with a power of two as their scale (ggml-common.h, `block_mxfp4`)."""

from collections.abc import Iterator

from kernels.formats.format import TWO_TURNS, Block, BlockFormat, L, Stored

LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # halves of what the floats are


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(1, 16)
    yield block.looked_up(LEVELS, block.joined(nibbles & 15, nibbles >> 4))


FORMAT = BlockFormat(
    name="MXFP4",
    block=Block(32, 17),
    codes=_codes,
    levels=LEVELS,
    top=12,
    d_as="E8M0",
    activations="ggml Q8_0",
    dot=TWO_TURNS,
    repacked=32,
)
