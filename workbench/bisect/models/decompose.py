"""The figures of one cell: what its stage adds, what came in, and what the paths and formats explain of it."""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from kernels.forward import activation_codes
from kernels.graph import Array
from kernels.lengths import gaps, parts
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.floor import storage_error
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Decomposition
from workbench.cells.flips import Flips, flips


@dataclass(slots=True)
class _Squares:
    """Squares of lengths, and products with the observed difference; those of several runs of tokens are added.

    a, b, crossed : of the outputs. observed, local, inherited : of the differences. along_local, along_inherited : of
    these with the observed one. noise : of what both paths make of A's weights. expected : by side, of what the path's
    rounding must add. actual, forecast : of some tokens, the distance from float64 and what rounding must add there.
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
    expected_a: float
    expected_b: float
    actual_a: float
    actual_b: float
    forecast_a: float
    forecast_b: float

    def __add__(self, other: "_Squares") -> "_Squares":
        return _Squares(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def decompose(cell: Cell, a: Side, b: Side, pairs: TensorPairs) -> Decomposition:
    """Observed, local and inherited difference of a cell, its floor, and each side's distance from float64."""
    alike = _Alike.of(cell, pairs)
    found = reduce(add, (_squares(piece, alike, cell.every) for piece in cell.pieces()))
    at = cell.a.exact().at(cell.site, cell.tokens)
    stored = 0.0 if at is None else storage_error(at, cell.inputs_a, pairs)
    size = math.sqrt(next((y for y in (found.b, found.a, found.crossed) if y), 0.0))  # nothing is a share of zeros
    of_b = math.sqrt(found.b)
    floor = math.hypot(math.sqrt(found.expected_a), math.sqrt(found.expected_b), stored)
    return Decomposition(
        cell.site,
        observed=_relative(found.observed, of_b),
        local=_relative(found.local, size),
        inherited=_relative(found.inherited, of_b),
        floor=floor / size if size else 0.0,
        a_off=_root(found.actual_a / found.forecast_a) if found.forecast_a else 0.0,
        b_off=_root(found.actual_b / found.forecast_b) if found.forecast_b else 0.0,
        flipped=_flipped(cell, a, b),
        noise=_relative(found.noise, of_b),
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


def _squares(cell: Cell, alike: _Alike, every: slice) -> _Squares:
    crossed = cell.y_a if alike.stored and alike.path else cell.run(cell.b)
    difference, judged = parts(cell.y_a, cell.y_b, crossed), cell.judged
    if alike.path or alike.stored:
        noise = 0.0 if alike.path else float(difference.first.sum())
    else:
        noise = float(gaps(cell.run(cell.a.on(cell.b.path)), cell.y_a).sum())
    sides = _rounding(cell, cell.of(every), alike, crossed, crossed[every])
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
        *(figure for figures in zip(*sides, strict=True) for figure in figures),
    )


def _rounding(
    cell: Cell, some: Cell, alike: _Alike, crossed: Array, of_some: Array
) -> list[tuple[float, float, float]]:
    """Of A and of B: what rounding must add, how far some tokens are from float64, and what rounding must add there."""
    found, exact = list[tuple[float, float, float]](), None
    for factors, y, here in ((cell.a, cell.y_a, some.y_a), (cell.b, crossed, of_some)):
        if exact is None or not alike.values:
            exact = some.run(factors.exact())
        at, actual = factors.at(cell.site, cell.tokens), float(gaps(here, exact).sum())
        if found and alike.stored and alike.path:
            found.append((found[0][0], actual, found[0][2]))
        elif at is None:
            found.append((0.0, actual, 0.0))
        else:
            forecast = at.kind.rounding(at, some.inputs_a, exact) ** 2
            whole = len(exact) == len(y)
            found.append((forecast if whole else at.kind.rounding(at, cell.inputs_a, y) ** 2, actual, forecast))
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
