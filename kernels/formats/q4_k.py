"""Q4_K: 256 codes of 4 bits in 8 groups, each with a scale and a min of 6 bits (ggml-common.h, `block_q4_K`)."""

from collections.abc import Iterator

from kernels.formats.format import MINS_IN_LANES, Block, BlockFormat, L, Stored


def scales(block: Stored[L]) -> L:
    """Six bits each, the last four in two pieces (`get_scale_min_k4`); those of Q5_K as well."""
    first, last = block.bytes(4, 4), block.bytes(12, 4)
    return block.joined(first & 63, (last & 15) | (first >> 6) << 4)


def mins(block: Stored[L]) -> L:
    """The same of the mins."""
    first, last = block.bytes(8, 4), block.bytes(12, 4)
    return block.joined(first & 63, (last >> 4) | (first >> 6) << 4)


def _codes(block: Stored[L]) -> Iterator[L]:
    for pair in range(4):
        nibbles = block.bytes(16 + 32 * pair, 32)
        yield nibbles & 15
        yield nibbles >> 4


FORMAT = BlockFormat(
    name="Q4_K",
    block=Block(256, 144),
    apr_codes=(13,),
    in_apr=True,
    codes=_codes,
    top=15,
    dmin=2,
    groups=8,
    scales=scales,
    mins=mins,
    activations="ggml Q8_K",
    apr_activations="APR Q8_K",
    dot=MINS_IN_LANES,
    repacked=64,
    tiled=True,
    largest_scale=63,
    lost=15,
)
