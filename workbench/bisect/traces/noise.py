"""How far two correct implementations of a stage may be apart, element by element, on the same recorded inputs.

Both round alike to 8 bits, for they have the same inputs; what is left is the rounding of their float operations. It
follows the magnitudes that were added up, not the result, and the angles and scores that exponentials and rotations
make large. Two engines stay within a few of these units; a mistake does not.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.forward import At
from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.models.floor import MATMUL_INPUT
from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.conversion import tensors_of
from workbench.bisect.weights.steps import Stored
from workbench.pair.precision import FLOAT32, Precision

Values = NDArray[np.float64]
_SINGLE = FLOAT32.unit
_TINY = 1e-37  # so that exact zeros can be divided by it


def float_noise(stage: str, at: At, inputs: Mapping[str, Array], right: Array, kept: Precision) -> Values:
    """Size of the float rounding of every element of a stage's output, (tokens, channels).

    kept : how the engine keeps its numbers; sums are taken to be in float32 at least. Numbers that are too small for a
    relative rounding err by an absolute one, wherever one is kept on the way. inputs : what the stage reads, by stage
    name. right : the right output.
    """
    wide = {name: np.abs(np.asarray(x, dtype=np.float64)) for name, x in inputs.items()}
    size = np.abs(np.asarray(right, dtype=np.float64))
    if stage in MATMUL_INPUT:
        x = wide[MATMUL_INPUT[stage]]
        # float32 sums in any order; weights that the engine keeps with its own precision err independently
        noise = 2 * kept.unit * size + (0.5 * _SINGLE + kept.unit * x.shape[1] ** -0.5) * _magnitudes(stage, at, x)
        noise = noise + kept.least * np.linalg.norm(x, axis=1, keepdims=True)
    else:
        noise = _NOISE[stage](at, wide, size, kept)
    return np.asarray(noise + max(kept.least, _TINY))


def _magnitudes(stage: str, at: At, x: Values) -> Values:
    """‖x‖ of every token times ‖w‖ of every row."""
    names = [name for name in tensors_of(Site(at.layer, stage)) if name.endswith(".weight")]
    norms = np.concatenate([row_norms(at, name) for name in names])
    return np.asarray(np.linalg.norm(x, axis=1)[:, None] * norms[None, :])


def row_norms(at: At, name: str) -> Values:
    """Euclidean norm of every row of a tensor, float64 (rows,)."""
    weight = at.model.weight(name)
    parts = (Stored.of(weight, part).values for part in row_chunks(weight))
    return np.concatenate([np.linalg.norm(values.astype(np.float64), axis=1) for values in parts])


def _elementwise(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    del at, x
    return 4 * kept.unit * size


def _norm(stage: str, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    """What is normed is kept before it meets the weight."""
    del x
    (name,) = tensors_of(Site(at.layer, stage))
    weight = np.abs(at.path.vector(at.model.weight(name)).astype(np.float64))
    return 4 * kept.unit * size + kept.least * weight


def _sum(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    del at
    first, second = x.values()
    return kept.unit * (first + second + size)


def _bias(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    del at
    return kept.unit * (2 * x["qkv_matmul"] + 2 * size) + kept.least


def _rope(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    """Angles are products of a position and a frequency that are rounded to float32 even by a float64 engine."""
    del x
    config = at.config
    angles = np.abs(at.path.rope_angles(at.positions(), config)).astype(np.float64)
    pair = np.sqrt(_pair_squares(size, at))
    width = np.concatenate([angles, angles], axis=1) if config.rope_type == "neox" else np.repeat(angles, 2, axis=1)
    per_head = 4 * max(kept.unit, _SINGLE) + 4 * _SINGLE * width + kept.least
    return pair * np.tile(per_head, size.shape[1] // config.head_dim) + 2 * kept.least


def _pair_squares(size: Values, at: At) -> Values:
    """Squared length of the pair that every channel turns in; a rotation keeps it, so it is taken of the output."""
    d = at.config.head_dim
    heads = np.square(size).reshape(len(size), -1, d)
    if at.config.rope_type == "neox":
        pairs = heads[..., : d // 2] + heads[..., d // 2 :]
        return np.concatenate([pairs, pairs], axis=2).reshape(size.shape)
    return np.repeat(heads[..., 0::2] + heads[..., 1::2], 2, axis=2).reshape(size.shape)


def _attention(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    """A score that is off by d changes its weight by the share d; scores err by what their products round.

    The weights add up to 1, so that many of them are small: each is kept, and each product with a value is added up.
    """
    c = at.config
    value = x["qkv_bias"][:, c.q_size + c.kv_size :]
    group = c.num_attention_heads // c.num_key_value_heads
    lengths = [np.linalg.norm(z.reshape(len(z), -1, c.head_dim), axis=2) for z in (x["q_post_rope"], x["k_post_rope"])]
    keys = _largest_seen(np.repeat(lengths[1], group, axis=1), c.causal)
    scores = lengths[0] * keys * c.head_dim**-0.5  # (tokens, heads), the largest that any of them can be
    values = _largest_seen(value, c.causal).reshape(len(value), -1, c.head_dim)
    reach = np.repeat(values, group, axis=1)
    sums = np.square(value).cumsum(axis=0)
    counts = np.arange(1, len(value) + 1)
    if not c.causal:
        sums, counts = np.broadcast_to(sums[-1], sums.shape), np.full(len(value), len(value))
    all_values = np.repeat(np.sqrt(sums).reshape(values.shape), group, axis=1)
    noise = (kept.unit * (4 + scores) + kept.least * (lengths[0] + keys))[:, :, None] * reach
    noise = noise + kept.least * (all_values + np.sqrt(counts)[:, None, None])
    return np.asarray(noise.reshape(size.shape) + 2 * kept.unit * size)


def _largest_seen(values: Values, causal: bool) -> Values:
    """The largest among the tokens that each token attends to, (tokens, channels)."""
    if causal:
        return np.asarray(np.maximum.accumulate(values, axis=0))
    return np.broadcast_to(values.max(axis=0), values.shape)


def _silu(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    del at
    return (4 * kept.unit + _SINGLE * x["ffn_gate"]) * size


def _product(at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
    """Where no engine kept the activation it is computed here, and errs as above."""
    del at
    return (6 * kept.unit + 2 * _SINGLE * np.log1p(x["ffn_silu"])) * size + kept.least * x["ffn_up"]


_NOISE: dict[str, Callable[[At, Mapping[str, Values], Values, Precision], Values]] = {
    **dict.fromkeys(("embedding", "layer_output"), _elementwise),
    **{stage: partial(_norm, stage) for stage in ("attn_norm", "ffn_norm", "final_norm")},
    "qkv_bias": _bias,
    **dict.fromkeys(("q_post_rope", "k_post_rope"), _rope),
    "attention": _attention,
    **dict.fromkeys(("post_attn_residual", "post_ffn_residual"), _sum),
    "ffn_silu": _silu,
    "ffn_swigl": _product,
}
