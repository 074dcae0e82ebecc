"""F8_E5M2: the upper byte of a half (OCP OFP8; `float8_e5m2` of torch and ml_dtypes)."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="F8_E5M2", block=Block(1, 1), mantissa=2)
