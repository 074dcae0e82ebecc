"""Signs of eight codes of which seven are stored: the eighth makes an even number of them negative."""

from kernels.formats.format import L


def even(seven: L) -> L:
    """Seven bits of every lane, and as the eighth one their parity."""
    odd = seven ^ (seven >> 4)
    odd = odd ^ (odd >> 2)
    odd = odd ^ (odd >> 1)
    return seven | (odd & 1) << 7
