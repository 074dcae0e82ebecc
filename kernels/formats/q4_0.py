"""Q4_0: 32 codes of 4 bits with one scale (ggml-common.h, `block_q4_0`)."""

from collections.abc import Iterator

from kernels.formats.format import ONE_SCALE, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(2, 16)
    yield block.joined(nibbles & 15, nibbles >> 4)


FORMAT = BlockFormat(
    name="Q4_0",
    block=Block(32, 18),
    apr_codes=(0,),
    codes=_codes,
    top=15,
    zero=8,
    activations="ggml Q8_0",
    dot=ONE_SCALE,
    repacked=32,
    fitted=True,
)
