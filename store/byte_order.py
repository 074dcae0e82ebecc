"""Tensors of files from big-endian machines: the bytes of every number the other way round."""

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.weight import TensorType
from store.tensor_types import OtherType, StoredType

_UNSETTLED = " (in big-endian order, in which no converter writes it)"


def of_big_endian(type: StoredType) -> StoredType:
    """Return what a tensor of a big-endian file is: the same, or a type that is not read.

    A number of a float type is one number; a block is single bytes but for its half-precision factors (as in gguf's
    `gguf_convert_endian.py`, 0.19). Where it holds wider integers, converters refuse it.
    """
    if not isinstance(type, TensorType):
        return OtherType(type.name, type.block, type.note + " (in big-endian order)")
    if isinstance(type.format, BlockFormat) and type.format.wide:
        return OtherType(type.name, type.block, _UNSETTLED)
    return type


def turned(data: NDArray[np.uint8], type: TensorType) -> NDArray[np.uint8]:
    """Return a copy of whole blocks of a type in the other byte order."""
    size = type.block.bytes
    blocks = data.reshape(-1, size).copy()
    if isinstance(type.format, BlockFormat):
        for at in type.format.factors:
            blocks[:, at : at + 2] = blocks[:, at : at + 2][:, ::-1].copy()
    else:
        blocks = blocks[:, ::-1].copy()
    return blocks.reshape(data.shape)
