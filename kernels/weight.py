"""A tensor of a model as it is stored: type, shape and raw rows."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TensorType(IntEnum):
    """Element or block format of a stored tensor; the numbers are ggml's type ids (ggml.h, `enum ggml_type`)."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q5_0 = 6
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30


class Block(NamedTuple):
    """How many elements a block holds, and how many bytes it takes."""

    elements: int
    bytes: int


BLOCKS: dict[TensorType, Block] = {
    TensorType.F32: Block(1, 4),
    TensorType.F16: Block(1, 2),
    TensorType.BF16: Block(1, 2),
    TensorType.Q4_0: Block(32, 18),
    TensorType.Q5_0: Block(32, 22),
    TensorType.Q8_0: Block(32, 34),
    TensorType.Q4_K: Block(256, 144),
    TensorType.Q5_K: Block(256, 176),
    TensorType.Q6_K: Block(256, 210),
}


def row_bytes(type: TensorType, elements: int) -> int:
    """Bytes of a stored row of `elements` values; ValueError if they do not fill whole blocks."""
    block = BLOCKS[type]
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
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    stored: NDArray[np.uint8]
    order: NDArray[np.intp] | None = None

    @cached_property
    def rows(self) -> NDArray[np.uint8]:
        """The rows in canonical order; a copy where they are stored in another one."""
        return self.stored if self.order is None else self.stored[self.order]
