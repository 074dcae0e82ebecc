"""Q1_0: 128 signs with one scale (ggml-common.h, `block_q1_0`)."""

from collections.abc import Iterator

from kernels.formats.format import SUMMED_LANES, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    yield block.less(block.bits(2, 128) << 1, 1)


FORMAT = BlockFormat(
    name="Q1_0",
    block=Block(128, 18),
    codes=_codes,
    levels=(-1, 1),
    top=1,
    activations="ggml Q8_0",
    dot=SUMMED_LANES,
    late=True,
    scale_of="mean",
)
