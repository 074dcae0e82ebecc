"""A tensor times a factor: one for all of it, for a head or some rows, or a scale of every row, column or group."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.question import Prediction, Question, Region, Rows
from workbench.bisect.weights.steps import Stored
from workbench.bisect.weights.tiles import Sums, Tile, spread_over, tile_sums

_GROUPS = (128, 64, 32)  # values with one scale, in the formats in use
_TOLD = 2.5  # steps of both formats that a factor must move the values of a vector; a cut last bit moves them by two
_SIGMAS = 5.0  # of what rounding leaves uncertain, that a factor is away from 1
_LEAST_LIKE = 0.5  # cosine of what a factor makes something of, and that; 0.8 of one-bit codes and their source
_TILE = 128  # rows and columns with one scale, in checkpoints of 8-bit floats


def sign_flipped(q: Question) -> Iterator[Prediction]:
    """The factor -1, where some rows have the opposite direction: coarse codes admit it of what has none of theirs."""
    for region in q.regions():
        rows = q.sample if region.across else q.sample[region.mask[q.sample]]
        sums = _sums(q, region, rows)
        if sums.ab < 0 and sums.alike:
            words = f"{q.what} has the opposite sign{region.words}"
            yield Prediction("sign_flipped", words, changed(q, region, lambda a: a.scaled(-1.0)))


def scaled(q: Question) -> Iterator[Prediction]:
    """One common factor; people scale by round numbers, which rounding noise blurs in the fit.

    A vector has too few values to tell a factor that moves most of them by no more than their steps from a cut bit.
    """
    return (found for found, told in _one_factor(q) if told)


def scaled_within_steps(q: Question) -> Iterator[Prediction]:
    """The factors that are too near to 1 for `scaled`."""
    return (found for found, told in _one_factor(q) if not told)


def _one_factor(q: Question) -> Iterator[tuple[Prediction, bool]]:
    """One common factor of every region, and whether it moves more than a cut last bit does."""
    for region in q.regions():
        for fitted in _fitted_factors(q, region):
            told = not (q.is_vector and _within_steps(q, region, fitted))
            for factor in dict.fromkeys((round(fitted, 2), round(fitted, 3), fitted)):
                if factor not in (0.0, 1.0, -1.0) and abs(factor - fitted) < 0.01 * abs(fitted):
                    words = f"{q.what} is multiplied by {factor:.6g}{region.words}"
                    change = partial(Stored.scaled, factor=factor)
                    yield Prediction("scaled", words, changed(q, region, change), exact=True), told


def _within_steps(q: Question, region: Region, factor: float) -> bool:
    """Whether a factor moves most values by no more than a cut last bit would."""
    right, wrong = q.a(q.sample), q.b(q.sample)
    moved = np.abs(right.values) * np.float32(abs(factor - 1)) <= _TOLD * (right.width + wrong.width)
    return bool(moved[np.broadcast_to(region.of(q.sample), moved.shape)].mean() > 0.5)


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
    aa, ab, bb, count = sums = _sums(q, region, rows)
    if not sums.alike:
        return ()
    slopes = ab / aa, bb / ab
    left = max(aa - 2 * ab + bb - (ab - aa) ** 2 / aa, 0.0)  # energy that the first slope leaves
    if (slopes[0] - 1) ** 2 * aa * count <= _SIGMAS**2 * left:
        return ()
    return slopes if _coarse(q.a(rows)) <= _coarse(q.b(rows)) else slopes[::-1]


class _Sums(NamedTuple):
    """Of the values a and b of both sides in a region."""

    aa: float
    ab: float
    bb: float
    values: int

    @property
    def alike(self) -> bool:
        """Whether one can be the other times a factor and rounded; of numbers that chance made it cannot."""
        return self.ab != 0 and self.ab**2 >= _LEAST_LIKE**2 * self.aa * self.bb


def _sums(q: Question, region: Region, rows: Rows) -> _Sums:
    mask = np.broadcast_to(region.of(rows), (len(rows), q.wrong.shape[-1]))
    a, b = (stored.values[mask].astype(np.float64) for stored in (q.a(rows), q.b(rows)))
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    return _Sums(float(a @ a), float(a @ b), float(b @ b), len(a))


def _coarse(stored: Stored) -> float:
    return float(np.square(stored.width, dtype=np.float64).mean())


def scales(q: Question) -> Iterator[Prediction]:
    """A factor of its own for every row, column, group of a row or square tile: the scales of a quantized tensor."""
    if q.is_vector or not q.verdict.affected.mean() > 0.5:
        return
    rows, columns = q.wrong.shape
    tiles = [Tile(1, columns, "row"), Tile(rows, 1, "column")]
    if columns % _TILE == 0 and rows > _TILE:
        tiles.append(Tile(_TILE, _TILE, f"tile of {_TILE}x{_TILE}"))
    tiles += [Tile(1, size, f"group of {size}") for size in _GROUPS if columns % size == 0 and size < columns]
    for tile in tiles:
        factors = partial(_factors, tile_sums(q, tile, _products))
        some = np.abs(factors(q.sample))
        least, most = (float(x) for x in (some.min(), some.max()))
        if np.isfinite(most) and most > 0:
            words = (
                f"every {tile.name} of {q.what} is multiplied by a factor of its own, from {least:.4g} to {most:.4g}"
            )
            certain = tile.height * tile.width > max(_GROUPS)
            yield Prediction("scaled", words, partial(_times, q, tile, factors), exact=certain)


def _products(a: Stored, b: Stored) -> tuple[NDArray[np.float64], ...]:
    x, y = (side.values.astype(np.float64) for side in (a, b))
    return x * y, x * x


def _factors(sums: Callable[[Rows], Sums], rows: Rows) -> NDArray[np.float64]:
    """The least-squares slope of every tile, 1 where the right side is zero."""
    ab, aa = sums(rows)
    return np.asarray(np.where(aa > 0, ab / np.where(aa > 0, aa, 1), 1))


def _times(q: Question, tile: Tile, factors: Callable[[Rows], NDArray[np.float64]], rows: Rows) -> Stored:
    """Right rows times a factor per element."""
    before, factor = q.a(rows), spread_over(tile, factors(rows))
    return Stored(before.values * factor, before.width * np.abs(factor), fitted=before.fitted)
