"""Whether one tensor is another one times a factor, however small, underneath the rounding of both.

The factor of b on a lies between the two least-squares slopes ⟨a,b⟩/⟨a,a⟩ and ⟨b,b⟩/⟨a,b⟩: rounding to the nearest
code leaves the first one right, a fit of the scale the second. How far chance may move them is told by the scatter of
the sums over blocks of 32 values, which share scales and so do not err independently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.steps import Flags, Floats

_BLOCK = 32
_FEWEST = 32  # blocks that carry the energy of a part; fewer do not tell their own scatter
_SMALLEST = 1e-4  # root mean square of a block; below it the half-precision scales of a format lose their digits
# Largest distance of 1 from the interval on 25 kinds of tensors and all formats: 0.0039 for whole tensors whose values
# are all alike, 0.009 for heads; docs/bisect.md.
_WHOLE, _HEAD = 0.005, 0.012
_SIGMAS = 8.0
_SUMS = 7


@dataclass(frozen=True, slots=True)
class Groups:
    """Which parts of a matrix may have a factor of their own: runs of `rows` rows, runs of `columns` columns."""

    rows: int | None = None
    columns: int | None = None

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
    """Sums over the blocks of every part: energies ⟨a,a⟩ ⟨a,b⟩ ⟨b,b⟩, the squares that their scatter needs, and signs.

    The signs are those of |a| - |b|. whole : (1, 7). rows, columns : (parts, 7), empty where there are no heads.
    """

    whole: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @classmethod
    def of(cls, a: Floats, b: Floats, inside: Flags, groups: Groups) -> "Slopes":
        """The sums over some whole heads of rows; values outside the range of codes do not count."""
        count = a.shape[1] // _BLOCK
        nothing = np.zeros((0, _SUMS))
        if not count:
            return cls(np.zeros((1, _SUMS)), nothing, nothing)
        x, y = (np.where(inside, z, 0)[:, : count * _BLOCK].reshape(len(a), count, _BLOCK) for z in (a, b))
        aa, ab, bb = (np.einsum("rcb,rcb->rc", p, q, dtype=np.float64) for p, q in ((x, x), (x, y), (y, y)))
        signs = np.sign(np.abs(x) - np.abs(y)).sum(axis=2, dtype=np.float64)
        aa, ab, bb, signs = (np.where(aa > _BLOCK * _SMALLEST**2, sums, 0) for sums in (aa, ab, bb, signs))
        terms = np.stack([aa, ab, bb, ab * ab, ab * aa, aa * aa, signs], axis=2)
        rows = columns = nothing
        if groups.rows and len(a) % groups.rows == 0:
            rows = terms.reshape(-1, groups.rows * count, _SUMS).sum(axis=1)
        if groups.columns and groups.columns % _BLOCK == 0 and a.shape[1] % groups.columns == 0:
            columns = terms.sum(axis=0).reshape(-1, groups.columns // _BLOCK, _SUMS).sum(axis=1)
        return cls(terms.sum(axis=(0, 1))[None], rows, columns)

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
        self, lean: float = 0.0, of_columns: float = 0.0, *, agreed: bool = False
    ) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        """Levels where some part's factor is not 1: level, factors, and how far each is beyond what rounding leaves.

        The distance is 0 for parts whose factor rounding explains. Parts of a level that are all off are one whole.
        lean, of_columns : by how much unequal steps may move a factor, and one of some columns. agreed : whether most
        values must have moved as the factor says: where no code is 0, values that are draw all others' scales down.
        """
        for level, sums, least in (
            ("rows", self.rows, _HEAD + lean),
            ("columns", self.columns, _HEAD + max(lean, of_columns)),
            ("whole", self.whole, _WHOLE + lean),
        ):
            slopes, beyond = _beyond(sums, least)
            if agreed:
                beyond = np.where(np.sign(1 - slopes) == np.sign(sums[:, -1]), beyond, 0)
            if beyond.any() and (level == "whole" or not beyond.all()):
                yield level, slopes, beyond


def _beyond(sums: NDArray[np.float64], least: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    aa, ab, bb, ab2, ab_aa, aa2, _ = sums.T
    with np.errstate(all="ignore"):
        first, second = ab / aa, bb / ab
        beyond = np.maximum(np.minimum(first, second) - 1, 1 - np.maximum(first, second))
        scatter = np.sqrt(np.maximum(ab2 - 2 * first * ab_aa + first**2 * aa2, 0)) / aa
        scaled = (beyond > least) & (beyond > _SIGMAS * scatter) & (aa**2 >= _FEWEST * aa2)
    return first, np.where(scaled, beyond, 0)


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
