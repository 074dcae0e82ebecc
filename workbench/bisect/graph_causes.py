"""The catalogue of mistakes of a runtime: each predicts a stage's output from the stage's own recorded inputs.

A recorded trace has no weights of its own, so a mistake is looked for in the operation, its configuration and in what
its weights would have to be. It is accepted only if its prediction reproduces the record within the floor.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import ops
from kernels.activations import quantize_q8_0, quantize_q8_k, quantize_q8_k_apr
from kernels.dequantize import dequantize
from kernels.forward import At
from kernels.matmul_float import matmul_f64
from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.floor import MATMUL_INPUT, decoded
from workbench.bisect.verdict import Factor
from workbench.stage_tensors import stage_tensors

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Mistake:
    """A mistake and the output it would have made (tokens, channels)."""

    cause: str
    factor: Factor
    explanation: str
    predicted: NDArray[Any]
    tensor: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A stage whose recorded output y is not what it should be; x holds its recorded inputs, right the right output."""

    stage: str
    at: At
    x: Mapping[str, Values]
    y: Values
    right: Values
    wrong_channels: NDArray[np.bool_]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Canonical names of the stage's tensors that the model has."""
        return tuple(name for name in stage_tensors(Site(self.at.layer, self.stage)) if name in self.at.model)


def mistakes(question: Question) -> Iterator[Mistake]:
    """Every mistake of the catalogue that could concern the stage, with its prediction."""
    for candidate in (*_OF_STAGE.get(question.stage, ()), *_OF_ANY_STAGE):
        yield from candidate(question)


def _norm_eps(q: Question) -> Iterator[Mistake]:
    x, w = next(iter(q.x.values())), dequantize(q.at.model.weight(q.tensors[0])).astype(np.float64)
    direction = x * w
    scale = (q.y * direction).sum(axis=1) / (direction * direction).sum(axis=1)
    fitted = float(np.median(1 / scale**2 - np.square(x).mean(axis=1)))
    for eps in (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, fitted):
        if eps != q.at.config.rms_norm_eps and np.isfinite(eps):
            yield Mistake("rms_norm_eps", "config", f"epsilon {eps:.3g} reproduces it", ops.rms_norm(x, w, eps))


def _norm_weight(q: Question) -> Iterator[Mistake]:
    x, name = next(iter(q.x.values())), q.tensors[0]
    w = dequantize(q.at.model.weight(name)).astype(np.float64)
    for offset in (1.0, -1.0):
        words = f"the norm weight enters as w{offset:+.0f}"
        yield Mistake("norm_offset", "weights", words, ops.rms_norm(x, w + offset, q.at.config.rms_norm_eps), name)
    plain = ops.rms_norm(x, np.ones_like(w), q.at.config.rms_norm_eps)
    yield Mistake("unknown", "graph", "the norm weight is not applied", plain)
    yield Mistake("unknown", "graph", "the norm is left out", x)
    for layer in range(q.at.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if q.at.layer is not None and layer != q.at.layer:
            v = dequantize(q.at.model.weight(other)).astype(np.float64)
            yield Mistake(
                "wrong_layer", "weights", f"{other} is used", ops.rms_norm(x, v, q.at.config.rms_norm_eps), name
            )


def _bias(q: Question) -> Iterator[Mistake]:
    product, sizes, start = q.x["qkv_matmul"], _qkv_sizes(q.at), 0
    yield Mistake("bias_missing", "weights", "no q, k or v bias is added", product, q.tensors[0] if q.tensors else None)
    for name, size in zip(q.tensors, sizes, strict=False):
        part = slice(start, start + size)
        start += size
        if not q.wrong_channels[part].any():
            continue
        bias = dequantize(q.at.model.weight(name)).astype(np.float64)
        found = (q.y - product)[:, part].mean(axis=0)
        words = f"the bias of {name} is not the model's"
        for cause, how, other in _bias_variants(q, name, bias):
            predicted = q.right.copy()
            predicted[:, part] = product[:, part] + other
            yield Mistake(cause, "weights", f"{name} {how}", predicted, name)
        predicted = q.right.copy()
        predicted[:, part] = product[:, part] + found
        yield Mistake("bias_wrong", "weights", words, predicted, name)


def _bias_variants(q: Question, name: str, bias: Values) -> Iterator[tuple[str, str, Values]]:
    yield "bias_missing", "is not added", np.zeros_like(bias)
    yield "sign_flipped", "has the opposite sign", -bias
    yield "scaled", "is added twice", 2 * bias
    if "v_proj" not in name:
        half = q.at.config.head_dim // 2
        yield "permuted_rope", "is in adjacent-pair rotary order", bias.reshape(-1, half, 2).swapaxes(1, 2).reshape(-1)
        yield "permuted_rope", "is in half-split rotary order", bias.reshape(-1, 2, half).swapaxes(1, 2).reshape(-1)
    for layer in range(q.at.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if layer != q.at.layer and other in q.at.model:
            yield "wrong_layer", f"is that of layer {layer}", dequantize(q.at.model.weight(other)).astype(np.float64)


def _qkv_sizes(at: At) -> tuple[int, int, int]:
    return at.config.q_size, at.config.kv_size, at.config.kv_size


def _rope(q: Question) -> Iterator[Mistake]:
    size = q.at.config.q_size
    x = q.x["qkv_bias"][:, :size] if q.stage == "q_post_rope" else q.x["qkv_bias"][:, size : size + q.at.config.kv_size]
    positions = q.at.positions()
    config = q.at.config

    def turned(places: NDArray[np.int64], **changes: object) -> Values:
        changed = replace(config, **changes)  # type: ignore[arg-type]
        return ops.rotate(x, ops.rope_angles_f64(places, changed), changed)

    for theta in (*_thetas(q, x), 1e4, 1e5, 5e5, 1e6, 1e7):
        if theta != config.rope_theta:
            words = f"rotary base {theta:.6g} reproduces it"
            yield Mistake("rope_theta", "config", words, turned(positions, rope_theta=theta))
    other = "norm" if config.rope_type == "neox" else "neox"
    yield Mistake(
        "rope_type", "config", "the other channels of a head rotate together", turned(positions, rope_type=other)
    )
    for shift in (1, -1, 2, len(positions)):
        yield Mistake("rope_position", "graph", f"positions are off by {shift:+d}", turned(positions + shift))
    yield Mistake("rope_position", "graph", "nothing is rotated", x)
    yield Mistake("rope_position", "graph", "positions run backwards", turned(positions[::-1].copy()))
    yield Mistake("rope_position", "graph", "rotated in the opposite direction", turned(-positions))
    if config.rope_factors is not None:
        yield Mistake("rope_theta", "config", "the rotary scaling is left out", turned(positions, rope_factors=None))
    for factor in (2.0, 4.0, 8.0):
        scaled = (factor,) * (config.head_dim // 2)
        words = f"positions are divided by {factor:.0f}"
        yield Mistake("rope_position", "graph", words, turned(positions, rope_factors=scaled))


def _thetas(q: Question, x: Values) -> Iterator[float]:
    """The rotary base that the recorded rotation of the second token implies, from its second channel pair."""
    d = q.at.config.head_dim
    if len(x) < 2 or q.at.config.rope_type != "neox" or d < 4:
        return
    before, after = (z[1].reshape(-1, 2, d // 2) for z in (x, q.y))
    turn = (after[:, 0] + 1j * after[:, 1]) * (before[:, 0] - 1j * before[:, 1])
    angles = np.angle(turn.sum(axis=0))
    estimates = [angles[i] ** (-d / (2 * i)) for i in range(1, d // 2) if angles[i] > 1e-4]
    if estimates:
        fitted = float(np.median(estimates))
        yield float(f"{fitted:.3g}")
        yield fitted


def _attention(q: Question) -> Iterator[Mistake]:
    query, key = q.x["q_post_rope"], q.x["k_post_rope"]
    value = q.x["qkv_bias"][:, q.at.config.q_size + q.at.config.kv_size :]
    d, heads, groups = q.at.config.head_dim, q.at.config.num_attention_heads, q.at.config.num_key_value_heads
    grouped = np.arange(heads) // (heads // groups)

    def attended(
        scale: float = d**-0.5, mask: str = "causal", owner: NDArray[np.int64] = grouped, v: Values = value
    ) -> Values:
        return literal_attention(query, key, v, d, owner, scale, mask)

    for scale, words in (
        (1.0, "not scaled"),
        (1 / d, "scaled by 1/head_dim"),
        (d**-0.25, "scaled by head_dim^-1/4"),
        ((heads * d) ** -0.5, "scaled by 1/sqrt(hidden)"),
        (2 * d**-0.5, "scaled twice too much"),
        (0.5 * d**-0.5, "scaled half"),
    ):
        yield Mistake("attention_scale", "graph", f"attention scores are {words}", attended(scale=scale))
    fitted = _fitted_scale(q, attended)
    yield Mistake("attention_scale", "graph", f"attention scores are scaled by {fitted:.6g}", attended(scale=fitted))
    for mask, words in (
        ("none", "every token sees every other"),
        ("strict", "a token does not see itself"),
        ("ahead", "a token sees the next one too"),
    ):
        yield Mistake("causal_mask", "graph", words, attended(mask=mask))
    for window in range(1, len(query)):
        yield Mistake("causal_mask", "graph", f"a token sees the last {window} only", attended(mask=f"window {window}"))
    if 1 < groups < heads or groups > 1:
        tiled = np.arange(heads) % groups
        yield Mistake(
            "head_grouping", "config", "heads share keys and values in turn instead of in groups", attended(owner=tiled)
        )
        yield Mistake(
            "head_grouping", "config", "all heads use the first key and value head", attended(owner=grouped * 0)
        )
        yield Mistake(
            "head_grouping", "config", "key and value heads are in reverse order", attended(owner=groups - 1 - grouped)
        )
    for words, kept in (("float16", _half), ("bfloat16", _bfloat16)):
        predicted = literal_attention(query, kept(key), kept(value), d, grouped, d**-0.5, "causal")
        yield Mistake("kv_precision", "numerics", f"keys and values are kept in {words}", predicted)
        predicted = literal_attention(kept(query), kept(key), kept(value), d, grouped, d**-0.5, "causal")
        yield Mistake("kv_precision", "numerics", f"queries, keys and values are rounded to {words}", predicted)


def _fitted_scale(q: Question, attended: Callable[..., Values]) -> float:
    """The score scale that comes closest, by golden-section search over its logarithm."""
    d = q.at.config.head_dim
    low, high = np.log(d**-0.5 / 16), np.log(d**-0.5 * 16)
    golden = (5**0.5 - 1) / 2

    def gap(point: float) -> float:
        return float(np.linalg.norm(attended(scale=float(np.exp(point))) - q.y))

    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if gap(left) < gap(right) else (left, high)
    return float(np.exp((low + high) / 2))


def literal_attention(
    query: Values, key: Values, value: Values, head_dim: int, owner: NDArray[np.int64], scale: float, mask: str
) -> Values:
    """softmax(q k^T scale + mask) v per head in float64; owner[h] is the key/value head of head h."""
    tokens, out = len(query), np.empty_like(query)
    ahead = np.subtract.outer(np.arange(tokens), np.arange(tokens))  # query position - key position
    seen = {"causal": ahead >= 0, "none": ahead == ahead, "strict": ahead > 0, "ahead": ahead >= -1}
    allowed = (ahead >= 0) & (ahead < int(mask.split()[1])) if mask.startswith("window") else seen[mask]
    allowed = allowed | ~allowed.any(axis=1, keepdims=True)
    for head, shared in enumerate(owner.tolist()):
        own, theirs = (slice(n * head_dim, (n + 1) * head_dim) for n in (head, shared))
        scores = np.where(allowed, query[:, own] @ key[:, theirs].T * scale, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, own] = weights / weights.sum(axis=1, keepdims=True) @ value[:, theirs]
    return out


def _half(x: Values) -> Values:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _bfloat16(x: Values) -> Values:
    bits = x.astype(np.float32).view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return even.view(np.float32).astype(np.float64)


def _activation(q: Question) -> Iterator[Mistake]:
    from math import erf, pi, sqrt

    gate = q.x["ffn_gate"] if "ffn_gate" in q.x else q.x["ffn_silu"]
    times = q.x["ffn_up"] if q.stage == "ffn_swigl" else 1.0
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-gate))
        named = {
            "GELU (erf)": gate * 0.5 * (1 + np.vectorize(erf)(gate / sqrt(2))),
            "GELU (tanh)": 0.5 * gate * (1 + np.tanh(sqrt(2 / pi) * (gate + 0.044715 * gate**3))),
            "quick GELU": gate / (1 + np.exp(-1.702 * gate)),
            "ReLU": np.maximum(gate, 0),
            "squared ReLU": np.maximum(gate, 0) ** 2,
            "a sigmoid": sigmoid,
            "a tanh": np.tanh(gate),
            "no activation": gate,
        }
    for name, values in named.items():
        yield Mistake("activation_function", "graph", f"{name} stands in place of SiLU", values * times)
    if q.stage == "ffn_swigl":
        up = q.x["ffn_up"]
        yield Mistake("gate_up_swapped", "graph", "SiLU is applied to up instead of gate", ops.silu(up) * gate)
        yield Mistake("unknown", "graph", "the product with up is left out", ops.silu(gate))


def _residual(q: Question) -> Iterator[Mistake]:
    first, second = q.x.values()
    before, added = tuple(q.x)
    yield Mistake("residual_missing", "graph", f"{before} is not added", second)
    yield Mistake("residual_missing", "graph", f"{added} is not added", first)
    yield Mistake("residual_missing", "graph", f"{added} is added twice", first + 2 * second)
    yield Mistake("sign_flipped", "graph", f"{added} is subtracted", first - second)


def _other_product(q: Question) -> Iterator[Mistake]:
    """A matmul with another tensor of the model, or with its own one transposed."""
    x = q.x[MATMUL_INPUT[q.stage]]
    start = 0
    for name in q.tensors:
        weight = q.at.model.weight(name)
        part = slice(start, start + weight.shape[0])
        start += weight.shape[0]
        if q.wrong_channels[part].any():
            for cause, words, product in _products(q, name, x):
                predicted = q.right.copy()
                predicted[:, part] = product
                yield Mistake(cause, "weights", words, predicted, name)


def _products(q: Question, name: str, x: Values) -> Iterator[tuple[str, str, Array]]:
    model, weight = q.at.model, q.at.model.weight(name)

    def with_tensor(other: str) -> Array:
        return q.at.path.matmul(np.ascontiguousarray(x, dtype=q.at.path.dtype), model.weight(other))

    def fits(other: str) -> bool:
        return other in model and model.weight(other).shape == weight.shape

    swaps = (("mlp.gate_proj", "mlp.up_proj", "gate_up_swapped"), ("q_proj", "k_proj", "qk_swapped"))
    for one, two, cause in swaps:
        for mine, other in ((one, two), (two, one)):
            if mine in name and fits(name.replace(mine, other)):
                yield cause, f"the product is with {name.replace(mine, other)}", with_tensor(name.replace(mine, other))
    if name == "lm_head.weight" and not q.at.config.tie_word_embeddings:
        yield "tied_embedding", "the head is the embedding matrix", with_tensor("model.embed_tokens.weight")
    for layer in range(q.at.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if q.at.layer is not None and layer != q.at.layer:
            yield "wrong_layer", f"the product is with {other}", with_tensor(other)
    values = dequantize(weight).astype(np.float64)
    if weight.shape[0] == weight.shape[1]:
        yield "transposed", f"{name} is transposed", x @ values
    yield "transposed", f"{name} is transposed and read with its own shape", x @ values.T.reshape(weight.shape).T


def _rounded_product(q: Question) -> Iterator[Mistake]:
    """The right product with activations or weights rounded in a way the engine does not admit to."""
    wide = q.x[MATMUL_INPUT[q.stage]]
    x = wide.astype(np.float32)
    weights = [q.at.model.weight(name) for name in q.tensors]
    rules: list[tuple[str, Values]] = [("rounded to float16", _half(wide)), ("rounded to bfloat16", _bfloat16(wide))]
    if x.shape[1] % 256 == 0:
        rules += [
            ("rounded to ggml's Q8_K", decoded(quantize_q8_k(x))),
            ("rounded to APR's Q8_K", decoded(quantize_q8_k_apr(x))),
        ]
    if x.shape[1] % 32 == 0:
        rules.append(("rounded to Q8_0", decoded(quantize_q8_0(x))))
    for words, scale in (
        ("8 bits per token", np.abs(x).max(axis=1, keepdims=True)),
        ("8 bits per tensor", np.abs(x).max()),
    ):
        step = np.maximum(scale, 1e-30).astype(np.float64) / 127
        rules.append((f"rounded to {words}", np.round(x / step) * step))
    for words, kept in rules:
        predicted = np.concatenate([matmul_f64(kept, weight) for weight in weights], axis=1)
        yield Mistake("activation_quantization", "numerics", f"activations are {words} first", predicted)
    for words, kept_weight in (
        ("cut to bfloat16", _cut),
        ("rounded to bfloat16", _bfloat16),
        ("rounded to float16", _half),
    ):
        values = [kept_weight(dequantize(weight).astype(np.float64)) for weight in weights]
        predicted = np.concatenate([x.astype(np.float64) @ value.T for value in values], axis=1)
        yield Mistake("dtype_truncated", "weights", f"weights are {words}", predicted, q.tensors[0])


def _cut(x: Values) -> Values:
    return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def _channels(q: Question) -> Iterator[Mistake]:
    """The right output, rearranged or multiplied, over all channels or over the wrong ones."""
    part, name = q.wrong_channels, q.tensors[0] if len(q.tensors) == 1 else _tensor_of(q)
    y, right = q.y[:, part], q.right[:, part]
    where = "" if part.all() else f" in {int(part.sum())} of {part.size} channels"

    def with_part(values: Values) -> Values:
        predicted = q.right.copy()
        predicted[:, part] = values
        return predicted

    factor: Factor = "weights" if name else "graph"
    yield Mistake("zeroed", factor, f"the output is zero{where}", with_part(np.zeros_like(y)), name)
    yield Mistake("sign_flipped", factor, f"the output has the opposite sign{where}", with_part(-right), name)
    energy = float((right * right).sum())
    fitted = float((y * right).sum()) / energy if energy else 0.0
    for scale in {round(fitted, 3), fitted}:
        yield Mistake(
            "scaled", factor, f"the output is multiplied by {scale:.6g}{where}", with_part(right * scale), name
        )
    if q.stage in ("qkv_matmul", "qkv_bias", "q_post_rope", "k_post_rope"):
        half = q.at.config.head_dim // 2
        for shape, words in (((half, 2), "adjacent-pair"), ((2, half), "half-split")):
            permuted = q.right.copy()
            rotated = q.right.shape[1] - (q.at.config.kv_size if q.stage.startswith("qkv") else 0)
            heads = q.right[:, :rotated].reshape(len(y), -1, *shape).swapaxes(2, 3).reshape(len(y), rotated)
            permuted[:, :rotated] = np.where(part[:rotated], heads, q.right[:, :rotated])
            yield Mistake("permuted_rope", factor, f"channels are in {words} rotary order", permuted, name)
    yield from _matched(q, with_part, y, right, factor, name)


def _matched(
    q: Question, with_part: Callable[[Values], Values], y: Values, right: Values, factor: Factor, name: str | None
) -> Iterator[Mistake]:
    """Channels in another order, found by sorting both sides by their first token."""
    del q
    if y.shape[1] < 2:
        return
    source = np.empty(y.shape[1], np.int64)
    source[np.argsort(y[0], kind="stable")] = np.argsort(right[0], kind="stable")
    moved = int((source != np.arange(len(source))).sum())
    yield Mistake("rows_permuted", factor, f"{moved} channels are in another order", with_part(right[:, source]), name)


def _tensor_of(q: Question) -> str | None:
    """The tensor behind the first wrong channel of Q|K|V."""
    start = 0
    for name, size in zip(q.tensors, _qkv_sizes(q.at), strict=False):
        if q.wrong_channels[start : start + size].any():
            return name
        start += size
    return q.tensors[0] if q.tensors else None


def _rounded_output(q: Question) -> Iterator[Mistake]:
    for words, kept in (("bfloat16", _bfloat16), ("float16", _half)):
        yield Mistake("dtype_truncated", "numerics", f"the output is rounded to {words}", kept(q.right))


def _shifted_tokens(q: Question) -> Iterator[Mistake]:
    """Rows of other tokens."""
    if len(q.right) > 1:
        yield Mistake("token_scope", "graph", "every row is that of the token before", np.roll(q.right, 1, axis=0))
        yield Mistake(
            "token_scope", "graph", "every row is that of the last token", np.repeat(q.right[-1:], len(q.right), 0)
        )


def _embedding(q: Question) -> Iterator[Mistake]:
    hidden = q.right.shape[1]
    yield Mistake("scaled", "graph", "embeddings are multiplied by sqrt(hidden)", q.right * hidden**0.5)
    if not q.at.config.tie_word_embeddings:
        rows = q.at.path.embed(q.at.model.weight("lm_head.weight"), np.array(q.at.tokens))
        yield Mistake("tied_embedding", "weights", "embeddings come from the head", rows, "model.embed_tokens.weight")


_NORM = (_norm_eps, _norm_weight)
_MATMUL = (_other_product, _rounded_product)
_OF_STAGE: dict[str, tuple[Callable[[Question], Iterator[Mistake]], ...]] = {
    "embedding": (_embedding,),
    **dict.fromkeys(("attn_norm", "ffn_norm", "final_norm"), _NORM),
    **dict.fromkeys(MATMUL_INPUT, _MATMUL),
    "qkv_bias": (_bias,),
    **dict.fromkeys(("q_post_rope", "k_post_rope"), (_rope,)),
    "attention": (_attention,),
    **dict.fromkeys(("post_attn_residual", "post_ffn_residual"), (_residual,)),
    **dict.fromkeys(("ffn_silu", "ffn_swigl"), (_activation,)),
}
_OF_ANY_STAGE = (_channels, _rounded_output, _shifted_tokens)
