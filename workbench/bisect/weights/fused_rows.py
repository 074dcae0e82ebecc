"""Fused tensors taken apart wrongly: q, k and v (or gate and up) whose rows several ranks stored one after another.

Every rank of a tensor-parallel checkpoint holds its share of q, its share of k and its share of v. Joined rank by rank
that is q0 k0 v0 q1 k1 v1 ..., and read as all of q, all of k, all of v it gives every tensor rows of the others.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Stored, made_like

_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_MOST_RANKS = 64


def rank_by_rank(q: Question) -> Iterator[Prediction]:
    """Rows in the order of the ranks read as that of the tensors, or the other way."""
    block, _, kind = q.suffix.rpartition(".")
    block, _, module = block.rpartition(".")
    modules = next((modules for modules in _FUSED if module in modules), None)
    if modules is None or q.layer is None:
        return
    names = [f"model.layers.{q.layer}.{block}.{other}.{kind}" for other in modules]
    if any(name not in q.right or q.right.weight(name).shape[1:] != q.source.shape[1:] for name in names):
        return
    sizes = [q.right.weight(name).shape[0] for name in names]
    own, letters = modules.index(module), [other.removesuffix("_proj") for other in modules]
    start = sum(sizes[:own])
    for ranks in _ranks(sizes, q.config.num_attention_heads if len(modules) == 3 else sizes[0]):
        by_rank = _by_rank(sizes, ranks)
        stored = " ".join(f"{letter}{rank}" for rank in (0, 1) for letter in letters)
        read = f"rows interleaved by {ranks} ranks ({stored} ...) are read as {'|'.join(letters)}"
        parted = f"rows of {'|'.join(letters)} are read as if {ranks} ranks had interleaved them ({stored} ...)"
        for order, words in ((by_rank, read), (np.argsort(by_rank), parted)):
            source = order[start : start + sizes[own]]
            yield Prediction("rows_permuted", f"{q.what}: {words}", partial(_gathered, q, names, sizes, source))


def _ranks(sizes: list[int], whole: int) -> Iterator[int]:
    """Numbers of ranks that divide every tensor; of rows that alternate one by one, as many as there are."""
    several = [ranks for ranks in range(2, min(_MOST_RANKS, whole) + 1) if all(size % ranks == 0 for size in sizes)]
    yield from (ranks for ranks in several if whole % ranks == 0)
    if len(sizes) == 2 and sizes[0] == sizes[1] and sizes[0] > _MOST_RANKS:
        yield sizes[0]


def _by_rank(sizes: list[int], ranks: int) -> Rows:
    """Row i of the tensors joined rank by rank is row by_rank[i] of the tensors joined whole."""
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [start + np.arange(size).reshape(ranks, -1) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate([part[rank] for rank in range(ranks) for part in parts])


def _gathered(q: Question, names: list[str], sizes: list[int], source: Rows, rows: Rows) -> Stored:
    """Rows (of a vector: elements) of several tensors of the right side, numbered through."""
    chosen = source if q.is_vector else source[rows]
    starts = np.cumsum([0, *sizes])
    parts, places = [], []
    for name, start, stop in zip(names, starts, starts[1:], strict=False):
        here = np.flatnonzero((chosen >= start) & (chosen < stop))
        if not len(here):
            continue
        weight, wanted = q.right.weight(name), chosen[here] - start
        parts.append(
            Stored.of(weight).moved(np.transpose).moved(partial(np.take, indices=wanted, axis=0))
            if q.is_vector
            else Stored.of(weight, wanted)
        )
        places.append(here)
    joined = _joined(parts).moved(lambda x: x[np.argsort(np.concatenate(places))])
    return joined.moved(np.transpose) if q.is_vector else joined


def _joined(parts: list[Stored]) -> Stored:
    """The rows of several tensors, one after another."""
    cut = [x for part in parts for x in (part.lowest, part.highest)]
    ends: list[np.ndarray | None] = [None, None]
    if any(x is not None for x in cut):
        sides = ([part.lowest for part in parts], [part.highest for part in parts])
        ends = [
            np.concatenate(
                [np.zeros(p.values.shape, bool) if x is None else x for p, x in zip(parts, side, strict=True)]
            )
            for side in sides
        ]
    values, width = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "width"))
    return Stored(values, width, ends[0], ends[1], **made_like(*parts))
