"""F64: IEEE double precision, of which all that computes here uses the nearest float32."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="F64", block=Block(1, 8), mantissa=52)
