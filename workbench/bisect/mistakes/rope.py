"""Mistakes of the rotary embedding: the record shows by which angle every pair of channels was turned."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from kernels import ops
from kernels.graph import Values
from kernels.kinds.rotate import Rotate, Rotation
from workbench.bisect.mistakes.mistake import FITTED, FREE, SEVERAL, Further, Mistake, Question
from workbench.bisect.mistakes.rope_fit import BASES, Fit, found_positions, with_other_pairs
from workbench.bisect.mistakes.rope_tables import table_mistakes
from workbench.bisect.traces.angles import phases

_UNSCALED = "the rotary scaling is left out"


def rope_mistakes(q: Question) -> Iterator[Mistake]:
    """Another base, another pairing, other positions, coarser tables, several of these at once, or no rotation."""
    x, own = rotated_input(q), q.kind(Rotate).rotation
    positions = q.at.positions().astype(np.float64)
    yield from _of_other_layers(q, x, positions)
    yield from _bases(q, x, positions)
    yield from _pairings(q, x, positions)
    yield from _positions(q, x, positions)
    if own.factors is not None and (long := q.at.config.rope_long_factors) is not None:
        words = f"the rotary factors are those for texts of more than {q.at.config.length_limit} tokens"
        yield Mistake("rope_theta", "config", words, turned(x, positions, replace(own, factors=long)), setting=(words,))
    if own.factors is not None:
        plain = replace(own, factors=None, magnitude=1.0)
        yield Mistake("rope_theta", "config", _UNSCALED, turned(x, positions, plain), setting=(_UNSCALED,))
    if own.magnitude != 1:
        short = replace(own, magnitude=1.0)
        words = f"the attention factor {own.magnitude:.6g} of the rotary scaling is left out"
        yield Mistake("attention_scale", "config", words, turned(x, positions, short), setting=(words,))
    yield from table_mistakes(q, x)
    yield from _fitted(q, x, positions)


def unrotated_mistakes(q: Question) -> Iterator[Mistake]:
    """A rotation where there should be none: that of the layers which rotate, or a usual one where none does."""
    positions = q.at.positions().astype(np.float64)
    kinds = (stage.kind for stage in q.graph.stages())
    others = dict.fromkeys(kind.rotation for kind in kinds if isinstance(kind, Rotate))
    for other in others:
        words = f"layer {q.at.layer} is rotated, as other layers are and this one is not"
        yield Mistake("rope_position", "config", words, turned(q.right, positions, other), setting=(words,))
    c = q.at.config
    usual = (Rotation(c.head_dim, theta, c.rope_type) for theta in dict.fromkeys((c.rope_theta, *BASES)))
    for plain in () if others else usual:
        for other in (plain, with_other_pairs(plain)):
            words = f"layer {q.at.layer} is rotated (rope_theta {other.theta:.10g}, {other.pairs}), and none should be"
            yield Mistake("rope_position", "config", words, turned(q.right, positions, other), setting=(words,))


def rotated_input(q: Question) -> Values:
    """The part of Q|K|V that the stage rotates."""
    return q.kind(Rotate).turning(q.x["x"])


def turned(x: Values, positions: Values, rotation: Rotation) -> Values:
    """X (tokens, channels) rotated as for the given positions, which need not be whole."""
    frequencies = ops.rope_angles_f64(np.ones(1, dtype=np.int64), rotation)
    return np.asarray(ops.rotate(x, positions[:, None] * frequencies, rotation), dtype=np.float64)


def _of_other_layers(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    """The rotation that layers of another kind have."""
    own = q.kind(Rotate).rotation
    kinds = (stage.kind for stage in q.graph.stages())
    for other in dict.fromkeys(kind.rotation for kind in kinds if isinstance(kind, Rotate)):
        if other != own:
            words = f"{_base_words(q, other.theta)}: the rotation is that of layers of another kind"
            yield Mistake("rope_theta", "config", words, turned(x, positions, other), setting=(other.theta, "layers"))


def _bases(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    own = q.kind(Rotate).rotation
    for base in BASES:
        if base != own.theta:
            predicted = turned(x, positions, replace(own, theta=base))
            yield Mistake("rope_theta", "config", _base_words(q, base), predicted, setting=(base,))


def _base_words(q: Question, base: float) -> str:
    return f"rope_theta {base:.10g} instead of {q.kind(Rotate).rotation.theta:.10g}"


def _pairings(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    own = q.kind(Rotate).rotation
    other, words = with_other_pairs(own), _type_words(q)
    yield Mistake("rope_type", "config", words, turned(x, positions, other), setting=(1,))
    yield Mistake(
        "rope_type", "config", f"{words}, in the opposite direction", turned(x, -positions, other), setting=(-1,)
    )
    for share in (1, 2, 4):
        width = own.head_dim // share
        if width != own.width and width >= 4 and width % 2 == 0:
            which = "all" if share == 1 else f"only the first {width}"
            words = f"{which} channels of a head are rotated" + (
                f" and not only the first {own.width}" if width > own.width else ""
            )
            factors = own.factors if own.factors is None or width < own.width else None
            part = replace(own, rotary_dim=width, factors=factors and factors[: width // 2])
            yield Mistake("rope_type", "config", words, turned(x, positions, part), setting=("partial", width))
    if own.width != own.head_dim:
        yield from _parts(q, x, positions)


def _parts(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    """The channels that turn are others of the head, or turn as slowly as if the whole head did."""
    own = q.kind(Rotate).rotation
    still = own.head_dim - own.width
    heads = x.reshape(len(x), -1, own.head_dim)
    last = np.roll(
        turned(np.roll(heads, -still, axis=2).reshape(x.shape), positions, own).reshape(heads.shape), still, 2
    )
    words = f"the last {own.width} channels of a head are rotated and not the first"
    yield Mistake("rope_type", "config", words, last.reshape(x.shape), setting=("last",))
    slow = replace(own, theta=own.theta ** (own.width / own.head_dim))
    words = f"the rotary frequencies are those of heads of {own.head_dim} channels, of which {own.width} rotate"
    yield Mistake("rope_theta", "config", words, turned(x, positions, slow), setting=("whole",))


def _type_words(q: Question) -> str:
    own = q.kind(Rotate).rotation
    return (
        f"rope_type {with_other_pairs(own).pairs} instead of {own.pairs}: the other channels of a head rotate together"
    )


def _positions(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    own = q.kind(Rotate).rotation
    for words, moved in (
        ("nothing is rotated: every position counted as 0", positions * 0),
        ("positions run backwards", positions[::-1]),
    ):
        yield Mistake("rope_position", "graph", words, turned(x, moved, own), setting=(words,))
    shifts = ((shift, 1.0) for shift in (1.0, -1.0, 2.0, float(len(positions))))
    for start, scale in (*shifts, (0.0, -1.0), (0.0, 0.5), (0.0, 0.25), (0.0, 0.125), (0.0, 2.0)):
        moved = scale * (positions + start)
        words = _position_words(start, scale)
        yield Mistake("rope_position", "graph", words, turned(x, moved, own), setting=(start, scale))
    found = found_positions(phases(x, q.y, own), own)
    if found is not None and len(found) > 2 and np.ptp(np.diff(found)) == 0 and found[1] != found[0]:
        scale = float(found[1] - found[0])
        words = _position_words(float(found[0]) / scale, scale)
        setting = float(found[0]) / scale, scale
        yield Mistake("rope_position", "graph", words, turned(x, found, own), rank=FITTED, setting=setting)
    elif found is not None:
        shown = ", ".join(f"{p:g}" for p in found[:6]) + (", …" if len(found) > 6 else "")
        words = f"tokens are rotated as if their positions were {shown}"
        yield Mistake("rope_position", "graph", words, turned(x, found, own), rank=FITTED, setting=("found", shown))


def _position_words(start: float, scale: float) -> str:
    """In numbers: what some position was counted as."""
    words = []
    if start:
        words.append(f"positions are off by {start:+g}: position 0 counted as {scale * start:g}")
    if abs(scale) != 1:
        how = f"divided by {1 / abs(scale):.6g}" if abs(scale) < 1 else f"multiplied by {abs(scale):.6g}"
        words.append(f"positions are {how}, as linear scaling does: position 8 counted as {scale * (8 + start):.6g}")
    if scale < 0:
        words.append("rotated in the opposite direction")
    return ", ".join(words)


def _fitted(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    """What the angles of all tokens say together, one setting that is wrong or several of them at once."""
    own = q.kind(Rotate).rotation
    scalings = (own.factors,) if own.factors is None else (own.factors, None)
    for pairing in (own, with_other_pairs(own)):
        fit = Fit.of(x, q.y, pairing, q.kept)
        for factors, own_scale in product(scalings, (True, False)):
            rotation = replace(pairing, factors=factors)
            found = None if fit is None else fit.base(rotation, own_scale)
            if fit is None or found is None:
                continue
            base, scale = found[0], found[1] * fit.direction
            parts = [*_wrong_settings(q, replace(rotation, theta=base), fit.first, scale)]
            if parts:
                predicted = turned(x, scale * (positions + fit.first), replace(rotation, theta=base))
                rank = (FITTED, SEVERAL, FREE)[min(len(parts), 3) - 1]
                first, also = parts[0], tuple(parts[1:])
                yield Mistake(
                    first.cause, first.factor, first.explanation, predicted, rank=rank, setting=first.setting, also=also
                )
        if fit is not None and pairing is own and fit.known.all() and not fit.first:
            yield from _free_frequencies(q, x, positions, fit)


def _wrong_settings(q: Question, rotation: Rotation, start: float, scale: float) -> Iterator[Further]:
    """Every setting in which a rotation is not that of the model."""
    own = q.kind(Rotate).rotation
    if rotation.theta != own.theta:
        yield Further("rope_theta", "config", _base_words(q, rotation.theta), (rotation.theta,))
    if rotation.factors != own.factors:
        yield Further("rope_theta", "config", _UNSCALED, (_UNSCALED,))
    if rotation.pairs != own.pairs:
        yield Further("rope_type", "config", _type_words(q), (1,))
    if start or scale != 1:
        yield Further("rope_position", "graph", _position_words(start, scale), (start, scale))


def _free_frequencies(q: Question, x: Values, positions: Values, fit: Fit) -> Iterator[Mistake]:
    """Any frequencies at all, as long as every token's angle is its position times them, and any length with them."""
    own = q.kind(Rotate).rotation
    plain = replace(own, factors=None)
    right = ops.rope_angles_f64(np.ones(1, dtype=np.int64), own)[0]
    factors = ops.rope_angles_f64(np.ones(1, dtype=np.int64), plain)[0] / (fit.frequencies * fit.direction)
    found = replace(own, factors=tuple(factors.tolist()))
    off = fit.frequencies * fit.direction / right
    words = f"the rotary frequencies are {off.min():.6g} to {off.max():.6g} times those of the model"
    predicted = turned(x, positions, found)
    yield Mistake("rope_theta", "config", words, predicted, rank=FREE, setting=("frequencies",))
    if np.allclose(off, 1, rtol=1e-4):
        return  # then it is the length alone that differs, which is told by simpler mistakes
    with np.errstate(divide="ignore", invalid="ignore"):
        longer = float(np.linalg.norm(q.y) / np.linalg.norm(x))
    if np.isfinite(longer) and longer > 0:
        words += f", and the output is multiplied by {longer:.6g}"
        predicted = turned(x, positions, replace(found, magnitude=longer))
        yield Mistake("rope_theta", "config", words, predicted, rank=FREE, setting=("frequencies", longer))
