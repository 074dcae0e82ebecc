"""Mistakes in tensors: each is an edit of one or a few plain arrays, before they are stored, or of stored blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gguf
import numpy as np

from kernels.stages import Site
from kernels.weight import BLOCKS, TensorType
from tests.faults.cases import Expected
from tests.faults.models import Plain
from tests.faults.storing import Format, packed, type_of
from tests.memory_model import MemoryModel
from tests.reference import k_quants

_STAGE = {
    "input_layernorm.weight": "attn_norm",
    "post_attention_layernorm.weight": "ffn_norm",
    **{f"self_attn.{x}_proj.weight": "qkv_matmul" for x in "qkv"},
    **{f"self_attn.{x}_proj.bias": "qkv_bias" for x in "qkv"},
    "self_attn.o_proj.weight": "attn_out",
    "mlp.gate_proj.weight": "ffn_gate",
    "mlp.up_proj.weight": "ffn_up",
    "mlp.down_proj.weight": "ffn_out",
    "model.embed_tokens.weight": "embedding",
    "model.norm.weight": "final_norm",
    "lm_head.weight": "lm_head",
}
_MATRICES = (
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_BIASES = ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")

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


@dataclass(frozen=True)
class WeightFault:
    """edit : the tensor's new values (None: taken away). suffixes : tensors that it makes sense in.

    needs : formats of the broken side; whole : it edits several tensors (a dict of new values).
    """

    kind: str
    causes: tuple[str, ...]
    suffixes: tuple[str, ...]
    edit: Callable[[Values, Context], Values]
    fits: Callable[[Values, Context], bool] = lambda values, context: True
    blocks: bool = False  # the edit is of stored rows
    factors: tuple[str, ...] = ("weights",)


def site_of(name: str) -> Site:
    """The stage that uses a tensor."""
    if name.startswith("model.layers."):
        _, _, layer, suffix = name.split(".", 3)
        return Site(int(layer), _STAGE[suffix])
    return Site(None, _STAGE[name])


def expected_of(fault: WeightFault, name: str) -> Expected:
    return Expected((site_of(name),), fault.factors, fault.causes)


# --- the edits -------------------------------------------------------------------------------------------------------


def _head(values: Values, c: Context, change: Callable[[Values], Values]) -> Values:
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


def _row(values: Values, c: Context, change: Callable[[Values], Values]) -> Values:
    out = values.copy()
    row = int(c.rng.integers(len(values)))
    out[row] = change(out[row])
    return out


def _times(factor: float) -> Callable[[Values, Context], Values]:
    return lambda values, c: values * np.float32(factor)


def _transposed(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.T).reshape(values.shape)


def _reread(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.reshape(values.shape[::-1]).T)


def _adjacent(values: Values, c: Context) -> Values:
    """Half-split rows to adjacent pairs, as a GGUF of llama stores them."""
    shape = (-1, 2, c.head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2)).reshape(values.shape)


def _halves(values: Values, c: Context) -> Values:
    shape = (-1, c.head_dim // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2)).reshape(values.shape)


def _one_head_adjacent(values: Values, c: Context) -> Values:
    return _head(values, c, lambda part: _adjacent(part, c))


def _other_layer(step: int) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        layers = c.plain.config.num_hidden_layers
        return c.plain.values[c.name.replace(f"layers.{c.layer}.", f"layers.{(c.layer + step) % layers}.")].copy()

    return edit


def _heads_reversed(values: Values, c: Context) -> Values:
    return np.ascontiguousarray(values.reshape(-1, c.head_dim, *values.shape[1:])[::-1]).reshape(values.shape)


def _heads_rolled(values: Values, c: Context) -> Values:
    return np.roll(values, c.head_dim, axis=0)


def _rows_shuffled(share: float) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        out = values.copy()
        rows = c.rng.choice(len(values), max(2, int(share * len(values))), replace=False)
        out[rows] = values[np.roll(rows, 1)]
        return out

    return edit


def _bf16_cut(values: Values, c: Context) -> Values:
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _mantissa_cut(bits: int) -> Callable[[Values, Context], Values]:
    mask = np.uint32((0xFFFFFFFF << (23 - bits)) & 0xFFFFFFFF)
    return lambda values, c: (values.view(np.uint32) & mask).view(np.float32)


def _bf16_rounded(values: Values, c: Context) -> Values:
    return gguf.quants.dequantize(
        gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16), gguf.GGMLQuantizationType.BF16
    )


def _f16_rounded(values: Values, c: Context) -> Values:
    return values.astype(np.float16).astype(np.float32)


def _through(type: TensorType) -> Callable[[Values, Context], Values]:
    def edit(values: Values, c: Context) -> Values:
        kind = gguf.GGMLQuantizationType(type)
        return gguf.quants.dequantize(packed(values, type), kind).reshape(values.shape).astype(np.float32)

    return edit


def _int8_per_row(values: Values, c: Context) -> Values:
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    return (np.round(values / step) * step).astype(np.float32)


def _int4_groups(values: Values, c: Context) -> Values:
    groups = values.reshape(-1, 32)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    step = (high - low) / 15
    return (np.round((groups - low) / step) * step + low).reshape(values.shape).astype(np.float32)


def _block_codes(rows: Values, c: Context, type: TensorType, count: int, byte: Callable[[Values], Values]) -> Values:
    out = rows.copy()
    size = BLOCKS[type].bytes if BLOCKS[type].elements > 1 else 32 * BLOCKS[type].bytes
    first = int(c.rng.integers(max(1, len(rows) - count)))
    block = int(c.rng.integers(rows.shape[1] // size)) * size
    part = out[first : first + count, block : block + size]
    out[first : first + count, block : block + size] = byte(part)
    return out


def _corrupt_random(rows: Values, c: Context, type: TensorType) -> Values:
    return _block_codes(rows, c, type, 1, lambda part: c.rng.integers(0, 256, part.shape, dtype=np.uint8))


def _corrupt_rows(rows: Values, c: Context, type: TensorType) -> Values:
    first = _first_value_byte(type)

    def invert(part: Values) -> Values:
        out = part.copy()
        out[:, first : _last_value_byte(type)] ^= 0xFF
        return out

    return _block_codes(rows, c, type, 8, invert)


def _first_value_byte(type: TensorType) -> int:
    return {TensorType.Q4_K: 16, TensorType.Q5_K: 16, TensorType.Q8_0: 2, TensorType.Q4_0: 2, TensorType.Q5_0: 2}.get(
        type, 0
    )


def _last_value_byte(type: TensorType) -> int:
    return {TensorType.Q6_K: 192}.get(type, 10**6)


def _corrupt_scale(rows: Values, c: Context, type: TensorType) -> Values:
    at = 208 if type == TensorType.Q6_K else 0

    def flip(part: Values) -> Values:
        out = part.copy()
        out[:, at + 1] ^= 0x08  # an exponent bit of the half-precision scale
        return out

    return _block_codes(rows, c, type, 1, flip)


def _corrupt_sub_scales(rows: Values, c: Context, type: TensorType) -> Values:
    at = slice(192, 208) if type == TensorType.Q6_K else slice(4, 16)

    def flip(part: Values) -> Values:
        out = part.copy()
        out[:, at] ^= 0x15
        return out

    return _block_codes(rows, c, type, 2, flip)


def _shifted_blocks(rows: Values, c: Context, type: TensorType) -> Values:
    """The bytes of a few rows moved by one, as after a lost byte."""
    out = rows.copy()
    first = int(c.rng.integers(max(1, len(rows) - 4)))
    out[first : first + 4] = np.roll(out[first : first + 4].reshape(-1), 1).reshape(4, -1)
    return out


def _element_noise(values: Values, c: Context) -> Values:
    return values + np.float32(0.3 * values.std()) * c.rng.standard_normal(values.shape).astype(np.float32)


def _quantized(values: Values, c: Context) -> bool:
    return BLOCKS[type_of(c.name, values, c.format)].elements > 1


def _with_sub_scales(values: Values, c: Context) -> bool:
    return BLOCKS[type_of(c.name, values, c.format)].elements == 256


def _square(values: Values, c: Context) -> bool:
    return values.shape[0] == values.shape[1]


def _oblong(values: Values, c: Context) -> bool:
    return values.shape[0] != values.shape[1]


def _same_shape(old: str, new: str) -> Callable[[Values, Context], bool]:
    return lambda values, c: c.sibling(old, new).shape == values.shape


def _finer(bits: int) -> Callable[[Values, Context], bool]:
    """Whether the format of the broken side keeps more mantissa bits than the fault leaves."""
    kept = {TensorType.F32: 23, TensorType.F16: 10, TensorType.BF16: 7}
    return lambda values, c: kept.get(type_of(c.name, values, c.format), 0) > bits


def _finer_than(type: TensorType) -> Callable[[Values, Context], bool]:
    order = [
        *(TensorType.Q4_0, TensorType.Q4_K, TensorType.Q5_0, TensorType.Q5_K, TensorType.Q6_K, TensorType.Q8_0),
        *(TensorType.BF16, TensorType.F16, TensorType.F32),
    ]

    def fits(values: Values, c: Context) -> bool:
        own = order.index(type_of(c.name, values, c.format))
        return values.shape[1] % BLOCKS[type].elements == 0 and own > order.index(type) + 1

    return fits


_QK = _MATRICES[:2]
_QKV = _MATRICES[:3]
_W = WeightFault

WEIGHT_FAULTS: tuple[WeightFault, ...] = (
    _W("transposed square", ("transposed",), _MATRICES, _transposed, _square),
    _W("transposed oblong", ("transposed",), _MATRICES, _transposed, _oblong),
    _W("transposed reread", ("transposed",), _MATRICES, _reread, _oblong),
    _W("permuted_rope to pairs", ("permuted_rope",), _QK, _adjacent),
    _W("permuted_rope to halves", ("permuted_rope",), _QK, _halves),
    _W("permuted_rope one head", ("permuted_rope",), _QK, _one_head_adjacent),
    _W("permuted_rope bias", ("permuted_rope",), _BIASES[:2], _adjacent),
    _W("gate is up", ("gate_up_swapped",), ("mlp.gate_proj.weight",), lambda v, c: c.sibling("gate", "up")),
    _W("up is gate", ("gate_up_swapped",), ("mlp.up_proj.weight",), lambda v, c: c.sibling("up", "gate")),
    _W("q is k", ("qk_swapped",), _MATRICES[:1], lambda v, c: c.sibling("q_", "k_"), _same_shape("q_", "k_")),
    _W("k is q", ("qk_swapped",), _MATRICES[1:2], lambda v, c: c.sibling("k_", "q_"), _same_shape("k_", "q_")),
    _W("k is v", ("qk_swapped",), _MATRICES[1:2], lambda v, c: c.sibling("k_", "v_")),
    _W("wrong_layer next", ("wrong_layer",), (*_MATRICES, *_NORMS, *_BIASES), _other_layer(1)),
    _W("wrong_layer before", ("wrong_layer",), (*_MATRICES, *_NORMS, *_BIASES), _other_layer(-1)),
    *(
        _W(f"scaled {f}", ("scaled",), (*_MATRICES, *_NORMS, *_BIASES), _times(f))
        for f in (1.02, 1.1, 1.25, 2.0, 0.5, 0.125)
    ),
    *(
        _W(
            f"scaled {f} one head",
            ("scaled",),
            (*_QKV, _MATRICES[3]),
            lambda v, c, f=f: _head(v, c, lambda p: p * np.float32(f)),
        )
        for f in (1.05, 1.5, 2.0)
    ),
    *(
        _W(
            f"scaled {f} one row",
            ("scaled", "corrupted_blocks"),
            _MATRICES,
            lambda v, c, f=f: _row(v, c, lambda p: p * np.float32(f)),
        )
        for f in (1.25, 3.0)
    ),
    _W("sign_flipped", ("sign_flipped",), (*_MATRICES, *_NORMS, *_BIASES), _times(-1)),
    _W("sign_flipped head", ("sign_flipped",), _QKV, lambda v, c: _head(v, c, np.negative)),
    _W("sign_flipped row", ("sign_flipped", "corrupted_blocks"), _MATRICES, lambda v, c: _row(v, c, np.negative)),
    _W("zeroed", ("zeroed",), (*_MATRICES, *_BIASES, *_NORMS), _times(0)),
    _W("zeroed head", ("zeroed",), (*_QKV, _MATRICES[3]), lambda v, c: _head(v, c, np.zeros_like)),
    _W("zeroed row", ("zeroed", "corrupted_blocks"), _MATRICES, lambda v, c: _row(v, c, np.zeros_like)),
    _W("zeroed head of bias", ("zeroed",), _BIASES, lambda v, c: _head(v, c, np.zeros_like)),
    _W("norm_offset +1", ("norm_offset",), _NORMS, lambda v, c: v + np.float32(1)),
    _W("norm_offset -1", ("norm_offset",), _NORMS, lambda v, c: v - np.float32(1)),
    _W("bias_wrong random", ("bias_wrong",), _BIASES, lambda v, c: c.rng.permutation(v) * np.float32(1.7) + 1),
    _W("bias_wrong noise", ("bias_wrong",), _BIASES, _element_noise),
    _W("bias shuffled", ("rows_permuted", "bias_wrong"), _BIASES, lambda v, c: c.rng.permutation(v)),
    _W("rows_permuted heads reversed", ("rows_permuted",), _QKV, _heads_reversed, lambda v, c: len(v) > c.head_dim),
    _W("rows_permuted heads rolled", ("rows_permuted",), _QKV, _heads_rolled, lambda v, c: len(v) > c.head_dim),
    _W("rows_permuted all", ("rows_permuted",), _MATRICES, lambda v, c: c.rng.permutation(v)),
    _W("rows_permuted some", ("rows_permuted",), _MATRICES, _rows_shuffled(0.1)),
    _W(
        "columns permuted",
        ("rows_permuted",),
        _MATRICES[3:],
        lambda v, c: np.ascontiguousarray(v[:, c.rng.permutation(v.shape[1])]),
    ),
    _W("dtype_truncated bf16 cut", ("dtype_truncated",), (*_MATRICES, *_NORMS), _bf16_cut, _finer(7)),
    _W("dtype_truncated bf16", ("dtype_truncated",), (*_MATRICES, *_NORMS), _bf16_rounded, _finer(7)),
    _W("dtype_truncated f16", ("dtype_truncated",), (*_MATRICES, *_BIASES), _f16_rounded, _finer(10)),
    _W("dtype_truncated 5 bits", ("dtype_truncated",), _MATRICES, _mantissa_cut(5), _finer(5)),
    _W("dtype_truncated 3 bits", ("dtype_truncated",), _MATRICES, _mantissa_cut(3), _finer(3)),
    *(
        _W(f"requantized {t.name}", ("requantized",), _MATRICES, _through(t), _finer_than(t))
        for t in (TensorType.Q4_0, TensorType.Q5_0, TensorType.Q8_0, TensorType.Q4_K, TensorType.Q6_K)
    ),
    _W("requantized int8 rows", ("requantized",), _MATRICES, _int8_per_row, _finer_than(TensorType.Q8_0)),
    _W("requantized int4 groups", ("requantized",), _MATRICES, _int4_groups, _finer_than(TensorType.Q5_0)),
    _W("corrupted one block", ("corrupted_blocks",), _MATRICES, _corrupt_random, blocks=True),
    _W("corrupted 8 rows", ("corrupted_blocks",), _MATRICES, _corrupt_rows, blocks=True),
    _W("corrupted scale", ("corrupted_blocks", "scaled"), _MATRICES, _corrupt_scale, _quantized, blocks=True),
    _W("corrupted sub-scales", ("corrupted_blocks",), _MATRICES, _corrupt_sub_scales, _with_sub_scales, blocks=True),
    _W("corrupted shifted bytes", ("corrupted_blocks",), _MATRICES, _shifted_blocks, _quantized, blocks=True),
)

WHOLE_MODEL_FAULTS: tuple[WeightFault, ...] = (
    _W(
        "head is embedding",
        ("tied_embedding",),
        ("lm_head.weight",),
        lambda v, c: c.plain.values["model.embed_tokens.weight"],
    ),
    _W(
        "embedding is head",
        ("tied_embedding",),
        ("model.embed_tokens.weight",),
        lambda v, c: c.plain.values["lm_head.weight"],
    ),
    *(
        _W(f"{f.kind} model", f.causes, names, f.edit)
        for names, f in (
            (("lm_head.weight", "model.embed_tokens.weight"), _W("scaled 1.5", ("scaled",), (), _times(1.5))),
            (("lm_head.weight", "model.embed_tokens.weight"), _W("sign_flipped", ("sign_flipped",), (), _times(-1))),
            (
                ("lm_head.weight", "model.embed_tokens.weight"),
                _W("rows rolled", ("rows_permuted",), (), lambda v, c: np.roll(v, 1, axis=0)),
            ),
            (("model.norm.weight",), _W("norm_offset +1", ("norm_offset",), (), lambda v, c: v + np.float32(1))),
            (("model.norm.weight",), _W("zeroed", ("zeroed",), (), _times(0))),
            (("model.norm.weight",), _W("scaled 1.1", ("scaled",), (), _times(1.1))),
        )
    ),
)


def plant(model: MemoryModel, plain: Plain, format: Format, fault: WeightFault, name: str, seed: int) -> MemoryModel:
    """A stored model with a fault in one tensor."""
    from dataclasses import replace

    from kernels.weight import Weight

    c = Context(plain, name, format, np.random.default_rng(seed))
    weight = model.weights[name]
    if fault.blocks:
        rows = fault.edit(weight.rows, c, weight.type)
    else:
        rows = packed(fault.edit(plain.values[name], c).astype(np.float32), weight.type)
    return replace(model, weights={**model.weights, name: Weight(name, weight.type, weight.shape, rows)})


__all__ = [
    "WEIGHT_FAULTS",
    "WHOLE_MODEL_FAULTS",
    "Context",
    "WeightFault",
    "expected_of",
    "partial",
    "plant",
    "site_of",
]
assert k_quants
