"""A tensor of a model as it is stored: type, shape and raw rows."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.formats import format_of
from kernels.formats.format import Block, Format
from kernels.formats.numbers import NUMBERS


class TensorType(IntEnum):
    """A weight format by its number in ggml: a member for every file in kernels/formats/."""

    vars().update(NUMBERS)

    @property
    def format(self) -> Format:
        """All that is known about it."""
        return format_of(self.name)

    @property
    def block(self) -> Block:
        """Elements and bytes of a block."""
        return self.format.block


_CHUNK = 1 << 24  # bytes that are compared at once


def _one_memory(a: "Rows", b: "Rows") -> bool:
    """Whether two tensors of the same size are the same bytes of one file that was opened once."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return False
    return bool(a.__array_interface__["data"] == b.__array_interface__["data"])


def row_bytes(type: TensorType, elements: int) -> int:
    """Bytes of a stored row of `elements` values; ValueError if they do not fill whole blocks."""
    block = type.block
    if elements % block.elements:
        raise ValueError(f"a row of {elements} values does not fill whole {type.name} blocks of {block.elements}")
    return elements // block.elements * block.bytes


class Rows(Protocol):
    """Rows of bytes, read by slice or by number: an array of them, or what makes them when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...  # noqa: ANN401


@dataclass(frozen=True)
class Weight:
    """One tensor in canonical layout, rows still in their stored block format.

    name : canonical (Hugging Face) name.
    type : block format of every row.
    shape : (out, in) for matrices, (n,) for norm weights and biases.
    stored : uint8 array of shape (out, row_bytes), C-contiguous, writable (mapped copy-on-write);
        a 1-D tensor is one row. Or a `Packed`, whose rows of F32 are made of several stored parts.
    order : canonical row i is stored[order[i]]; None where the order is the same.
    less_one : the type in which its values less 1 lie in the file, where they do; `stored` then is F32, with 1 added.
    step, origin : what values were rounded to before they became `stored`, where its type does not tell: the distance
        of neighbours, 0 for none; or rows of blocks, of as many columns or more.
    part_of : rows of the stored matrix that it is a part of, which engines multiply as a whole; 0 where it is one.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    stored: Rows
    order: NDArray[np.intp] | None = None
    less_one: TensorType | None = None
    step: float = 0.0
    origin: "Weight | None" = None
    part_of: int = 0

    @property
    def whole_rows(self) -> int:
        """Rows of what engines multiply at once: they choose their routines by it."""
        return self.part_of or self.shape[0]

    @cached_property
    def rows(self) -> Rows:
        """The rows in canonical order; a copy where they are stored in another one."""
        return self.stored if self.order is None else self.stored[self.order]

    def equals(self, other: "Weight") -> bool:
        """Whether another tensor has the same type and bytes, read a part at a time."""
        if self.type != other.type or self.rows.shape != other.rows.shape:
            return False
        if _one_memory(self.stored, other.stored) and self.order is None and other.order is None:
            return True
        share = max(1, _CHUNK // max(1, self.rows.shape[-1]))
        parts = (slice(start, start + share) for start in range(0, len(self.rows), share))
        return all(np.array_equal(self.rows[part], other.rows[part]) for part in parts)

    @property
    def stored_as(self) -> TensorType | str:
        """The type, or the name of the layout where it is stored in parts."""
        from kernels.packed.packed import Packed

        return self.stored.name if isinstance(self.stored, Packed) else self.type
