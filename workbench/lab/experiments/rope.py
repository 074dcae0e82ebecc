"""012: a score of two turned heads, one of which is a little longer."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels.errors import WorkbenchError
from kernels.graph import Array, Stage, Values
from kernels.kinds.attention import Attention
from kernels.kinds.rotate import Rotate, Rotation
from kernels.ops import rope_angles_f32, rotate
from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import DRIFT, Floats, scaled
from workbench.lab.subject import Subject
from workbench.lab.two_paths import fold, percent, relative_length

_PATTERNS, _SWEEP = 64, 65


def heads(head_dim: int) -> tuple[Floats, Floats]:
    """The published q and k: (i - d/2) 0.05 + (i % 5) 0.02 and (i - d/2) 0.04 + (i % 7) 0.015, float32."""
    i = np.arange(head_dim)
    q = scaled(i - head_dim // 2, 0.05) + scaled(i % 5, 0.02)
    return q, scaled(i - head_dim // 2, 0.04) + scaled(i % 7, 0.015)


def signs(size: int, patterns: int) -> Floats:
    """+1 and -1 in no order, (patterns, size): the same on every run."""
    return np.asarray(np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (patterns, size)))


class _Score:
    """q at one position, k at another, and what becomes of their score when q is changed."""

    def __init__(self, settings: Settings, position_k: int) -> None:
        self.rotation = Rotation(settings["head_dim"], settings["theta"])
        self.q, k = heads(settings["head_dim"])
        self.position = settings["position_q"]
        self.k = self._turned(k, position_k)
        self.score = self.of(self.q)

    def _turned(self, x: Floats, position: int) -> Floats:
        angles = rope_angles_f32(np.array([position]), self.rotation)
        return np.asarray(rotate(x.reshape(1, -1), angles, self.rotation)[0])

    def of(self, q: Floats) -> np.float32:
        scale = np.float32(1) / np.sqrt(np.float32(q.size))
        return np.float32(fold(self._turned(q, self.position) * self.k) * scale)

    def amplification(self, q: Floats) -> float:
        score = self.of(q)
        out = abs(score - self.score) / max(abs(self.score), np.float32(1e-9))
        return float(out / max(relative_length(self.q, q), 1e-12))

    def cancellation(self) -> float:
        products = np.abs(self._turned(self.q, self.position) * self.k).astype(np.float64).sum()
        return float(abs(self.score) * np.sqrt(self.q.size) / products)


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    if subject is not None:
        return _of_model(settings, subject)
    if settings["head_dim"] % 2:
        raise WorkbenchError(f"--set head_dim={settings['head_dim']}: channels turn in pairs; give an even number")
    series: Rows = []
    for position in range(_SWEEP):
        series.append({"position_k": position, **_at(_Score(settings, position), settings["drift"])})
    found = _Score(settings, settings["position_k"])
    facts = _at(found, settings["drift"])
    longer = found.q * np.float32(1 + settings["drift"])
    worst = max(series, key=lambda row: row["in_no_order"])
    return Outcome(
        inputs={**settings, "population": "1 score of 1 head"},
        series=series,
        value=facts["amplification"],
        figures={
            "amplification": facts["amplification"],
            "score": float(found.score),
            "score_changed": float(found.of(longer)),
            "in_no_order": facts["in_no_order"],
        },
        against={"vector_rel_rms": relative_length(found.q, longer), "cancellation": found.cancellation()},
        notes=(
            f"the same drift with signs in no order gives {facts['in_no_order']:.3g}× here, and "
            f"{worst['in_no_order']:.3g}× with k at {worst['position_k']}, where {percent(worst['cancellation'])} of "
            "the products is left",
        ),
    )


def _at(found: _Score, drift: float) -> dict[str, Any]:
    some = signs(found.q.size, _PATTERNS)
    each = [found.amplification(found.q * (1 + np.float32(drift) * sign)) for sign in some]
    return {
        "score": float(found.score),
        "amplification": found.amplification(found.q * np.float32(1 + drift)),
        "in_no_order": float(np.sqrt(np.mean(np.square(each)))),
        "cancellation": found.cancellation(),
    }


def _of_model(settings: Settings, subject: Subject) -> Outcome:
    """Every head of the last token: its scores with all tokens before and after q was changed."""
    attention = subject.stage_of(Attention)
    turned = [stage for stage in subject.graph.layer(subject.chosen_layer) if isinstance(stage.kind, Rotate)]
    how = attention.kind
    if len(turned) != 2 or not isinstance(how, Attention) or turned[0].channels != how.heads * how.head_dim:
        raise WorkbenchError(
            f"layer {subject.chosen_layer} does not turn q and k, or a part of them only; choose another --layer"
        )
    step = subject.captured(turned[0].site)
    keys = subject.captured(attention.site).x["k"].astype(np.float64).reshape(len(subject.ids), -1, how.head_dim)
    first = step.y[-1].astype(np.float64).reshape(how.heads, -1)
    changed = {name: q.reshape(first.shape) for name, q in _changed(subject, turned[0], step.x["x"], settings["drift"])}
    series: Rows = []
    for head in range(how.heads):
        mine = keys[:, head // (how.heads // how.kv_heads)]
        series.append({"head": head} | {name: _growth(mine, first[head], q[head]) for name, q in changed.items()})
    middle, largest = (float(f([row["in_no_order"] for row in series])) for f in (np.median, np.max))
    return Outcome(
        plot=Plot("head", "in_no_order"),
        shows="how far the scores of a head move for channels of q changed in no order; median of all heads",
        hides="One pattern of signs and one token; heads whose products cancel more move further, see the series.",
        inputs={
            "drift": settings["drift"],
            **subject.inputs(turned[0].site),
            "population": f"scores of the last token with all {len(keys)}, median of {how.heads} heads",
        },
        series=series,
        value=middle,
        figures={"amplification": middle, "largest": largest},
        against={"vector_rel_rms": settings["drift"]},
        notes=("signs in no order; q longer as a whole gives 1 by arithmetic alone, see the series",),
    )


def _changed(subject: Subject, stage: Stage, x: Array, drift: float) -> Iterator[tuple[str, Values]]:
    """The turned q of the last token after q was made longer, and after its channels were changed in no order."""
    kind, at = stage.kind, subject.at(stage)
    assert isinstance(kind, Rotate)
    factors = np.ones((2, x.shape[1]), x.dtype)
    factors[:, kind.columns] += x.dtype.type(drift) * np.stack([np.ones(kind.size), signs(kind.size, 1)[0]])
    for name, factor in zip(("longer", "in_no_order"), factors, strict=True):
        yield name, kind.evaluate(at, {"x": np.ascontiguousarray(x * factor)})[-1].astype(np.float64)


def _growth(keys: Values, q: Values, changed: Values) -> float:
    """How far the scores of a head move, divided by how far q does."""
    scores, q_size = keys @ q, np.linalg.norm(q)
    out, size = np.linalg.norm(keys @ changed - scores), np.linalg.norm(scores)
    into = np.linalg.norm(changed - q)
    return float(out / size / (into / q_size)) if size and into else 0.0


EXPERIMENT = Experiment(
    id="012",
    word="rope",
    question="Does turning q and k amplify a difference of q?",
    claim="rotation amplifies a difference of q in the score (A1)",
    shows="how far a score moves for a longer q, divided by how much longer q is",
    hides="A longer q makes every score larger by the same factor, whatever linear is in between: 1× measures nothing.",
    plot=Plot("position_k", "in_no_order"),
    run=_run,
    parameters=(
        Parameter("head_dim", 64, "channels of the head", 2, 1024, only="made"),
        Parameter("theta", 10000.0, "rotary base", 1, 1e9, only="made"),
        Parameter("position_q", 0, "of q", 0, 1 << 20, only="made"),
        Parameter("position_k", 1, "of k", 0, 1 << 20, only="made"),
        Parameter("drift", DRIFT, "by how much of itself q is changed", 1e-6, 1),
    ),
    published="1.00×",
    digits=lambda found: f"{found.value:.2f}×",
    on="either",
    ladder=Ladder(
        "amplification",
        (
            (5.0, "CONFIRMED", "amplifies"),
            (1.5, "PARTIAL", "amplifies a little"),
            (0.5, "FALSIFIED", "neither amplifies nor damps"),
        ),
        "damps",
    ),
)
