"""A weight that is stored in parts, as rows of float32 that are made when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.packed.numbers import Floats, Grid, rounded

_AT_ONCE = 1 << 20  # values that are made at once, so that what lies between stays in cache


class Taken(NamedTuple):
    """Some rows taken apart; all are (rows, columns). codes : uint8. zeros, offsets : None where there are none."""

    codes: NDArray[np.uint8]
    scales: Floats
    zeros: Floats | None
    offsets: Floats | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Packed:
    """Rows of float32 as bytes, (out, 4 * in), of a weight whose value is (level - zero) * scale + offset.

    It is read as an array is: `len`, `shape`, and rows by slice or by number, which come as uint8 arrays.

    name : of the layout, for people. size : (out, in). codes : uint8 (rows, in) of chosen rows. levels : what every
    code stands for. scales, zeros, offsets : of groups of columns. groups : of every column, its group. kept : the type
    that product and sum are rounded to, as the library does that such checkpoints are written for. factor : of all
    values, after the scale. chosen : which of the rows that are stored there are its own, None for all.
    carried : whether those who write such files carry errors of rounding over to other values, as GPTQ does.
    """

    name: str
    size: tuple[int, int]
    codes: Callable[[NDArray[np.intp]], NDArray[np.uint8]]
    levels: Floats
    scales: Grid
    groups: NDArray[np.intp]
    zeros: Grid | None = None
    offsets: Grid | None = None
    kept: str = "F32"
    factor: np.float32 | None = None
    chosen: NDArray[np.intp] | None = None
    carried: bool = False

    def __len__(self) -> int:
        return self.size[0]

    @property
    def shape(self) -> tuple[int, int]:
        """As of the bytes of an array of float32."""
        return self.size[0], 4 * self.size[1]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - whatever numbers the rows of an array
        rows, *columns = rows if isinstance(rows, tuple) else (rows,)
        numbers = np.arange(self.size[0])[rows]
        found = self.values(np.atleast_1d(numbers)).view(np.uint8)
        return found.reshape(*np.shape(numbers), -1)[(..., *columns)]

    def values(self, rows: NDArray[np.intp]) -> Floats:
        """float32 (rows, columns), bit for bit as the library that writes such files dequantizes them."""
        out = np.empty((len(rows), self.size[1]), np.float32)
        share = max(1, _AT_ONCE // self.size[1])
        make = self._looked_up if len(self.levels) * 2 <= self.size[1] // self._count else self._made
        for start in range(0, len(rows), share):
            make(rows[start : start + share], out[start : start + share])
        return out

    def _made(self, rows: NDArray[np.intp], out: Floats) -> None:
        out[:] = self.made_of(self.taken(rows))

    def _looked_up(self, rows: NDArray[np.intp], out: Floats) -> None:
        """The same by a table of what every code stands for in every group, where these are far fewer than values."""
        every, count = np.arange(len(self.levels), dtype=np.uint8), self._count
        groups = np.repeat(np.arange(count), len(every))
        codes = np.broadcast_to(np.tile(every, count), (len(rows), len(groups)))
        table = self.made_of(self._with_numbers(codes, rows, groups))
        places = self.codes(rows if self.chosen is None else self.chosen[rows]) + self._places
        for row, at, of_row in zip(table, places, out, strict=True):
            np.take(row, at, out=of_row, mode="clip")

    @cached_property
    def _count(self) -> int:
        return int(self.groups.max()) + 1

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        """Of every column, where its group begins in a table of all levels of all groups."""
        return self.groups * len(self.levels)

    def taken(self, rows: NDArray[np.intp], groups: NDArray[np.intp] | None = None) -> Taken:
        """Some rows, taken apart. groups : of every column, if not its own."""
        codes = self.codes(rows if self.chosen is None else self.chosen[rows])
        return self._with_numbers(codes, rows, self.groups if groups is None else groups)

    def _with_numbers(self, codes: NDArray[np.uint8], rows: NDArray[np.intp], groups: NDArray[np.intp]) -> Taken:
        """Codes of some rows with the numbers of their groups."""
        if self.chosen is not None:
            rows = self.chosen[rows]
        scales, zeros, offsets = (
            None if grid is None else grid.of(rows)[:, groups] for grid in (self.scales, self.zeros, self.offsets)
        )
        assert scales is not None
        return Taken(codes, scales, zeros, offsets)

    def made_of(self, taken: Taken) -> Floats:
        """What such parts stand for."""
        found = self.levels[taken.codes]
        if taken.zeros is not None:
            found = found - taken.zeros
        with np.errstate(over="ignore", invalid="ignore"):
            found = found * taken.scales
            found = rounded(found if self.factor is None else found * self.factor, self.kept)
            return found if taken.offsets is None else rounded(found + taken.offsets, self.kept)
