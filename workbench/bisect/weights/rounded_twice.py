"""A copy of a copy: the right values kept in another quantized type before they were rounded to the stored one.

Where the steps of two types interlock (15 and 31 of one range, say), a second rounding moves values systematically, so
that the copy looks like the source times a factor. So both roundings are made anew, by ggml's rules without
importances, and must make the stored values. Of a type whose scales are searched for, the stored codes must be the
nearest ones.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType
from workbench.bisect.weights.check import ONCE, excess_of
from workbench.bisect.weights.question import Question, Rows, spread
from workbench.bisect.weights.steps import Floats

TYPES = tuple(TensorType[name] for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))  # that gguf-py quantizes to
_FEW, _MOST = 1 << 15, 1 << 22  # elements of a first look, and of a tensor at most
_PART = 1 << 19  # of them at once
_SAME = 0.5  # half steps, that a value of the same code is away at most
# Share of other codes: 0; 0.03 (of 8 bits 0.14) where A is a BF16 copy of what B was made of, and 0.35 times that of
# the same values not rounded before; 0.6 times beside a copy in Q6_K. Another first type than the right one leaves at
# least 0.69 times as many as none.
_OTHERS, _FEWER = 0.15, 0.62
_FEWEST = 32  # other codes without a rounding before; fewer tell nothing


def first_type(q: Question) -> TensorType | None:
    """The type that the right values were kept in before B's; None if no other type makes the wrong tensor so.

    Nothing tells it of codes that are points of a grid, which are hardly ever the nearest ones of single values.
    """
    format = q.wrong.type.format
    if q.is_vector or not isinstance(format, BlockFormat) or format.grid is not None:
        return None
    if not np.isfinite(q.verdict.worst):
        return None
    rows, columns = q.wrong.shape
    types = [type for type in TYPES if type not in (q.wrong.type, q.source.type)]
    types = [type for type in types if columns % type.block.elements == 0]
    for most in (_FEW, _MOST):
        some = spread(np.arange(rows), max(1, most // columns))
        types = _that_make(q, types, np.array_split(some, -(-some.size * columns // _PART)))
    return types[0] if types else None


def _that_make(q: Question, types: list[TensorType], parts: list[Rows]) -> list[TensorType]:
    """The types that lead to the stored codes, the best first."""
    if not types or (once := _others(q, None, parts)) < _FEWEST:
        return []
    most = min(_OTHERS * sum(part.size for part in parts) * q.wrong.shape[-1], _FEWER * once)
    others = {type: _others(q, type, parts) for type in types}
    return sorted((type for type in types if others[type] <= most), key=lambda type: others[type])


def _others(q: Question, first: TensorType | None, parts: list[Rows]) -> int:
    """How many stored codes are others than those of the right values, or of what another type keeps of them."""
    total, known = 0, q.wrong.type in TYPES
    for part in parts:
        right, wrong = q.a(part), q.b(part)
        values = right.values if first is None else kept_in(first, right.values)
        made = right.exactly(kept_in(q.wrong.type, values) if known else values)
        total += int((excess_of(made, wrong) > (_SAME if known else ONCE)).sum())
    return total


def kept_in(type: TensorType, values: Floats) -> Floats:
    """What a type keeps of values (rows of whole blocks), as ggml rounds without importances."""
    return dequantize_rows(type, quantized(type, values), values.shape[1])


def quantized(type: TensorType, values: Floats) -> NDArray[np.uint8]:
    """Stored rows of one of TYPES, of values (rows of whole blocks), as ggml rounds without importances.

    gguf-py has a copy of it.
    """
    from gguf import GGMLQuantizationType  # takes a while, and few pairs need it
    from gguf.quants import quantize

    rows = np.ascontiguousarray(quantize(np.ascontiguousarray(values), GGMLQuantizationType(int(type))))
    return rows.view(np.uint8).reshape(len(values), -1)
