"""What one of two copies alone has, though it computes nothing else: rows of a padded vocabulary, unused tensors."""

from collections.abc import Iterator

import numpy as np

from kernels.rows.dequantize import dequantize_rows
from kernels.weight import Weight
from store.artifact import Artifact
from store.layout import counted
from store.names import EMBEDDING


def common_rows(a: Weight, b: Weight) -> tuple[Weight, Weight]:
    """Return the rows that both of two matrices have, of equal columns and stored in canonical order."""
    rows = min(a.shape[0], b.shape[0])
    first, second = (Weight(w.name, w.type, (rows, w.shape[1]), w.stored[:rows]) for w in (a, b))
    return first, second


def extra_rows(a: Weight, b: Weight) -> str:
    """Say which rows one side alone has, and whether they are padding."""
    side, longer, rows = ("A", a, len(b.stored)) if len(a.stored) > len(b.stored) else ("B", b, len(a.stored))
    count = len(longer.stored) - rows
    which = f"row {rows}" if count == 1 else f"rows {rows} to {rows + count - 1}"
    return f"{side} alone has {which}, {_padding(longer, longer.stored[rows:])}; the {rows} rows of both were compared"


def _padding(weight: Weight, rows: np.ndarray) -> str:
    if not (rows[:64] == rows[0]).all() or not (rows == rows[0]).all():
        return "which are not all alike"
    value = dequantize_rows(weight.type, np.ascontiguousarray(rows[:1]), weight.shape[1])
    return "all the same values" if value.any() else "all zero"


def of_common_vocabulary(a: Artifact, b: Artifact) -> tuple[Artifact, Artifact, tuple[str, ...]]:
    """Return two models with the tokens that both have, and sentences about the others."""
    sizes = a.config.vocab_size, b.config.vocab_size
    if sizes[0] == sizes[1] or a.config.hidden_size != b.config.hidden_size:
        return a, b, ()
    note = (
        f"The vocabulary has {sizes[0]} rows in A and {sizes[1]} in B, logits too: of {EMBEDDING} "
        f"{extra_rows(a.weight(EMBEDDING), b.weight(EMBEDDING))}."
    )
    rows = min(sizes)
    return a.with_vocabulary(rows), b.with_vocabulary(rows), (note,)


def unused_tensors(a: Artifact, b: Artifact) -> Iterator[str]:
    """Say which tensors one side carries without using them, where the other does not have them; and which files."""
    for side, model, other in (("A", a, b), ("B", b, a)):
        yield from (f"{side}: {sentence}" for sentence in model.beside)
        names = [model.tensors[name].raw_name for name in model.unused if name not in other]
        if names:
            yield f"{side} carries {counted(names)} that its forward does not use and the other side does not have."
