"""Q5_1: Q4_1 with a fifth bit; the highest bits stand together (ggml-common.h, `block_q5_1`)."""

from collections.abc import Iterator

from kernels.formats.format import SCALE_AND_LEAST, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    nibbles = block.bytes(8, 16)
    yield block.joined(nibbles & 15, nibbles >> 4) | block.bits(4, 32) << 4


FORMAT = BlockFormat(
    name="Q5_1",
    block=Block(32, 24),
    codes=_codes,
    top=31,
    least=2,
    activations="ggml Q8_1",
    dot=SCALE_AND_LEAST,
    fitted=True,
    late=True,
)
