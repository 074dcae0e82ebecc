"""BF16: the upper half of a float32."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="BF16", block=Block(1, 2), in_apr=True, apr_codes=(2,), mantissa=7)
