"""IQ4_XS: the codes of IQ4_NL, 256 of them in 8 groups with a scale of 6 bits (ggml-common.h, `block_iq4_xs`)."""

from collections.abc import Iterator

from kernels.formats.format import SIGNED_32, Block, BlockFormat, L, Stored
from kernels.formats.iq4_nl import LEVELS


def _codes(block: Stored[L]) -> Iterator[L]:
    for group in range(8):
        nibbles = block.bytes(8 + 16 * group, 16)
        yield block.looked_up(LEVELS, block.joined(nibbles & 15, nibbles >> 4))


def _scales(block: Stored[L]) -> L:
    """Six bits each, of which the lower four and the upper two stand apart, less 32."""
    low, high = block.bytes(4, 4), block.bytes(2, 2)
    return block.less(
        block.zipped(low & 15, low >> 4) | block.zipped(*((high >> n) & 3 for n in (0, 2, 4, 6))) << 4, 32
    )


FORMAT = BlockFormat(
    name="IQ4_XS",
    block=Block(256, 136),
    codes=_codes,
    levels=LEVELS,
    top=113,
    groups=8,
    scales=_scales,
    wide=True,
    activations="ggml Q8_K",
    dot=SIGNED_32,
    tiled=True,
    largest_scale=32,
    lost=254,  # importance weights may fit a scale down to half of what rounded codes
    late=True,
)
