"""Q4_1: 32 codes of 4 bits with a scale and the least value (ggml-common.h, `block_q4_1`)."""

from collections.abc import Iterator

from kernels.formats.format import SCALE_AND_LEAST, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(4, 16)
    yield block.joined(nibbles & 15, nibbles >> 4)


FORMAT = BlockFormat(
    name="Q4_1",
    block=Block(32, 20),
    codes=_codes,
    top=15,
    least=2,
    activations="ggml Q8_1",
    dot=SCALE_AND_LEAST,
    fitted=True,
    late=True,
)
