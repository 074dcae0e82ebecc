"""How certain a common factor or a mean square is where values repeat.

Rounding errors are independent of each other and of the values only where the values are spread over the steps. Where
a tensor has a few levels, all values of a level lie at the same place of their block's range, and err alike: ten
million errors are then no more than a handful. So errors are gathered by that place, and what the places disagree by
tells how far chance may have moved the sum; how many independent errors there were is told by how alike they are
within a place (the design effect of cluster sampling, Kish 1965).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.slopes import Groups
from workbench.bisect.weights.steps import Flags, Floats, Stored

_BLOCK = 32
_PLACES = 16  # on either side of 0, up to the largest value of a block: as many as the codes of 5 bits
_SIGMAS = 5.0
_FEWEST = 4.0  # places, and degrees of freedom; fewer agree by chance
_EVEN = 1 / 3  # mean square of an error that is spread evenly over a step, in half steps

_Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Repeats:
    """Sums over the errors at every place of every part, (parts, places, 8); empty where there are no heads.

    With c the coarser side's value, e = b - a, n the next whole number of steps of both sides, and u the error in
    halves of them, they are those of c^2, c^2 u, c^2 u^2, what the latter would be were the errors spread evenly, ce,
    cn, 1 and u^2.
    """

    whole: _Sums
    rows: _Sums
    columns: _Sums

    @classmethod
    def of(cls, parts: Iterable[tuple[Stored, Stored, Flags]], groups: Groups) -> "Repeats":
        """From consecutive runs of rows, whole heads each: both sides, and which values are inside the range."""
        whole, rows, columns = zip(*(_part(*part, groups) for part in parts), strict=True)
        return cls(sum(whole[1:], whole[0]), np.concatenate(rows), sum(columns[1:], columns[0]))

    def certain(self, level: str, beyond: NDArray[np.float64]) -> Flags:
        """Whether the factor of every part of a level is so far off 1 that no chance makes it, whatever repeats.

        Told by the errors, or by the codes that are not the nearest ones: of these there are none where all is well,
        but where the values of a step crowd at one end of it, errors alone leave much to chance.
        """
        sums: _Sums = getattr(self, level)
        energy, alike = sums[:, :, 0], _alike(sums)
        with np.errstate(all="ignore"):
            changed = np.abs(sums[:, :, 5].sum(axis=1) / energy.sum(axis=1))
        by_errors = beyond > _uncertain(sums[:, :, 4], energy, alike)
        by_codes = (changed > beyond / 4) & (changed > _uncertain(sums[:, :, 5], energy, alike))
        return np.asarray((beyond > 0) & (by_errors | by_codes))

    def evenly_spread(self) -> bool:
        """Whether the mean square of the errors may be that of one rounding after all, whatever repeats."""
        count, squares = self.whole[:, :, 6], self.whole[:, :, 7]
        return bool(squares.sum() / count.sum() - _EVEN <= _uncertain(squares, count, _alike(self.whole))[0])


def _alike(sums: _Sums) -> _Sums:
    """How much of the variance of errors is missing within the places of each part, 0 to 1."""
    weight, errors, squares, even, *_ = sums.transpose(2, 0, 1)
    with np.errstate(all="ignore"):
        within = squares - np.where(weight > 0, errors**2 / weight, 0)
        alike: _Sums = np.clip(1 - within.sum(axis=1) / even.sum(axis=1), 1e-9, 1)
    return alike


def _uncertain(values: _Sums, weights: _Sums, alike: _Sums) -> _Sums:
    """What chance may add to the ratio of two sums over the places of each part: Student's t, for so few errors."""
    with np.errstate(all="ignore"):
        ratio = values.sum(axis=1) / weights.sum(axis=1)
        places = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)
        scatter = ((values - ratio[:, None] * weights) ** 2).sum(axis=1) * places / (places - 1)
        freedom = (places - 1) / alike
        quantile = np.sqrt(freedom * np.expm1(_SIGMAS**2 / np.maximum(freedom, _FEWEST)))  # Wallace 1959
        result = quantile * np.sqrt(scatter) / weights.sum(axis=1)
    return np.where((np.minimum(places, freedom) >= _FEWEST) & np.isfinite(result), result, np.inf)


def _part(a: Stored, b: Stored, inside: Flags, groups: Groups) -> tuple[_Sums, _Sums, _Sums]:
    coarser = b if np.square(b.width).sum() >= np.square(a.width).sum() else a
    with np.errstate(all="ignore"):  # what is not finite is not inside
        steps = np.stack([a.half_step, b.half_step]).astype(np.float64)
        both = 2 * steps.sum(axis=0)
        inside = inside & (both > 0)
        place, error = _place(coarser, inside), b.values - a.values
        otherwise = both * np.rint(error / both)
        relative, even = 2 * error / both, (2 * steps / both) ** 2
    c, e, n, u, even = (
        np.where(inside, x, 0).astype(np.float64)
        for x in (coarser.values, error, otherwise, relative, _EVEN * even.sum(axis=0))
    )
    terms = (c * c, c * c * u, (c * u) ** 2, c * c * even, c * e, c * n, inside, u * u)
    row, column = np.arange(place.shape[0])[:, None], np.arange(place.shape[1])[None]
    whole = _gathered(place, np.zeros_like(place), terms)
    rows = columns = np.zeros((0, *whole.shape[1:]))
    if groups.rows and len(row) % groups.rows == 0:
        rows = _gathered(place, np.broadcast_to(row // groups.rows, place.shape), terms)
    if groups.columns and column.size % groups.columns == 0:
        columns = _gathered(place, np.broadcast_to(column // groups.columns, place.shape), terms)
    return whole, rows, columns


def _gathered(place: NDArray[np.int64], part: NDArray[np.int64], terms: tuple[NDArray[Any], ...]) -> _Sums:
    size, parts = 2 * _PLACES + 1, int(part.max()) + 1
    index = (part * size + place).reshape(-1)
    sums = [np.bincount(index, weights=term.reshape(-1), minlength=parts * size) for term in terms]
    return np.stack(sums, axis=1).astype(np.float64).reshape(parts, size, len(terms))


def _place(stored: Stored, inside: Flags) -> NDArray[np.int64]:
    """Where each value stands in its block's range, 0 to 2 _PLACES: from least to largest where a block has an offset.

    Elsewhere the range reaches as far below 0 as the largest value is from it.
    """
    values, starts = stored.values, np.arange(0, stored.values.shape[1], _BLOCK)
    known = np.where(np.isfinite(values), values, 0)

    def of_blocks(best: np.ufunc, x: Floats) -> Floats:
        return np.asarray(np.repeat(best.reduceat(x, starts, axis=1), _BLOCK, axis=1)[:, : values.shape[1]])

    high = of_blocks(np.maximum, known if stored.offset else np.abs(known))
    low = of_blocks(np.minimum, known) if stored.offset else -high
    share = np.where(inside & (high > low), (known - low) / (high - low), 0.5)
    return np.asarray(np.rint(2 * _PLACES * share).astype(np.int64))
