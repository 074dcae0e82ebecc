"""Q5_0: 32 codes of 5 bits with one scale; their highest bits stand together (ggml-common.h, `block_q5_0`)."""

from collections.abc import Iterator

from kernels.formats.format import ONE_SCALE, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(6, 16)
    yield block.joined(nibbles & 15, nibbles >> 4) | block.bits(2, 32) << 4


FORMAT = BlockFormat(
    name="Q5_0",
    block=Block(32, 22),
    apr_codes=(0,),
    codes=_codes,
    top=31,
    zero=16,
    activations="ggml Q8_0",
    dot=ONE_SCALE,
    fitted=True,
)
