"""The elements of one cell: order them by how they differ, find any of them, see where and how much they differ."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Order = Literal["abs", "index", "ulp", "relative"]
WORST = 16  # elements of a cell that are kept where its tensors are not
ORDERS: dict[Order, str] = {"abs": "|d|", "index": "index", "ulp": "ULP distance", "relative": "relative |d|"}


class Element(NamedTuple):
    """One pair of values. d = a - b; relative = |d|/|b|; ulp in float32 steps, None unless both are finite."""

    token: int
    channel: int
    a: float
    b: float
    d: float
    relative: float
    ulp: int | None

    @classmethod
    def of(cls, token: int, channel: int, a: float, b: float) -> "Element":
        """The element of two float32 values."""
        x, y = (np.array([value], dtype=np.float32) for value in (a, b))
        with np.errstate(invalid="ignore"):
            relative = float(_relative(np.abs(np.array([a - b])), y)[0])
        steps = int(ulp_distance(x, y)[0]) if np.isfinite(a) and np.isfinite(b) else None
        return cls(token, channel, a, b, a - b, relative, steps)

    @property
    def other_sign(self) -> bool:
        """Whether zero lies between the two values, so that steps from one to the other measure nothing."""
        return self.a < 0 < self.b or self.b < 0 < self.a

    def sides(self) -> tuple[tuple[str, float], tuple[str, float]]:
        """Both values, each with the name of its side."""
        return ("A", self.a), ("B", self.b)


@dataclass(frozen=True, eq=False)
class Elements:
    """The values of both sides over the same tokens.

    a, b : float32 (tokens, channels). positions : token position of every row.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    positions: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(self.a.size)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.a.shape[1])

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """|a-b| of every element in index order; infinite where only one side is finite or both are not and differ."""
        a, b = self.a.reshape(-1), self.b.reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            d = np.abs(a.astype(np.float64) - b)
        d[~np.isfinite(d)] = np.inf
        d[a.view(np.int32) == b.view(np.int32)] = 0.0
        return d

    def element(self, index: int) -> Element:
        """Return one element by its index, token by token."""
        row, channel = divmod(index, self.channels)
        return Element.of(self.positions[row], channel, float(self.a[row, channel]), float(self.b[row, channel]))

    def index(self, token: int, channel: int) -> int | None:
        """Index of the element of a token position and channel, or None if there is none."""
        if token not in self.positions or not 0 <= channel < self.channels:
            return None
        return self.positions.index(token) * self.channels + channel

    def ordered(self, order: Order) -> NDArray[np.int64] | None:
        """Indices with the largest difference first, ties in index order; None for index order itself."""
        if order == "index":
            return None
        key = self.distance
        if order == "relative":
            key = _relative(key, self.b.reshape(-1))
        elif order == "ulp":
            steps = ulp_distance(self.a.reshape(-1), self.b.reshape(-1))
            key = np.where(np.isinf(key), np.inf, steps.astype(np.float64))
        return np.argsort(-key, kind="stable")

    def strip(self, rows: int, columns: int) -> NDArray[np.float64]:
        """Largest |d| in each of at most rows x columns groups of neighbouring tokens and channels."""
        d: NDArray[np.float64] = self.distance.reshape(-1, self.channels)
        tokens = _starts(len(self.positions), rows)
        channels = _starts(self.channels, columns)
        by_channel = np.maximum.reduceat(d, channels, axis=1)
        grouped: NDArray[np.float64] = np.maximum.reduceat(by_channel, tokens, axis=0)
        return grouped


@dataclass(frozen=True, eq=False)
class WorstElements(Elements):
    """The elements of a cell that differ most, where no others were kept; a, b : (1, elements).

    known : the elements. of : how many the cell has.
    """

    known: tuple[Element, ...] = ()
    of: int = 0

    @classmethod
    def those(cls, known: tuple[Element, ...], of: int) -> "WorstElements":
        """Elements of a cell that has so many."""
        a, b = (np.array([[getattr(element, side) for element in known]], dtype=np.float32) for side in "ab")
        return cls(a, b, tuple(sorted({element.token for element in known})), known, of)

    def element(self, index: int) -> Element:
        """Return one element by its place in the list."""
        return self.known[index]

    def index(self, token: int, channel: int) -> int | None:
        """Place of the element of a token position and channel, or None if it was not kept."""
        places = [(element.token, element.channel) for element in self.known]
        return places.index((token, channel)) if (token, channel) in places else None


def worst_elements(a: NDArray[np.float32], b: NDArray[np.float32], positions: tuple[int, ...]) -> tuple[Element, ...]:
    """The elements of two tensors (tokens, channels) that differ most, at most WORST, ties in index order.

    A token is looked at at a time.
    """
    found: list[tuple[float, int, int]] = []  # with the sign of the difference turned, so that they sort
    for row in range(len(a)):
        d = Elements(a[row : row + 1], b[row : row + 1], positions[row : row + 1]).distance
        least = float(np.partition(d, -WORST)[-WORST]) if d.size > WORST else 0.0
        places = np.flatnonzero((d >= least) & (d > 0))
        places = places[np.argsort(-d[places], kind="stable")][:WORST]
        found = sorted([*found, *((-float(d[place]), row, int(place)) for place in places)])[:WORST]
    return tuple(
        Element.of(positions[row], channel, float(a[row, channel]), float(b[row, channel])) for _, row, channel in found
    )


def _starts(length: int, groups: int) -> NDArray[np.int64]:
    """First index of each of at most `groups` groups of neighbours that cover range(length)."""
    groups = max(min(groups, length), 1)
    return np.arange(groups, dtype=np.int64) * length // groups


def _relative(distance: NDArray[np.float64], b: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        relative: NDArray[np.float64] = distance / np.abs(b.astype(np.float64))
    relative[distance == 0] = 0.0
    relative[np.isinf(distance)] = np.inf
    return relative


def ulp_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number of float32 steps between finite values; -0 and +0 are the same place."""

    def place(x: NDArray[np.float32]) -> NDArray[np.int64]:
        bits = np.ascontiguousarray(x).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(2**31) - bits, bits)

    steps: NDArray[np.int64] = np.abs(place(a) - place(b))
    return steps


def histogram(values: NDArray[np.floating], low: float, high: float, bins: int) -> NDArray[np.int64]:
    """Counts of the finite values in `bins` equal parts of [low, high]."""
    flat = values.reshape(-1)
    counts, _ = np.histogram(flat[np.isfinite(flat)], bins=bins, range=(low, high))
    return counts.astype(np.int64)


def bounds(*arrays: NDArray[np.floating]) -> tuple[float, float]:
    """Least and largest finite value of all arrays; (0, 0) if there is none."""
    finite = [part[np.isfinite(part)] for part in arrays]
    filled = [part for part in finite if part.size]
    if not filled:
        return 0.0, 0.0
    return float(min(part.min() for part in filled)), float(max(part.max() for part in filled))
