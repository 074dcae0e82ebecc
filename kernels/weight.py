"""A tensor of a model as it is stored: type, shape and raw rows."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.formats import FORMATS
from kernels.formats.format import Block, Format


class TensorType(IntEnum):
    """A weight format by its number in ggml: a member for every file in kernels/formats/."""

    vars().update((format.name, format.number) for format in FORMATS)

    @property
    def format(self) -> Format:
        """All that is known about it."""
        return _FORMATS[self]

    @property
    def block(self) -> Block:
        """Elements and bytes of a block."""
        return self.format.block


_FORMATS = {TensorType(format.number): format for format in FORMATS}


def row_bytes(type: TensorType, elements: int) -> int:
    """Bytes of a stored row of `elements` values; ValueError if they do not fill whole blocks."""
    block = type.block
    if elements % block.elements:
        raise ValueError(f"a row of {elements} values does not fill whole {type.name} blocks of {block.elements}")
    return elements // block.elements * block.bytes


@dataclass(frozen=True)
class Weight:
    """One tensor in canonical layout, rows still in their stored block format.

    name : canonical (Hugging Face) name.
    type : block format of every row.
    shape : (out, in) for matrices, (n,) for norm weights and biases.
    stored : uint8 array of shape (out, row_bytes), C-contiguous, writable (mapped copy-on-write);
        a 1-D tensor is one row.
    order : canonical row i is stored[order[i]]; None where the order is the same.
    less_one : the type in which its values less 1 lie in the file, where they do; `stored` then is F32, with 1 added.
    step, origin : what values were rounded to before they became `stored`, where its type does not tell: the distance
        of neighbours, 0 for none; or rows of blocks, of as many columns or more.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    stored: NDArray[np.uint8]
    order: NDArray[np.intp] | None = None
    less_one: TensorType | None = None
    step: float = 0.0
    origin: "Weight | None" = None

    @cached_property
    def rows(self) -> NDArray[np.uint8]:
        """The rows in canonical order; a copy where they are stored in another one."""
        return self.stored if self.order is None else self.stored[self.order]
