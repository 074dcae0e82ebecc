"""Edits that plant a mistake in one tensor: of its plain values before they are stored, or of its stored rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import gguf
import numpy as np

from kernels.formats.format import BlockFormat
from kernels.rows.fields import bytes_of_codes, fields
from kernels.weight import TensorType
from tests.faults.models import Plain
from tests.faults.storing import Format, packed, type_of

Values = np.ndarray


@dataclass(frozen=True)
class Context:
    """What an edit may look at."""

    plain: Plain
    name: str
    format: Format
    rng: np.random.Generator

    @property
    def layer(self) -> int:
        return int(self.name.split(".")[2])

    @property
    def head_dim(self) -> int:
        return self.plain.config.head_dim

    def sibling(self, old: str, new: str) -> Values:
        return self.plain.values[self.name.replace(old, new)]


def head(values: Values, c: Context, change: Callable[[Values], Values]) -> Values:
    """Change the rows (of o_proj: the columns) of one head."""
    out = values.copy()
    if "o_proj" in c.name:
        head = int(c.rng.integers(values.shape[1] // c.head_dim))
        part = (slice(None), slice(head * c.head_dim, (head + 1) * c.head_dim))
    else:
        head = int(c.rng.integers(values.shape[0] // c.head_dim))
        part = (slice(head * c.head_dim, (head + 1) * c.head_dim),)
    out[part] = change(out[part])
    return out


def row(values: Values, c: Context, change: Callable[[Values], Values]) -> Values:
    out = values.copy()
    row = int(c.rng.integers(len(values)))
    out[row] = change(out[row])
    return out


def times(factor: float) -> Callable[[Values, Context], Values]:
    return lambda values, c: values * np.float32(factor)


def transposed(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.T).reshape(values.shape)


def reread(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.reshape(values.shape[::-1]).T)


def adjacent(values: Values, c: Context) -> Values:
    """Half-split rows to adjacent pairs, as a GGUF of llama stores them."""
    shape = (-1, 2, c.head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2)).reshape(values.shape)


def halves(values: Values, c: Context) -> Values:
    shape = (-1, c.head_dim // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2)).reshape(values.shape)


def gate_and_up_exchanged(values: Values, c: Context) -> Values:
    return c.sibling("gate", "up") if "gate" in c.name else c.sibling("up", "gate")


def one_head_adjacent(values: Values, c: Context) -> Values:
    return head(values, c, lambda part: adjacent(part, c))


def other_layer(step: int) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        layers = c.plain.config.num_hidden_layers
        return c.plain.values[c.name.replace(f"layers.{c.layer}.", f"layers.{(c.layer + step) % layers}.")].copy()

    return edit


def heads_reversed(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.reshape(-1, c.head_dim, *values.shape[1:])[::-1]).reshape(values.shape)


def heads_rolled(values: Values, c: Context) -> Values:
    return np.roll(values, c.head_dim, axis=0)


def rows_shuffled(share: float) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        out = values.copy()
        rows = c.rng.choice(len(values), max(2, int(share * len(values))), replace=False)
        out[rows] = values[np.roll(rows, 1)]
        return out

    return edit


def bf16_cut(values: Values, c: Context) -> Values:
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def mantissa_cut(bits: int) -> Callable[[Values, Context], Values]:
    mask = np.uint32((0xFFFFFFFF << (23 - bits)) & 0xFFFFFFFF)
    return lambda values, c: (values.view(np.uint32) & mask).view(np.float32)


def bf16_rounded(values: Values, c: Context) -> Values:
    return gguf.quants.dequantize(
        gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16), gguf.GGMLQuantizationType.BF16
    )


def f16_rounded(values: Values, c: Context) -> Values:
    return values.astype(np.float16).astype(np.float32)


def through(type: TensorType) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        kind = gguf.GGMLQuantizationType(type)
        return gguf.quants.dequantize(packed(values, type), kind).reshape(values.shape).astype(np.float32)

    return edit


def int8_per_row(values: Values, c: Context) -> Values:
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    return (np.round(values / step) * step).astype(np.float32)


def int4_groups(values: Values, c: Context) -> Values:
    groups = values.reshape(-1, 32)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    step = (high - low) / 15
    return (np.round((groups - low) / step) * step + low).reshape(values.shape).astype(np.float32)


def group_offset(values: Values, c: Context) -> Values:
    """Every group of 32 one step of 4 bits too low, as a zero point that is read as one more."""
    groups = values.reshape(-1, 32)
    return (groups - np.abs(groups).max(axis=1, keepdims=True) / 7).reshape(values.shape).astype(np.float32)


def low_rank(rank: int) -> Callable[[Values, Context], Values]:
    """A merged adapter of about a third of the values' size."""

    def edit(values: Values, c: Context) -> Values:
        down, up = c.rng.standard_normal((rank, values.shape[1])), c.rng.standard_normal((values.shape[0], rank))
        return (values + 0.3 * values.std() * (up @ down) / rank**0.5).astype(np.float32)

    return edit


def holds_rank(rank: int) -> Callable[[Values, Context], bool]:
    """Whether a difference of that rank is low: at least four values to every number that it is free in."""
    return lambda values, c: values.size >= 4 * rank * sum(values.shape)


def other_training(values: Values, c: Context) -> Values:
    """Values of another checkpoint: all moved by a few hundredths of their size."""
    rng = np.random.default_rng(list(c.name.encode()))
    return values + np.float32(0.05 * values.std()) * rng.standard_normal(values.shape).astype(np.float32)


def rank_by_rank(*modules: str) -> Callable[[Values, Context], Values]:
    """Rows of fused tensors that two ranks stored one after another, read as if the tensors followed each other."""

    def edit(values: Values, c: Context) -> Values:
        own = next(module for module in modules if module in c.name)
        parts = [c.sibling(own, module) for module in modules]
        halves = [np.split(part, 2) for part in parts]
        joined = np.concatenate([half[rank] for rank in (0, 1) for half in halves])
        first = sum(len(part) for part in parts[: modules.index(own)])
        return joined[first : first + len(values)]

    return edit


def float8_codes(values: Values, c: Context) -> Values:
    """The numbers that FP8 E4M3 codes stand for, without the scale that brings them back."""
    scaled = values * (np.float32(448) / np.abs(values).max())
    power = np.maximum(np.frexp(scaled)[1] - 1, -6)
    step = np.ldexp(np.float32(1), power - 3)
    return (np.round(scaled / step) * step).astype(np.float32)


def infinite_value(values: Values, c: Context) -> Values:
    out = values.copy()
    out[tuple(c.rng.integers(size) for size in values.shape)] = np.inf
    return out


def block_codes(rows: Values, c: Context, type: TensorType, count: int, byte: Callable[[Values], Values]) -> Values:
    out = rows.copy()
    size = type.block.bytes if type.block.elements > 1 else 32 * type.block.bytes
    first = int(c.rng.integers(max(1, len(rows) - count)))
    block = int(c.rng.integers(rows.shape[1] // size)) * size
    part = out[first : first + count, block : block + size]
    out[first : first + count, block : block + size] = byte(part)
    return out


def corrupt_random(rows: Values, c: Context, type: TensorType) -> Values:
    return block_codes(rows, c, type, 1, lambda part: c.rng.integers(0, 256, part.shape, dtype=np.uint8))


def corrupt_rows(rows: Values, c: Context, type: TensorType) -> Values:
    values = bytes_of_codes(type.format) if isinstance(type.format, BlockFormat) else slice(None)

    def invert(part: Values) -> Values:
        out = part.copy()
        out[:, values] ^= 0xFF
        return out

    return block_codes(rows, c, type, 8, invert)


# Where the second lowest bit of an exponent is, by the way that scales are kept: bytes from d on, and the bit.
_EXPONENT_BIT = {"half": (1, 0x08), "E8M0": (0, 0x02), "nibbles": (5, 0x80), "UE4M3": (0, 0x10)}


def corrupt_scale(rows: Values, c: Context, type: TensorType) -> Values:
    at, bit = _EXPONENT_BIT[type.format.d_as]

    def flip(part: Values) -> Values:
        out = part.copy()
        out[:, type.format.d + at] ^= bit
        return out

    return block_codes(rows, c, type, 1, flip)


def nan_scale(rows: Values, c: Context, type: TensorType) -> Values:
    at = type.format.d

    def replace(part: Values) -> Values:
        out = part.copy()
        out[:, at : at + 2] = (0x00, 0x7E)
        return out

    return block_codes(rows, c, type, 1, replace)


def corrupt_sub_scales(rows: Values, c: Context, type: TensorType) -> Values:
    def flip(part: Values) -> Values:
        out = part.copy()
        out[:, _bytes_of_scales(type)] ^= 0x15
        return out

    return block_codes(rows, c, type, 2, flip)


@cache
def _bytes_of_scales(type: TensorType) -> Values:
    """Which bytes of a block the integer scales and mins of its groups are made of."""
    full = 255 * np.eye(type.block.bytes, dtype=np.uint8)
    empty, each = fields(type.format, np.zeros_like(full)), fields(type.format, full)
    return np.flatnonzero((each.scales != empty.scales).any(axis=1) | (each.mins != empty.mins).any(axis=1))


def shifted_blocks(rows: Values, c: Context, type: TensorType) -> Values:
    """The bytes of a few rows moved by one, as after a lost byte."""
    out = rows.copy()
    first = int(c.rng.integers(max(1, len(rows) - 4)))
    out[first : first + 4] = np.roll(out[first : first + 4].reshape(-1), 1).reshape(4, -1)
    return out


def element_noise(values: Values, c: Context) -> Values:
    return values + np.float32(0.3 * values.std()) * c.rng.standard_normal(values.shape).astype(np.float32)


def quantized(values: Values, c: Context) -> bool:
    return type_of(c.name, values, c.format).block.elements > 1


def with_half_scale(values: Values, c: Context) -> bool:
    return quantized(values, c) and type_of(c.name, values, c.format).format.d_as == "half"


def with_sub_scales(values: Values, c: Context) -> bool:
    type = type_of(c.name, values, c.format)
    return type.block.elements == 256 and len(_bytes_of_scales(type)) > 0


def square(values: Values, c: Context) -> bool:
    return values.shape[0] == values.shape[1]


def oblong(values: Values, c: Context) -> bool:
    return values.shape[0] != values.shape[1]


def same_shape(old: str, new: str) -> Callable[[Values, Context], bool]:
    return lambda values, c: c.sibling(old, new).shape == values.shape


def finer(bits: int) -> Callable[[Values, Context], bool]:
    """Whether the format of the broken side keeps more mantissa bits than the fault leaves."""
    kept = {TensorType.F32: 23, TensorType.F16: 10, TensorType.BF16: 7}
    return lambda values, c: kept.get(type_of(c.name, values, c.format), 0) > bits


def finer_than(type: TensorType) -> Callable[[Values, Context], bool]:
    levels = (
        "Q2_K",
        "Q3_K",
        "Q4_0 MXFP4",
        "Q4_1 Q4_K IQ4_NL IQ4_XS",
        "Q5_0 Q5_1",
        "Q5_K",
        "Q6_K",
        "Q8_0",
        "BF16",
        "F16",
        "F32",
    )
    order = {name: level for level, names in enumerate(levels) for name in names.split()}

    def fits(values: Values, c: Context) -> bool:
        own = order[type_of(c.name, values, c.format).name]
        return values.shape[1] % type.block.elements == 0 and own > order[type.name] + 1

    return fits
