"""One product in two ways, and what one relative difference hides: the other rows, and how much cancels in each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import Weight, row_bytes
from workbench.lab.experiment import Parameter
from workbench.lab.inputs import Floats

Values = NDArray[Any]

LEAST = np.float32(1e-9)  # what the published quotients are divided by at least
ROUNDING_PATHS = ("apr", "ggml")
ROUNDING_PATH = Parameter("path", "apr", "how B is computed", choices=ROUNDING_PATHS)
# The first that rounds activations to 8 bits for the weights at hand; ggml where none does.
CHOSEN_PATH = Parameter("path", "auto", "how B is computed", choices=("auto", *ROUNDING_PATHS))
_CHUNK = 1 << 22  # products that stand in memory at once


def fold(values: Values) -> Any:  # noqa: ANN401
    """Sums over the last axis from left to right, every one rounded to the dtype of the values."""
    return np.add.accumulate(values, axis=-1, dtype=values.dtype)[..., -1]


def folded(x: Floats, weight: Weight) -> Floats:
    """Path A as published: dequantized rows times x (in,), the products summed from left to right; (out,)."""
    return np.concatenate([fold(rows * x) for rows in _parts(weight)])


def rounded(x: Floats, weight: Weight, path: str = "apr") -> Floats:
    """Path B: x (in,) as 8-bit codes times the stored codes, by the rule of a numeric path; (out,)."""
    return np.asarray(numeric_path(path).matmul(np.ascontiguousarray(x).reshape(1, -1), weight)[0])


def chosen_path(asked: str, *weights: Weight) -> str:
    """The path asked for; for auto the first on which any of these weights meets 8-bit activations, else ggml."""
    if asked != "auto":
        return asked
    rounds = (path for path in ROUNDING_PATHS if any(rounds_to_codes(path, weight) for weight in weights))
    return next(rounds, ROUNDING_PATHS[-1])


def rounds_to_codes(path: str, weight: Weight) -> bool:
    """Whether a product with this weight rounds activations to 8 bits on a path."""
    row = np.zeros((1, weight.shape[1]), np.float32)
    return numeric_path(path).round_activations(row, weight) is not None


def terms(x: Values, weight: Weight) -> NDArray[np.float64]:
    """Σ|x·w| of every row for x (in,), float64 (out,): how large a product would be if nothing in it cancelled."""
    size = np.abs(x).astype(np.float64)
    return np.concatenate([np.abs(rows).astype(np.float64) @ size for rows in _parts(weight)])


def _parts(weight: Weight) -> Any:  # noqa: ANN401
    """The dequantized rows of a weight, some at a time."""
    columns, rows = weight.shape[1], weight.rows
    share = max(1, _CHUNK // columns)
    for start in range(0, len(rows), share):
        yield dequantize_rows(weight.type, np.ascontiguousarray(rows[start : start + share]), columns)


def relative(a: Values, b: Values) -> Values:
    """|a - b| / max(|a|, 1e-9), element by element and in the dtype of a, as published."""
    return np.asarray(np.abs(a - b) / np.maximum(np.abs(a), LEAST.astype(a.dtype)))


def relative_length(a: Values, b: Values) -> float:
    """‖a - b‖ / max(‖a‖, 1e-9), squares summed from left to right in the dtype of a, as published."""
    return float(np.sqrt(fold((a - b) ** 2)) / max(np.sqrt(fold(a * a)), LEAST.astype(a.dtype)))


def rel_rms(a: Values, b: Values) -> float | None:
    """‖a - b‖ / ‖a‖ of all elements in float64; None where a is zero."""
    wide, other = a.astype(np.float64), b.astype(np.float64)
    size = float(np.linalg.norm(wide))
    return float(np.linalg.norm(wide - other)) / size if size else None


@dataclass(frozen=True, eq=False)
class Products:
    """The same products in two ways, (out,), and Σ|x·w| of each."""

    a: Values
    b: Values
    terms: NDArray[np.float64]

    @property
    def relative(self) -> Values:
        """The published measure of one output."""
        return relative(self.a, self.b)

    @property
    def cancellation(self) -> NDArray[np.float64]:
        """|y| / Σ|x·w| of every output: 1 where nothing cancels, near 0 where y is a small rest of large terms."""
        return np.abs(self.a).astype(np.float64) / np.maximum(self.terms, np.finfo(np.float64).tiny)

    def against(self) -> dict[str, float | None]:
        """The vector metric, and the cancellation of the first output, on which the published value rests."""
        return {
            "vector_rel_rms": rel_rms(self.a, self.b),
            "cancellation": float(self.cancellation[0]),
            "vector_cancellation": _ratio(np.linalg.norm(self.a), np.linalg.norm(self.terms)),
        }

    def rows(self, numbers: NDArray[np.intp]) -> list[dict[str, Any]]:
        """A row of a series for each of these outputs."""
        rel, cancels = self.relative, self.cancellation
        return [
            {
                "row": int(n),
                "a": float(self.a[n]),
                "b": float(self.b[n]),
                "rel": float(rel[n]),
                "cancellation": float(cancels[n]),
            }
            for n in numbers
        ]

    def worst(self) -> str:
        """Say which output differs most, and how much of it cancels."""
        n, rel = int(np.argmax(self.relative)), self.relative
        return (
            f"the largest of {len(rel)} outputs is {percent(rel[n])} at row {n}, where {self.cancellation[n]:.2g} of "
            f"Σ|x·w| is left; the median is {percent(np.median(rel))}, all together {percent(rel_rms(self.a, self.b))}"
        )


def _ratio(top: Any, bottom: Any) -> float | None:  # noqa: ANN401
    return float(top / bottom) if bottom else None


def percent(value: Any) -> str:  # noqa: ANN401
    """A share as people write it: 0.077 %."""
    return "not known" if value is None else f"{100 * float(value):.4g} %"


def bits(value: Any) -> str:  # noqa: ANN401
    """The bits of a float32 as 0x44191e70."""
    return f"0x{int(np.float32(value).view(np.uint32)):08x}"


def spread(count: int, most: int) -> NDArray[np.intp]:
    """Up to `most` of the numbers from 0 on, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def first_columns(weight: Weight, columns: int) -> Weight:
    """The same rows, of each its first columns only; all of them where there are not more."""
    columns = min(columns, weight.shape[1])
    stored = np.ascontiguousarray(weight.rows[:, : row_bytes(weight.type, columns)])
    return Weight(weight.name, weight.type, (weight.shape[0], columns), stored)


ALIKE, UNLIKE = "the same on both sides", "UNLIKE on the two sides, which every figure holds too"
MIXED = "the weights of A and B differ, and their difference is not told from that of the two ways; give one model"


def alike(a: Weight, b: Weight) -> str:
    """Whether two sides have the same weights; where not, their difference is in whatever is measured of both."""
    return ALIKE if a.equals(b) else UNLIKE


def some_rows(weight: Weight, numbers: NDArray[np.intp]) -> Weight:
    """Some rows of a weight."""
    stored = np.ascontiguousarray(weight.rows[numbers])
    return Weight(weight.name, weight.type, (len(numbers), weight.shape[1]), stored)
