"""Q2_0: 64 codes of 2 bits with one scale, neighbours in one byte (ggml-common.h, `block_q2_0`)."""

from collections.abc import Iterator

from kernels.formats.format import SUMMED_TOTALS, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    fours = block.bytes(2, 16)
    yield block.zipped(*((fours >> n) & 3 for n in (0, 2, 4, 6)))


FORMAT = BlockFormat(
    name="Q2_0",
    block=Block(64, 18),
    codes=_codes,
    top=3,
    zero=1,
    activations="ggml Q8_0",
    dot=SUMMED_TOTALS,
    late=True,
    scale_of="largest",
)
