"""How the bytes of a tensor lie in a file where they are not simply rows of a type, and the rows made of them."""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.weight import TensorType, Weight
from store.tensor_types import OtherType, StoredType

Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way of lying in a file.

    name : what it is called; None where the type alone says it. by_rows : whether every row lies in one piece, so that
    some of them are an encoding too. step : the distance of neighbours that values were rounded to, 0 where the type
    says it.
    """

    name: str | None = None
    by_rows: bool = True
    step: float = 0.0

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        """Return rows of `type`, without gaps, made of the bytes of a tensor of `shape`."""
        raise NotImplementedError

    def origin(self, data: Bytes, shape: Shape) -> Weight | None:
        """Return the rows as they were rounded, of at least as many columns, where `decoded` widens them."""
        return None


class BigEndian(Encoding):
    """Rows of a type with every number the other way round."""

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        blocks = data.reshape(-1, type.block.bytes).copy()
        if isinstance(type.format, BlockFormat):
            for at in type.format.factors:
                blocks[:, at : at + 2] = blocks[:, at : at + 2][:, ::-1].copy()
        else:
            blocks = blocks[:, ::-1].copy()
        return blocks.reshape(-1)


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


class AprQ4(Encoding):
    """aprender's blocks of 32 codes with a scale: Q4_0, but for the order of its codes.

    The low half of byte i is code 2i and the high half code 2i+1, where Q4_0 has codes i and i+16.
    """

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        blocks = data.reshape(-1, 18).copy()
        packed = blocks[:, 2:]
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(blocks), 32)
        blocks[:, 2:] = codes[:, :16] | codes[:, 16:] << 4
        return blocks.reshape(-1)


@dataclass(frozen=True, slots=True)
class AprQ8(Encoding):
    """aprender's signed bytes with one scale for the whole tensor: read as float32."""

    scale: float = 0.0

    @classmethod
    def of(cls, scale: float) -> "AprQ8":
        """With the scale that stands before the values."""
        return cls("AprQ8", step=abs(scale), scale=scale)

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        with np.errstate(over="ignore", invalid="ignore"):
            return (data.view(np.int8).astype(np.float32) * np.float32(self.scale)).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Padded(Encoding):
    """Rows of blocks whose last one is filled up, as aprender quantizes rows that do not fill it: read as float32."""

    blocks: TensorType = TensorType["F32"]

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        from kernels.rows.dequantize import dequantize

        origin = self.origin(data, shape)
        return np.ascontiguousarray(dequantize(origin)[:, : shape[-1]]).view(np.uint8).reshape(-1)

    def origin(self, data: Bytes, shape: Shape) -> Weight:
        rows = prod(shape[:-1])
        size = self.blocks.block
        stored = np.ascontiguousarray(data).reshape(rows, -1)
        return Weight("padded", self.blocks, (rows, stored.shape[1] // size.bytes * size.elements), stored)


class Exponents(Encoding):
    """Powers of two, of which a byte is the exponent (F8_E8M0 of SafeTensors): read as float32."""

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        from kernels.packed.numbers import as_floats

        return as_floats(data, "F8_E8M0").view(np.uint8)


class Transposed(Encoding):
    """A matrix of numbers of `type` stored by input features, as early entrenar checkpoints have it."""

    def decoded(self, data: Bytes, type: TensorType, shape: Shape) -> Bytes:
        return np.ascontiguousarray(data.reshape(*reversed(shape), -1).swapaxes(0, 1)).reshape(-1)


BIG_ENDIAN = BigEndian()
APR_Q4 = AprQ4("AprQ4")
EXPONENTS = Exponents("F8_E8M0")
TRANSPOSED = Transposed("transposed", by_rows=False)
