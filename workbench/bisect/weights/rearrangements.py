"""The right values in the wrong order: rotary conventions, rows, columns, transposition."""

from collections.abc import Callable, Iterator

import numpy as np

from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Floats, Stored

_SOURCES = 8192  # rows that others are matched with at most
_MATCHED = 2048  # rows that are matched at most


def permuted_rope(q: Question) -> Iterator[Prediction]:
    """Rows of q or k in the order of the other rotary convention, in either direction, in all or in some heads."""
    if not q.suffix.startswith(("self_attn.q_proj", "self_attn.k_proj")):
        return
    size, count = q.config.head_dim, q.source.shape[0]
    orders = rotary_orders(size, q.config.rotary_dim or size)
    for region in q.regions():
        if len(region.mask) != count:
            continue  # one row of a vector: the region runs over its elements instead
        heads = region.mask.reshape(-1, size).any(axis=1)
        for words, order in orders.items():
            by_head = np.arange(count).reshape(-1, size)
            by_head[heads] = by_head[heads][:, order]
            explanation = f"the rows of {q.what} are in {words} rotary order{region.words}"
            yield Prediction("permuted_rope", explanation, _reordered(q, by_head.reshape(-1)))
    if q.is_vector:
        for words, order in orders.items():
            source = np.arange(count).reshape(-1, size)[:, order].reshape(-1)
            explanation = f"the elements of {q.what} are in {words} rotary order"
            yield Prediction("permuted_rope", explanation, _reordered(q, source))


def rotary_orders(size: int, turned: int) -> dict[str, Rows]:
    """The channels of a head in other rotary orders: those that turn, or by mistake all of them."""
    orders = {}
    for width in dict.fromkeys((turned, size)):
        of, within, still = "" if width == turned else ", of whole heads,", np.arange(width), np.arange(width, size)
        for words, order in (
            (f"adjacent-pair{of}", within.reshape(2, -1).T),
            (f"half-split order, reordered from adjacent pairs once too often{of or ','}", within.reshape(-1, 2).T),
        ):
            orders[words] = np.concatenate([order.reshape(-1), still])
    return orders


def _reordered(q: Question, source: Rows) -> Callable[[Rows], Stored]:
    """Row (or element of a vector) i is the right side's row source[i]."""
    if q.is_vector:
        return lambda rows: q.a(rows).moved(lambda x: x[:, source])
    return lambda rows: q.a(source[rows])


def rows_permuted(q: Question) -> Iterator[Prediction]:
    """The affected rows (or columns) are other rows of the right side's tensor, matched by correlation."""
    if q.is_vector:
        yield from _elements_permuted(q)
        return
    rows = q.affected_rows
    if len(rows) > 1:
        wrong = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MATCHED)).astype(np.int64)]
        order = np.arange(len(q.wrong.rows))
        few = len(order) <= _SOURCES  # a row that is right may stand where another belongs, too
        source = order.copy() if few else rows if len(rows) <= _SOURCES else order[: 4 * _SOURCES]
        if len(rows) == len(wrong) and len(rows) <= _SOURCES:
            order[rows] = source[_best_match(q.b(rows).values, q.a(source).values)]
        else:
            order = _shift(wrong, source[_best_match(q.b(wrong).values, q.a(source).values)], len(order))
        moved = int((order != np.arange(len(order))).sum())
        if moved:
            yield Prediction("rows_permuted", f"{moved} rows of {q.what} are other rows", _reordered(q, order))
    yield from _columns_permuted(q)


def _shift(rows: Rows, found: Rows, count: int) -> Rows:
    """All rows moved by the shift that most of the matched ones have."""
    shifts, times = np.unique((found - rows) % count, return_counts=True)
    return np.asarray((np.arange(count) + shifts[times.argmax()]) % count)


def _best_match(wrong: Floats, right: Floats) -> Rows:
    """For every wrong row the right row that points most nearly the same way; none with lost values is like another."""
    lost = np.asarray(~np.isfinite(right).all(axis=1))
    if not np.isfinite(wrong).all() or lost.all():
        return np.zeros(len(wrong), dtype=np.int64)
    right = np.where(lost[:, None], np.float32(0), right)
    unit_wrong, unit_right = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (wrong, right))
    alike = unit_wrong @ unit_right.T
    alike[:, lost] = -np.inf
    return np.asarray(alike.argmax(axis=1))


def _columns_permuted(q: Question) -> Iterator[Prediction]:
    if q.wrong.shape[1] > _SOURCES or len(q.affected_rows) < 0.5 * len(q.wrong.rows):
        return
    right, wrong = q.a(q.all_rows).values, q.b(q.all_rows).values
    order = _best_match(wrong.T.copy(), right.T.copy())
    moved = int((order != np.arange(len(order))).sum())
    if moved:
        words = f"{moved} columns of {q.what} are other columns"
        yield Prediction("rows_permuted", words, lambda rows: q.a(rows).moved(lambda x: x[:, order]))


def _elements_permuted(q: Question) -> Iterator[Prediction]:
    row = np.zeros(1, dtype=np.int64)
    a, b = q.a(row).values[0], q.b(row).values[0]
    order = np.empty(len(b), np.int64)
    order[np.argsort(b, kind="stable")] = np.argsort(a, kind="stable")
    moved = int((order != np.arange(len(order))).sum())
    if moved:
        words = f"{moved} elements of {q.what} are in another order"
        yield Prediction("rows_permuted", words, _reordered(q, order))


def transposed(q: Question) -> Iterator[Prediction]:
    """The values of the transposed matrix, read with the shape of the matrix itself."""
    if q.is_vector:
        return
    rows, columns = q.wrong.shape
    words = "transposed" if rows == columns else "transposed and then read with its own shape"
    yield Prediction("transposed", f"{q.what} is {words}", lambda chosen: _transposed_rows(q, chosen))
    if rows != columns:
        words = "read with the shape of its transpose and then transposed"
        yield Prediction("transposed", f"{q.what} is {words}", lambda chosen: _reread_rows(q, chosen))


def _transposed_rows(q: Question, chosen: Rows) -> Stored:
    """Rows of A.T.reshape(A.shape): element f of the flat transpose is A[f % rows, f // rows]."""
    rows, columns = q.wrong.shape
    flat = chosen[:, None] * columns + np.arange(columns)
    return _gathered(q, flat % rows, flat // rows)


def _reread_rows(q: Question, chosen: Rows) -> Stored:
    """Rows of A.reshape(A.T.shape).T: element (r, c) is flat element c * rows + r of A."""
    rows, columns = q.wrong.shape
    flat = np.arange(columns)[None, :] * rows + chosen[:, None]
    return _gathered(q, flat // columns, flat % columns)


def _gathered(q: Question, rows: Rows, columns: Rows) -> Stored:
    needed = np.unique(columns)
    values, width = q.columns(needed)
    at = rows, np.searchsorted(needed, columns)
    return Stored(values[at], width[at])
