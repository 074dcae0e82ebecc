"""Mistakes in tensors: which edit, where it makes sense, and what it must be found as."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kernels.config import ModelConfig
from kernels.models import Graph
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.faults import weight_edits as edits
from tests.faults.cases import Expected
from tests.faults.models import Plain
from tests.faults.storing import Format, packed
from tests.faults.weight_edits import Context, Values
from tests.memory_model import MemoryModel

_MATRICES = (
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)
_NORMS = (
    *("input_layernorm.weight", "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight"),
    *("post_feedforward_layernorm.weight", "self_attn.q_norm.weight", "self_attn.k_norm.weight"),
)
_BIASES = ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")


@dataclass(frozen=True)
class WeightFault:
    """edit : the tensor's new values (None: taken away). suffixes : tensors that it makes sense in.

    blocks : the edit is of stored rows. several : it edits all of `suffixes` at once, or without any all tensors of
    the model; the first is the culprit.
    """

    kind: str
    causes: tuple[str, ...]
    suffixes: tuple[str, ...]
    edit: Callable[[Values, Context], Values]
    fits: Callable[[Values, Context], bool] = lambda values, context: True
    blocks: bool = False
    several: bool = False


@cache
def sites_of(config: ModelConfig) -> dict[str, Site]:
    """The first stage that uses a tensor, by the tensor's name."""
    sites: dict[str, Site] = {}
    for stage in Graph(config).stages():
        for name in stage.tensors:
            sites.setdefault(name, stage.site)
    return sites


def expected_of(fault: WeightFault, names: tuple[str, ...], config: ModelConfig) -> Expected:
    """The first tensor is the culprit, those of other stages are further ones unless it is about the whole model."""
    site, *others = dict.fromkeys(sites_of(config)[name] for name in names)
    return Expected((site,), ("weights",), fault.causes, tuple(others) if fault.suffixes else (), names[0])


_QK = _MATRICES[:2]
_QKV = _MATRICES[:3]
_W = WeightFault

WEIGHT_FAULTS: tuple[WeightFault, ...] = (
    _W("transposed square", ("transposed",), _MATRICES, edits.transposed, edits.square),
    _W("transposed oblong", ("transposed",), _MATRICES, edits.transposed, edits.oblong),
    _W("transposed reread", ("transposed",), _MATRICES, edits.reread, edits.oblong),
    _W("permuted_rope to pairs", ("permuted_rope",), _QK, edits.adjacent),
    _W("permuted_rope to halves", ("permuted_rope",), _QK, edits.halves),
    _W("permuted_rope one head", ("permuted_rope",), _QK, edits.one_head_adjacent),
    _W("permuted_rope bias", ("permuted_rope",), _BIASES[:2], edits.adjacent),
    _W("gate is up", ("gate_up_swapped",), ("mlp.gate_proj.weight",), lambda v, c: c.sibling("gate", "up")),
    _W("up is gate", ("gate_up_swapped",), ("mlp.up_proj.weight",), lambda v, c: c.sibling("up", "gate")),
    _W("q is k", ("qk_swapped",), _MATRICES[:1], lambda v, c: c.sibling("q_", "k_"), edits.same_shape("q_", "k_")),
    _W("k is q", ("qk_swapped",), _MATRICES[1:2], lambda v, c: c.sibling("k_", "q_"), edits.same_shape("k_", "q_")),
    _W("k is v", ("qk_swapped",), _MATRICES[1:2], lambda v, c: c.sibling("k_", "v_")),
    _W(
        "gate and up exchanged",
        ("gate_up_swapped",),
        ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        edits.gate_and_up_exchanged,
        several=True,
    ),
    _W(
        "two that cancel",
        ("scaled",),
        ("mlp.up_proj.weight", "mlp.down_proj.weight"),
        lambda v, c: v * np.float32(2 if "up" in c.name else 0.5),
        several=True,
    ),
    _W("bias missing", ("bias_missing",), _BIASES, lambda v, c: None, several=True),
    _W("wrong_layer next", ("wrong_layer",), (*_MATRICES, *_NORMS, *_BIASES), edits.other_layer(1)),
    _W("wrong_layer before", ("wrong_layer",), (*_MATRICES, *_NORMS, *_BIASES), edits.other_layer(-1)),
    *(
        _W(f"scaled {f}", ("scaled",), (*_MATRICES, *_NORMS, *_BIASES), edits.times(f))
        for f in (1.02, 1.1, 1.25, 2.0, 0.5, 0.125)
    ),
    *(
        _W(
            f"scaled {f} one head",
            ("scaled",),
            (*_QKV, _MATRICES[3]),
            lambda v, c, f=f: edits.head(v, c, lambda p: p * np.float32(f)),
        )
        for f in (1.05, 1.5, 2.0)
    ),
    *(
        _W(
            f"scaled {f} one row",
            ("scaled", "corrupted_blocks"),
            _MATRICES,
            lambda v, c, f=f: edits.row(v, c, lambda p: p * np.float32(f)),
        )
        for f in (1.25, 3.0)
    ),
    _W("sign_flipped", ("sign_flipped",), (*_MATRICES, *_NORMS, *_BIASES), edits.times(-1)),
    _W("sign_flipped head", ("sign_flipped",), _QKV, lambda v, c: edits.head(v, c, np.negative)),
    _W("sign_flipped row", ("sign_flipped", "corrupted_blocks"), _MATRICES, lambda v, c: edits.row(v, c, np.negative)),
    _W("zeroed", ("zeroed",), (*_MATRICES, *_BIASES, *_NORMS), edits.times(0)),
    _W("zeroed head", ("zeroed",), (*_QKV, _MATRICES[3]), lambda v, c: edits.head(v, c, np.zeros_like)),
    _W("zeroed row", ("zeroed", "corrupted_blocks"), _MATRICES, lambda v, c: edits.row(v, c, np.zeros_like)),
    _W("zeroed head of bias", ("zeroed",), _BIASES, lambda v, c: edits.head(v, c, np.zeros_like)),
    _W("norm_offset +1", ("norm_offset",), _NORMS, lambda v, c: v + np.float32(1)),
    _W("norm_offset -1", ("norm_offset",), _NORMS, lambda v, c: v - np.float32(1)),
    _W("bias_wrong random", ("bias_wrong",), _BIASES, lambda v, c: c.rng.permutation(v) * np.float32(1.7) + 1),
    _W("bias_wrong noise", ("bias_wrong",), _BIASES, edits.element_noise),
    _W("bias shuffled", ("rows_permuted", "bias_wrong"), _BIASES, lambda v, c: c.rng.permutation(v)),
    _W(
        "rows_permuted heads reversed", ("rows_permuted",), _QKV, edits.heads_reversed, lambda v, c: len(v) > c.head_dim
    ),
    _W("rows_permuted heads rolled", ("rows_permuted",), _QKV, edits.heads_rolled, lambda v, c: len(v) > c.head_dim),
    _W("rows_permuted all", ("rows_permuted",), _MATRICES, lambda v, c: c.rng.permutation(v)),
    _W("rows_permuted some", ("rows_permuted",), _MATRICES, edits.rows_shuffled(0.1)),
    _W(
        "columns permuted",
        ("rows_permuted",),
        _MATRICES[3:],
        lambda v, c: np.ascontiguousarray(v[:, c.rng.permutation(v.shape[1])]),
    ),
    _W("dtype_truncated bf16 cut", ("dtype_truncated",), (*_MATRICES, *_NORMS), edits.bf16_cut, edits.finer(7)),
    _W("dtype_truncated bf16", ("dtype_truncated",), (*_MATRICES, *_NORMS), edits.bf16_rounded, edits.finer(7)),
    _W("dtype_truncated f16", ("dtype_truncated",), (*_MATRICES, *_BIASES), edits.f16_rounded, edits.finer(10)),
    _W("dtype_truncated 5 bits", ("dtype_truncated",), _MATRICES, edits.mantissa_cut(5), edits.finer(5)),
    _W("dtype_truncated 3 bits", ("dtype_truncated",), _MATRICES, edits.mantissa_cut(3), edits.finer(3)),
    *(
        _W(f"requantized {t.name}", ("requantized",), _MATRICES, edits.through(t), edits.finer_than(t))
        for t in (TensorType.Q4_0, TensorType.Q5_0, TensorType.Q8_0, TensorType.Q4_K, TensorType.Q6_K)
    ),
    _W("requantized int8 rows", ("requantized",), _MATRICES, edits.int8_per_row, edits.finer_than(TensorType.Q8_0)),
    _W("requantized int4 groups", ("requantized",), _MATRICES, edits.int4_groups, edits.finer_than(TensorType.Q5_0)),
    _W("corrupted one block", ("corrupted_blocks",), _MATRICES, edits.corrupt_random, blocks=True),
    _W("corrupted 8 rows", ("corrupted_blocks",), _MATRICES, edits.corrupt_rows, blocks=True),
    _W("corrupted scale", ("corrupted_blocks", "scaled"), _MATRICES, edits.corrupt_scale, edits.quantized, blocks=True),
    _W(
        "corrupted sub-scales",
        ("corrupted_blocks",),
        _MATRICES,
        edits.corrupt_sub_scales,
        edits.with_sub_scales,
        blocks=True,
    ),
    _W("corrupted NaN scale", ("corrupted_blocks",), _MATRICES, edits.nan_scale, edits.with_half_scale, blocks=True),
    _W(
        "corrupted infinite value",
        ("corrupted_blocks",),
        (*_MATRICES, *_NORMS, *_BIASES),
        edits.infinite_value,
        lambda v, c: not edits.quantized(v, c),
    ),
    _W("group offset", ("group_offset",), _MATRICES, edits.group_offset),
    *(
        _W(f"low rank {rank}", ("low_rank",), _MATRICES, edits.low_rank(rank), edits.holds_rank(rank))
        for rank in (4, 16)
    ),
    _W("rank by rank qkv", ("rows_permuted",), _QKV, edits.rank_by_rank("q_proj", "k_proj", "v_proj"), several=True),
    _W(
        "rank by rank bias", ("rows_permuted",), _BIASES, edits.rank_by_rank("q_proj", "k_proj", "v_proj"), several=True
    ),
    _W(
        "rank by rank gate and up",
        ("rows_permuted",),
        ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        edits.rank_by_rank("gate_proj", "up_proj"),
        several=True,
    ),
    _W("float8 codes without scale", ("scaled",), _MATRICES, edits.float8_codes, edits.finer(3)),
    _W("corrupted shifted bytes", ("corrupted_blocks",), _MATRICES, edits.shifted_blocks, edits.quantized, blocks=True),
)

WHOLE_MODEL_FAULTS: tuple[WeightFault, ...] = (
    _W("other checkpoint", ("unknown",), (), edits.other_training, several=True),
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
        lambda v, c: not c.plain.config.tie_word_embeddings,
    ),
    *(
        _W(f"{f.kind} model", f.causes, names, f.edit)
        for names, f in (
            (("lm_head.weight", "model.embed_tokens.weight"), _W("scaled 1.5", ("scaled",), (), edits.times(1.5))),
            (
                ("lm_head.weight", "model.embed_tokens.weight"),
                _W("sign_flipped", ("sign_flipped",), (), edits.times(-1)),
            ),
            (
                ("lm_head.weight", "model.embed_tokens.weight"),
                _W("rows rolled", ("rows_permuted",), (), lambda v, c: np.roll(v, 1, axis=0)),
            ),
            (("model.norm.weight",), _W("norm_offset +1", ("norm_offset",), (), lambda v, c: v + np.float32(1))),
            (("model.norm.weight",), _W("zeroed", ("zeroed",), (), edits.times(0))),
            (("model.norm.weight",), _W("scaled 1.1", ("scaled",), (), edits.times(1.1))),
        )
    ),
)


def plant(model: MemoryModel, plain: Plain, format: Format, fault: WeightFault, name: str, seed: int) -> MemoryModel:
    """A stored model with a fault in one tensor; without the tensor where the edit leaves nothing of it."""
    c = Context(plain, name, format, np.random.default_rng(seed))
    weight = model.weights[name]
    if fault.blocks:
        rows = fault.edit(weight.rows, c, weight.type)
    else:
        values = fault.edit(plain.values[name], c)
        if values is None:
            return replace(model, weights={key: value for key, value in model.weights.items() if key != name})
        rows = packed(values.astype(np.float32), weight.type)
    return replace(model, weights={**model.weights, name: Weight(name, weight.type, weight.shape, rows)})
