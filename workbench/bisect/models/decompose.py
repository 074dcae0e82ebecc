"""The figures of one cell: what its stage adds, what came in, and what the paths and formats explain of it."""

import math
from dataclasses import dataclass

import numpy as np

from kernels.forward import activation_codes
from kernels.graph import Array
from kernels.lengths import energies, gaps, parts
from kernels.models import Graph
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.floor import storage_error
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Decomposition
from workbench.cells.flips import Flips, flips


@dataclass(slots=True)
class _Squares:
    """Squares of lengths, and products with the observed difference; those of several runs of tokens are added.

    a, b, crossed : of the outputs. observed, local, inherited : of the differences. along_local, along_inherited : of
    these with the observed one. noise : of what both paths make of A's weights. expected, actual : by side, of what the
    path's rounding must add and of the distance from float64.
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

    def __add__(self, other: "_Squares") -> "_Squares":
        return _Squares(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def decompose(cell: Cell, a: Side, b: Side, pairs: TensorPairs) -> Decomposition:
    """Observed, local and inherited difference of a cell, its floor, and each side's distance from float64."""
    alike = _Alike.of(cell, pairs)
    crossed = (
        cell.y_a if alike.stored and alike.path else cell.run(cell.b)
    )  # engines may sum otherwise for fewer tokens
    other_path = cell.y_a if alike.path else crossed if alike.stored else cell.run(cell.a.on(cell.b.path))
    first, *others = (_squares(piece, alike, crossed[some], other_path[some]) for piece, some in cell.pieces())
    found = sum(others, first)
    at = cell.a.exact().at(cell.site, cell.tokens)
    stored = 0.0 if at is None else storage_error(at, cell.inputs_a, pairs)
    size = math.sqrt(next((y for y in (found.b, found.a, found.crossed) if y), 0.0))  # nothing is a share of zeros
    of_b = math.sqrt(found.b)
    expected = math.sqrt(found.expected_a), math.sqrt(found.expected_b)
    floor = math.hypot(*expected, stored)
    return Decomposition(
        cell.site,
        observed=_relative(found.observed, of_b),
        local=_relative(found.local, size),
        inherited=_relative(found.inherited, of_b),
        floor=floor / size if size else 0.0,
        a_off=_root(found.actual_a) / expected[0] if expected[0] else 0.0,
        b_off=_root(found.actual_b) / expected[1] if expected[1] else 0.0,
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


def _squares(cell: Cell, alike: _Alike, crossed: Array, other_path: Array) -> _Squares:
    difference = parts(cell.y_a, cell.y_b, crossed)
    judged = cell.judged
    noise = 0.0 if alike.path else float(gaps(other_path, cell.y_a).sum())
    expected, actual, exact = dict[str, float](), dict[str, float](), None
    for name, factors, y in (("a", cell.a, cell.y_a), ("b", cell.b, crossed)):
        if exact is None or not alike.values:
            exact = cell.run(factors.exact())
        if name == "b" and alike.stored and alike.path:
            expected["b"] = expected["a"]
        else:
            at = factors.at(cell.site, cell.tokens)
            expected[name] = 0.0 if at is None else at.kind.rounding(at, cell.inputs_a, exact) ** 2
        actual[name] = float(gaps(y, exact).sum())
    return _Squares(
        float(energies(cell.y_a).sum()),
        float(energies(cell.y_b).sum()),
        float(energies(crossed).sum()),
        float(difference.whole.sum()),
        float(difference.first[judged].sum()),
        float(difference.second.sum()),
        float(difference.along_first[judged].sum()),
        float(difference.along_second.sum()),
        noise,
        expected["a"],
        expected["b"],
        actual["a"],
        actual["b"],
    )


def _root(square: float) -> float:
    """The length, of a square that may not be finite."""
    return float(np.sqrt(square))


def _relative(square: float, size: float) -> float | None:
    """A length beside another one, None where that is zero and the first one is not."""
    return 0.0 if square == 0 else _root(square) / size if size else None


def _flipped(cell: Cell, a: Side, b: Side) -> Flips | None:
    sides = ((a, cell.y_a), (b, cell.y_b))
    codes = [
        activation_codes(side.model, Graph.of(side.model), side.path, cell.site, np.ascontiguousarray(y))
        for side, y in sides
    ]
    return flips(codes[0], codes[1], cell.y_a, cell.y_b)
