"""F16: IEEE half precision."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="F16", block=Block(1, 2), in_apr=True, mantissa=10)
