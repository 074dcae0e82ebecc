"""The catalogue of mistakes that make one tensor from others: each predicts B's tensor from A's.

A mistake is accepted only if what it predicts agrees with B within the rounding of the stored formats, so a cause is
never a matter of likeness.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.forward import Model
from kernels.weight import TensorType
from workbench.bisect.weight_check import BLOCK, Stored, check

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightCause:
    """A mistake that reproduces B's tensor.

    cause : slug. explanation : one sentence. residual : relative RMS left between prediction and B.
    explained : whether the residual is only rounding.
    """

    cause: str
    explanation: str
    residual: float
    explained: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """B's tensor, A's tensor of the same name, and where they disagree."""

    name: str
    a: Model
    stored_a: Stored
    stored_b: Stored
    affected: NDArray[np.bool_]  # (rows, blocks)
    levels: int  # different values that a block of B's own format can hold

    @property
    def config(self) -> ModelConfig:
        return self.a.config

    @property
    def suffix(self) -> str:
        return self.name.split(".", 3)[3] if self.name.startswith("model.layers.") else self.name

    @property
    def layer(self) -> int | None:
        return int(self.name.split(".")[2]) if self.name.startswith("model.layers.") else None

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")

    def mask(self) -> NDArray[np.bool_]:
        """Affected elements, (rows, columns)."""
        return np.repeat(self.affected, BLOCK, axis=1)[:, : self.stored_b.values.shape[1]]

    def where(self) -> str:
        """The affected places in words."""
        rows = np.flatnonzero(self.affected.any(axis=1))
        if self.affected.all():
            return "everywhere"
        if len(self.affected) > 1 and self.affected.any(axis=1).all():
            return f"in {int(self.affected.sum())} of {self.affected.size} blocks of 32 values, in every row"
        if len(self.affected) == 1:
            columns = np.flatnonzero(self.affected[0]) * BLOCK
            count = int(self.affected.sum())
            return f"in {count} of {self.affected.size} blocks of 32 values from element {columns[0]} on"
        contiguous = rows[-1] - rows[0] + 1 == len(rows)
        words = f"rows {rows[0]} to {rows[-1]}" if contiguous else f"{len(rows)} rows between {rows[0]} and {rows[-1]}"
        heads = self._heads(rows)
        return f"in {words}{heads} of {len(self.affected)}"

    def _heads(self, rows: NDArray[np.int64]) -> str:
        if not self.suffix.startswith(("self_attn.q_", "self_attn.k_", "self_attn.v_")):
            return ""
        heads = sorted(set((rows // self.config.head_dim).tolist()))
        return f" (head {heads[0]})" if len(heads) == 1 else f" (heads {heads[0]} to {heads[-1]})"


def weight_causes(name: str, a: Model, b: Model) -> list[WeightCause]:
    """Every mistake of the catalogue for one differing tensor, best first; never empty ("unknown" closes the list)."""
    stored_a, stored_b = (Stored.of(model.weight(name)) for model in (a, b))
    verdict = check(stored_a, stored_b)
    question = _Question(name, a, stored_a, stored_b, verdict.affected, _levels(b.weight(name).type))
    found = [cause for candidate in _CANDIDATES for cause in candidate(question)]
    found.sort(key=lambda cause: (not cause.explained, cause.residual))
    # A mistake that explains everything is named before one that explains it a rounding better but says more.
    order = {cause: rank for rank, cause in enumerate(_SIMPLEST_FIRST)}
    explained = sorted((c for c in found if c.explained), key=lambda c: order.get(c.cause, len(order)))
    rest = [c for c in found if not c.explained]
    return [*explained, *rest, WeightCause("unknown", f"{name} differs {question.where()}", verdict.rel_rms, False)]


def _levels(type: TensorType) -> int:
    if type in (TensorType.Q4_0, TensorType.Q4_K):
        return 16
    return 32 if type in (TensorType.Q5_0, TensorType.Q5_K) else 64


_SIMPLEST_FIRST = (
    "zeroed",
    "sign_flipped",
    "norm_offset",
    "scaled",
    "dtype_truncated",
    "permuted_rope",
    "gate_up_swapped",
    "qk_swapped",
    "tied_embedding",
    "wrong_layer",
    "transposed",
    "rows_permuted",
    "requantized",
    "corrupted_blocks",
)


def _judge(q: _Question, cause: str, explanation: str, predicted: Stored) -> WeightCause:
    verdict = check(predicted, q.stored_b)
    return WeightCause(cause, explanation, verdict.rel_rms, verdict.explained)


def _zeroed(q: _Question) -> Iterator[WeightCause]:
    mask = q.mask()
    if not q.stored_b.values[mask].any():
        predicted = Stored(np.where(mask, np.float32(0), q.stored_a.values), q.stored_a.bounds)
        yield _judge(q, "zeroed", f"{q.name} is zero {q.where()}", predicted)


def _factor(q: _Question) -> Iterator[WeightCause]:
    """One common factor over the affected places; -1 is a flipped sign."""
    mask = q.mask()
    a, b = q.stored_a.values[mask].astype(np.float64), q.stored_b.values[mask].astype(np.float64)
    energy = float(a @ a)
    factor = float(a @ b) / energy if energy and np.isfinite(b).all() else 0.0
    if abs(factor) < 1e-6:
        return
    for exact in (-1.0, round(factor, 3)):  # people scale by round numbers; rounding noise blurs the fit
        if abs(exact - factor) < 0.01 * abs(factor):
            factor = exact
            break
    scaled = Stored(
        np.where(mask, q.stored_a.values * np.float32(factor), q.stored_a.values),
        np.where(mask, q.stored_a.bounds * np.float32(abs(factor)), q.stored_a.bounds),
    )
    if factor == -1.0:
        yield _judge(q, "sign_flipped", f"{q.name} has the opposite sign {q.where()}", scaled)
    else:
        yield _judge(q, "scaled", f"{q.name} is multiplied by {factor:.6g} {q.where()}", scaled)


def _norm_offset(q: _Question) -> Iterator[WeightCause]:
    if not q.name.endswith("norm.weight"):
        return
    for offset in (1.0, -1.0):
        predicted = replace_values(q.stored_a, q.stored_a.values + np.float32(offset))
        yield _judge(
            q, "norm_offset", f"{q.name} is off by {offset:+.0f} (a norm stored as w{-offset:+.0f})", predicted
        )


def _truncated(q: _Question) -> Iterator[WeightCause]:
    """Fewer mantissa bits than the format has: values cut to BF16 or F16."""
    bits = q.stored_a.values.view(np.uint32)
    cut = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32)
    with np.errstate(over="ignore"):
        half = q.stored_a.values.astype(np.float16).astype(np.float32)
    for words, values in (("cut off at BF16", cut), ("rounded to BF16", rounded), ("rounded to F16", half)):
        if not np.array_equal(values, q.stored_a.values):
            yield _judge(q, "dtype_truncated", f"{q.name} is {words}", replace_values(q.stored_a, values))


def _rope_permutation(q: _Question) -> Iterator[WeightCause]:
    """Rows of q or k in the order of the other rotary convention, in either direction."""
    if not q.suffix.startswith(("self_attn.q_proj", "self_attn.k_proj")):
        return
    for inner, words in ((q.config.head_dim // 2, "adjacent-pair"), (2, "half-split twice over, from adjacent-pair")):
        predicted = _each(q.stored_a, lambda x, inner=inner: _interleave(x, q.config.head_dim, inner, q.is_bias))
        yield _judge(q, "permuted_rope", f"the rows of {q.name} are in {words} rotary order", predicted)


def _interleave(x: Floats, head_dim: int, inner: int, is_vector: bool) -> Floats:
    rows = x.T if is_vector else x
    heads = rows.reshape(-1, head_dim // inner, inner, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
    return np.ascontiguousarray(heads.T if is_vector else heads)


def _other_tensors(q: _Question) -> Iterator[WeightCause]:
    """Another tensor of A in this place."""
    swaps = {"mlp.gate_proj": "mlp.up_proj", "self_attn.q_proj": "self_attn.k_proj"}
    swaps |= {other: own for own, other in swaps.items()}
    stem, _, kind = q.suffix.rpartition(".")
    prefix = q.name.removesuffix(q.suffix)
    if stem in swaps:
        slug = "gate_up_swapped" if stem.startswith("mlp") else "qk_swapped"
        yield from _as_other(q, slug, f"{prefix}{swaps[stem]}.{kind}")
    if q.name == "lm_head.weight":
        yield from _as_other(q, "tied_embedding", "model.embed_tokens.weight")
    if q.name == "model.embed_tokens.weight":
        yield from _as_other(q, "tied_embedding", "lm_head.weight")
    if q.layer is not None:
        for layer in range(q.config.num_hidden_layers):
            if layer != q.layer:
                yield from _as_other(q, "wrong_layer", f"model.layers.{layer}.{q.suffix}")


def _as_other(q: _Question, cause: str, other: str) -> Iterator[WeightCause]:
    if other not in q.a or q.a.weight(other).shape != q.a.weight(q.name).shape:
        return
    stored = Stored.of(q.a.weight(other))
    probe = slice(0, 8)  # a few rows tell other tensors apart before the whole is compared
    if check(*(Stored(s.values[probe], s.bounds[probe]) for s in (stored, q.stored_b))).rel_rms < 0.5:
        yield _judge(q, cause, f"{q.name} holds the values of {other}", stored)


def _transposed(q: _Question) -> Iterator[WeightCause]:
    rows, columns = q.stored_a.values.shape
    if rows == 1:
        return
    words = "transposed" if rows == columns else "transposed and then read with its own shape"
    predicted = _each(q.stored_a, lambda x: np.ascontiguousarray(x.T).reshape(rows, columns))
    yield _judge(q, "transposed", f"{q.name} is {words}", predicted)


def _rows_permuted(q: _Question) -> Iterator[WeightCause]:
    """The affected rows of B are rows of A in another order; every row is matched by correlation."""
    a, b = (s.values.T if q.is_bias else s.values for s in (q.stored_a, q.stored_b))
    rows = np.arange(len(b)) if q.is_bias else np.flatnonzero(q.affected.any(axis=1))
    if not 1 < len(rows) <= 8192 or not np.isfinite(b).all():
        return
    if q.is_bias:
        order = np.empty(len(rows), np.int64)
        order[np.argsort(b[:, 0], kind="stable")] = np.argsort(a[:, 0], kind="stable")
    else:
        unit_a, unit_b = (x[rows] / np.maximum(np.linalg.norm(x[rows], axis=1, keepdims=True), 1e-30) for x in (a, b))
        order = (unit_b @ unit_a.T).argmax(axis=1)
    if len(set(order.tolist())) != len(order):
        return
    source = np.arange(len(b))
    source[rows] = rows[order]
    predicted = _each(q.stored_a, lambda x: x.T[source].T if q.is_bias else x[source])
    moved = int((source != np.arange(len(b))).sum())
    yield _judge(q, "rows_permuted", f"{moved} rows of {q.name} are in another order", predicted)


def _requantized(q: _Question) -> Iterator[WeightCause]:
    """Values that lie on the grid of a coarser format than the one B is stored in."""
    a, b = q.stored_a.values, q.stored_b.values
    if b.shape[1] % BLOCK or q.is_bias or not np.isfinite(b).all():
        return
    for coarse, levels, least in (
        (TensorType.Q4_0, 16, 8.0),
        (TensorType.Q5_0, 32, 16.0),
        (TensorType.Q8_0, 256, 127.0),
    ):
        blocks = a.reshape(-1, BLOCK)
        top = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
        step = (np.abs(top) / least).astype(np.float16).astype(np.float32)
        bounds = (np.repeat(step, BLOCK, axis=1)).reshape(a.shape) * np.float32(1.0 if levels < 256 else 0.5)
        verdict = check(Stored(a, q.stored_a.bounds + bounds), q.stored_b)
        if verdict.explained and verdict.worst > 0.05:
            words = f"{q.name} carries the rounding of a coarser format, at most that of {coarse.name}"
            yield WeightCause("requantized", words, verdict.rel_rms, True)
            return
    if q.levels <= 16:
        return
    blocks = b.reshape(-1, BLOCK)[:: max(1, b.size // BLOCK // 512)]
    distinct = max(len(np.unique(row)) for row in blocks)
    verdict = check(q.stored_a, q.stored_b)
    if distinct <= 16 and verdict.rel_rms < 0.5:
        words = f"{q.name} has at most {distinct} different values in every 32: it was quantized more coarsely before"
        yield WeightCause("requantized", words, verdict.rel_rms, True)


def _corrupted(q: _Question) -> Iterator[WeightCause]:
    """A minority of blocks is wrong and all others agree."""
    share = float(q.affected.mean())
    if 0 < share <= 0.5:
        words = f"{q.name} is damaged {q.where()}; everything else agrees within rounding"
        patched = np.where(q.mask(), q.stored_b.values, q.stored_a.values)
        yield replace(_judge(q, "corrupted_blocks", words, replace_values(q.stored_a, patched)), explained=True)


def _each(stored: Stored, rearrange: Callable[[Floats], Floats]) -> Stored:
    return Stored(rearrange(stored.values), rearrange(stored.bounds))


def replace_values(stored: Stored, values: Floats) -> Stored:
    """Other values with the same bounds."""
    return Stored(values.astype(np.float32, copy=False), stored.bounds)


_CANDIDATES: tuple[Callable[[_Question], Iterator[WeightCause]], ...] = (
    _zeroed,
    _factor,
    _norm_offset,
    _truncated,
    _rope_permutation,
    _other_tensors,
    _transposed,
    _rows_permuted,
    _requantized,
    _corrupted,
)
