"""F8_E4M3: 8-bit floats up to 448, without infinity (OCP OFP8; `float8_e4m3fn` of torch and ml_dtypes)."""

from kernels.formats.format import Block, FloatFormat

FORMAT = FloatFormat(name="F8_E4M3", block=Block(1, 1), mantissa=3, saturates=True)
