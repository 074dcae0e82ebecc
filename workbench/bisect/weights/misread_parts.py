"""What a tensor that is stored in parts becomes where another program puts them together wrongly.

The parts are those of the right side: their codes in another order, their zero points off, their scales divided by or
those of another group. What such a reader makes is the wrong side's tensor, whether a converter read the parts so or
a packer wrote them so.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.packed.codes import AWQ_ORDER
from kernels.packed.packed import Packed, Taken
from workbench.bisect.weights.part_steps import steps
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.rearrangements import rotary_orders
from workbench.bisect.weights.steps import Stored

_WORD = 8  # codes of 4 bits in 32
_FOUR_BITS = 16  # levels
_SPLIT = 32  # codes of a block whose halves lie in the lower and the upper half of the same bytes
_Misread = Callable[[Packed, Rows], Taken]


def misread_parts(q: Question) -> Iterator[Prediction]:
    """Every known way to put the parts of the right side's tensor together wrongly."""
    packed = q.source.stored
    if not isinstance(packed, Packed):
        return
    kinds = (_zero_points, _reciprocal, _orders_of_codes, _other_scales, partial(_rows_of_codes, q))
    for cause, words, misread in (found for kind in kinds for found in kind(packed)):
        explanation = f"{q.what} is what the parts of the other side's tensor ({packed.name}) make {words}"
        yield Prediction(cause, explanation, partial(_rows, packed, misread))


def _rows(packed: Packed, misread: _Misread, rows: Rows) -> Stored:
    return Stored(*steps(packed, misread(packed, rows)), carried=packed.carried)


_Found = Iterator[tuple[str, str, _Misread]]


def _zero_points(packed: Packed) -> _Found:
    """Of integer codes: one more or less, or the middle of the range for all."""
    if packed.offsets is not None or not np.array_equal(np.diff(packed.levels), np.ones(len(packed.levels) - 1)):
        return
    for by, words in ((1, "one more"), (-1, "one less")):
        yield "zero_point", f"with zero points that are {words}", partial(_with_zeros, by=by)
    if packed.zeros is not None:
        middle = len(packed.levels) // 2
        yield "zero_point", f"with {middle} for every zero point", partial(_with_zeros, instead=middle)


def _with_zeros(packed: Packed, rows: Rows, by: int = 0, instead: int | None = None) -> Taken:
    taken = packed.taken(rows)
    zeros = np.zeros_like(taken.scales) if taken.zeros is None else taken.zeros
    moved = zeros + np.float32(by) if instead is None else np.full_like(zeros, instead)
    return taken._replace(zeros=moved)


def _reciprocal(packed: Packed) -> _Found:
    """Scales that are divided by instead of multiplied with, or the other way round."""
    divisor, factor = packed.scales.divisor, packed.scales.factor
    if divisor is not None:
        by = partial(_multiplied, by=divisor * divisor)
        yield "reciprocal_scale", "multiplied with the scale of the tensor, which divides", by
    elif factor is not None:
        with np.errstate(all="ignore"):
            by = partial(_multiplied, by=1 / (factor * factor))
        yield "reciprocal_scale", "divided by the scale of the tensor, which multiplies", by
    else:
        yield "reciprocal_scale", "divided by their scales", _divided


def _divided(packed: Packed, rows: Rows) -> Taken:
    taken = packed.taken(rows)
    with np.errstate(divide="ignore"):
        return taken._replace(scales=np.float32(1) / taken.scales)


def _multiplied(packed: Packed, rows: Rows, by: np.float32) -> Taken:
    taken = packed.taken(rows)
    with np.errstate(all="ignore"):
        return taken._replace(scales=taken.scales * by)


def _orders_of_codes(packed: Packed) -> _Found:
    """The codes of a byte or a word along the row in another order; scales stay where they are."""
    columns, bits = packed.size[1], int(np.log2(len(packed.levels)))
    runs = {"of a byte": 8 // bits, "of a word": 32 // bits} if 32 % bits == 0 else {}
    orders = [(f"with the codes {what} the other way round", np.arange(size)[::-1]) for what, size in runs.items()]
    if len(packed.levels) == _FOUR_BITS:
        halves = np.arange(_SPLIT).reshape(2, -1).T.reshape(-1)
        orders += [
            ("with halves of a block in the nibbles of its bytes instead of pairs", np.argsort(halves)),
            ("with pairs in the nibbles of the bytes instead of halves of a block", halves),
        ]
    for words, order in orders:
        if len(order) > 1 and columns % len(order) == 0:
            within = (np.arange(columns).reshape(-1, len(order))[:, order]).reshape(-1)
            yield "nibble_order", words, partial(_with_columns, order=within)


def _with_columns(packed: Packed, rows: Rows, order: NDArray[np.intp]) -> Taken:
    taken = packed.taken(rows)
    return taken._replace(codes=taken.codes[:, order])


def _rows_of_codes(q: Question, packed: Packed) -> _Found:
    """Rows whose codes are elsewhere while their scales are not: in rotary order, or eight outputs of a word."""
    count = packed.size[0]
    if q.suffix.startswith(("self_attn.q_proj", "self_attn.k_proj")) and count % q.config.head_dim == 0:
        size = q.config.head_dim
        for words, order in rotary_orders(size, q.config.rotary_dim or size).items():
            by_head = np.arange(count).reshape(-1, size)[:, order].reshape(-1)
            words = f"with the rows of the codes in {words} rotary order and their scales left where they were"
            yield "scale_order", words, partial(_with_rows, order=by_head)
    if len(packed.levels) == _FOUR_BITS and count % _WORD == 0:
        orders = {"in AWQ's order": np.array(AWQ_ORDER), "in order where AWQ's is": np.argsort(AWQ_ORDER)}
        for words, order in orders.items():
            in_word = np.arange(count).reshape(-1, _WORD)[:, order].reshape(-1)
            yield "nibble_order", f"with the eight outputs of a word {words}", partial(_with_rows, order=in_word)


def _with_rows(packed: Packed, rows: Rows, order: NDArray[np.intp]) -> Taken:
    return packed.taken(rows)._replace(codes=packed.taken(order[rows]).codes)


def _other_scales(packed: Packed) -> _Found:
    """Scales, zero points and offsets of another group."""
    count = int(packed.groups.max()) + 1
    if (np.diff(packed.groups) < 0).any():
        wide = -(-packed.size[1] // count)
        yield (
            "scale_order",
            "by groups of neighbours instead of its g_idx",
            partial(_with_groups, groups=np.arange(packed.size[1]) // wide),
        )
    if count > 1:
        for by, words in ((1, "after"), (-1, "before")):
            yield (
                "scale_order",
                f"with the scales of the group {words}",
                partial(_with_groups, groups=(packed.groups + by) % count),
            )
    if packed.scales.tall > 1 and packed.size[0] > packed.scales.tall:
        for by, words in ((packed.scales.tall, "below"), (-packed.scales.tall, "above")):
            yield "scale_order", f"with the scales of the tiles {words}", partial(_with_scales_of, by=by)
    if packed.chosen is None and packed.scales.stored.shape[0] == packed.scales.stored.shape[1] > 1:
        yield "scale_order", "with their scales transposed", _transposed


def _with_groups(packed: Packed, rows: Rows, groups: NDArray[np.intp]) -> Taken:
    return packed.taken(rows, groups)


def _with_scales_of(packed: Packed, rows: Rows, by: int) -> Taken:
    others = (rows + by) % packed.size[0]
    return packed.taken(others)._replace(codes=packed.taken(rows).codes)


def _transposed(packed: Packed, rows: Rows) -> Taken:
    scales = packed.scales.of(np.arange(packed.size[0]))[:: packed.scales.tall].T
    return packed.taken(rows)._replace(scales=scales[rows // packed.scales.tall][:, packed.groups])
