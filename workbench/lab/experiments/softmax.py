"""011: a softmax of which the largest score is moved."""

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.kinds.attention import Attention
from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import DRIFT, Floats
from workbench.lab.subject import Subject
from workbench.lab.two_paths import fold, percent, rel_rms

_SCORES, _MOVED = (-1.5, 0.5, -0.8, 10.0, 1.2, -0.3, 0.7), 3
_SWEEP = np.arange(0.5, 30.5, 0.5)


def softmax(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """exp(s - max) over its sum from left to right, in the dtype of the scores (..., keys)."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / fold(powers)[..., None])


def amplification(scores: NDArray[np.floating], drift: float, at: int) -> dict[str, float]:
    """How far the shares move, Σ|Δp|/Σp, for the score number `at` moved by `drift` of itself, |δ|/Σ|s|."""
    moved = scores.copy()
    step = scores.dtype.type(drift) * scores[at]
    moved[at] += step
    p, q = softmax(scores), softmax(moved)
    into = float(abs(step) / fold(np.abs(scores)))
    out = float(fold(np.abs(q - p)) / fold(np.abs(p)))
    return {
        "input_rel": into,
        "output_rel": out,
        "amplification": out / max(into, 1e-12),
        "share": float(p[at]),
        "vector_rel_rms": rel_rms(p, q) or 0.0,
    }


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    if subject is not None:
        return _of_model(settings, subject)
    found = amplification(_scores(settings["logit"]), settings["drift"], _MOVED)
    series: Rows = [{"logit": float(x), **amplification(_scores(x), settings["drift"], _MOVED)} for x in _SWEEP]
    moved = found.pop("vector_rel_rms")
    most = max(series, key=lambda row: row["amplification"])
    return Outcome(
        inputs={**settings, "scores": [*_SCORES], "moved": _MOVED, "population": "7 shares of 1 row"},
        series=series,
        value=found["amplification"],
        figures=found,
        against={"vector_rel_rms": moved},
        notes=(
            f"at logit {settings['logit']:g} the moved key already has {percent(found['share'])} of the sum; "
            f"at {most['logit']:g}, with {percent(most['share'])}, it is {most['amplification']:.3g}×",
        ),
    )


def _scores(logit: float) -> Floats:
    scores = np.array(_SCORES, np.float32)
    scores[_MOVED] = logit
    return scores


def _of_model(settings: Settings, subject: Subject) -> Outcome:
    stage = subject.stage_of(Attention)
    how, x = stage.kind, subject.captured(stage.site).x
    assert isinstance(how, Attention)
    seen, sinks = how.mask(np.arange(len(x["q"])), len(x["k"])), how.sinks(subject.at(stage, "a"))
    group = how.heads // how.kv_heads
    series: Rows = []
    for head in range(how.heads):
        own, shared = (slice(n * how.head_dim, (n + 1) * how.head_dim) for n in (head, head // group))
        scores = x["q"][:, own].astype(np.float64) @ x["k"][:, shared].astype(np.float64).T * how.scale
        for token in np.flatnonzero(seen.sum(axis=1) > 1):
            row = scores[token][seen[token]]
            at = int(np.argmax(np.abs(row)))
            facts = amplification(row if sinks is None else np.append(row, sinks[head]), settings["drift"], at)
            series.append({"head": head, "token": int(token), "score": float(row.max()), **facts})
    if not series:
        raise WorkbenchError("one token alone has one score, whose share is 1; give two tokens or more")
    found, moved = ([row[name] for row in series] for name in ("amplification", "vector_rel_rms"))
    worst, middle = max(series, key=lambda row: row["amplification"]), float(np.median(found))
    return Outcome(
        plot=Plot("score", "amplification"),
        shows="how far the shares of a row move for its largest score moved, by how far that was; median of all rows",
        hides="Rows near a tie move many times as far as those in which one key has it all; a median shows neither.",
        inputs={**settings, **subject.inputs(stage.site), "population": f"{len(found)} rows of scores, their median"},
        series=series,
        value=middle,
        figures={"amplification": middle, "largest": worst["amplification"]},
        against={"vector_rel_rms": float(np.median(moved))},
        notes=(f"the largest is {worst['amplification']:.3g}× in head {worst['head']}, token {worst['token']}",),
    )


EXPERIMENT = Experiment(
    id="011",
    word="softmax",
    question="Does a softmax amplify a difference of its largest score?",
    claim="a saturated softmax amplifies the difference of a score (A2)",
    shows="how far the shares move, divided by how far the scores were moved",
    hides="One score, moved where it has nearly all of the sum already; nearer to a tie the same shift moves far more.",
    plot=Plot("logit", "amplification"),
    run=_run,
    parameters=(
        Parameter("logit", 10.0, "the score that is moved", -100, 100, only="made"),
        Parameter("drift", DRIFT, "by how much of itself", 1e-6, 1),
    ),
    published="0.0113×",
    digits=lambda found: f"{found.value:.4f}×",
    on="either",
    ladder=Ladder(
        "amplification",
        ((5.0, "CONFIRMED", "amplifies"), (1.0, "PARTIAL", "amplifies a little")),
        "damps",
    ),
)
