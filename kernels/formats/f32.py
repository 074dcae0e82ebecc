"""F32: IEEE single precision."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="F32", block=Block(1, 4), in_apr=True, mantissa=23)
