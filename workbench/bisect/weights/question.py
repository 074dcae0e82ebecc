"""One tensor whose difference is not explained: what a candidate mistake may look at.

A mistake predicts the wrong side's tensor from the right side's model, some rows at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.graph import Model
from kernels.rows.reach import BLOCK
from kernels.weight import Weight
from store.names import settings_of
from workbench.bisect.weights.check import LIMIT, WeightCheck, excess_of, row_chunks
from workbench.bisect.weights.steps import Flags, Floats, Stored

Rows = NDArray[np.int64]
AFFECTED, _OTHERS = 48, 16  # rows of a first look
_ALL = 1 << 24  # elements; a larger tensor is looked at in parts


@dataclass(frozen=True, slots=True)
class Prediction:
    """A mistake: its slug, one sentence, and the rows that it would have made of the right side's model.

    detail : the end of the sentence, for what takes long to tell and is asked only of a mistake that stands.
    exact : whether the numbers in it are so certain that it leaves no more than one rounding on each side.
    """

    cause: str
    explanation: str
    rows: Callable[[Rows], Stored]
    detail: Callable[[], str] = str
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """Where a tensor is wrong: `mask` of rows, or of columns if `across`; `words` for people, empty for all of it."""

    mask: Flags
    words: str
    across: bool = False

    def of(self, rows: Rows) -> Flags:
        """The mask over the elements of chosen rows, to be broadcast."""
        return self.mask[None, :] if self.across else self.mask[rows][:, None]


@dataclass(frozen=True, eq=False)
class Question:
    """The wrong side's tensor, the model it should have come from, and where they disagree.

    right : the model that predictions are made of. wrong : the tensor to be predicted. side : "A" or "B", whose it is.
    verdict : of the plain comparison. touched : known to be changed though its format would explain the difference.
    """

    name: str
    side: str
    right: Model
    wrong: Weight
    verdict: WeightCheck
    touched: bool = False

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters of the right side, with the heads of the tensor's layer."""
        return settings_of(self.right.config, self.name)

    @cached_property
    def source(self) -> Weight:
        """The right side's tensor of the same name."""
        return self.right.weight(self.name)

    @property
    def what(self) -> str:
        """The tensor in words."""
        return f"{self.name} of {self.side}"

    @property
    def suffix(self) -> str:
        """The name without the layer."""
        return self.name.split(".", 3)[3] if self.layer is not None else self.name

    @property
    def layer(self) -> int | None:
        """The layer that the tensor belongs to."""
        return int(self.name.split(".")[2]) if self.name.startswith("model.layers.") else None

    @property
    def is_vector(self) -> bool:
        """Whether it is a bias or norm weight, a single row."""
        return len(self.source.shape) == 1

    @property
    def heads(self) -> tuple[int, bool] | None:
        """Size of a head and whether heads run along the columns; None for a tensor without heads."""
        if self.config.kv_lora_rank:
            size = self.config.v_head_dim or self.config.head_dim
            of_queries = self.suffix.startswith(("self_attn.q_proj.", "self_attn.q_b_proj."))
            of_output = (size, True) if self.suffix == "self_attn.o_proj.weight" else None
            return (self.config.head_dim, self.is_vector) if of_queries else of_output
        if self.suffix.startswith(("self_attn.q_", "self_attn.k_", "self_attn.v_")):
            return self.config.head_dim, self.is_vector
        return (self.config.head_dim, True) if self.suffix == "self_attn.o_proj.weight" else None

    @cached_property
    def affected_rows(self) -> Rows:
        """Rows with an affected block."""
        return np.flatnonzero(np.asarray(self.verdict.affected.any(axis=1)))

    @cached_property
    def sample(self) -> Rows:
        """A few affected rows and a few others."""
        others = np.flatnonzero(~np.asarray(self.verdict.affected.any(axis=1)))
        picked = (spread(self.affected_rows, AFFECTED), spread(others, _OTHERS))
        return np.sort(np.concatenate(picked))

    @cached_property
    def all_rows(self) -> Rows:
        """All rows, or of a very large tensor as many as may be held at once."""
        return spread(np.arange(len(self.wrong.rows)), max(1, _ALL // self.wrong.shape[-1]))

    def a(self, rows: Rows) -> Stored:
        """Rows of the right side's tensor."""
        return Stored.of(self.source, rows)

    def b(self, rows: Rows) -> Stored:
        """Rows of the wrong side's tensor."""
        return Stored.of(self.wrong, rows)

    def regions(self) -> Iterator[Region]:
        """Everything, whole heads, whole rows: the places that a deliberate operation changes, largest first."""
        rows = len(self.wrong.rows)
        yield Region(np.ones(rows, dtype=bool), "")
        if self.is_vector:
            yield from self._parts_of_vector()
            return
        yield from self._scaled_part()
        wrong_rows = np.asarray(self.verdict.affected.any(axis=1))
        if self.heads is not None:
            size, across = self.heads
            hull = _hull(self._wrong_columns() if across else wrong_rows, size)
            if not hull.all():
                yield Region(hull, f" in {_heads(hull, size)}", across)
        if not wrong_rows.all():
            yield Region(wrong_rows, f" in {_rows(wrong_rows)}")

    def _scaled_part(self) -> Iterator[Region]:
        """The heads that the check of slopes found to have a factor of their own."""
        level, parts = self.verdict.scaled or ("whole", np.ones(1, dtype=bool))
        if level != "whole":
            size = self.wrong.shape[level == "columns"] // len(parts)
            mask = np.repeat(parts, size)
            yield Region(mask, f" in {_heads(mask, size)}", level == "columns")

    def _wrong_columns(self) -> Flags:
        """Columns with a wrong value in some row of the sample."""
        wrong = np.asarray(self._wrong_values(self.sample).any(axis=0))
        return wrong if wrong.any() else np.repeat(np.asarray(self.verdict.affected.any(axis=0)), BLOCK)[: wrong.size]

    def _wrong_values(self, rows: Rows) -> Flags:
        """Values further apart than their formats allow, or where there are none such, that differ at all."""
        a, b = self.a(rows), self.b(rows)
        wrong = excess_of(a, b) > LIMIT
        return wrong if wrong.any() or not self.touched else a.values != b.values

    def _parts_of_vector(self) -> Iterator[Region]:
        wrong = self._wrong_values(np.zeros(1, dtype=np.int64))[0]
        if self.heads is not None:
            size, across = self.heads
            hull = _hull(wrong, size)
            if not hull.all():
                yield Region(hull, f" in {_heads(hull, size)}", across)
        if not wrong.all():
            yield Region(wrong, f" in {int(wrong.sum())} of {wrong.size} elements", across=True)

    def where(self) -> str:
        """The affected places in words."""
        blocks = self.verdict.affected
        if blocks.all():
            return "everywhere"
        if len(blocks) == 1:
            return f"in {int(blocks.sum())} of {blocks.size} runs of {BLOCK} values, from {_first(blocks[0])} on"
        if blocks.any(axis=1).all():
            return f"in {int(blocks.sum())} of {blocks.size} blocks of {BLOCK} values, in every row"
        rows = np.asarray(blocks.any(axis=1))
        heads = ""
        if self.heads is not None and not self.heads[1]:
            heads = f" ({_heads(_hull(rows, self.heads[0]), self.heads[0])})"
        columns = np.asarray(blocks.any(axis=0))
        part = (
            "" if columns.all() else f", {int(blocks.sum())} blocks of {BLOCK} values from column {_first(columns)} on"
        )
        return f"in {_rows(rows)} of {len(blocks)}{heads}{part}"

    def reproduces(self, left: WeightCheck) -> bool:
        """Whether what a prediction leaves is only rounding; where rounding would explain all, it must explain more."""
        if not left.explained:
            return False
        return not (self.touched and self.verdict.explained) or left.rel_rms <= 0.5 * self.verdict.rel_rms

    def columns(self, columns: Rows) -> tuple[Floats, Floats]:
        """Values and widths of chosen columns of the right side's tensor, each (rows, len(columns))."""
        parts = (Stored.of(self.source, part) for part in row_chunks(self.source))
        chosen = [(stored.values[:, columns], stored.width[:, columns]) for stored in parts]
        return np.concatenate([values for values, _ in chosen]), np.concatenate([width for _, width in chosen])


def spread(rows: Rows, most: int) -> Rows:
    """At most so many of some rows, evenly picked."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _hull(flags: Flags, size: int) -> Flags:
    """Whole runs of `size` that hold a true flag."""
    return np.repeat(flags.reshape(-1, size).any(axis=1), size)


def _first(flags: Flags) -> int:
    return int(np.flatnonzero(flags)[0]) * BLOCK


def _heads(flags: Flags, size: int) -> str:
    heads = np.flatnonzero(flags[::size])
    return f"head {heads[0]}" if len(heads) == 1 else f"{len(heads)} heads from head {heads[0]} on"


def _rows(flags: Flags) -> str:
    rows = np.flatnonzero(flags)
    if len(rows) == 1:
        return f"row {rows[0]}"
    if rows[-1] - rows[0] + 1 == len(rows):
        return f"rows {rows[0]} to {rows[-1]}"
    return f"{len(rows)} rows between {rows[0]} and {rows[-1]}"
