"""Whether one tensor is another one times a factor, however small, underneath the rounding of both.

The factor of b on a lies between the two least-squares slopes ⟨a,b⟩/⟨a,a⟩ and ⟨b,b⟩/⟨a,b⟩: rounding to the nearest
code leaves the first one right, a fit of the scale the second. How far chance may move them is told by the scatter of
the sums over blocks of 32 values, which share scales and so do not err independently.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.steps import Flags, Stored

_BLOCK = 32
_FEWEST = 32  # blocks that carry the energy of a part; fewer do not tell their own scatter
_SMALLEST = 1e-4  # root mean square of a block; below it the half-precision scales of a format lose their digits
# Largest distance of 1 from the interval on 25 kinds of tensors and all formats: 0.0039 for whole tensors whose values
# are all alike, 0.009 for heads; docs/bisect.md.
_WHOLE, _HEAD = 0.005, 0.012
_SIGMAS = 8.0
LEAST_ENERGY = _BLOCK * _SMALLEST**2  # of a block


@dataclass(frozen=True, slots=True)
class Groups:
    """Which parts of a matrix may have a factor of their own: runs of `rows` rows, runs of `columns` columns."""

    rows: int | None = None
    columns: int | None = None

    def in_runs(self, columns: int) -> bool:
        """Whether so many columns are whole runs, of whole blocks."""
        return self.columns is not None and self.columns % _BLOCK == 0 and columns % self.columns == 0

    def run(self, columns: int) -> int:
        """Blocks of a run of so many columns in all; of all of them where there are no runs."""
        return self.columns // _BLOCK if self.columns and self.in_runs(columns) else max(1, -(-columns // _BLOCK))

    def spread(self, scaled: tuple[str, Flags], shape: tuple[int, ...], block: int) -> Flags:
        """Blocks (rows, blocks) that belong to the parts found to be scaled."""
        level, parts = scaled
        mask = np.zeros(shape, dtype=bool)
        if level == "whole":
            mask[:] = True
        elif level == "rows":
            mask[np.repeat(parts, self.rows or 1)[: shape[0]]] = True
        else:
            columns = np.repeat(parts, self.columns or 1)
            mask[:, np.logical_or.reduceat(columns, np.arange(0, len(columns), block))] = True
        return mask


NO_HEADS = Groups()


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Sums over the blocks of every part: energies ⟨a,a⟩ ⟨a,b⟩ ⟨b,b⟩, and the squares that their scatter needs.

    whole : (1, 6). rows, columns : (parts, 6), empty where there are no heads.
    """

    whole: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @classmethod
    def of(cls, terms: NDArray[np.float64], groups: Groups, columns: int) -> "Slopes":
        """Of some whole heads of rows; terms : of every row and every run of so many columns, (rows, runs, 6)."""
        rows = of_columns = np.zeros((0, 6))
        if groups.rows and len(terms) % groups.rows == 0:
            rows = terms.sum(axis=1).reshape(-1, groups.rows, 6).sum(axis=1)
        if groups.in_runs(columns):
            of_columns = terms.sum(axis=0)
        return cls(terms.sum(axis=(0, 1))[None], rows, of_columns)

    @classmethod
    def joined(cls, parts: Sequence["Slopes"]) -> "Slopes":
        """The sums of consecutive parts of one tensor."""
        first = parts[0]
        return replace(
            first,
            whole=sum((part.whole for part in parts[1:]), first.whole),
            rows=np.concatenate([part.rows for part in parts]),
            columns=sum((part.columns for part in parts[1:]), first.columns),
        )

    def off(
        self, lean: float = 0.0, of_columns: float = 0.0
    ) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        """Levels where some part's factor is not 1: level, factors, and how far each is beyond what rounding leaves.

        The distance is 0 for parts whose factor rounding explains. Parts of a level that are all off are one whole.
        lean, of_columns : by how much unequal steps may move a factor, and one of some columns.
        """
        for level, sums, least in (
            ("rows", self.rows, _HEAD + lean),
            ("columns", self.columns, _HEAD + max(lean, of_columns)),
            ("whole", self.whole, _WHOLE + lean),
        ):
            slopes, beyond = _beyond(sums, least)
            if beyond.any() and (level == "whole" or not beyond.all()):
                yield level, slopes, beyond


def _beyond(sums: NDArray[np.float64], least: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    aa, ab, bb, ab2, ab_aa, aa2 = sums.T
    with np.errstate(all="ignore"):
        first, second = ab / aa, bb / ab
        beyond = np.maximum(np.minimum(first, second) - 1, 1 - np.maximum(first, second))
        scatter = np.sqrt(np.maximum(ab2 - 2 * first * ab_aa + first**2 * aa2, 0)) / aa
        scaled = (beyond > least) & (beyond > _SIGMAS * scatter) & (aa**2 >= _FEWEST * aa2)
    return first, np.where(scaled, beyond, 0)


def smaller(parts: Iterable[tuple[Stored, Stored]], factors: NDArray[np.float64], level: str) -> Flags:
    """Whether most values of every part of a level have become smaller, or larger, as its factor says.

    Where no code is 0, values that are draw the scales of all others down.
    """
    signs = []
    for a, b in parts:
        with np.errstate(invalid="ignore"):
            moved = np.nan_to_num(np.sign(np.abs(a.values) - np.abs(b.values)), posinf=0, neginf=0)
        signs.append(moved.sum(axis=1 if level == "rows" else 0, dtype=np.float64))
    counts = np.concatenate(signs) if level == "rows" else np.sum(signs, axis=0)
    return np.asarray(np.sign(counts.reshape(len(factors), -1).sum(axis=1)) == np.sign(1 - factors))


def heads_of(name: str, head_dim: int) -> Groups:
    """The parts of a tensor that belong to heads."""
    if any(f"self_attn.{letter}_proj.weight" in name for letter in "qkv"):
        return Groups(rows=head_dim)
    return Groups(columns=head_dim) if "self_attn.o_proj.weight" in name else NO_HEADS


def runs(flags: Flags) -> Iterator[slice]:
    """Runs of consecutive true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    for start, stop in edges.reshape(-1, 2):
        yield slice(int(start), int(stop))
