"""Element and block formats that files store tensors in, by name and size: those that are read, and all others.

A tensor of a type that nothing here turns into numbers is still located, listed and named.
"""

from typing import NamedTuple

from kernels.formats.format import Block, FloatFormat
from kernels.formats.numbers import NOT_IN_GGML
from kernels.weight import TensorType


class OtherType(NamedTuple):
    """A type whose tensors are located but not turned into numbers.

    block : elements and bytes of a block; None where they are not known.
    note : what else there is to say of it, to be put behind the name.
    """

    name: str
    block: Block | None = None
    note: str = ""


StoredType = TensorType | OtherType

_READ = {int(type): type for type in TensorType if type < NOT_IN_GGML}
_REMOVED = frozenset((4, 5, 31, 32, 33, 36, 37, 38))
# ggml.h, `enum ggml_type`, and the block sizes of ggml-common.h (llama.cpp of 2026-11); removed ones as they last were.
_GGML: dict[int, OtherType] = {
    code: OtherType(name, Block(elements, size), " (removed from llama.cpp)" if code in _REMOVED else "")
    for code, name, elements, size in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (4, "Q4_2", 16, 10),
        (5, "Q4_3", 16, 12),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 40),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (31, "Q4_0_4_4", 32, 18),
        (32, "Q4_0_4_8", 32, 18),
        (33, "Q4_0_8_8", 32, 18),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (36, "IQ4_NL_4_4", 32, 18),
        (37, "IQ4_NL_4_8", 32, 18),
        (38, "IQ4_NL_8_8", 32, 18),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}

# safetensors' `Dtype`, bits per element.
_SAFETENSORS_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


def ggml_type(code: int) -> StoredType:
    """Return the type with this number in ggml."""
    if code in _READ:
        return _READ[code]
    return _GGML.get(code) or OtherType(f"number {code}", note=" (which no type of ggml has)")


def safetensors_type(dtype: str) -> StoredType:
    """Return the type that a SafeTensors header calls `dtype`."""
    if dtype in TensorType.__members__ and isinstance(TensorType[dtype].format, FloatFormat):
        return TensorType[dtype]
    bits = _SAFETENSORS_BITS.get(dtype)
    if bits is None:
        return OtherType(dtype)
    elements = 1 if bits % 8 == 0 else 4  # the smallest number of elements that fills whole bytes
    return OtherType(dtype, Block(elements, elements * bits // 8))
