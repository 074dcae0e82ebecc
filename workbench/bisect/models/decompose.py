"""The figures of one cell: what its stage adds, what came in, and what the paths and formats explain of it."""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forward import activation_codes
from kernels.graph import Array, Values
from kernels.lengths import Parts, gaps, parts
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.floor import storage_error
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Decomposition
from workbench.cells.flips import Flips, flips


@dataclass(slots=True)
class _Squares:
    """Squares of lengths, and products with the observed difference; those of several runs of tokens are added.

    a, b, crossed : of the outputs. observed, local, inherited : of the differences. along_local, along_inherited : of
    these with the observed one. noise : of what both paths make of A's weights.
    """

    a: float
    b: float
    crossed: float
    observed: float
    local: float
    inherited: float
    along_local: float
    along_inherited: float
    noise: float

    def __add__(self, other: "_Squares") -> "_Squares":
        return _Squares(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class _Rounding(NamedTuple):
    """Squares of one side: what its path's rounding must add; of some tokens, what it must and what float64 tells."""

    expected: float
    forecast: float
    actual: float

    @property
    def off(self) -> float:
        """How far the side is from float64, in multiples of what rounding must add."""
        return _root(self.actual / self.forecast) if self.forecast else 0.0


def decompose(cell: Cell, a: Side, b: Side, pairs: TensorPairs) -> Decomposition:
    """Observed, local and inherited difference of a cell, its floor, and each side's distance from float64."""
    alike = _Alike.of(cell, pairs)
    found, some, crossed = _together(cell, alike)
    of_a, of_b = _roundings(cell, cell if cell.whole else cell.of(some), alike, crossed)
    at = cell.a.exact().at(cell.site, cell.tokens)
    stored = 0.0 if at is None else storage_error(at, cell.inputs_a, pairs)
    size = math.sqrt(next((y for y in (found.b, found.a, found.crossed) if y), 0.0))  # nothing is a share of zeros
    size_of_b = math.sqrt(found.b)
    floor = math.hypot(math.sqrt(of_a.expected), math.sqrt(of_b.expected), stored)
    return Decomposition(
        cell.site,
        observed=_relative(found.observed, size_of_b),
        local=_relative(found.local, size),
        inherited=_relative(found.inherited, size_of_b),
        floor=floor / size if size else 0.0,
        a_off=of_a.off,
        b_off=of_b.off,
        flipped=_flipped(cell, a, b),
        noise=_relative(found.noise, size_of_b),
        local_share=found.along_local / found.observed if found.observed else None,
        inherited_share=found.along_inherited / found.observed if found.observed else None,
    )


@dataclass(frozen=True, slots=True)
class _Alike:
    """What both sides have in common at a stage, so that one evaluation tells of both.

    values : settings and the values of all tensors. stored : settings, and the bytes of all tensors. path : the path.
    """

    values: bool
    stored: bool
    path: bool

    @classmethod
    def of(cls, cell: Cell, pairs: TensorPairs) -> "_Alike":
        path, (one, other) = cell.a.path is cell.b.path, (side.at(cell.site, cell.tokens) for side in (cell.a, cell.b))
        if one is None or other is None or one.stage != other.stage:
            return cls(values=False, stored=False, path=path)
        names = one.stage.tensors
        checks = [pairs.judge(name).check for name in names if name in pairs.names]
        known = len(checks) == len(names)
        return cls(known and all(c.equal for c in checks), known and all(c.stored_alike for c in checks), path)


def _together(cell: Cell, alike: _Alike) -> tuple[_Squares, NDArray[np.int64], Array]:
    """The squares of all tokens, which ones are to be looked at in float64, and what B gives for these on A's input."""
    found, tokens, crossed, start = list[_Squares](), list[NDArray[np.int64]](), list[Array](), 0
    for piece in cell.pieces():
        y = piece.y_a if alike.stored and alike.path else piece.run(cell.b)
        difference = parts(piece.y_a, piece.y_b, y)
        found.append(_squares(piece, alike, difference))
        telling = cell.telling(start, len(piece.tokens), difference.first)
        tokens.append(start + telling)
        crossed.append(y if len(telling) == len(y) else y[telling])
        start += len(piece.tokens)
    return reduce(add, found), np.concatenate(tokens), crossed[0] if len(crossed) == 1 else np.concatenate(crossed)


def _squares(cell: Cell, alike: _Alike, difference: Parts) -> _Squares:
    judged, noise = cell.judged, 0.0
    if not alike.path:
        noise = float((difference.first if alike.stored else _other_path(cell)).sum())
    return _Squares(
        float(difference.energy_x.sum()),
        float(difference.energy_y.sum()),
        float(difference.energy_z.sum()),
        float(difference.whole.sum()),
        float(difference.first[judged].sum()),
        float(difference.second.sum()),
        float(difference.along_first[judged].sum()),
        float(difference.along_second.sum()),
        noise,
    )


def _other_path(cell: Cell) -> Values:
    return gaps(cell.run(cell.a.on(cell.b.path)), cell.y_a)


def _roundings(cell: Cell, some: Cell, alike: _Alike, crossed: Array) -> list[_Rounding]:
    """Of A and of B. some : the tokens that are looked at in float64. crossed : what B gives for them on A's input."""
    found, exact = list[_Rounding](), None
    for factors, y in ((cell.a, some.y_a), (cell.b, crossed)):
        if exact is None or not alike.values:
            exact = some.run(factors.exact())
        at, actual = factors.at(cell.site, cell.tokens), float(gaps(y, exact).sum())
        if found and alike.stored and alike.path:
            found.append(found[0]._replace(actual=actual))
        elif at is None:
            found.append(_Rounding(0.0, 0.0, actual))
        else:
            forecast = at.kind.rounding(at, some.inputs_a, exact) ** 2
            of_all = forecast if cell.whole else at.kind.rounding(at, cell.inputs_a, cell.y_a) ** 2
            found.append(_Rounding(of_all, forecast, actual))
    return found


def _root(square: float) -> float:
    """The length, of a square that may not be finite."""
    return float(np.sqrt(square))


def _relative(square: float, size: float) -> float | None:
    """A length beside another one, None where that is zero and the first one is not."""
    return 0.0 if square == 0 else _root(square) / size if size else None


def _flipped(cell: Cell, a: Side, b: Side) -> Flips | None:
    sides = ((a, cell.a, cell.y_a), (b, cell.b, cell.y_b))
    codes = [
        activation_codes(side.model, factors.graph, side.path, cell.site, np.ascontiguousarray(y))
        for side, factors, y in sides
    ]
    return flips(codes[0], codes[1], cell.y_a, cell.y_b)
