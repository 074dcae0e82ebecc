"""IQ4_NL: 32 codes of 4 bits, which stand for 16 unequal steps, with one scale (ggml-common.h, `block_iq4_nl`)."""

from collections.abc import Iterator

from kernels.formats.format import ONE_SCALE, Block, BlockFormat, L, Stored

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(2, 16)
    yield block.looked_up(LEVELS, block.joined(nibbles & 15, nibbles >> 4))


FORMAT = BlockFormat(
    name="IQ4_NL",
    block=Block(32, 18),
    codes=_codes,
    levels=LEVELS,
    top=113,
    activations="ggml Q8_0",
    dot=ONE_SCALE,
    repacked=32,
    late=True,
)
