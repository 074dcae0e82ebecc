"""015: a norm of values that are a little off."""

import numpy as np

from kernels.graph import Array, Stage
from kernels.kinds.norm import RmsNorm
from kernels.ops import rms_norm_apr
from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import DRIFT, Floats, activation
from workbench.lab.subject import Subject
from workbench.lab.two_paths import rel_rms, relative_length

_OUTLIERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def drifted(x: Array, drift: float, alike: bool = False) -> Array:
    """x with every channel changed by `drift` of itself, the sign by (13 i + 7) % 17 < 8, in the dtype of x.

    alike : all channels of a token by the same amount, that share of their root mean square: as rounding does.
    """
    sign = np.where((13 * np.arange(x.shape[-1]) + 7) % 17 < 8, 1, -1).astype(x.dtype)
    size = np.sqrt(np.square(x).mean(axis=-1, keepdims=True)) if alike else np.abs(x)
    return np.asarray(x + sign * size * x.dtype.type(drift))


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    if subject is not None:
        return _of_model(settings, subject)
    x, ones = activation(), np.ones(256, np.float32)
    found = _amplification(x, ones, settings)
    series: Rows = []
    for times in _OUTLIERS:
        outlier, weights = x.copy(), ones.copy()
        outlier[0] *= np.float32(times)
        weights[0] = np.float32(1) / np.float32(times)
        series.append(
            {
                "outlier": times,
                "amplification": _amplification(outlier, weights, settings)["amplification"],
                "alike": _amplification(outlier, ones, settings, alike=True)["amplification"],
                "alike_weighted": _amplification(outlier, weights, settings, alike=True)["amplification"],
            }
        )
    most = series[-1]
    return Outcome(
        inputs={**settings, "population": "256 channels of 1 token"},
        series=series,
        value=found["amplification"],
        figures=found,
        against={"vector_rel_rms": found["output_rel"]},
        notes=(
            f"with one channel {most['outlier']} times as large, a norm weight of 1/{most['outlier']} for it, and a "
            f"drift of the same size in all channels, it is {most['alike_weighted']:.3g}×: the outlier hides how much "
            "the others are off, and the norm takes it away",
        ),
    )


def _amplification(x: Floats, weights: Floats, settings: Settings, alike: bool = False) -> dict[str, float]:
    other = drifted(x, settings["drift"], alike)
    y, z = (rms_norm_apr(v.reshape(1, -1), weights, settings["eps"])[0] for v in (x, other))
    into, out = relative_length(x, other), relative_length(y, z)
    return {"input_rel": into, "output_rel": out, "amplification": out / max(into, 1e-12)}


def _of_model(settings: Settings, subject: Subject) -> Outcome:
    """Every token of a captured input through the norm of the model, with its weights."""
    stage = subject.stage_of(RmsNorm)
    x = np.ascontiguousarray(subject.captured(stage.site).x["x"])
    rows = {alike: _by_token(subject, stage, x, drifted(x, settings["drift"], alike)) for alike in (False, True)}
    series: Rows = [
        {"token": n, "in_share": share, "amplification": alike}
        for n, (share, alike) in enumerate(zip(rows[False], rows[True], strict=True))
    ]
    middle = {alike: float(np.median(found)) for alike, found in rows.items()}
    return Outcome(
        plot=Plot("token", "amplification"),
        shows="relative difference of the output by that of the input, for a drift of one size in all channels; median",
        hides="Tokens with an outlier that the norm weight takes away show more; the median of all tokens does not.",
        inputs={
            "drift": settings["drift"],
            **subject.inputs(stage.site),
            "tensor": stage.weights[0],
            "population": f"{x.shape[1]} channels, median of {len(x)} tokens; a drift alike in all channels",
        },
        series=series,
        value=middle[True],
        figures={"amplification": middle[True], "largest": max(rows[True]), "in_share": middle[False]},
        against={"vector_rel_rms": middle[True] * settings["drift"]},
        notes=(
            f"a drift of the same share in every channel, as published, gives {middle[False]:.3g}×: it can hardly grow",
        ),
    )


def _by_token(subject: Subject, stage: Stage, x: Array, other: Array) -> list[float]:
    at = subject.at(stage)
    y, z = (stage.kind.evaluate(at, {"x": np.ascontiguousarray(value)}) for value in (x, other))
    pairs = zip(x, other, y, z, strict=True)
    return [(rel_rms(b, d) or 0.0) / max(rel_rms(a, c) or 0.0, 1e-12) for a, c, b, d in pairs]


EXPERIMENT = Experiment(
    id="015",
    word="rmsnorm",
    question="Does an RMS norm amplify a difference of what it norms?",
    claim="the root of an RMS norm amplifies a difference (A6)",
    shows="relative difference of the output divided by that of the input",
    hides="A drift of one share in every channel grows by √2 at most, whatever weights follow: 1× measures nothing.",
    plot=Plot("outlier", "alike_weighted", log=True),
    run=_run,
    parameters=(
        Parameter("eps", 1e-6, "added to the mean square", 0, 1, only="made"),
        Parameter("drift", DRIFT, "by how much of itself a channel is changed", 1e-6, 1),
    ),
    published="1.00×",
    digits=lambda found: f"{found.value:.2f}×",
    on="either",
    ladder=Ladder(
        "amplification",
        (
            (5.0, "CONFIRMED", "amplifies"),
            (1.5, "PARTIAL", "amplifies a little"),
            (0.7, "FALSIFIED", "neither amplifies nor damps"),
        ),
        "damps",
    ),
)
