"""The noise floor of a stage: what its numeric path must add on this very input, predicted from the data.

A path rounds the activations of quantized matmuls to 8 bits (or to the weight's float type) and every float operation
to 24 bits. The first rounding is in hand, element by element, so its effect is known: it passes through the same
weights in float64. The second is a small multiple of 2^-24 of the magnitudes that are added up.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernels import ops
from kernels.formats.format import BlockFormat
from kernels.forward import At
from kernels.matmul.activations import Codes
from kernels.matmul.floats import matmul_f64
from kernels.paths import Array
from kernels.rows.fields import fields
from kernels.stages import Site
from kernels.weight import Weight
from workbench.bisect.models.substitution import Factors, norm, numbers
from workbench.bisect.weights.conversion import Customs, tensors_of
from workbench.cells.stage_tensors import stage_tensors

_UNIT = 2.0**-24
# Rounding errors of the float operations of a stage, in units of 2^-24 of the norms involved; docs/bisect.md.
_PER_OUTPUT, _PER_TERM, _PER_ANGLE = 4.0, 2.0, 1.0
_ROTATED = ("q_post_rope", "k_post_rope")
_CANCELLING = ("qkv_bias", "q_post_rope", "k_post_rope", "attention", "post_attn_residual", "post_ffn_residual")
MATMUL_INPUT = {
    "qkv_matmul": "attn_norm",
    "attn_out": "attention",
    "ffn_gate": "ffn_norm",
    "ffn_up": "ffn_norm",
    "ffn_out": "ffn_swigl",
    "lm_head": "final_norm",
}


def predicted_error(stage: str, at: At, inputs: Mapping[str, Array], output: Array, rounded: bool = True) -> float:
    """‖what the path's own rounding adds at this stage‖, in the units of the output.

    rounded : whether activations are rounded before a matmul on one side only; two runs of one path round alike.
    """
    size = norm(output)
    if at.path.dtype == np.float64:
        return size * 2.0**-50
    terms = sum(map(norm, inputs.values())) if stage in _CANCELLING else 0.0
    error = _UNIT * (_PER_OUTPUT * size + _PER_TERM * terms)
    if stage in _ROTATED:
        error = math.hypot(error, _UNIT * _PER_ANGLE * _turned(at, output))
    if stage not in MATMUL_INPUT or not rounded:
        return error
    x = np.ascontiguousarray(inputs[MATMUL_INPUT[stage]], dtype=np.float32)
    energy = error**2
    for name in stage_tensors(Site(at.layer, stage)):
        weight = at.model.weight(name)
        lost = rounding_of(at, weight, x)
        if lost is not None:
            energy += norm(matmul_f64(lost, weight) - _off_by_sums(at, weight, x)) ** 2
    return float(energy**0.5)


def _off_by_sums(at: At, weight: Weight, x: NDArray[np.float32]) -> NDArray[np.float64] | float:
    """What a product is off because its least values meet sums of activations that are not those of the codes.

    (tokens, rows); 0 where the rule keeps no sums beside the codes.
    """
    codes, format = at.path.round_activations(x, weight), weight.type.format
    if codes is None or codes.sums is None:
        return 0.0
    assert isinstance(format, BlockFormat)
    found = fields(format, weight.rows.reshape(-1, format.block.bytes)).least
    assert found is not None
    of_codes = decoded(codes).reshape(*codes.sums.shape, -1).sum(axis=2)
    off: NDArray[np.float64] = (codes.sums - of_codes) @ found.astype(np.float64).reshape(len(weight.rows), -1).T
    return off


def _turned(at: At, output: Array) -> float:
    """‖output‖ with every token weighted by the root mean square of its angles: they are rounded to their own size.

    Whole numbers, which the fastest pair has, are not rounded.
    """
    angles = ops.rope_angles_f64(at.positions(), at.config)
    squares = np.square(np.where(angles == np.round(angles), 0, angles)).mean(axis=1)
    return float(np.sqrt(np.square(numbers(output)).sum(axis=1) @ squares))


def storage_error(
    site: Site, exact: Factors, inputs: Mapping[str, Array], tokens: tuple[int, ...], customs: Customs
) -> float:
    """‖what the formats of two right copies of the stage's weights cost‖, in the units of the output.

    Every value is off by a rounding error within half a step of each format; those of different values are independent.
    A wrong tensor counts as a right one would: nothing where its like are equal on both sides. exact : the factors in
    float64. inputs : what the stage reads.
    """
    names = [name for name in tensors_of(site) if name in customs.names]
    energy = 0.0
    for name in names:
        judged = customs.judge(name)
        if judged.check.equal or judged.touched:
            continue
        if site.stage == "embedding":
            energy += float(judged.check.cost_of_rows[list(tokens)].sum())
        elif site.stage in MATMUL_INPUT and not name.endswith(".bias"):
            energy += float(np.square(numbers(inputs[MATMUL_INPUT[site.stage]])).sum(axis=0) @ judged.check.cost)
        elif name.endswith(".bias"):
            energy += len(tokens) * float(judged.check.cost.sum())
        else:
            x = next(iter(inputs.values())).astype(np.float64)
            plain = ops.rms_norm(x, np.ones(x.shape[1]), exact.config.rms_norm_eps)
            energy += float(np.square(numbers(plain)).sum(axis=0) @ judged.check.cost)
    return float(energy**0.5)


def rounding_of(at: At, weight: Weight, x: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """What the path takes away from the activations before this matmul, (tokens, in); None if nothing."""
    codes = at.path.round_activations(x, weight)
    if codes is not None:
        return x - decoded(codes)
    kept = at.path.kept_activations(x, weight)
    return None if kept is x else x.astype(np.float64) - kept


def decoded(codes: Codes) -> NDArray[np.float64]:
    """The values that 8-bit activations stand for."""
    tokens, blocks = codes.scales.shape
    values = codes.codes.reshape(tokens, blocks, -1).astype(np.float64) * codes.scales[:, :, None]
    return values.reshape(codes.codes.shape)
