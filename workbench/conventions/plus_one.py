"""How often 1 was added to norm weights, told by the weights alone.

Norm weights are trained in a type of 16 bits, whose numbers lie the closer together the smaller they are. So the place
where a file's values can lie closest together is the one that was 0 in training: 0 where nothing was added, 1 where 1
was added, 2 where it was added twice. Their mean says nothing: in one healthy model it runs from 0.6 to 324.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

TIMES = (0, 1, 2)
FIRST, LAST = -1, 2  # what is tried: 1 may have been taken away where nothing was added, too
FEWEST = 16  # different values that may tell
BITS = 24.0  # by which the best must lead: chance does that once in 2^24

_FLOOR = -16  # exponent of the least distance between numbers that counts

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers of a float type. digits : after the binary point. lowest : least exponent of a number with all."""

    name: str
    digits: int
    lowest: int

    def distance(self, values: Values) -> Values:
        """How far the numbers of the type lie from each other near these values."""
        exponents = np.frexp(np.where(values == 0, 2.0**self.lowest, values))[1] - 1
        return np.asarray(np.ldexp(1.0, np.maximum(exponents, self.lowest) - self.digits))

    def nearest(self, values: Values) -> Values:
        """The numbers of the type that are nearest to these values, the even one of two."""
        step = self.distance(values)
        return np.asarray(np.rint(values / step) * step)


F32, F16, BF16 = Grid("F32", 23, -126), Grid("F16", 10, -14), Grid("BF16", 7, -126)
GRIDS = {grid.name: grid for grid in (F32, F16, BF16)}
WORDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Making:
    """A way in which stored values may have come about: trained in a type, then 1 added so many times.

    trained : the type of the trained values. kept : the type in which the sum was kept each time. stored : the type
    of the file.
    """

    trained: Grid
    kept: tuple[Grid, ...]
    stored: Grid
    sign: int = 1

    @property
    def times(self) -> int:
        """How often 1 was added; -1 where it was taken away."""
        return self.sign * len(self.kept)

    def fits(self, values: Values) -> NDArray[np.bool_]:
        """Which values can have come about so."""
        trained = self.trained.nearest(self._back(values)[-1])
        found = np.zeros(len(values), dtype=np.bool_)
        for beside in (0, -1, 1):  # of two numbers that are as near, either may have been rounded to this one
            made = trained + beside * self.trained.distance(trained)
            for kept in self.kept:
                made = kept.nearest(made + self.sign)
            found |= self.stored.nearest(made) == values
        return found

    def bits(self, values: Values) -> float:
        """Sum of the binary logarithms of how far values made so lie from each other: the more, the fewer there are."""
        grids = (self.stored, *reversed(self.kept), self.trained)
        steps = self._back(values)
        distances = [grid.distance(x) for grid, x in zip(grids, [values, *steps], strict=True)]
        return float(np.maximum(np.log2(np.maximum.reduce(distances)), _FLOOR).sum())

    def _back(self, values: Values) -> list[Values]:
        """The values before each step, the last one first: as stored, before the last sum, ..., as trained."""
        steps = [values]
        for kept in reversed(self.kept):
            steps.append(kept.nearest(steps[-1]) - self.sign)
        return steps


def makings(stored: Grid) -> list[Making]:
    """Every way that is tried for values of a type."""
    found = []
    for trained in (BF16, F16):
        if trained.digits > stored.digits:
            continue
        for times in range(FIRST, LAST + 1):
            for kept in product(dict.fromkeys((trained, stored)), repeat=abs(times)):
                found.append(Making(trained, kept, stored, -1 if times < 0 else 1))
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """What the weights show.

    possible : how often 1 may have been added; all of TIMES where nothing is known, in the order of their numbers.
    fits : of every number of times the share of the different values that can have come about so.
    trained : the type of the trained values. values : different ones. lead : bits by which the best number of times
    leads, infinite where no other fits all values.
    """

    possible: tuple[int, ...]
    fits: dict[int, float]
    trained: str | None
    values: int
    lead: float

    @property
    def words(self) -> str:
        """The figure behind it."""
        if self.values < FEWEST:
            return f"only {self.values} different values, which is too few to tell"
        parts = [f"{_share(share)} {_sum(self.trained, times)}" for times, share in self.fits.items()]
        odds = f"; odds of 2^{self.lead:.0f}" if self.lead > 0 and np.isfinite(self.lead) else ""
        return f"of {self.values} different values {', '.join(parts)}{odds}"


def _sum(trained: str | None, times: int) -> str:
    name = "of 16 bits" if trained is None else WORDS[trained]
    return f"such + {times}" if times > 0 else f"are numbers {name}" if trained is None else f"are {name} numbers"


def _share(share: float) -> str:
    return "all" if share == 1 else f"{min(share, 0.999):.1%}"


def plus_one(tensors: Sequence[Iterable[float] | Values], stored: str) -> Shown:
    """How often 1 was added to tensors that were treated alike. stored : the float type that they lie in."""
    distinct = [_distinct(np.asarray(values, np.float64)) for values in tensors]
    count = sum(map(len, distinct))
    if count < FEWEST:
        return Shown(TIMES, {}, None, count, 0.0)
    tried = makings(GRIDS[stored])
    shares = [_shared(making, distinct, count) for making in tried]
    best: dict[int, tuple[float, str]] = {}
    for making, share in zip(tried, shares, strict=True):
        if share == 1:
            bits = sum(map(making.bits, distinct))
            best[making.times] = max(best.get(making.times, (-np.inf, "")), (bits, making.trained.name))
    if not best:
        return Shown(TIMES, _largest(tried, shares, lambda _: True), None, count, 0.0)
    first, trained = max(best.values())
    possible = tuple(times for times in range(FIRST, LAST + 1) if times in best and first - best[times][0] < BITS)
    others = [bits for times, (bits, _) in best.items() if times not in possible]
    lead = first - max(others) if others and len(possible) == 1 else np.inf if len(possible) == 1 else 0.0
    return Shown(possible, _largest(tried, shares, lambda m: m.trained.name == trained), trained, count, lead)


def _distinct(values: Values) -> Values:
    return np.unique(values[np.isfinite(values)])


def _shared(making: Making, tensors: list[Values], count: int) -> float:
    """The share of the values that can have come about so."""
    return sum(int(making.fits(values).sum()) for values in tensors) / count


def _largest(tried: list[Making], shares: list[float], of: Callable[[Making], bool]) -> dict[int, float]:
    """Of every number of times the largest share."""
    found: dict[int, float] = {}
    for making, share in zip(tried, shares, strict=True):
        if making.times in TIMES and of(making):
            found[making.times] = max(found.get(making.times, 0.0), share)
    return found
