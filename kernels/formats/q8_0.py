"""Q8_0: 32 signed bytes with one scale (ggml-common.h, `block_q8_0`)."""

from collections.abc import Iterator

from kernels.formats.format import ONE_SCALE, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    yield block.signed(2, 32)


FORMAT = BlockFormat(
    name="Q8_0",
    block=Block(32, 34),
    apr_codes=(10,),
    codes=_codes,
    top=127,
    activations="ggml Q8_0",
    dot=ONE_SCALE,
    cut=False,  # the largest value becomes the largest code
    late=True,
)
