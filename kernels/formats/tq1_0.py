"""TQ1_0: 256 ternary codes with one scale, five to a byte (ggml-common.h, `block_tq1_0`)."""

from collections.abc import Iterator

from kernels.formats.format import PLAIN_SHARED_ZERO, Block, BlockFormat, L, Stored


def _codes(block: Stored[L]) -> Iterator[L]:
    """Bytes are fractions in base 3; the last four of them have four digits."""
    for at, count, digits in ((0, 32, 5), (32, 16, 5), (48, 4, 4)):
        for place in range(digits):
            yield block.ternary(block.bytes(at, count), place)


def scales(block: Stored[L]) -> L:
    """All 1; those of TQ2_0 as well."""
    return block.repeated(1, 16)


FORMAT = BlockFormat(
    name="TQ1_0",
    block=Block(256, 54),
    codes=_codes,
    top=2,
    zero=1,
    d=52,
    groups=16,
    scales=scales,
    activations="ggml Q8_K",
    dot=PLAIN_SHARED_ZERO,
    late=True,
    scale_of="largest",
)
