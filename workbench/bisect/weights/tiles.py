"""Sums over tiles of two matrices: parts of a row, whole rows or columns, squares, groups of a column."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.question import Question, Rows
from workbench.bisect.weights.steps import Stored

Sums = tuple[NDArray[np.float64], ...]
Terms = Callable[[Stored, Stored], tuple[NDArray[np.float64], ...]]


@dataclass(frozen=True, slots=True)
class Tile:
    """The shape of a tile, which divides that of the matrix or, downwards, may end earlier; and its name."""

    height: int
    width: int
    name: str


def tile_sums(q: Question, tile: Tile, terms: Terms) -> Callable[[Rows], Sums]:
    """The sums of every term of both sides' values over the tiles that some rows belong to, each (rows, tiles across).

    Those of a tile that is one row high come from the rows asked for; all others are added up once.
    """

    def of_rows(rows: Rows) -> Sums:
        found = terms(q.a(rows), q.b(rows))
        return tuple(x.reshape(len(rows), -1, tile.width).sum(axis=2, dtype=np.float64) for x in found)

    if tile.height == 1:
        return of_rows
    tables: list[Sums] = []

    def of_tables(rows: Rows) -> Sums:
        if not tables:
            tables.append(_added_up(q, tile, of_rows))
        return tuple(table[rows // tile.height] for table in tables[0])

    return of_tables


def _added_up(q: Question, tile: Tile, of_rows: Callable[[Rows], Sums]) -> Sums:
    down = -(-q.wrong.shape[0] // tile.height)
    tables: Sums = ()
    for part in row_chunks(q.wrong):
        rows = np.arange(part.start, part.stop)
        sums = of_rows(rows)
        tables = tables or tuple(np.zeros((down, x.shape[1])) for x in sums)
        for table, x in zip(tables, sums, strict=True):
            np.add.at(table, rows // tile.height, x)
    return tables


def spread_over(tile: Tile, x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Figures of tiles (rows, tiles across) for every element of the rows."""
    return np.repeat(x, tile.width, axis=1).astype(np.float32)
