"""A tensor times a factor: one for all of it, for a head or some rows, or a scale of every row, column or group."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.question import Prediction, Question, Region, Rows
from workbench.bisect.weights.steps import Stored

_GROUPS = (128, 64, 32)  # values with one scale, in the formats in use
_TILE = 128  # rows and columns with one scale, in checkpoints of 8-bit floats


def scaled(q: Question) -> Iterator[Prediction]:
    """One common factor; people scale by round numbers, which rounding noise blurs in the fit."""
    for region in q.regions():
        for fitted in _fitted_factors(q, region):
            for factor in dict.fromkeys((round(fitted, 2), round(fitted, 3), fitted)):
                if factor not in (0.0, 1.0, -1.0) and abs(factor - fitted) < 0.01 * abs(fitted):
                    words = f"{q.what} is multiplied by {factor:.6g}{region.words}"
                    yield Prediction("scaled", words, changed(q, region, partial(Stored.scaled, factor=factor)))


def changed(q: Question, region: Region, change: Callable[[Stored], Stored]) -> Callable[[Rows], Stored]:
    """The right rows, changed in a region."""

    def rows_of(rows: Rows) -> Stored:
        before = q.a(rows)
        return change(before).where(np.broadcast_to(region.of(rows), before.values.shape), before)

    return rows_of


def _fitted_factors(q: Question, region: Region) -> tuple[float, ...]:
    """The two least-squares slopes over a region, first the one of the side that is rounded more finely.

    The side that is rounded more coarsely is the one whose errors bend its own slope.
    """
    rows = q.all_rows if region.across else q.all_rows[region.mask[q.all_rows]]
    if not len(rows):
        return ()
    mask = np.broadcast_to(region.of(rows), (len(rows), q.wrong.shape[-1]))
    right, wrong = q.a(rows), q.b(rows)
    a, b = (stored.values[mask].astype(np.float64) for stored in (right, wrong))
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    aa, ab, bb = float(a @ a), float(a @ b), float(b @ b)
    if not (aa and ab):
        return ()
    slopes = ab / aa, bb / ab
    return slopes if _coarse(right) <= _coarse(wrong) else slopes[::-1]


def _coarse(stored: Stored) -> float:
    return float(np.square(stored.width, dtype=np.float64).mean())


def scales(q: Question) -> Iterator[Prediction]:
    """A factor of its own for every row, column, group of a row or square tile: the scales of a quantized tensor."""
    if q.is_vector or not q.verdict.affected.mean() > 0.5:
        return
    rows, columns = q.wrong.shape
    tiles = [(1, columns, "row"), (rows, 1, "column")]
    if columns % _TILE == 0 and rows > _TILE:
        tiles.append((_TILE, _TILE, f"tile of {_TILE}x{_TILE}"))
    tiles += [(1, size, f"group of {size}") for size in _GROUPS if columns % size == 0 and size < columns]
    for height, width, name in tiles:
        factors = _factors_by_row(q, width) if height == 1 else _factors_by_tile(q, height, width)
        some = np.abs(factors(q.sample))
        least, most = (float(x) for x in (some.min(), some.max()))
        if np.isfinite(most) and most > 0:
            words = f"every {name} of {q.what} is multiplied by a factor of its own, from {least:.4g} to {most:.4g}"
            yield Prediction("scaled", words, partial(_times, q, factors))


_Factors = Callable[[Rows], NDArray[np.float32]]


def _times(q: Question, factors: _Factors, rows: Rows) -> Stored:
    """Right rows times a factor per element."""
    before, factor = q.a(rows), factors(rows)
    return Stored(before.values * factor, before.width * np.abs(factor), fitted=before.fitted)


def _factors_by_row(q: Question, width: int) -> _Factors:
    def factors(rows: Rows) -> NDArray[np.float32]:
        a, b = (x.values.reshape(len(rows), -1, width).astype(np.float64) for x in (q.a(rows), q.b(rows)))
        return _spread(_ratio((a * b).sum(axis=2), (a * a).sum(axis=2)), width)

    return factors


def _factors_by_tile(q: Question, height: int, width: int) -> _Factors:
    @cache
    def table() -> NDArray[np.float64]:
        """Factors, (tiles down, tiles across)."""
        down = -(-q.wrong.shape[0] // height)
        ab, aa = (np.zeros((down, q.wrong.shape[1] // width)) for _ in range(2))
        for part in row_chunks(q.wrong):
            rows = np.arange(part.start, part.stop)
            a, b = (x.values.reshape(len(rows), -1, width).astype(np.float64) for x in (q.a(rows), q.b(rows)))
            np.add.at(ab, rows // height, (a * b).sum(axis=2))
            np.add.at(aa, rows // height, (a * a).sum(axis=2))
        return _ratio(ab, aa)

    return lambda rows: _spread(table()[rows // height], width)


def _ratio(ab: NDArray[np.float64], aa: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.where(aa > 0, ab / np.where(aa > 0, aa, 1), 1))


def _spread(factors: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    return np.repeat(factors, width, axis=1).astype(np.float32)
