"""Whether two sides have a row for the same tokens, and put them at the same positions."""

from collections.abc import Iterator

import numpy as np

from kernels.errors import WorkbenchError
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import Weight
from store.names import EMBEDDING
from workbench.feeding.fed import Fed, each
from workbench.feeding.rotary import rotary_differences
from workbench.feeding.row import Row, plain_row
from workbench.tensors.one_sided import common_rows, extra_rows

_MOST_ROWS = 1 << 13  # rows of padding that are compared


def embedding_rows(a: Fed, b: Fed, tokenized: bool) -> Iterator[Row]:
    """Yield the sizes of the embeddings, and what stands behind the last token. tokenized : both have a tokenizer."""
    if a.rows is None or b.rows is None:
        which = "A" if a.rows is None else "B"
        yield Row("embedding rows", each(a, b, _rows), "unknown", f"{which} has no {EMBEDDING}")
        return
    yield _sizes(a, b, tokenized)
    if tokenized:
        yield from _without_rows(a, b)
        yield from _padding(a, b)


def position_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Yield the context, and every rotary setting in which two models that can be run differ."""
    one, other = a.settings, b.settings
    if one is None or other is None:
        which = " and ".join(side.name for side in (a, b) if side.settings is None)
        yield Row("positions", ("", ""), "unknown", f"{which} cannot be run, so its settings are not compared")
        return
    longest = one.max_position_embeddings, other.max_position_embeddings
    yield plain_row("context length", *longest, words="longer texts are fed to one of them alone")
    found = rotary_differences(one, other)
    if not found:
        yield Row("rotary positions", (f"base {one.rope_theta:g}", f"base {other.rope_theta:g}"), "alike")
    for name, x, y in found:
        yield Row(name, (x, y), "different", "tokens are put at other positions")


def _rows(side: Fed) -> str:
    return "none" if side.rows is None else f"{side.rows} rows"


def _sizes(a: Fed, b: Fed, tokenized: bool) -> Row:
    shown = each(a, b, _rows)
    if a.rows == b.rows:
        return Row("embedding rows", shown, "alike")
    weights = _embeddings(a, b)
    words = "their columns differ too, or one cannot be read" if weights is None else extra_rows(*weights)
    shorter = min(a.rows or 0, b.rows or 0)
    named = not tokenized or any(text is not None for side in (a, b) for text in side.table.texts[shorter:])
    return Row("embedding rows", shown, "different" if named else "explained", words)


def _without_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Tokens whose ids lie beyond the embedding of their own model."""
    for side in (a, b):
        rows = side.rows or 0
        beyond = [n for n in range(rows, side.table.count) if side.table.texts[n] is not None]
        if beyond:
            count = f"{len(beyond)} tokens"
            words = f"{side.shown(beyond[0])} has no row in the embedding of {side.name}, which ends at {rows - 1}"
            yield Row("ids without a row", (count, "") if side is a else ("", count), "different", words)


def _padding(a: Fed, b: Fed) -> Iterator[Row]:
    """Rows behind the last token that both sides have: no text feeds them, and a copy may have lost them."""
    first, last = max(a.table.count, b.table.count), min(a.rows or 0, b.rows or 0)
    weights = _embeddings(a, b) if first < last else None
    if weights is None:
        return
    last = min(last, first + _MOST_ROWS)
    one, other = (
        dequantize_rows(weight.type, np.ascontiguousarray(weight.stored[first:last]), weight.shape[1])
        for weight in common_rows(*weights)
    )
    most = float(np.abs(one - other).max())
    shown = f"{last - first} rows"
    which = f"rows {first} to {last - 1} stand for no token"
    words = f"{which}; they differ by {most:.3g} at most" if most else f"{which}; both hold the same values"
    yield Row("padded rows", (shown, shown), "explained" if most else "alike", words)


def _embeddings(a: Fed, b: Fed) -> tuple[Weight, Weight] | None:
    """Both embeddings, where they can be read and have the same columns."""
    try:
        found = a.model.weight(EMBEDDING), b.model.weight(EMBEDDING)
    except WorkbenchError:
        return None
    return found if found[0].shape[1] == found[1].shape[1] else None
