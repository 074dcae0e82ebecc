"""The numeric paths: which arithmetic each operation of the forward uses.

`f64`  the oracle: every operation in float64 over the weights' float32 values.
`f32`  dequantized weights, then float32, as transformers in float32.
`ggml` what llama.cpp's CPU backend computes: 8-bit activations into every quantized matmul, bit for bit.
`apr`  what APR's CPU inference computes: its own 8-bit rule for Q4_K and Q6_K, float32 for Q, K and V projections.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import ops, recurrence
from kernels.errors import WorkbenchError
from kernels.formats.format import BlockFormat
from kernels.ggml import activation as ggml_activation
from kernels.ggml import attention as ggml_attention
from kernels.ggml import flash as ggml_flash
from kernels.ggml import recurrence as ggml_recurrence
from kernels.ggml import rotation as ggml_rotation
from kernels.ggml import softmax as ggml_softmax
from kernels.ggml_settings import GGML, GgmlSettings
from kernels.graph import Array, Inputs, Values
from kernels.kinds.attention import Attention
from kernels.kinds.choice import shares_of
from kernels.kinds.delta import DeltaNet
from kernels.kinds.rotate import Rotation
from kernels.kinds.scan import Scan
from kernels.layer_norm import layer_norm, layer_norm_ggml
from kernels.matmul import apr as matmul_apr
from kernels.matmul import ggml as matmul_ggml
from kernels.matmul.activations import Codes
from kernels.matmul.floats import matmul_f32, matmul_f64
from kernels.numbers import in_signed_sums
from kernels.precision import FLOAT16
from kernels.rows.dequantize import dequantize, dequantize_rows, row_norms
from kernels.rows.fields import fields
from kernels.weight import Weight


class F32Path:
    """float32 arithmetic on dequantized weights; the base of the other paths, which replace what differs."""

    name = "f32"
    dtype: type[np.floating[Any]] = np.float32

    @property
    def in_batches(self) -> bool:
        """Whether tokens are computed in batches, so that a part of them may be computed otherwise than with all."""
        return False

    @property
    def engine(self) -> str:
        """The name without settings."""
        return self.name.partition(":")[0]

    def settings(self) -> dict[str, str]:
        """What a run on this path must record to be comparable."""
        return {"activations": "float32", "kv": "float32", "sums": "float32, re-ordered"}

    def embed(self, weight: Weight, tokens: NDArray[np.int64]) -> Array:
        """Rows `tokens` of the embedding matrix: (tokens, hidden)."""
        rows = np.ascontiguousarray(weight.rows[tokens])
        return dequantize_rows(weight.type, rows, weight.shape[1]).astype(self.dtype, copy=False)

    def vector(self, weight: Weight) -> Array:
        """A tensor that no product multiplies, in its own shape: a norm weight, a bias, a convolution."""
        return dequantize(weight).astype(self.dtype, copy=False)

    def convolved(self, x: Array, weight: Weight, bias: Array | None) -> Array:
        """Every channel of a token and of those before it, times its weights (channels, tokens), plus the bias."""
        return recurrence.convolved(x, self.vector(weight), bias)

    def delta(self, x: Inputs, how: DeltaNet) -> Array:
        """The gated delta rule, its state kept in float64."""
        return recurrence.delta(x, how)

    def scan(self, x: Inputs, a: Array, d: Array, how: Scan) -> Array:
        """A state space, its state kept in float64."""
        return recurrence.scan(x, a, d, how)

    def rms_norm(self, x: Array, weight: Weight | None, eps: float, times: float = 1.0) -> Array:
        """RMS norm over channels, times the norm weight, times a factor."""
        normed = ops.rms_norm(x, self._affine(x, weight, None)[0], eps)
        return normed if times == 1 else np.asarray(normed * self.dtype(times))

    def unit_norm(self, x: Array, eps: float) -> Array:
        """x / sqrt(sum(x^2) + eps) over channels."""
        size = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1, keepdims=True) + eps)
        return np.asarray(x * (1 / size).astype(x.dtype))

    def layer_norm(self, x: Array, weight: Weight | None, bias: Weight | None, eps: float) -> Array:
        """Layer norm over channels, times the weight and plus the bias that there are."""
        return layer_norm(x, *self._affine(x, weight, bias), eps)

    def _affine(self, x: Array, weight: Weight | None, bias: Weight | None) -> tuple[Array, Array]:
        """Weight and bias of a norm, or ones and zeros."""
        none = np.ones(x.shape[1], self.dtype), np.zeros(x.shape[1], self.dtype)
        found, added = (
            other if own is None else self.vector(own) for own, other in zip((weight, bias), none, strict=True)
        )
        return found, added

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:  # noqa: ARG002 - it makes no difference
        """X @ W.T for each weight, side by side: (tokens, all outs). apart : every token is multiplied by itself."""
        return matmul_f32(x, *weights)

    def rounded_off(self, x: Array, weight: Weight) -> Array | None:
        """What the rounding of activations makes of `matmul` with this weight, (sums, out); None: nothing.

        Of many tokens some are added up as `in_signed_sums` says; only the length of all is meant to be used. In
        float32, whose own rounding changes that by 1e-8 of itself.
        """
        codes = self.round_activations(x, weight)
        lost = self._lost(x, weight, codes)
        if lost is None:
            return None
        if codes is None or codes.sums is None:
            return matmul_f32(in_signed_sums(lost).astype(np.float32), weight)
        # what sums that the least values of blocks are multiplied by are less than those of the codes
        less = codes.values().reshape(*codes.sums.shape, -1).sum(axis=2) - codes.sums
        lost, less = np.split(in_signed_sums(np.concatenate([lost, less], axis=1)), [lost.shape[1]], axis=1)
        assert isinstance(weight.type.format, BlockFormat)
        least = fields(weight.type.format, weight.rows[:].reshape(-1, weight.type.block.bytes)).least
        assert least is not None
        by_sums = less @ least.astype(np.float64).reshape(len(weight.rows), -1).T
        return np.asarray(matmul_f32(lost.astype(np.float32), weight) + by_sums)

    def row_norms(self, weight: Weight) -> Values:
        """Euclidean norm of every row of a weight, float64 (rows,)."""
        return row_norms(weight)

    def lost(self, x: Array, weight: Weight) -> Values | None:
        """What `matmul` with this weight takes away from activations x, float64 (tokens, in); None if nothing."""
        return self._lost(x, weight, self.round_activations(x, weight))

    def _lost(self, x: Array, weight: Weight, codes: Codes | None) -> Values | None:
        if codes is not None:
            return np.asarray(x - codes.values())
        kept = self.kept_activations(x, weight)
        return None if kept is x else x.astype(np.float64) - kept

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:  # noqa: ARG002 - floats by default
        """The 8-bit codes of x that `matmul` with this weight works on, or None where it keeps floats."""
        return None

    def kept_activations(self, x: Array, weight: Weight) -> Array:  # noqa: ARG002
        """The float activations that `matmul` multiplies where it makes no codes; x itself if nothing is rounded."""
        return x

    def rope_angles(self, positions: NDArray[np.int64], rotation: Rotation) -> Array:
        """Rotation angles (tokens, pairs that turn)."""
        return ops.rope_angles_f32(positions, rotation)

    def rotate(self, x: Array, positions: NDArray[np.int64], rotation: Rotation, columns: slice) -> Array:
        """Heads in some columns of x (tokens, channels), turned by the tokens' positions."""
        return ops.rotate(x, self.rope_angles(positions, rotation), rotation, columns)

    def attention(self, q: Array, k: Array, v: Array, how: Attention, sinks: Array | None = None) -> Array:
        """Grouped-query attention, before the output projection. sinks : a score of every head beside its keys'."""
        return ops.attention(q, k, v, how, sinks)

    def attention_lost(self, q: Array, k: Array, v: Array, how: Attention, sinks: Array | None = None) -> Values | None:
        """What rounding queries, keys and values makes of attention, float64 (tokens, channels); None if nothing."""
        del q, k, v, how, sinks
        return None

    def attention_units(self, tokens: int) -> Values:
        """What sums and shares that attention keeps as halves err by, of the size of each token's output (tokens,)."""
        return np.zeros(tokens)

    def elementwise(self, function: np.ufunc, a: Array, b: Array) -> Array:
        """function(a, b) of two arrays of the same shape."""
        return ops.elementwise(function, a, b)

    def softmax(self, x: Array) -> Array:
        """exp(x) / sum(exp(x)) over the last axis in the dtype of x, summed in float64."""
        return shares_of(x)

    def exp(self, x: Array) -> Array:
        """The exponential in the dtype of x."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(x))

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)) in the dtype of x."""
        return np.asarray(1 / (1 + self.exp(-x)))

    def capped(self, x: Array, cap: float) -> Array:
        """Cap * tanh(x / cap)."""
        return ops.capped(x, cap)

    def silu(self, x: Array) -> Array:
        """X * sigmoid(x)."""
        return ops.silu(x)

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)) in the dtype of x."""
        return np.asarray(np.logaddexp(x.dtype.type(0), x))


class F64Path(F32Path):
    """The oracle."""

    name = "f64"
    dtype = np.float64

    def settings(self) -> dict[str, str]:
        return {"activations": "float64", "kv": "float64", "sums": "float64, re-ordered"}

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:  # noqa: ARG002
        return matmul_f64(x, *weights)

    def rope_angles(self, positions: NDArray[np.int64], rotation: Rotation) -> Array:
        return ops.rope_angles_f64(positions, rotation)


class GgmlPath(F32Path):
    """llama.cpp, CPU; without settings with repack, tiled matmul and flash attention off and a float32 KV cache.

    how : its settings; the name of the path names them.
    """

    def __init__(self, how: GgmlSettings = GgmlSettings()) -> None:  # noqa: B008 - cannot be changed
        self.how = how
        self.name = how.path
        self.width = 16 if how.avx512 else 8  # float lanes of the vectors that llama.cpp was built with

    @property
    def in_batches(self) -> bool:
        return bool(self.how.batch)

    def settings(self) -> dict[str, str]:
        on = {False: "off", True: "on"}
        return {
            "activations": "Q8_K/Q8_0 by weight type; F16/BF16 weights round them to that type",
            "kv": "float32" if self.how.type_k == self.how.type_v == "f32" else f"{self.how.type_k},{self.how.type_v}",
            "sums": "order of the routine that ggml chooses" if self.how.words else "AVX2 order of ggml_vec_dot",
            "repack": on[self.how.repack],
            "tiled": on[self.how.tiled],
            "flash_attention": on[self.how.flash],
        }

    def convolved(self, x: Array, weight: Weight, bias: Array | None) -> Array:
        return ggml_recurrence.convolved(x, self.vector(weight), bias, self.width)

    def delta(self, x: Inputs, how: DeltaNet) -> Array:
        return ggml_recurrence.delta(x, how, self.width)

    def scan(self, x: Inputs, a: Array, d: Array, how: Scan) -> Array:
        return ggml_recurrence.scan(x, a, d, how, self.width)

    def unit_norm(self, x: Array, eps: float) -> Array:
        return ggml_recurrence.unit_norm(x, eps)

    def rms_norm(self, x: Array, weight: Weight | None, eps: float, times: float = 1.0) -> Array:
        """The factor comes before the weight."""
        factors, none = self._affine(x, weight, None)[0], np.ones(x.shape[1], np.float32)
        if times == 1:
            return ops.rms_norm_ggml(x, factors, eps)
        return np.asarray(ops.rms_norm_ggml(x, none, eps) * np.float32(times) * factors)

    def layer_norm(self, x: Array, weight: Weight | None, bias: Weight | None, eps: float) -> Array:
        return layer_norm_ggml(x, *self._affine(x, weight, bias), eps)

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:
        return matmul_ggml.matmul_ggml(x, *weights, width=self.width, apart=apart, routines=self.how.routines)

    def capped(self, x: Array, cap: float) -> Array:
        """Scaled before and behind the tangent, which rounds otherwise than a division."""
        return np.asarray(ops.capped(x * (np.float32(1) / np.float32(cap)), 1.0) * np.float32(cap))

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:
        return matmul_ggml.rounded_activations(x, weight, self.how.routines)

    def kept_activations(self, x: Array, weight: Weight) -> Array:
        return matmul_ggml.rounded_to(x, weight.type)

    def rope_angles(self, positions: NDArray[np.int64], rotation: Rotation) -> Array:
        return ggml_rotation.angles(positions, rotation)

    def rotate(self, x: Array, positions: NDArray[np.int64], rotation: Rotation, columns: slice) -> Array:
        return ggml_rotation.rotate(x, positions, rotation, columns)

    def attention(self, q: Array, k: Array, v: Array, how: Attention, sinks: Array | None = None) -> Array:
        if self.how.flash:
            return ggml_flash.flash(q, k, v, how, sinks, self.width, self.how.batch)
        halves = self.how.type_k == "f16", self.how.type_v == "f16"
        run = ggml_attention.Run(self.width, halves, self.how.batch)
        return ggml_attention.attention(q, k, v, how, sinks, run)

    def attention_lost(self, q: Array, k: Array, v: Array, how: Attention, sinks: Array | None = None) -> Values | None:
        """What the cache keeps as halves, and queries beside such keys; for flash attention all of it."""
        keys, values = self.how.flash or self.how.type_k == "f16", self.how.flash or self.how.type_v == "f16"
        if not keys and not values:
            return None
        exact = _PATHS["f64"]
        wq, wk, wv = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
        own = None if sinks is None else np.asarray(sinks, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            hq, hk, hv = (
                x.astype(np.float16).astype(np.float64) if kept else x
                for x, kept in zip((wq, wk, wv), (keys, keys, values), strict=True)
            )
            if self.how.flash:
                hq = np.where(ggml_flash.one_by_one(len(q), self.how.batch)[:, None], hq, wq)
            return np.asarray(exact.attention(hq, hk, hv, how, own) - exact.attention(wq, wk, wv, how, own))

    def attention_units(self, tokens: int) -> Values:
        """Flash attention rounds its sums after every key where it takes tokens one by one; else shares are halves."""
        if self.how.flash:
            return np.where(ggml_flash.one_by_one(tokens, self.how.batch), np.sqrt(1 + tokens) * FLOAT16.unit, 0.0)
        return np.full(tokens, FLOAT16.unit if self.how.type_v == "f16" else 0.0)

    def silu(self, x: Array) -> Array:
        return ggml_activation.silu(x, self.width)

    def softmax(self, x: Array) -> Array:
        return ggml_softmax.softmax(x, self.width)

    def exp(self, x: Array) -> Array:
        return ggml_softmax.exp(x)

    def softplus(self, x: Array) -> Array:
        return ggml_recurrence.softplus(x)


class AprPath(F32Path):
    """APR's CPU inference (aprender-serve) on its traced forward."""

    name = "apr"

    def settings(self) -> dict[str, str]:
        return {
            "activations": "APR Q8_K (positive scale, half away from zero) for Q4_K/Q6_K; float32 for Q, K, V",
            "kv": "float32",
            "sums": "eight fma lanes",
        }

    def rms_norm(self, x: Array, weight: Weight | None, eps: float, times: float = 1.0) -> Array:
        normed = ops.rms_norm_apr(x, self._affine(x, weight, None)[0], eps)
        return normed if times == 1 else np.asarray(normed * np.float32(times))

    def matmul(self, x: Array, *weights: Weight, apart: bool = False) -> Array:  # noqa: ARG002
        return matmul_apr.matmul_apr(x, *weights)

    def round_activations(self, x: Array, weight: Weight) -> Codes | None:
        return matmul_apr.round_activations(x, weight)


_ggml = cache(GgmlPath)  # one object for the same settings, whatever order they are named in
_PATHS: dict[str, F32Path] = {path.name: path for path in (F64Path(), F32Path(), _ggml(GgmlSettings()), AprPath())}
PATHS: tuple[str, ...] = tuple(_PATHS)


def numeric_path(name: str) -> F32Path:
    """The path of that name, "ggml:SETTING,..." with settings, always one object; WorkbenchError names those known."""
    stem, colon, words = name.partition(":")
    if colon and stem == GGML:
        return _ggml(GgmlSettings.of(words))
    if name not in _PATHS:
        raise WorkbenchError(f"numeric path {name!r} is not known; use one of {', '.join(PATHS)}")
    return _PATHS[name]
