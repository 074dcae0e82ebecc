"""Whether the difference of two tensors is explained by the formats they are stored in.

Three questions, each blind to what the others see: could every single pair of values come from one source value? Is
the scale of the whole, and of every head, the same? Is the mean square of the difference that of one rounding?
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.rows.reach import BLOCK, Distances, distances, excesses, tally
from kernels.weight import Weight
from workbench.bisect.weights.carried import ONE_STEP, beyond_carried, may_be
from workbench.bisect.weights.fits import with_fits
from workbench.bisect.weights.levelled import levelled
from workbench.bisect.weights.points import POINTS_IN_COLUMNS, forgiven, on_grid, unlike
from workbench.bisect.weights.repeats import Repeats
from workbench.bisect.weights.scales import cost_of, misscaled
from workbench.bisect.weights.slopes import LEAST_ENERGY, NO_HEADS, Groups, Slopes, smaller
from workbench.bisect.weights.steps import Flags, Floats, Stored, rules, stored_reach

# One rounding on each side keeps within 1.00 steps; a second one, by a finer format, adds up to 0.2 (docs/bisect.md).
LIMIT = 1.3
# Share of values beyond one rounding on each side: none, or where scales are fitted with importances 0.0097 at most. Of
# values rounded twice it is 0.01 and more, though none need be beyond the limit.
ONCE, _NONE, _FITTED = 1.05, 0.001, 0.01
# Mean square of the distances in steps: 1/3 for values spread evenly, at most 0.42 found; 4/3 where values were cut.
ROUNDED_ONCE = 0.55
EVEN = 3.0  # square of half a step over the mean square of a rounding error that is spread evenly over a step
# Of the blocks of rows in which a fit explains some: 0.13 of healthy ones, 0.85 where all scales are 3 % too small.
_SOME = 0.5
_CHUNK = 1 << 21

Parts = Callable[[], Iterable[tuple[Stored, Stored]]]  # both sides of consecutive rows, anew at every call


@dataclass(frozen=True, slots=True, eq=False)
class WeightCheck:
    """The verdict on two tensors of one shape.

    equal : all values are the same.
    worst : largest distance in multiples of what both formats may cost; infinite where one is not finite.
    spread : mean square of that distance over the values inside the range of codes.
    uneven : whether that is more than one rounding leaves, though no value shows it and not for want of different ones.
    slope : factor that B is of A where it is not 1 within what rounding leaves uncertain, else None.
    scaled : which part has that factor, "whole", "rows" or "columns", and a flag for every head.
    affected : bool (rows, blocks of 32 columns), where the difference is not explained.
    rel_rms : ‖a-b‖/‖b‖ (infinity if B is zero and A is not).
    cost, cost_of_rows : float64 (columns,) and (rows,), the mean squares that the steps of both formats cost, summed
        over the other dimension. They come from the formats alone: what a damaged tensor is off by is not in them.
    carried : it was judged by how errors that were carried over from value to value are spread (carried.py).
    stored_alike : type and bytes are the same, so that whatever is computed with it is.
    """

    equal: bool
    worst: float
    spread: float
    uneven: bool
    slope: float | None
    scaled: tuple[str, Flags] | None
    affected: Flags
    rel_rms: float
    cost: NDArray[np.float64]
    cost_of_rows: NDArray[np.float64]
    carried: bool = False
    stored_alike: bool = False

    @property
    def explained(self) -> bool:
        """No pair of values further apart than their formats allow, no factor left, one rounding on each side."""
        return self.worst <= LIMIT and self.slope is None and not self.uneven


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The figures of some rows; sums are added over the parts of a tensor."""

    worst: float
    affected: Flags
    sums: NDArray[np.float64]  # energy of a, b, d; squared excess and number of values inside the range
    slopes: Slopes
    points: bool
    lean: float
    carried: bool  # whether errors of one side may have been carried over to other values
    cost: NDArray[np.float64]
    cost_of_rows: NDArray[np.float64]


def check(a: Stored, b: Stored, groups: Groups = NO_HEADS) -> WeightCheck:
    """Judge the difference of two tensors, element by element; `groups` says which rows or columns form heads."""
    return check_parts(lambda: [(a, b)], groups)


def check_weights(a: Weight, b: Weight, groups: Groups = NO_HEADS) -> WeightCheck:
    """Judge two stored tensors of one shape; equal bytes are told without dequantizing. WorkbenchError for others."""
    if a.shape != b.shape:
        raise WorkbenchError(f"{a.name} has the shape {a.shape} in A and {b.shape} in B; convert one of them again")
    if a.equals(b):
        columns = a.shape[-1]
        nothing = np.zeros((len(a.rows), -(-columns // BLOCK)), dtype=bool)
        none = np.zeros(columns), np.zeros(len(a.rows))
        return WeightCheck(True, 0.0, 0.0, False, None, None, nothing, 0.0, *none, stored_alike=True)

    def parts() -> Iterator[tuple[Stored, Stored]]:
        return ((Stored.of(a, rows), Stored.of(b, rows)) for rows in row_chunks(a, groups))

    return _judged([_stored_part(a, b, rows, groups) for rows in row_chunks(a, groups)], parts, groups)


def check_parts(parts: Parts, groups: Groups = NO_HEADS) -> WeightCheck:
    """Judge two tensors of which consecutive runs of rows, whole heads each, are given, if need be a second time."""
    return _judged([_part(a, b, groups) for a, b in parts()], parts, groups)


def _judged(found: list[_Part], parts: Parts, groups: Groups) -> WeightCheck:
    nearest = _whole(found, groups, _SecondLook(parts, groups))
    if nearest.explained or not all(part.carried for part in found):
        return nearest
    carried = [_part(a, b, groups, carried=True) for a, b in parts()]
    return replace(_whole(carried, groups, _SecondLook(parts, groups), ONE_STEP), carried=True)


def row_chunks(weight: Weight, groups: Groups = NO_HEADS) -> Iterator[slice]:
    """Slices of whole heads that keep what stands dequantized in memory small."""
    whole = groups.rows or 1
    share = max(1, _CHUNK // (weight.shape[-1] * whole)) * whole
    for start in range(0, len(weight.rows), share):
        yield slice(start, min(start + share, len(weight.rows)))


def excess_of(a: Stored, b: Stored) -> Floats:
    """|b - a| in multiples of what both formats may cost, element by element; infinite where one is not finite."""
    return excesses(a.reach, b.reach)[0]


def strangers(a: Stored, b: Stored) -> Flags:
    """Blocks (rows, blocks of 32) of which one side is no copy, though every value by itself may be one."""
    found = misscaled(a, b, BLOCK, LIMIT)
    return found | unlike(a, b, BLOCK) if on_grid(a, b) else found


def rounded_once(beyond_once: int, count: int, fitted: bool) -> bool:
    """Whether so many of `count` values may be further away than ONCE, though each side was rounded but once.

    fitted : whether scales may have been fitted with importances.
    """
    return beyond_once <= count * (_FITTED if fitted else _NONE)


def beyond(a: Stored, b: Stored) -> bool:
    """Whether some value is further off than any look at its block would excuse; much quicker than a check."""
    excused = on_grid(a, b) or any(side.fitted or side.line or side.top or side.carried for side in (a, b))
    return not excused and bool((excess_of(a, b) > LIMIT).any())


def relative_rms(a: Stored, b: Stored) -> float:
    """‖a-b‖/‖b‖ of the values that are numbers (infinity if B is zero and A is not)."""
    d = b.values - a.values
    energy_d, energy_b = (float(np.square(x[np.isfinite(x)], dtype=np.float64).sum()) for x in (d, b.values))
    return _ratio(energy_d, energy_b)


def _ratio(energy_d: float, energy_b: float) -> float:
    return float((energy_d / energy_b) ** 0.5) if energy_b else (0.0 if energy_d == 0 else float("inf"))


def _part(a: Stored, b: Stored, groups: Groups, *, carried: bool = False) -> _Part:
    found = _distances(a, b, groups, carried)
    may = may_be(float((found.worst > LIMIT).mean()), a, b)
    return _summed(found, groups, a.lean + b.lean, points=on_grid(a, b), carried=may)


def _stored_part(a: Weight, b: Weight, rows: slice, groups: Groups) -> _Part:
    """The same of stored rows in one pass; only rows with something to be excused are looked at value by value."""
    columns, (one, other) = a.shape[-1], (stored_reach(weight, rows) for weight in (a, b))
    if one is None or other is None:
        return _part(Stored.of(a, rows), Stored.of(b, rows), groups)
    known = [rules(weight.type.format) for weight in (a, b)]
    excused = any(side.get(name) for side in known for name in ("fitted", "line", "top"))
    most = LIMIT if excused else np.inf
    found = distances(one, other, columns, most, LEAST_ENERGY, groups.run(columns))
    left = np.flatnonzero(found.left)
    for some in np.array_split(left, -(-left.size * columns // _CHUNK)) if left.size else ():
        again = _distances(Stored.of(a, rows.start + some), Stored.of(b, rows.start + some), groups)
        found.worst[some], found.sums[some], found.terms[some] = again.worst, again.sums, again.terms
        found.cost[:] += again.cost
    return _summed(found, groups, sum(side.get("lean", 0.0) for side in known))


def _summed(found: Distances, groups: Groups, lean: float, *, points: bool = False, carried: bool = False) -> _Part:
    of_a, of_b, of_d, within, inside, _ = found.sums.sum(axis=0)
    return _Part(
        float(found.worst.max()),
        found.worst > LIMIT,
        np.array([of_a, of_b, of_d, within, inside]),
        Slopes.of(found.terms, groups, len(found.cost)),
        points,
        lean,
        carried,
        found.cost / EVEN,
        found.sums[:, 5] / EVEN,
    )


def _distances(a: Stored, b: Stored, groups: Groups, carried: bool = False) -> Distances:
    """The distances of two tensors, without those that a format excuses although they are large."""
    excess, inside = excesses(a.reach, b.reach)
    columns, points = excess.shape[1], on_grid(a, b)
    if points:
        excess = forgiven(a, b, excess)
    blocks = np.maximum.reduceat(excess, np.arange(0, columns, BLOCK), axis=1)
    if a.fitted or b.fitted or a.line or b.line:
        excused = with_fits(a, b, blocks, LIMIT, BLOCK)
        fits = excused < blocks
        if fits.mean() <= _SOME:  # the errors of one may be as large, in its steps, as those of all others together
            fits = np.repeat(fits, BLOCK, axis=1)[:, :columns]
            excess = np.where(fits, np.minimum(excess, np.float32(LIMIT)), excess)
        blocks = excused
    if carried:
        blocks = beyond_carried(a, b, excess, inside & np.isfinite(excess), BLOCK, LIMIT)
    elif a.top or b.top:
        size = min(side.group for side in (a, b) if side.top)
        runs = np.maximum.reduceat(excess, np.arange(0, columns, size), axis=1)
        level = levelled(a, b, runs, LIMIT, size)
        runs[level] = 0
        blocks = np.minimum(blocks, np.maximum.reduceat(runs, np.arange(0, runs.shape[1], BLOCK // size), axis=1))
        inside &= ~np.repeat(level, size, axis=1)[:, :columns]
    strange = strangers(a, b)
    right = ~np.repeat(strange, BLOCK, axis=1)[:, :columns]
    values, widths = (a.reach[0], b.reach[0]), (cost_of(a, b, right), cost_of(b, a, right))
    counted = np.isfinite(b.values - a.values) if points else inside
    found = tally(values, widths, excess, inside, counted, LEAST_ENERGY, groups.run(columns))
    return found._replace(worst=np.where(strange, np.float32(np.inf), blocks))


def _inside(a: Stored, b: Stored) -> Flags:
    return excesses(a.reach, b.reach)[1]


class _SecondLook:
    """At a tensor whose factor or mean square is suspicious: whether it has the independent errors it seemed to."""

    def __init__(self, parts: Parts, groups: Groups) -> None:
        self._parts, self._groups = parts, groups

    @cached_property
    def repeats(self) -> Repeats:
        """What errs alike in it."""
        return Repeats.of(((a, b, _inside(a, b)) for a, b in self._parts()), self._groups)

    def off(self, slopes: Slopes, lean: float, points: bool) -> tuple[float | None, tuple[str, Flags] | None]:
        """The factor that is not 1 and which parts have it; (None, None) where rounding explains every slope."""
        of_columns = POINTS_IN_COLUMNS / self._groups.columns if points and self._groups.columns else 0.0
        for level, factors, beyond in slopes.off(lean, of_columns):
            told = smaller(self._parts(), factors, level) if points else self.repeats.certain(level, beyond)
            scaled = (beyond > 0) & told
            if scaled.any():
                return float(factors[np.flatnonzero(scaled)[0]]), (level, scaled)
        return None, None


def _whole(parts: list[_Part], groups: Groups, again: _SecondLook, most: float = ROUNDED_ONCE) -> WeightCheck:
    """Join the parts of a tensor. most : mean square of the distances that is explained."""
    energy_a, energy_b, energy_d, squares, inside = np.sum([part.sums for part in parts], axis=0)
    del energy_a
    worst = max(part.worst for part in parts)
    affected = np.concatenate([part.affected for part in parts])
    slopes = Slopes.joined([part.slopes for part in parts])
    lean = max(part.lean for part in parts)
    slope, scaled = again.off(slopes, lean, parts[0].points) if worst > 0 else (None, None)
    if scaled is not None and (parts[0].points or not affected.any()):  # of points few blocks show a factor of all
        affected = affected | groups.spread(scaled, affected.shape, BLOCK)
    spread = float(squares / inside) if inside else 0.0
    uneven = worst <= LIMIT and spread > most and not again.repeats.evenly_spread()
    if uneven and not affected.any():
        affected[:] = True
    cost = np.sum([part.cost for part in parts], axis=0)
    of_rows = np.concatenate([part.cost_of_rows for part in parts])
    equal = bool(energy_d == 0 and worst == 0)
    return WeightCheck(equal, worst, spread, uneven, slope, scaled, affected, _ratio(energy_d, energy_b), cost, of_rows)
