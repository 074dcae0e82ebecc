"""The stored parts of one weight, and checks that they belong together; every error names the tensor and the file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.errors import UnsupportedModelError
from kernels.packed.numbers import MANTISSA, STORED, Grid
from kernels.packed.packed import Packed
from store.errors import ArtifactError
from store.stored_model import TensorInfo
from store.text import printable

Shape = tuple[int, ...]
_FLOATS = frozenset(MANTISSA)
_MOST = 1 << 31  # rows or columns of a weight, whatever a part says


class Layout:
    """What the parts of a weight stand for: `size` (out, in), and how to make it of their bytes."""

    def __init__(self, name: str, size: tuple[int, int], make: "Callable[[Opened], Packed]") -> None:
        self.name, self.size, self.make = name, size, make


@dataclass(frozen=True, eq=False)
class Module:
    """The parts of the weight of a module by the ends of their names.

    read : the bytes of a part, for those that say something about the others.
    """

    file: str
    name: str
    parts: Mapping[str, TensorInfo]
    read: Callable[[TensorInfo], bytes]

    def wrong(self, words: str) -> ArtifactError:
        """Return the error that the parts cannot be; `words` follow the name of the module."""
        return ArtifactError(f"{self.file}: {printable(self.name, 80)} {words}; download or quantize it again.")

    def unsupported(self, words: str) -> UnsupportedModelError:
        """Return the error that nothing here reads such parts."""
        return UnsupportedModelError(f"{self.file}: {printable(self.name, 80)} {words}; give the unquantized model.")

    def need(self, part: str, types: frozenset[str] | tuple[str, ...], axes: int | None = None) -> TensorInfo:
        """Return a part that must be there in one of these types, with values and so many axes."""
        info = self.parts.get(part)
        if info is None:
            raise self.wrong(f"has no {part}, which its other parts need")
        if info.type.name not in types:
            raise self.wrong(f"has its {part} in {info.type.name}, where {' or '.join(sorted(types))} belongs")
        if (axes is not None and len(info.shape) != axes) or not info.nbytes or max(info.shape, default=1) > _MOST:
            raise self.wrong(f"has a {part} of shape {shown(info.shape)}, which holds no such values")
        return info

    def must_be(self, part: str, *shapes: Shape) -> None:
        """Raise ArtifactError unless a part has one of these shapes."""
        if self.parts[part].shape not in shapes:
            raise self.wrong(
                f"has a {part} of shape {shown(self.parts[part].shape)}, where its other parts imply {shown(shapes[0])}"
            )

    def scale(self, part: str, types: frozenset[str] | tuple[str, ...] = _FLOATS) -> TensorInfo:
        """Return a part that holds floats."""
        return self.need(part, types)


class Opened:
    """The bytes of all parts of a weight, as arrays."""

    def __init__(self, module: Module, data: Mapping[str, NDArray[np.uint8]]) -> None:
        self.module, self._data = module, data

    def __contains__(self, part: str) -> bool:
        return part in self._data

    def array(self, part: str) -> NDArray[np.generic]:
        """A part in its own shape and the NumPy type that holds it."""
        info = self.module.parts[part]
        dtype = np.dtype(STORED[info.type.name])
        data = self._data[part]
        if data.ctypes.data % dtype.itemsize:
            data = data.copy()  # so that it can be viewed as numbers
        return data.view(dtype).reshape(info.shape)

    def grid(self, part: str, shape: tuple[int, int], tall: int = 1, type: str | None = None) -> Grid:
        """A part as numbers of groups, (rows / tall, groups). type : what its numbers are, if not what they say."""
        return Grid(self.array(part).reshape(shape), type or self.module.parts[part].type.name, tall)

    @cached_property
    def order(self) -> Mapping[str, NDArray[np.intp]]:
        """The group of every column, where a part says so."""
        names = [part for part in self._data if part.endswith("g_idx")]
        return {part: self.array(part).astype(np.intp) for part in names}


def groups_of(opened: Opened, part: str, columns: int, size: int, count: int) -> NDArray[np.intp]:
    """The group of every column: what a part says, or runs of `size`. ArtifactError for a group that is not there."""
    found = opened.order.get(part)
    if found is None or (found < 0).all():  # as some writers leave it where nothing was reordered
        return np.arange(columns) // size
    if found.min() < 0 or found.max() >= count:
        raise opened.module.wrong(
            f"has a {part} that names group {int(found.max() if found.max() >= count else found.min())} of {count}"
        )
    return found


def parted(module: Module, columns: int, groups: int, size: int) -> int:
    """Return the columns of a group, which is all of them for -1; ArtifactError unless so many groups are that wide."""
    wide = columns if size == -1 else size
    if wide < 1 or -(-columns // wide) != groups:
        raise module.wrong(
            f"has scales of {groups} groups, where rows of {columns} values and group_size {size} imply another number"
        )
    return wide


def shown(shape: Shape) -> str:
    """Write a shape as 256×1024."""
    return "×".join(map(str, shape)) or "()"
