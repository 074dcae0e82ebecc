"""Vocabularies of unlike length: embedding and head padded on one side, so that only the first rows are common."""

import numpy as np

from kernels.dequantize import dequantize_rows
from kernels.weight import Weight
from store.artifact import Artifact
from store.names import EMBEDDING


def common_rows(a: Weight, b: Weight) -> tuple[Weight, Weight]:
    """Return the rows that both of two matrices have, of equal columns and stored in canonical order."""
    rows = min(a.shape[0], b.shape[0])
    first, second = (Weight(w.name, w.type, (rows, w.shape[1]), w.stored[:rows]) for w in (a, b))
    return first, second


def describe_extra_rows(a: Weight, b: Weight) -> str:
    """Say which rows one side alone has, and whether they are padding."""
    side, longer, rows = ("A", a, len(b.stored)) if len(a.stored) > len(b.stored) else ("B", b, len(a.stored))
    extra = longer.stored[rows:]
    last = len(longer.stored) - 1
    return (
        f"{side} has {len(extra)} more rows ({rows} to {last}), {_padding(longer, extra)}; the {rows} rows of both "
        "were compared"
    )


def _padding(weight: Weight, rows: np.ndarray) -> str:
    if not (rows == rows[0]).all():
        return "which are not all alike"
    value = dequantize_rows(weight.type, np.ascontiguousarray(rows[:1]), weight.shape[1])
    return "all zero" if not value.any() else "all the same row"


def of_common_vocabulary(a: Artifact, b: Artifact) -> tuple[Artifact, Artifact, str | None]:
    """Return two models with the tokens that both have, and a sentence about the others (None: there are none)."""
    sizes = a.config.vocab_size, b.config.vocab_size
    if sizes[0] == sizes[1]:
        return a, b, None
    words = "what was compared are the tokens of both"
    if a.config.hidden_size == b.config.hidden_size:
        words = describe_extra_rows(a.weight(EMBEDDING), b.weight(EMBEDDING))
    note = f"The vocabularies have {sizes[0]} tokens in A and {sizes[1]} in B; of the embedding {words}, logits alike."
    rows = min(sizes)
    return a.with_vocabulary(rows), b.with_vocabulary(rows), note
