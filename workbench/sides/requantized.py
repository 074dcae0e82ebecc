"""Whether a copy is, byte for byte, what its quantizer makes of the source, where the rounding of its types is known.

Known are floats, and the types that ggml rounds value by value: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 without importances.
What is no such tensor, or was made with importances, is explained by its format at best.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kernels.formats.format import FloatFormat
from kernels.graph import Model
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType, Weight
from workbench.bisect.weights.rounded_twice import TYPES, quantized
from workbench.bisect.weights.roundings import rounded
from workbench.bisect.weights.tensor_pairs import TensorPairs, stored_name

Made = Literal["copied", "requantized", "explained", "uncomparable"]
_CHUNK = 1 << 20  # values that are quantized at once
_NAMED = 3  # tensors that a line of text names


@dataclass(frozen=True, slots=True)
class Tensors:
    """How many tensors of a copy are what.

    copied : type and bytes of the source. requantized : what the quantizer makes of the source, byte for byte.
    explained : within what their formats allow, made by a rounding that is not repeated here. uncomparable : names of
    those that have another shape than in the source. wrong : names of those that are none of all that.
    """

    copied: int = 0
    requantized: int = 0
    explained: int = 0
    uncomparable: tuple[str, ...] = field(default=())
    wrong: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        counts = {"copied": self.copied, "requantized": self.requantized, "explained": self.explained}
        return counts | {"uncomparable": list(self.uncomparable), "wrong": list(self.wrong)}

    @property
    def words(self) -> str:
        """The counts in words."""
        parts = (
            (self.copied, "the source's own bytes"),
            (self.requantized, "byte for byte what the quantizer makes of the source"),
            (self.explained, "explained by their formats"),
            (len(self.uncomparable), f"of another shape and not comparable ({_some(self.uncomparable)})"),
            (len(self.wrong), "wrong"),
        )
        return ", ".join(f"{count} {words}" for count, words in parts if count)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def tensors_of(source: Model, copy: Model, wrong: set[str]) -> Tensors:
    """Count the tensors that both have, each once. wrong : canonical names of those that a bisection accuses."""
    found: dict[Made, list[str]] = {"copied": [], "requantized": [], "explained": [], "uncomparable": []}
    for name in dict.fromkeys(stored_name(copy, name) for name in TensorPairs(source, copy).names):
        if name not in wrong:
            found[made(source.weight(name), copy.weight(name))].append(name)
    copied, requantized, explained = (len(found[how]) for how in ("copied", "requantized", "explained"))
    return Tensors(copied, requantized, explained, tuple(found["uncomparable"]), tuple(sorted(wrong)))


def made(source: Weight, copy: Weight) -> Made:
    """How a tensor of a copy came about."""
    if source.shape != copy.shape:
        return "uncomparable"
    if copy.equals(source):
        return "copied"
    known = isinstance(copy.type.format, FloatFormat) or copy.type in TYPES
    return "requantized" if known and _same(source, copy) else "explained"


def _same(source: Weight, copy: Weight) -> bool:
    columns = source.shape[-1]
    share = max(1, _CHUNK // columns)
    for start in range(0, len(copy.rows), share):
        part = slice(start, start + share)
        values = dequantize_rows(source.type, np.ascontiguousarray(source.rows[part]), columns)
        stored = np.ascontiguousarray(copy.rows[part])
        if copy.type in TYPES:
            alike = np.array_equal(quantized(copy.type, values), stored)
        else:
            kept = _as_float(copy.type, values)
            alike = kept is not None and np.array_equal(kept, dequantize_rows(copy.type, stored, columns))
        if not alike:
            return False
    return True


def _as_float(type: TensorType, values: "np.ndarray[Any, np.dtype[np.float32]]") -> Any:  # noqa: ANN401
    """The values rounded to the nearest of a type; None for a type whose rounding is not one thing (FP8)."""
    if type == TensorType["F32"]:
        return values
    if type == TensorType["F16"]:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    return rounded(values, 7) if type == TensorType["BF16"] else None
